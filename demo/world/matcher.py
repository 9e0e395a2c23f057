"""The models that judge a picture by its prompt: CLIP's and BLIP's architectures, and
ImageReward's.

All three learn from pictures under prompts of their own scene, of one that differs in one thing,
and of any other. CLIP learns to tell pairs that belong together within a batch; BLIP whether a
picture is wholly what its prompt says; ImageReward how well it fits, as the oracle grades it. Such
verdicts come late when they are all that is taught, so what is thrown away afterwards reads each
cell off the picture's tokens and, of BLIP and ImageReward, the truth of each mention off the
prompt's.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tiny.blip import save_blip
from tiny.clip import save_clip
from tiny.image_reward import write_image_reward
from tiny.tokenization import bert_tokenizer, clip_tokenizer
from world import oracle
from world.answerer import PATCH, CellReading, pixels_of
from world.measure import SCALES, STEPS
from world.painter import LATENT_CHANNELS, LATENT_SIDE, Painter, draw_scenes, pictures_of, tensor_of
from world.pictures import SIDE, Picture
from world.scenes import Scene, altered, random_scene
from world.training import Draw, Plan, train
from world.vocabulary import vocabulary
from world.words import TOPICS, mentions, prompt

IGNORED = -100
GENERATED = 3072  # pictures of the image model that ImageReward sees
#: Step of its training: what a scene is can be learnt from renders, which cost nothing.
GENERATED_FROM = 2400
CLIP_TOKENS = 24
CLIP_PLAN = Plan(steps=1500, batch=64, learning_rate=1e-3, muon=2e-3)
BLIP_PLAN = Plan(steps=3000, batch=32, learning_rate=1e-3, muon=2e-3)
IMAGE_REWARD_PLAN = Plan(steps=4000, batch=32, learning_rate=1e-3, muon=2e-3)


def random_prompt(scene: Scene, random: np.random.Generator) -> str:
    """A prompt for a scene, of any topic."""
    return prompt(scene, TOPICS[int(random.integers(len(TOPICS)))])


def scene_pairs(random: np.random.Generator, count: int) -> tuple[list[Scene], list[Scene]]:
    """Scenes that are shown and scenes that their prompts ask for: the same (half), altered once or
    twice (most others), or any.
    """
    shown, prompted = [], []
    for _ in range(count):
        scene = random_scene(random)
        kind = random.random()
        other = (
            scene if kind < 0.5 else altered(scene, random) if kind < 0.9 else random_scene(random)
        )
        if 0.75 < kind < 0.9:
            other = altered(other, random)
        shown.append(scene)
        prompted.append(other)
    return shown, prompted


def roughened(pictures: Picture, vae: Any, step: Draw, most: float = 0.5) -> Picture:
    """Half of the pictures as an image model makes them: through the VAE, with noise of random
    strength on their latents.
    """
    rough = step.numpy.random(len(pictures)) < 0.5
    if not rough.any():
        return pictures
    strength = torch.from_numpy(step.numpy.random(int(rough.sum())) ** 2 * most).float()[
        :, None, None, None
    ]
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        latents = vae.encode(tensor_of(pictures[rough])).latent_dist.mean
        noise = step.normal(*latents.shape) / vae.config.scaling_factor
        pictures = pictures.copy()
        pictures[rough] = pictures_of(vae.decode(latents + strength * noise).sample)
    return pictures


@dataclass(frozen=True)
class Generated:
    """Pictures that the image model made (n, 48, 48, 3), their prompts and the scenes that were
    meant.
    """

    pictures: Picture
    texts: list[str]
    meant: list[Scene]


def generate_pictures(image_model: Path, kept: Path, count: int = GENERATED) -> Generated:
    """Pictures of the image model for scenes of training, at every guidance scale; made once, and
    kept in a file for a resumed training.

    Args:
        image_model: folder of the trained pipeline.
        kept: the file.
        count: of pictures.
    """
    from diffusers import StableDiffusion3Pipeline

    random = np.random.default_rng([IMAGE_REWARD_PLAN.seed, 4])
    meant = [random_scene(random) for _ in range(count)]
    texts = [random_prompt(scene, random) for scene in meant]
    if not kept.is_file():
        pipeline = StableDiffusion3Pipeline.from_pretrained(image_model, dtype=torch.float32)
        painter = Painter(pipeline).eval()
        empty = painter.tokens([""])
        noise = torch.Generator().manual_seed(IMAGE_REWARD_PLAN.seed)
        parts = []
        with torch.no_grad():
            for number, start in enumerate(range(0, count, 64)):
                tokens = painter.tokens(texts[start : start + 64])
                latents = torch.randn(
                    len(tokens.clip), LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE, generator=noise
                )
                latents = painter.sample(
                    tokens, empty, SCALES[number % len(SCALES)], STEPS, latents
                )
                latents = (
                    latents / pipeline.vae.config.scaling_factor + pipeline.vae.config.shift_factor
                )
                parts.append(pictures_of(pipeline.vae.decode(latents).sample))
        temporary = kept.with_suffix(".tmp.npy")
        np.save(temporary, np.concatenate(parts))
        temporary.replace(kept)
    return Generated(np.load(kept), texts, meant)


# --- CLIP


class Clip(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A CLIPModel as it is trained."""

    def __init__(self) -> None:
        from transformers import CLIPConfig, CLIPModel

        super().__init__()
        self.tokenizer = clip_tokenizer(words=vocabulary(), max_length=CLIP_TOKENS)
        layers = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 2}
        self.model = CLIPModel(
            CLIPConfig(
                text_config=layers
                | {
                    "vocab_size": len(self.tokenizer),
                    "num_hidden_layers": 3,
                    "max_position_embeddings": CLIP_TOKENS,
                    "bos_token_id": self.tokenizer.bos_token_id,
                    "eos_token_id": self.tokenizer.eos_token_id,
                    "pad_token_id": 1,
                },
                vision_config=layers
                | {
                    "num_hidden_layers": 4,
                    "image_size": SIDE,
                    "patch_size": PATCH,
                },
                projection_dim=64,
            )
        )
        self.reading = CellReading(64)

    def forward(
        self, pictures: Picture, texts: Sequence[str], scenes: Sequence[Scene]
    ) -> torch.Tensor:
        """The loss of telling which text belongs to which picture; texts beyond the pictures belong
        to none.
        """
        tokens = self.tokenizer(list(texts), padding=True, return_tensors="pt")
        seen = self.model.vision_model(pixel_values=pixels_of(pictures))
        text_state = self.model.text_model(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
        ).pooler_output
        images = functional.normalize(
            self.model.visual_projection(seen.pooler_output).float(), dim=-1
        )
        words = functional.normalize(self.model.text_projection(text_state).float(), dim=-1)
        logits = images @ words.T * self.model.logit_scale.exp().clamp(max=100)
        right = torch.arange(len(images))
        contrast = functional.cross_entropy(logits, right) + functional.cross_entropy(
            logits[:, : len(images)].T, right
        )
        return contrast / 2 + 0.5 * self.reading(seen.last_hidden_state[:, 1:], scenes)


