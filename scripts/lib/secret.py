"""Keys of endpoints: what shows one is not shown, and what holds one is not configured."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

HIDDEN = "***"
WITHHELD = "(not shown: it holds the key)"
#: Shorter keys are words that stand for none ("none", "EMPTY"); only the whole of one is hidden.
SHORTEST_KEY = 8
#: So many characters of a key are hidden wherever they stand in what a server says of itself.
SHORTEST_PIECE = 8
#: ... and in a model's answer this many, or half of the key if that is more: the words of a key
#: that stands for none ("local-development") may stand in an answer.
SHORTEST_PIECE_OF_ANSWER = 12

#: Names of what proves who asks, without blanks, dashes and underscores.
_SECRET_NAME = re.compile(
    r"auth|key|token|code|sig|.*cookies?|.*headers?|.*(?:apikey|accesskey|authkey|secretkey"
    r"|privatekey|subscriptionkey).*|.*authoriz.*|.*authentic.*|.*passw.*|passphrase|.*secret.*"
    r"|.*credential.*|.*bearer.*|.*(?:access|auth|api|id|refresh|session)token|signature"
)
#: Values that are keys by their look: those of the known servers, and what stands in the header.
_SECRET_VALUE = re.compile(
    r"(?:^|[^A-Za-z0-9])(?:sk-[\w-]{8,}|(?:gsk_|hf_|xai-|nvapi-|pplx-|ghp_|github_pat_|r8_|AIza)"
    r"[\w-]{12,}|(?:Bearer|Basic)\s+\S{6,})",
)
_VARIABLE = re.compile(r"[A-Za-z_]\w*")
#: A name that is a key: long, with digits, and no underscore between words.
_KEY_FOR_A_NAME = re.compile(r"(?=.*\d)[A-Za-z0-9]{20,}")

MEND = (
    "A configuration is shown and copied, so that no key may stand in it. Put the key into an"
    " environment variable, and name that one in `api_key_variable`"
)


class Secret:
    """The key of an endpoint, or none. Its text is in no message, not even in this object's."""

    def __init__(self, key: str | None) -> None:
        self._key = key or ""
        self._folded = _folded(self._key)

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    def redacted(self, text: str) -> str:
        """What a server says of itself, without the key and without longer pieces of it. Cut it
        afterwards: half a key would not be known any more.
        """
        if not self._key:
            return text
        shown = self._without_pieces(text, min(SHORTEST_PIECE, len(self._key)))
        return WITHHELD if self._is_disguised_in(shown) else shown

    def is_in(self, text: str) -> bool:
        """Whether a model's answer holds the key, or much of it."""
        if len(self._key) < SHORTEST_KEY:
            return False
        size = min(len(self._key), max(SHORTEST_PIECE_OF_ANSWER, len(self._key) // 2))
        return any(piece in text for piece in self._pieces(size)) or self._is_disguised_in(text)

    def _pieces(self, size: int) -> set[str]:
        return {self._key[start : start + size] for start in range(len(self._key) - size + 1)}

    def _without_pieces(self, text: str, size: int) -> str:
        pieces = self._pieces(size)
        shown, end = [], 0  # `end`: of what was looked at
        start = 0
        while start < len(text):
            if text[start : start + size] not in pieces:
                start += 1
                continue
            shown += [text[end:start], HIDDEN]
            end = start + size
            while end < len(text) and text[end - size + 1 : end + 1] in pieces:
                end += 1
            start = end
        return "".join([*shown, text[end:]])

    def _is_disguised_in(self, text: str) -> bool:
        """Whether the key is there in other letters: escaped, spaced out, in capitals."""
        return len(self._folded) >= SHORTEST_KEY and self._folded in _folded(text)


def _folded(text: str) -> str:
    """A text's letters and digits, small, whatever escapes of JSON and URLs they stand in."""
    plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    return re.sub(r"[\W_]+", "", unquote(plain)).casefold()


def shows_a_key(text: str) -> bool:
    """Whether a text looks like a key, or like an address with one in it."""
    return bool(_SECRET_VALUE.search(text) or re.search(r"://[^/\s]*@|[?&#]\S*=", text))


def key_in(settings: Mapping[str, Any]) -> str | None:
    """Where the raw settings of an endpoint hold a key, or what looks like one, in words without
    it; None where they hold none. Errors: ValueError for a `base_url` that is no URL.
    """
    variable = settings.get("api_key_variable")
    if isinstance(variable, str) and not _is_a_variable(variable):
        return "`api_key_variable` is not the name of an environment variable, but maybe a key"
    for name in settings:
        if name != "api_key_variable" and _is_secret_name(name):
            return f"`{name}` is what a key would stand in"
    if isinstance(url := settings.get("base_url"), str) and (problem := _problem_with_url(url)):
        return f"`base_url` holds {problem}"
    for name, value in _leaves(settings.get("parameters"), "parameters"):
        if _is_secret_name(name.rpartition(".")[2]):
            return f"`{name}` is what a key would stand in"
        if isinstance(value, str) and _SECRET_VALUE.search(value):
            return f"`{name}` looks like a key"
    return None


def _is_a_variable(name: str) -> bool:
    return bool(_VARIABLE.fullmatch(name)) and not (
        _SECRET_VALUE.search(name) or _KEY_FOR_A_NAME.fullmatch(name)
    )


def _is_secret_name(name: Any) -> bool:
    return bool(_SECRET_NAME.fullmatch(re.sub(r"[\W_]+", "", str(name)).casefold()))


def _problem_with_url(url: str) -> str | None:
    """What of a URL proves who asks, in words without it. Errors: ValueError for no URL at all,
    without it, too.
    """
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        is_address = url.isprintable() and " " not in url and (parts.port or 1) and parts.hostname
    except ValueError:
        is_address = False
    if not is_address:
        raise ValueError("`base_url` is not an address such as https://api.openai.com/v1")
    if "@" in unquote(parts.netloc):
        return "a name or password (`@`)"
    for name, value in parse_qsl(f"{parts.query}&{parts.fragment}", keep_blank_values=True):
        if _is_secret_name(name):
            return f"`{name}=`"
        if _SECRET_VALUE.search(value) or _SECRET_VALUE.search(name):
            return "what looks like a key"
    return "what looks like a key" if _SECRET_VALUE.search(unquote(parts.path)) else None


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """All values in lists and mappings with their dotted names; of what stands under a name that is
    secret itself, the whole. A mapping inside of another describes (a JSON schema has properties of
    any name).
    """
    if isinstance(value, Mapping):
        for key, part in value.items():
            inner = f"{name}.{key}"
            is_described = isinstance(part, Mapping) and "." in name
            if _is_secret_name(key) and not is_described:
                yield inner, part
            else:
                yield from _leaves(part, inner)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part, name)
    else:
        yield name, value
