"""RLHF-V's and RLAIF-V's data: one question to one picture, and two answers."""

from collections.abc import Mapping
from typing import Any, ClassVar

from lib.data.pair_forms.base import (
    BadRecordError,
    Pictures,
    PreferencePair,
    Record,
    Where,
    id_of,
    picture_tokens_in,
    text_in,
    without_picture_tokens,
)
from lib.files import STRICT_JSON


class RlhfV:
    """RLAIF-V: {"question", "chosen", "rejected", "image", "idx", "origin_split", ...}; RLHF-V has
    the first three as JSON in "text".
    """

    name: ClassVar[str] = "rlhf_v"
    title: ClassVar[str] = "RLHF-V's and RLAIF-V's rows: `question`, `chosen`, `rejected`, `image`"

    @staticmethod
    def fits(record: Record) -> bool:
        """Whether a record has a question, or the JSON that holds it."""
        return "question" in record or ("text" in record and "image" in record)

    @staticmethod
    def read(record: Record, where: Where, pictures: Pictures) -> PreferencePair:
        """The pair of a record. Errors: BadRecordError."""
        texts = record if "question" in record else _object_in(text_in(record, "text"))
        question = text_in(texts, "question")
        tokens = picture_tokens_in(question)
        return PreferencePair(
            id=id_of(record, where, "idx"),
            where=where,
            question=without_picture_tokens(question),
            chosen=text_in(texts, "chosen"),
            rejected=text_in(texts, "rejected"),
            images=pictures(
                record.get("image") or record.get("images") or record.get("image_path")
            ),
            picture_tokens=tokens or None,
            policies=_policies(record.get("origin_split")),
            topic=str(record.get("origin_dataset") or ""),
        )


def _object_in(text: str) -> Record:
    try:
        texts = STRICT_JSON.decode(text)
    except (ValueError, RecursionError) as error:
        raise BadRecordError(f"`text` is no JSON ({error})") from None
    if not isinstance(texts, Mapping):
        raise BadRecordError("`text` holds no object with question, chosen and rejected")
    return texts


def _policies(split: Any) -> tuple[str, str] | None:
    """Whose answers both are: RLAIF-V says it in a JSON of its own."""
    if not isinstance(split, str) or not split.startswith("{"):
        return None
    try:
        model = STRICT_JSON.decode(split).get("model")
    except (ValueError, RecursionError):
        return None
    return (model, model) if isinstance(model, str) else None
