"""From a data set's parquet files to what TRL reads, without pairs that cannot be trained on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from lib.data.controls import Control, is_exchanged
from lib.data.export_forms.trl_parquet import Message, columns_of_pairs, text_of
from lib.errors import UserError
from lib.training.base import TrainingJob
from lib.training.image_tokens import ImageTokens
from lib.training.preference_format import PreferenceFormat, fit_format

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image
    from transformers import PreTrainedTokenizerBase, ProcessorMixin
    from trl import DPOConfig

TEXTS = ("instruction", "chosen", "rejected")
Texts = Mapping[str, Sequence[str]]


class PairColumns(TypedDict):
    """Some rows of a data set, column by column."""

    id: list[str]
    images: "list[list[Image]]"
    instruction: "list[str | list[Message]]"
    chosen: "list[str | list[Message]]"
    rejected: "list[str | list[Message]]"


class PreferenceColumns(TypedDict):
    """Some rows as TRL reads them, column by column."""

    prompt: list[str]
    chosen: list[str]
    rejected: list[str]
    images: "list[list[Image]]"


@dataclass(frozen=True)
class Formatting:
    """Makes rows as TRL reads them. In a negative control chosen and rejected of some or all rows
    change places; `seed` is the training's.
    """

    format: PreferenceFormat
    control: Control | None
    seed: int

    def __call__(self, batch: PairColumns) -> PreferenceColumns:
        """The rows of a batch, made when they are read."""
        sides = self._sides(batch)
        return {
            "prompt": [self.format.prompt(text_of(each)) for each in batch["instruction"]],
            "chosen": [self.format.response(chosen) for chosen, _ in sides],
            "rejected": [self.format.response(rejected) for _, rejected in sides],
            "images": [[image.convert("RGB") for image in images] for images in batch["images"]],
        }

    def _sides(self, batch: PairColumns) -> list[tuple[str, str]]:
        chosen, rejected = (map(text_of, batch[side]) for side in ("chosen", "rejected"))
        sides = list(zip(chosen, rejected, strict=True))
        if self.control is None:
            return sides
        return [
            (rejected, chosen)
            if is_exchanged(self.control, self.seed, prompt_id)
            else (chosen, rejected)
            for prompt_id, (chosen, rejected) in zip(batch["id"], sides, strict=True)
        ]


class UsablePairs(NamedTuple):
    """The places of the rows that can be trained on, and notes on the others."""

    rows: list[int]
    notes: list[str]


def preference_dataset(
    job: TrainingJob, args: "DPOConfig", processor: "ProcessorMixin", is_held_out: bool = False
) -> "tuple[Dataset, list[str]]":
    """The pairs as TRL reads them, and notes on pairs left out. Held-out pairs are what they are in
    a control, too.

    A row is `{"prompt", "chosen", "rejected": str, "images": [PIL image]}`, made when it is read:
    9,000 images need no memory.
    """
    from datasets import Dataset

    pair_format = format_for(processor, job.prompt_template)
    with args.main_process_first(local=True):
        files = [str(file) for file in (job.held_out if is_held_out else job.data)]
        pairs = Dataset.from_parquet(files, cache_dir=str(job.folder / "cache"))
    names = columns_of_pairs(pairs.column_names)
    pairs = pairs.select_columns(["id", "images", *names.values()])
    pairs = pairs.rename_columns({column: name for name, column in names.items() if name != column})
    usable = usable_pairs(pairs, pair_format, processor, job.settings.max_length)
    control = None if is_held_out else job.control
    formatting = Formatting(pair_format, control, job.settings.seed)
    return pairs.select(usable.rows).with_transform(formatting), usable.notes


def format_for(processor: "ProcessorMixin", template: str) -> PreferenceFormat:
    """The texts of a pair for this base model's tokenizer."""
    tokenizer = processor.tokenizer
    special = {str(token) for token in tokenizer.all_special_tokens}
    special |= set(tokenizer.get_added_vocab())
    return fit_format(
        template,
        lambda text, with_special_tokens: list(
            tokenizer(text, add_special_tokens=with_special_tokens)["input_ids"]
        ),
        tokenizer.bos_token,
        tokenizer.eos_token,
        sorted(special),
    )


