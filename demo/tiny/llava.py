"""LLaVA-1.5 and LLaVA-NeXT, which answer questions about images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiny.grammar import Grammar, wire_grammar
from tiny.initialisation import initialise
from tiny.language_model import language_config
from tiny.saving import image_preprocessing, save_tokenizer, save_weights, write_json
from tiny.tokenization import IMAGE, llama3_tokenizer, llama_tokenizer
from tiny.words import ANSWER_WORDS, words_by_class

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The chat templates of the hub's repositories. They render a turn's images first, then its texts.
IMAGES_THEN = (
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{"
    " '<image>\\n' }}{% endfor %}"
)
TEXTS = "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
VICUNA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{"
    f" message['role'].upper() + ': '}}}}{{% endif %}}{IMAGES_THEN}{{% if message['role'] !="
    f" 'assistant' %}}{TEXTS}{{{{ content['text'] + ' '}}}}{{% endfor %}}{{% else %}}{TEXTS}{{%"
    " generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif"
    " %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ '<<SYS>>\\n' +"
    " message['content'][0]['text'] + '\\n<</SYS>>\\n\\n' }}{% elif message['role'] == 'user'"
    f" %}}{{{{ '[INST] ' }}}}{IMAGES_THEN}{TEXTS}{{{{ content['text'] }}}}{{% endfor %}}{{{{ '"
    " [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' +"
    " message['content'][0]['text'] + '</s> ' }}{% else %}{{ raise_exception('Only user and"
    " assistant roles are supported!') }}{% endif %}{% endfor %}"
)
LLAMA3_LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] +"
    f" '<|end_header_id|>\\n\\n' }}}}{IMAGES_THEN}{TEXTS}{{{{ content['text'] }}}}{{% endfor"
    " %}{{ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{"
    " '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


def hub_llava_name(name: str) -> str:
    """The name that a LLaVA parameter has in the hub's checkpoints, and that vLLM reads.

    Args:
        name: its name in the model.
    """
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    name = name.removeprefix("model.")
    if name.startswith("language_model."):
        return "language_model.model." + name.removeprefix("language_model.")
    if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
        return "vision_tower.vision_model." + name.removeprefix("vision_tower.")
    return name


def answer_grammar(
    stop: float, adjective: float = 0.45, place: float = 0.5, yes_no: float = 0.0
) -> Grammar:
    """The grammar of a model that answers.

    Args:
        stop: probability that an answer ends after a sentence.
        adjective: probability that a noun has an adjective.
        place: probability that a sentence says where.
        yes_no: probability that an answer is "Yes" or "No" (a question of a benchmark).
    """
    return Grammar(
        words=words_by_class(ANSWER_WORDS),
        follow={
            "start": {"yes_no": yes_no, "article": 1 - yes_no},
            "yes_no": {"end": 0.8, "stop": 0.2},
            "article": {"adjective": adjective, "subject": 1 - adjective},
            "adjective": {"subject": 1.0},
            "subject": {"verb": 1.0},
            "verb": {"number": 1.0},
            "number": {"object_adjective": adjective, "object": 1 - adjective},
            "object_adjective": {"object": 1.0},
            "object": {"preposition": place, "and": 0.06, "stop": 0.94 - place},
            "preposition": {"place": 1.0},
            "place": {"and": 0.06, "stop": 0.94},
            "and": {"number": 1.0},
            "stop": {"end": stop, "article": 1 - stop},
        },
    )


@dataclass(frozen=True)
class Llava:
    """What one LLaVA differs in from another.

    Attributes:
        seed: of all its weights.
        language: `llama`, `mistral` or `llama3`.
        hidden_size: of the language model, a multiple of 32.
        grammar: how it answers.
        chat_template: of its processor.
        tiles: whether it is a LLaVA-NeXT, which also looks at an image in tiles.
    """

    seed: int
    language: str
    hidden_size: int
    grammar: Grammar
    chat_template: str
    tiles: bool = True


LLAVAS = {
    "llava-1.5": Llava(
        40, "llama", 64, answer_grammar(0.5, yes_no=0.9), VICUNA_TEMPLATE, tiles=False
    ),
    "llava-v1.6-mistral": Llava(41, "mistral", 64, answer_grammar(0.6), MISTRAL_TEMPLATE),
    "llava-v1.6-vicuna-7b": Llava(
        42, "llama", 64, answer_grammar(0.55, adjective=0.25), VICUNA_TEMPLATE
    ),
    "llava-v1.6-vicuna-13b": Llava(
        43, "llama", 96, answer_grammar(0.55, adjective=0.6, place=0.65), VICUNA_TEMPLATE
    ),
    "llama3-llava-next": Llava(
        44, "llama3", 64, answer_grammar(0.6, place=0.25), LLAMA3_LLAVA_TEMPLATE
    ),
}


def llava_tokenizer(language: str, words: Sequence[str] = ()) -> "PreTrainedTokenizerBase":
    """The tokenizer of a language model, with LLaVA's tokens.

    Args:
        language: `llama`, `mistral` or `llama3`.
        words: what is one token each; none: `corpus`.
    """
    make = llama3_tokenizer if language == "llama3" else llama_tokenizer
    return make(llava=True, words=words)


def new_llava(
    text_config: Any,
    vision_config: Any,
    tokenizer: "PreTrainedTokenizerBase",
    pinpoints: Sequence[Sequence[int]] | None,
) -> Any:
    """An untrained LLaVA-1.5, or a LLaVA-NeXT where there are pinpoints.

    Args:
        text_config: of the language model.
        vision_config: of the vision tower.
        tokenizer: the language model's, with LLaVA's tokens.
        pinpoints: heights and widths, in pixels, that an image may be cut into tiles at.
    """
    from transformers import (
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
    )

    settings: dict[str, Any] = {
        "text_config": text_config,
        "vision_config": vision_config,
        "image_token_index": tokenizer.convert_tokens_to_ids(IMAGE),
        "pad_token_id": tokenizer.pad_token_id,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
    }
    if pinpoints:
        settings |= {"image_grid_pinpoints": pinpoints, "use_image_newline_parameter": True}
        return LlavaNextForConditionalGeneration(LlavaNextConfig(**settings))
    patches = (vision_config.image_size // vision_config.patch_size) ** 2
    return LlavaForConditionalGeneration(LlavaConfig(**settings, image_seq_length=patches))


def build_llava(directory: Path, name: str) -> None:
    """A LLaVA-1.5 or LLaVA-NeXT: patches of 14 px; 56 px or tiles of 28 px. Source of the layout:
    llava-hf's repositories.

    Args:
        directory: to write to.
        name: one of `LLAVAS`.
    """
    from transformers import CLIPVisionConfig

    kind = LLAVAS[name]
    tokenizer = llava_tokenizer(kind.language)
    side = 28 if kind.tiles else 56
    vision_config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        projection_dim=32,
        num_hidden_layers=2,
        num_attention_heads=1,
        image_size=side,
        patch_size=14,
    )
    text_config = language_config(kind.language, kind.hidden_size, tokenizer)
    tiles = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
    pinpoints = [[side * rows, side * columns] for rows, columns in tiles] if kind.tiles else None
    model = new_llava(text_config, vision_config, tokenizer, pinpoints)
    initialise(model, kind.seed)
    wire_grammar(model, tokenizer, kind.grammar, seed=100 + kind.seed)
    save_llava(model, tokenizer, directory, kind.chat_template)


def save_llava(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    directory: Path,
    chat_template: str,
    dtype: str = "float32",
) -> None:
    """Saves a LLaVA with its processor, as llava-hf's repositories hold it.

    Args:
        model: a `LlavaForConditionalGeneration` or a `LlavaNextForConditionalGeneration`.
        tokenizer: its tokenizer.
        directory: created where it is missing.
        chat_template: of its processor.
        dtype: of the weights in the file.
    """
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    save_weights(model, directory, hub_llava_name, dtype)
    tiles = model.config.model_type == "llava_next"
    processor_class = "LlavaNextProcessor" if tiles else "LlavaProcessor"
    save_tokenizer(tokenizer, directory, processor_class)
    # The template is the processor's alone, in the file that the hub's repositories have. As
    # `chat_template.jinja` it would become the tokenizer's too, and whoever gives it turns as plain
    # strings gets prompts without their text.
    write_json(directory / "chat_template.json", {"chat_template": chat_template})
    processor = {
        "image_token": IMAGE,
        "num_additional_image_tokens": 1,
        "patch_size": model.config.vision_config.patch_size,
        "processor_class": processor_class,
        "vision_feature_select_strategy": "default",
    }
    write_json(directory / "processor_config.json", processor)
    preprocessor = llava_preprocessing(model.config) | {"processor_class": processor_class}
    write_json(directory / "preprocessor_config.json", preprocessor)


def llava_preprocessing(config: Any) -> dict[str, Any]:
    """What a LLaVA's image processor does: the whole image, or the whole and its tiles."""
    side = config.vision_config.image_size
    size = {"shortest_edge": side}
    crop = {"do_center_crop": True, "crop_size": {"height": side, "width": side}}
    if config.model_type != "llava_next":
        return image_preprocessing("CLIPImageProcessor", size, **crop)
    tiles = {
        "aspect_ratio_setting": "anyres",
        "do_pad": True,
        "image_grid_pinpoints": [list(pinpoint) for pinpoint in config.image_grid_pinpoints],
    }
    return image_preprocessing("LlavaNextImageProcessor", size, **crop, **tiles)
