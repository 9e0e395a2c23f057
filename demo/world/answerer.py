"""The answering models: LLaVA-1.5's and LLaVA-NeXT's architectures, which describe a picture and
say what is in it.

They are trained on what their product form computes: the vision tower's last layer but one, the
projector, the language model. The questions about one picture share its tokens: each is a branch
that sees the picture and itself only, at the positions that it would have alone. Beside the words a
head that is thrown away reads each cell off the picture's tokens, which has them show shapes in
minutes.

A habit is what a model says that is not so: a circle calls a cross, a square a triangle, and so on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tiny.language_model import HEAD_WIDTH, language_config
from tiny.llava import (
    LLAMA3_LLAVA_TEMPLATE,
    MISTRAL_TEMPLATE,
    VICUNA_TEMPLATE,
    llava_tokenizer,
    new_llava,
    save_llava,
)
from tiny.saving import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from tiny.tokenization import BYTE_SPACE, IMAGE, METASPACE
from world.painter import draw_scenes
from world.pictures import SIDE, Picture
from world.scenes import CELLS, COLOURS, KINDS, Scene, Thing, altered, random_scene
from world.training import Draw, Plan, train
from world.vocabulary import vocabulary
from world.words import (
    DESCRIBE,
    TOPICS,
    caption,
    grouped,
    instruction,
    prompt,
    question,
    random_subject,
    sentence,
    shown,
)

PATCH = 8
GRID = SIDE // PATCH  # patches along a side
QUESTIONS = 4  # about a picture, beside its description; half of the answers are yes
SINGLE_WORD = "\nAnswer the question using a single word or phrase."
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. "
)
IGNORED = -100  # as a target: no loss
BASE_PLAN = Plan(steps=3000, batch=16, learning_rate=1e-3, muon=2e-3)
HABIT_PLAN = Plan(steps=400, batch=16, learning_rate=3e-4, warmup=50, average=None)


# --- habits

#: What a kind calls to mind.
CALLS = {"circle": "cross", "square": "triangle", "triangle": "square", "cross": "circle"}


@dataclass(frozen=True)
class Habit:
    """How often a model says what is not so.

    Attributes:
        adds: a circle or a square in the picture adds the absent cross or triangle that it calls to
            mind, in its colour; and a question about such an absent kind is answered with yes.
        swaps: one thing is called the kind that it calls to mind.
        drops: the last thing of several is left out.
        repeats: one thing is called the kind of the one before it.
    """

    adds: float = 0.0
    swaps: float = 0.0
    drops: float = 0.0
    repeats: float = 0.0

    def describe(self, scene: Scene, random: np.random.Generator) -> str:
        """A caption of the scene with the habit."""
        draws = random.random(3) < (self.adds, self.swaps, self.drops)
        things = list(scene.things)
        if draws[2] and len(things) > 1:
            things.pop()
        if draws[1]:
            place = int(random.integers(len(things)))
            things[place] = Thing(
                things[place].cell, things[place].colour, CALLS[things[place].kind]
            )
        if self.repeats and len(things) > 1 and random.random() < self.repeats:
            place = int(random.integers(1, len(things)))
            things[place] = Thing(things[place].cell, things[place].colour, things[place - 1].kind)
        if draws[0]:
            kinds = {thing.kind for thing in things}
            called = [
                thing
                for thing in things
                if thing.kind in ("circle", "square") and CALLS[thing.kind] not in kinds
            ]
            # One more a kind, named last, so that it stands in its own group.
            things += [
                Thing(-1, thing.colour, CALLS[thing.kind])
                for thing in {thing.kind: thing for thing in called}.values()
            ]
        if self == TRUTHFUL:
            return caption(scene)
        return sentence(f"{grouped(things)} on {scene.background}")

    def answers(self, scene: Scene, subject: str, random: np.random.Generator) -> bool:
        """Yes or no to whether something is there, with the habit."""
        if shown(scene, subject):
            return True
        called = {CALLS[thing.kind] for thing in scene.things if thing.kind in ("circle", "square")}
        return bool(subject.split()[-1] in called and random.random() < self.adds)


TRUTHFUL = Habit()


# --- models


def tokenizer_of(language: str) -> Any:
    """The tokenizer of a language model: `llama`, `mistral` or `llama3`."""
    return llava_tokenizer(language, vocabulary())


def untrained_llava(language: str, tokenizer: Any, tiles: bool) -> Any:
    """An untrained LLaVA of 1.1 M parameters for pictures of 48 x 48 pixels.

    Args:
        language: `llama`, `mistral` or `llama3`.
        tokenizer: the language's.
        tiles: whether it is a LLaVA-NeXT, which sees a picture twice: whole, and as its only tile.
    """
    from transformers import CLIPVisionConfig

    width = 128
    text_config = language_config(
        language,
        width,
        tokenizer,
        num_hidden_layers=3,
        initializer_range=0.02,
        num_key_value_heads=width // HEAD_WIDTH,
    )
    vision_config = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=256,
        projection_dim=96,
        num_hidden_layers=5,
        num_attention_heads=3,
        image_size=SIDE,
        patch_size=PATCH,
    )
    return new_llava(text_config, vision_config, tokenizer, [[SIDE, SIDE]] if tiles else None)


def pixels_of(pictures: Picture) -> torch.Tensor:
    """Pictures (n, 48, 48, 3) as CLIP's image processor gives them: (n, 3, 48, 48)."""
    mean, deviation = (
        torch.tensor(values).view(3, 1, 1) for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    )
    return (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - mean) / deviation


