"""The check of what training sees of a pair: it cuts what is longer than the model's context."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path

from lib.errors import UserError
from lib.pair_checks.base import Check, LookedAt, shown

#: How many tokens a text has.
Count = Callable[[str], int]


def count_words(text: str) -> int:
    """The words and signs of a text: no more than the tokens that any tokenizer makes of it."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def count_with(tokenizer: Path) -> Count:
    """What counts with a model's tokenizer. Errors: UserError.

    `tokenizer`: its `tokenizer.json`, or the folder with it.
    """
    from tokenizers import Tokenizer

    file = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
    try:
        loaded = Tokenizer.from_file(str(file))
    # The library raises its errors as plain exceptions.
    except Exception as error:
        raise UserError(
            f"{file}: no tokenizer can be read from it ({error}). Correct it."
        ) from None
    return lambda text: len(loaded.encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True)
class Truncation:
    """What a trainer cuts.

    max_length    tokens of question, pictures and answer that are trained on
    image_tokens  tokens of one picture; LLaVA-1.5's
    count         how many tokens a text has
    """

    max_length: int = 2048
    image_tokens: int = 576
    count: Count = count_words

    def room(self, looked_at: LookedAt) -> int:
        """The tokens that are left for an answer."""
        pair = looked_at.pair
        asked = [pair.question, *(message.text for message in pair.history)]
        return self.max_length - len(pair.images) * self.image_tokens - sum(map(self.count, asked))

    def __call__(self, looked_at: LookedAt) -> Iterator[str]:
        """Both answers the same after they are cut, or nothing left of them."""
        pair = looked_at.pair
        room = self.room(looked_at)
        if room <= 0:
            yield f"pictures and question fill the {self.max_length} tokens: {shown(pair.question)}"
            return
        common = commonprefix((pair.chosen, pair.rejected))  # noqa: RUF071 # of texts
        # A token has a character at least.
        if pair.chosen != pair.rejected and len(common) >= room and self.count(common) > room:
            yield f"the same in their first {room} tokens: {shown(pair.chosen)}"


def truncation_check(truncation: Truncation) -> Check:
    """The check."""
    what = f"nothing but the same is left at {truncation.max_length} tokens"
    return Check("equal when cut", what, 0.0, truncation)
