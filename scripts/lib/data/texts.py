"""What can be seen of a text, by which two texts are told apart, and what may not stand in one."""

import re
import unicodedata

#: Unicode's Default_Ignorable_Code_Point (soft hyphen, zero-width blanks and joiners, directional
#: marks, variation selectors, tags, byte order mark) and the marks around annotations.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
#: Fillers, which are letters by name, and Braille's blank: they look like blanks.
_BLANK = re.compile("[\u115f\u1160\u3164\uffa0\u2800]")
#: Both sets of control characters but for tab and line feed; the separators of lines and of
#: paragraphs, at which programs break lines that are one; lone surrogates, which no file can hold.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
#: Tokens that steer LLaVA's language models; inside a prompt or an instruction they would no longer
#: be its text.
SPECIAL_TOKEN = re.compile(
    r"<image>|</?s>|<unk>|<pad>|<\|[^|\n]{1,40}\|>|\[/?INST\]|<</?SYS>>", re.IGNORECASE
)


def visible(text: str) -> str:
    """What can be seen of a text: without characters that show nothing, each run of blanks as one,
    in NFC. Texts that look the same give the same; "" for one that shows nothing.
    """
    seen = unicodedata.normalize("NFC", " ".join(_BLANK.sub(" ", _INVISIBLE.sub("", text)).split()))
    return text if seen == text else seen  # most are: a million prompts are held once, not twice


def control_character_in(text: str) -> str | None:
    """The first control character of a text, separator of lines or lone surrogate in it, in words;
    None where there is none.
    """
    if not (found := _CONTROL.search(text)):
        return None
    unnamed = "lone surrogate" if unicodedata.category(found[0]) == "Cs" else "control character"
    return f"the {unicodedata.name(found[0], unnamed).lower()} U+{ord(found[0]):04X}"