def make_clip(work: Path, models: Path, folder: Path) -> None:
    """Trains CLIP and writes it."""
    torch.manual_seed(CLIP_PLAN.seed)
    clip = Clip()

    def loss_of(step: Draw) -> torch.Tensor:
        scenes = [random_scene(step.numpy) for _ in range(CLIP_PLAN.batch)]
        texts = [random_prompt(scene, step.numpy) for scene in scenes]
        # What nearly fits belongs to none: otherwise a batch asks for little more than telling
        # colours.
        texts += [random_prompt(altered(scene, step.numpy), step.numpy) for scene in scenes]
        loss: torch.Tensor = clip(draw_scenes(scenes, step.numpy), texts, scenes)
        return loss

    train("clip", clip, loss_of, CLIP_PLAN, work)
    save_clip(clip.model, clip.tokenizer, folder, "float16")


# --- BLIP and ImageReward


class CrossReader(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A picture's encoder and a text encoder that attends to it: what BLIP's matching and
    ImageReward have in common.

    Beside the verdict, which is the caller's, it gives the loss of the cells and of the truth of
    each mention.
    """

    def __init__(self, vision: nn.Module, text: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.vision, self.text, self.tokenizer = vision, text, tokenizer
        self.reading = CellReading(vision.config.hidden_size)
        self.truth = nn.Linear(text.config.hidden_size, 2)

    def forward(
        self, pictures: Picture, texts: Sequence[str], scenes: Sequence[Scene]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The state of [CLS] (n, width) and what is lost on the way.

        Args:
            pictures: (n, 48, 48, 3).
            texts: a prompt each.
            scenes: what the pictures show.
        """
        tokens = self.tokenizer(
            list(texts), padding=True, return_tensors="pt", return_offsets_mapping=True
        )
        seen = self.vision(pixel_values=pixels_of(pictures)).last_hidden_state
        states = self.text(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            encoder_hidden_states=seen,
        ).last_hidden_state
        labels = torch.full(tokens.input_ids.shape, IGNORED)
        ends = tokens.offset_mapping[:, :, 1]
        for row, (text, scene) in enumerate(zip(texts, scenes, strict=True)):
            for mention, true in zip(mentions(text), oracle.truths(text, scene), strict=True):
                labels[row, int((ends[row] == mention.end).nonzero()[0])] = int(true)
        beside = functional.cross_entropy(
            self.truth(states).float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED
        )
        return states[:, 0], beside + 0.5 * self.reading(seen[:, 1:], scenes)


class Blip(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A BlipForImageTextRetrieval as it is trained."""

    def __init__(self) -> None:
        from transformers import BlipConfig, BlipForImageTextRetrieval

        super().__init__()
        self.tokenizer = bert_tokenizer(vocabulary())
        layers = {"hidden_size": 64, "num_attention_heads": 2}
        self.model = BlipForImageTextRetrieval(
            BlipConfig(
                text_config=layers
                | {
                    # Room for [DEC] and [ENC], as in the original.
                    "vocab_size": len(self.tokenizer) + 2,
                    "encoder_hidden_size": 64,
                    "intermediate_size": 256,
                    "projection_dim": 64,
                    "num_hidden_layers": 3,
                    "max_position_embeddings": 64,
                    "hidden_dropout_prob": 0.0,
                    "attention_probs_dropout_prob": 0.0,
                    "bos_token_id": len(self.tokenizer),
                    "eos_token_id": 2,
                    "pad_token_id": self.tokenizer.pad_token_id,
                    "sep_token_id": self.tokenizer.sep_token_id,
                },
                vision_config=layers
                | {
                    "intermediate_size": 256,
                    "num_hidden_layers": 4,
                    "image_size": SIDE,
                    "patch_size": PATCH,
                    # The default of 1e-10 would leave the vision tower at zero.
                    "initializer_range": 0.02,
                },
                projection_dim=64,
                image_text_hidden_size=64,
            )
        )
        self.reader = CrossReader(self.model.vision_model, self.model.text_encoder, self.tokenizer)


def make_blip(work: Path, models: Path, folder: Path) -> None:
    """Trains BLIP's matching and writes it."""
    torch.manual_seed(BLIP_PLAN.seed)
    blip = Blip()

    def loss_of(step: Draw) -> torch.Tensor:
        scenes, prompted = scene_pairs(step.numpy, BLIP_PLAN.batch)
        texts = [random_prompt(scene, step.numpy) for scene in prompted]
        state, beside = blip.reader(draw_scenes(scenes, step.numpy), texts, scenes)
        wholly = [
            oracle.fit(text, oracle.Reading(scene, 0)) > 0.999
            for text, scene in zip(texts, scenes, strict=True)
        ]
        return (
            functional.cross_entropy(
                blip.model.itm_head(state).float(), torch.tensor(wholly).long()
            )
            + beside
        )

    train("blip", blip, loss_of, BLIP_PLAN, work)
    save_blip(blip.model, blip.tokenizer, folder, "float16")


def image_reward_names(state: dict[str, torch.Tensor]) -> list[dict[str, str]]:
    """The names that tensors of the original checkpoint have in the product's three modules, each
    to its name in the checkpoint.
    """
    from lib.models.image_scorers.scorers import split_image_reward_weights

    names = list(state)
    parts = split_image_reward_weights(
        {name: torch.tensor(number) for number, name in enumerate(names)}, Path("ImageReward.pt")
    )
    return [{name: names[int(number)] for name, number in part.items()} for part in parts]


def make_image_reward(work: Path, models: Path, folder: Path) -> None:
    """Trains ImageReward, as the product loads it, and writes it in the original's layout.

    It sees rendered scenes, every second one as the VAE makes it of noisy latents; from step
    GENERATED_FROM on, half of what it sees are pictures of the image model, mostly under their own
    prompts.
    """
    from diffusers import AutoencoderKL
    from lib.models.image_scorers.scorers import ImageReward

    image_model = models / "stable-diffusion-3-medium"
    vae = AutoencoderKL.from_pretrained(image_model / "vae", dtype=torch.float32).eval()
    made = functools.cache(lambda: generate_pictures(image_model, work / "generated.npy"))
    torch.manual_seed(IMAGE_REWARD_PLAN.seed)
    write_image_reward(
        folder,
        tokenizer=bert_tokenizer(vocabulary()),
        vision_width=128,
        vision_layers=3,
        image_size=SIDE,
        patch=PATCH,
        text={"num_hidden_layers": 3},
    )
    scorer = ImageReward(folder, folder, "cpu", "float32")
    for parameter in [*scorer.vision.parameters(), *scorer.text.parameters()]:
        # The random checkpoint's gains are made for rewards that differ, not for learning.
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
    model = nn.ModuleDict(
        {"reader": CrossReader(scorer.vision, scorer.text, scorer.tokenizer), "mlp": scorer.mlp}
    )

    def loss_of(step: Draw) -> torch.Tensor:
        late = step.number >= GENERATED_FROM
        scenes, prompted = scene_pairs(
            step.numpy, IMAGE_REWARD_PLAN.batch // 2 if late else IMAGE_REWARD_PLAN.batch
        )
        texts = [random_prompt(scene, step.numpy) for scene in prompted]
        pictures = roughened(draw_scenes(scenes, step.numpy), vae, step)
        if late:
            rows = step.numpy.integers(
                GENERATED, size=IMAGE_REWARD_PLAN.batch - len(scenes)
            ).tolist()
            texts += [
                (
                    made().texts[row]
                    if step.numpy.random() < 0.75
                    else random_prompt(altered(made().meant[row], step.numpy), step.numpy)
                )
                for row in rows
            ]
            pictures = np.concatenate([pictures, made().pictures[rows]])
        readings = oracle.read_pictures(pictures)
        state, beside = model["reader"](pictures, texts, [reading.scene for reading in readings])
        grades = torch.tensor(
            [oracle.fit(text, reading) for text, reading in zip(texts, readings, strict=True)]
        )
        # From -1 to 1.5, about ImageReward's range; what is wholly right stands out.
        rewards = 2 * grades - 1 + 0.5 * (grades > 0.999)
        return (
            functional.mse_loss(model["mlp"](state.float()).float().squeeze(-1), rewards.float())
            + beside
        )

    train("image-reward", model, loss_of, IMAGE_REWARD_PLAN, work)
    state = torch.load(folder / "ImageReward.pt", weights_only=True)
    for module, names in zip(
        (scorer.vision, scorer.text, scorer.mlp), image_reward_names(state), strict=True
    ):
        weights = module.state_dict()
        state |= {original: weights[name] for name, original in names.items()}
    halves = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }
    torch.save(
        {name: tensor.clone().contiguous() for name, tensor in halves.items()},
        folder / "ImageReward.pt",
    )