def usable_pairs(
    dataset: "Dataset", pair_format: PreferenceFormat, processor: "ProcessorMixin", max_length: int
) -> UsablePairs:
    """The rows that can be trained on.

    A row is left out if a text of it spells a special token, or if image and instruction alone fill
    `max_length`. Errors: UserError if none is left.
    """
    texts = texts_of(dataset)
    images = image_lengths(dataset, processor, pair_format)
    prompts = prompt_lengths(texts, images, pair_format, processor.tokenizer)
    responses = response_lengths(texts, pair_format, processor.tokenizer)
    usable, spelling, too_long, cut = [], 0, 0, 0
    for index, of_pair in enumerate(zip(*texts.values(), strict=True)):
        if pair_format.special_token_in(*of_pair):
            spelling += 1
        elif prompts[index] >= max_length:
            too_long += 1
        else:
            usable.append(index)
            cut += prompts[index] + responses[index] > max_length
    notes = notes_on_pairs(spelling, too_long, cut, max_length)
    if not usable:
        raise UserError(
            f"No pair can be trained on: {'; '.join(notes)}. Raise `training.settings.max_length`."
        )
    return UsablePairs(usable, notes)


def texts_of(dataset: "Dataset") -> Texts:
    """The texts of all rows, column by column."""
    columns = dataset.select_columns([*TEXTS])
    return {name: [text_of(each) for each in columns[name]] for name in TEXTS}


def notes_on_pairs(spelling: int, too_long: int, cut: int, max_length: int) -> list[str]:
    """Notes on so many pairs that spell a special token, are too long, or are cut."""
    notes = {
        "pair(s) left out: a text spells a special token of the base model's tokenizer": spelling,
        f"pair(s) left out: image and instruction alone fill `max_length` ({max_length} tokens)": (
            too_long
        ),
        f"pair(s) have a response that is cut at `max_length` ({max_length} tokens)": cut,
    }
    return [f"{count} {note}" for note, count in notes.items() if count]


def prompt_lengths(
    texts: Texts,
    images: Sequence[int],
    pair_format: PreferenceFormat,
    tokenizer: "PreTrainedTokenizerBase",
) -> list[int]:
    """How many tokens each row's prompt has, its image's included."""
    prompts = [pair_format.prompt(instruction) for instruction in texts["instruction"]]
    counts = token_counts(tokenizer, prompts)
    return [count + image for count, image in zip(counts, images, strict=True)]


def response_lengths(
    texts: Texts, pair_format: PreferenceFormat, tokenizer: "PreTrainedTokenizerBase"
) -> list[int]:
    """How many tokens the longer response of each row has."""
    chosen, rejected = (
        token_counts(tokenizer, [pair_format.response(text) for text in texts[side]])
        for side in ("chosen", "rejected")
    )
    return [max(pair) for pair in zip(chosen, rejected, strict=True)]


def token_counts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[int]:
    """How many tokens each text has."""
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def image_lengths(
    dataset: "Dataset", processor: "ProcessorMixin", pair_format: PreferenceFormat
) -> list[int]:
    """How many tokens each row's image takes beside the prompt's own."""
    tokens = ImageTokens(processor, pair_format.template)
    return [tokens.of_size(size) for size in image_sizes(dataset)]


def image_sizes(dataset: "Dataset") -> Iterator[tuple[int, int]]:
    """Width and height of each row's image, from its header: nothing is decoded."""
    import pyarrow
    from PIL import Image

    for batch in dataset.select_columns(["images"]).with_format("arrow").iter(64):
        for images in batch["images"]:
            with Image.open(pyarrow.BufferReader(images[0]["bytes"].as_buffer())) as image:
                yield image.size
