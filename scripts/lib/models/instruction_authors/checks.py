"""What an instruction must be, whoever wrote it."""

import re
import unicodedata

from lib.data.texts import SPECIAL_TOKEN, control_character_in, visible

#: The answering models see the image only; an instruction must not send them to a text that they do
#: not have.
MENTIONS_THE_PROMPT = re.compile(
    r"\b(?:the|this|that|given|above|provided|your)\s+(?:(?:given|above|provided|original|image|text|text-to-image)\s+)?"
    r"(?:description|prompt|caption)\b",
    re.IGNORECASE,
)
NAMES_THE_IMAGE = re.compile(
    r"\b(?:images?|pictures?|photos?|photographs?|scenes?|paintings?|drawings?|illustrations?)\b"
)
SHORTEST_COPY = 6
#: Words that stand in every question; sharing them with the prompt says nothing.
COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        "what which where when does have this that these those they them their there with from into"
        " over under about each many much more most some other than then while would could should"
        " will your being been were also only very both between",
    )
)


def unwrapped(text: str) -> str:
    """A text without a pair of quotation or emphasis marks around all of it."""
    for left, right in (('"', '"'), ("“", "”"), ("'", "'"), ("**", "**"), ("*", "*")):
        inside = text[len(left) : -len(right)]
        if (
            text.startswith(left)
            and text.endswith(right)
            and inside
            and left not in inside
            and right not in inside
        ):
            text = inside.strip()
    return text


def clean(answer: str) -> str:
    """An LLM's answer without what surrounds the question: blanks, quotation marks, a label such as
    "Question:".
    """
    text = unwrapped(unicodedata.normalize("NFC", answer.strip()))
    return unwrapped(re.sub(r"^(?:question|instruction)\s*:\s*", "", text, flags=re.IGNORECASE))


def problem_with(instruction: str, require_question: bool) -> str | None:
    """What is wrong with an instruction, whoever wrote it; None for a good one."""
    if not re.search(r"\w", visible(instruction)):
        return "it is empty"
    if token := SPECIAL_TOKEN.search(instruction):
        return f"it holds the special token '{token[0]}'"
    if control := control_character_in(instruction):
        return f"it holds {control}"
    if require_question and not re.search(r"[?？؟]", instruction):
        return "it has no question mark"
    return None


def problem_with_answer(
    instruction: str, prompt: str, finish_reason: str, require_question: bool
) -> str | None:
    """What is wrong with an instruction that an LLM wrote about the image of a prompt; None for a
    good one.
    """
    if finish_reason == "length":
        return "it was cut off at `max_new_tokens`"
    if problem := problem_with(instruction, require_question):
        return problem
    if "\n" in instruction:
        return "it has more than one line"
    if mention := MENTIONS_THE_PROMPT.search(instruction):
        return f"it speaks of '{mention[0]}', which the answering models do not see"
    words, prompt_words = _words(instruction), _words(prompt)
    if words == prompt_words or (
        len(prompt_words) >= SHORTEST_COPY
        and f" {' '.join(prompt_words)} " in f" {' '.join(words)} "
    ):
        return "it repeats the prompt"
    if not _is_about(words, prompt_words):
        return "it is not about the image: it neither names it nor shares a word with its prompt"
    return None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _is_about(words: list[str], prompt_words: list[str]) -> bool:
    """Whether a question names the image, or shares with the prompt a word (or its first five
    letters) that not all questions have.
    """
    stems = [
        {word[:5] for word in group if len(word) > 3 and word not in COMMON_WORDS}
        for group in (words, prompt_words)
    ]
    # Scripts that put no blanks between words, and prompts of short words only, are not judged.
    return (
        not stems[1]
        or not " ".join(words).isascii()
        or bool(stems[0] & stems[1])
        or bool(NAMES_THE_IMAGE.search(" ".join(words)))
    )