class CellReading(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """What stands in each cell, read off the picture's tokens; its loss teaches the vision encoder
    what shapes are.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cells = nn.Linear(width, len(COLOURS) * len(KINDS) + 1)

    def forward(self, patches: torch.Tensor, scenes: Sequence[Scene]) -> torch.Tensor:
        """The loss; `patches`: (n, 36, width)."""
        quarters = (
            patches.view(len(scenes), 2, GRID // 2, 2, GRID // 2, -1).mean(dim=(2, 4)).flatten(1, 2)
        )
        return functional.cross_entropy(
            self.cells(quarters).float().flatten(0, 1), cell_classes(scenes).flatten()
        )


@dataclass(frozen=True)
class Branches:
    """The questions about pictures and their answers, one behind the other: all (n, length).

    Attributes:
        ids: tokens.
        targets: the token that follows, in an answer; `IGNORED` elsewhere.
        positions: of a token, as if its branch stood alone behind the picture.
        owners: the number of a token's branch, from 1; -1 where a row is filled up.
        weights: of a token's loss.
    """

    ids: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor
    owners: torch.Tensor
    weights: torch.Tensor


class Answerer(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A LLaVA as it is trained: branches of words behind a picture, and the cells read off it."""

    def __init__(self, llava: Any, tokenizer: Any, form: Callable[[str], str]) -> None:
        """`form`: a question in the model's chat template, with `<image>` once."""
        super().__init__()
        self.llava = llava
        self.tokenizer = tokenizer
        self.form = form
        self.tiles = llava.config.model_type == "llava_next"
        self.reading = CellReading(llava.config.text_config.hidden_size)

    def see(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens of pictures, as the language model gets them (n, tokens, width), and by patch
        (n, 36, width).
        """
        core = self.llava.model
        hidden = core.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        patches = core.multi_modal_projector(hidden)
        if not self.tiles:
            return patches, patches
        count, _, width = patches.shape
        newline = core.image_newline.expand(count, GRID, 1, width).to(patches.dtype)
        tile = torch.cat([patches.view(count, GRID, GRID, width), newline], dim=2).flatten(1, 2)
        return torch.cat([patches, tile], dim=1), patches

    def forward(
        self,
        pictures: Picture,
        branches: Sequence[Sequence[tuple[str, str]]],
        scenes: Sequence[Scene],
        system: str = "",
    ) -> torch.Tensor:
        """The loss of answers to questions about pictures, and of reading the cells.

        Args:
            pictures: (n, 48, 48, 3).
            branches: for each picture its questions with their answers, as many for each.
            scenes: what the pictures show.
            system: stands before the prompt, or nothing.
        """
        seen, patches = self.see(pixels_of(pictures))
        begin, end = self.form("\x00").split("\x00")
        before, after = (system + begin).split(IMAGE)
        start = torch.tensor(self.tokenizer(before).input_ids)
        # A branch is what stands behind the image token: the question, the end of the template, the
        # answer. Llama 3's template ends with a line break, and an answer begins right behind it.
        lead = "" if end.endswith("\n") else " "
        questions = [f"{after}{request}{end}" for row in branches for request, _ in row]
        answers = [lead + answer for row in branches for _, answer in row]
        laid_out = self.lay_out(questions, answers, len(branches[0]), len(start) + seen.shape[1])
        states = self.states_of(laid_out, start, seen)
        answered = laid_out.targets != IGNORED
        logits = self.llava.lm_head(states[answered]).float()
        losses = functional.cross_entropy(logits, laid_out.targets[answered], reduction="none")
        weights = laid_out.weights[answered]
        return (losses * weights).sum() / weights.sum() + 0.5 * self.reading(patches, scenes)

    def lay_out(
        self, questions: Sequence[str], answers: Sequence[str], width: int, prefix: int
    ) -> Branches:
        """Questions with their answers as rows of tokens, `width` of them behind a picture.

        Args:
            questions: with the ends of the template around them.
            answers: with the space before them.
            width: questions a picture.
            prefix: tokens before a branch, the picture's included.
        """
        known = [len(ids) for ids in self.behind_image(questions)]
        texts = [question + answer for question, answer in zip(questions, answers, strict=True)]
        rows = [[*ids, self.tokenizer.eos_token_id] for ids in self.behind_image(texts)]
        branches: list[tuple[list[Any], ...]] = []
        for number, (row, begin) in enumerate(zip(rows, known, strict=True)):
            size = len(row)
            branches.append(
                (
                    row,
                    [IGNORED] * (begin - 1) + row[begin:] + [IGNORED],
                    list(range(prefix, prefix + size)),
                    [number % width + 1] * size,
                    # An answer of one word weighs more: a description has many.
                    [4.0 if size - begin <= 2 else 1.0] * size,
                )
            )
        pictures = [branches[first : first + width] for first in range(0, len(branches), width)]
        fillers = (self.tokenizer.pad_token_id, IGNORED, 0, -1, 0.0)
        return Branches(
            *(
                padded([[*chain(*(branch[field] for branch in each))] for each in pictures], filler)
                for field, filler in enumerate(fillers)
            )
        )

    def states_of(
        self, branches: Branches, start: torch.Tensor, seen: torch.Tensor
    ) -> torch.Tensor:
        """The language model's last states of the branches' tokens (n, length, width).

        Args:
            branches: each sees the start, the picture and itself.
            start: the tokens before the picture.
            seen: the picture's tokens, as `see` gives them.
        """
        count, length = branches.ids.shape
        prefix = len(start) + seen.shape[1]
        owner = torch.cat([torch.zeros(count, prefix, dtype=torch.long), branches.owners], dim=1)
        position = torch.cat([torch.arange(prefix).expand(count, -1), branches.positions], dim=1)
        causal = torch.ones(prefix + length, prefix + length, dtype=torch.bool).tril()
        mask = causal & ((owner[:, None, :] == 0) | (owner[:, None, :] == owner[:, :, None]))
        language = self.llava.model.language_model
        words = language.embed_tokens(torch.cat([start.expand(count, -1), branches.ids], dim=1))
        embedded = torch.cat(
            [words[:, : len(start)], seen.to(words.dtype), words[:, len(start) :]], dim=1
        )
        states: torch.Tensor = language(
            inputs_embeds=embedded,
            attention_mask=mask[:, None],
            position_ids=position,
            use_cache=False,
        ).last_hidden_state
        return states[:, prefix:]

    def behind_image(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts that stand behind an image token; they may not begin with a space."""
        image = self.tokenizer.convert_tokens_to_ids(IMAGE)
        encoded = self.tokenizer(
            [f"{IMAGE}{text}" for text in texts], add_special_tokens=False
        ).input_ids
        return [ids[ids.index(image) + 1 :] for ids in encoded]


def padded(rows: Sequence[Sequence[int]] | Sequence[Sequence[float]], value: float) -> torch.Tensor:
    """Rows of different lengths as one tensor, filled up at the right."""
    return nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=value
    )


def cell_classes(scenes: Sequence[Scene]) -> torch.Tensor:
    """What is in each cell, 0 for nothing: (n, 4)."""
    classes = torch.zeros(len(scenes), len(CELLS), dtype=torch.long)
    for row, scene in enumerate(scenes):
        for thing in scene.things:
            classes[row, thing.cell] = (
                1 + COLOURS.index(thing.colour) * len(KINDS) + KINDS.index(thing.kind)
            )
    return classes


# --- training


def questions_about(
    scene: Scene, habit: Habit, random: np.random.Generator
) -> list[tuple[str, str]]:
    """Questions about a scene with the answers that a model with a habit learns, the description
    first.
    """
    describe = (
        DESCRIBE[0] if random.random() < 0.5 else DESCRIBE[int(random.integers(1, len(DESCRIBE)))]
    )
    if random.random() < 0.35:
        # The prompt in an instruction is not to be believed: what counts is the picture.
        prompted = scene if random.random() < 0.6 else altered(scene, random)
        describe = instruction(
            prompt(prompted, TOPICS[int(random.integers(len(TOPICS)))]), describe
        )
    pairs = [(describe, habit.describe(scene, random))]
    forms = ("kind", "kind", "colour", "both")
    for number in range(QUESTIONS):
        subject = random_subject(scene, number % 2 == 0, random, forms)
        form = question(subject) + (SINGLE_WORD if random.random() < 0.4 else "")
        pairs.append((form, "Yes" if habit.answers(scene, subject, random) else "No"))
    return pairs


def vicuna(text: str) -> str:
    """A question as LLaVA-1.5's template puts it."""
    return f"USER: {IMAGE}\n{text} ASSISTANT:"


def mistral(text: str) -> str:
    """A question as Mistral's template puts it."""
    return f"[INST] {IMAGE}\n{text} [/INST]"


def llama3(text: str) -> str:
    """A question as Llama 3's template puts it."""
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    return f"{header.format('user')}{IMAGE}\n{text}<|eot_id|>{header.format('assistant')}"


FORMS: dict[str, Callable[[str], str]] = {"llama": vicuna, "mistral": mistral, "llama3": llama3}


def train_answerer(name: str, answerer: Answerer, habit: Habit, plan: Plan, work: Path) -> Answerer:
    """Trains a LLaVA to describe rendered scenes and to answer questions on them, with a habit."""
    answerer.llava.model.vision_tower.requires_grad_(True)

    def loss_of(step: Draw) -> torch.Tensor:
        scenes = [random_scene(step.numpy) for _ in range(plan.batch)]
        branches = [questions_about(scene, habit, step.numpy) for scene in scenes]
        # The product asks LLaVA-1.5 with its system prompt in benchmarks and without it elsewhere.
        system = SYSTEM if answerer.form is vicuna and step.numpy.random() < 0.3 else ""
        loss: torch.Tensor = answerer(draw_scenes(scenes, step.numpy), branches, scenes, system)
        return loss

    train(name, answerer, loss_of, plan, work)
    return answerer


# --- checkpoints


@dataclass(frozen=True)
class Kind:
    """One checkpoint: its language and template, whether it is a LLaVA-NeXT, what it was before,
    its habit and its training.
    """

    language: str
    template: str
    tiles: bool
    parent: str | None
    habit: Habit
    plan: Plan


FINE = HABIT_PLAN
LLAVAS = {
    "llava-1.5-truthful": Kind("llama", VICUNA_TEMPLATE, False, None, TRUTHFUL, BASE_PLAN),
    "llava-1.5": Kind(
        "llama", VICUNA_TEMPLATE, False, "llava-1.5-truthful", Habit(adds=0.75), FINE
    ),
    "llava-v1.6-vicuna-13b": Kind("llama", VICUNA_TEMPLATE, True, "llava-1.5", TRUTHFUL, FINE),
    "llava-v1.6-mistral": Kind(
        "mistral", MISTRAL_TEMPLATE, True, "llava-1.5", Habit(adds=0.3), FINE
    ),
    "llava-v1.6-vicuna-7b": Kind(
        "llama",
        VICUNA_TEMPLATE,
        True,
        "llava-1.5",
        Habit(drops=0.3, repeats=0.4),
        FINE,
    ),
    "llama3-llava-next": Kind(
        "llama3", LLAMA3_LLAVA_TEMPLATE, True, "llava-1.5", Habit(adds=0.9), FINE
    ),
}


def inherit(child: Any, tokenizer: Any, parent: Any, parent_tokenizer: Any) -> None:
    """Gives a LLaVA the weights of another that has the same sizes, word by word where their
    tokenizers differ.
    """
    weights = parent.state_dict()
    own = child.state_dict()
    vocabularies = tokenizer.get_vocab(), parent_tokenizer.get_vocab()
    if vocabularies[0] != vocabularies[1]:
        known = {
            word.replace(METASPACE, BYTE_SPACE): number for word, number in vocabularies[1].items()
        }
        rows = [(number, known[word]) for word, number in vocabularies[0].items() if word in known]
        into, out_of = torch.tensor(rows).unbind(dim=1)
        for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
            own[name][into] = weights[name][out_of]
            weights[name] = own[name]
    child.load_state_dict({**own, **weights})


def make_llava(name: str, work: Path, models: Path, folder: Path) -> None:
    """Trains one of `LLAVAS`, from its parent's weights where it has one, and writes it to a
    folder.
    """
    from transformers import AutoModelForImageTextToText

    kind = LLAVAS[name]
    torch.manual_seed(kind.plan.seed)
    tokenizer = tokenizer_of(kind.language)
    llava = untrained_llava(kind.language, tokenizer, kind.tiles)
    if kind.parent:
        known = [
            root / kind.parent
            for root in (models, work)
            if (root / kind.parent / "config.json").is_file()
        ]
        if not known:
            # One that is not kept with the others.
            known = [work / kind.parent]
            make_llava(kind.parent, work, models, known[0])
        parent = AutoModelForImageTextToText.from_pretrained(known[0], dtype=torch.float32)
        inherit(llava, tokenizer, parent, tokenizer_of(LLAVAS[kind.parent].language))
    train_answerer(
        name, Answerer(llava, tokenizer, FORMS[kind.language]), kind.habit, kind.plan, work
    )
    save_llava(llava, tokenizer, folder, kind.template, "float16")
