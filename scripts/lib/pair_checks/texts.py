"""Checks of a pair's texts, each by itself."""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from lib.data.texts import SPECIAL_TOKEN, control_character_in, visible
from lib.pair_checks.base import Check, LookedAt, shown, texts_of
from lib.response_checks import repeats, repeats_sentences

#: A phrase or sentence may stand so often, as in the configuration's default for responses.
REPEATS_ALLOWED = 3
#: A side of fewer letters is near-empty where the other has ten times as many.
NEAR_EMPTY = 5
#: Answers that are short on purpose.
_SHORT_ANSWER = re.compile(r"(yes|no|none|true|false|[a-d]|[\d.,:%]+)\W*", re.IGNORECASE)
#: So much of a text's end is shown.
SHOWN_END = 40
#: A text of so many words that does not end as sentences, lists and quotations do was cut.
LONG = 40
_END = re.compile(r"""[.!?…:;。！？…»”"'’)\]}*`|_>-]\s*$|[\U0001f300-\U0001faff]\ufe0f?\s*$""")
#: A sentence, or an item of a list, of more words is none.
LONGEST_SENTENCE = 100
_PIECES = re.compile(r"[.!?:;\n。！？：；]")
_LIST_ITEM = re.compile(r"\s*(?:[-*•]|\d+[.)])\s")
_REFUSAL = re.compile(
    # ’ is what models write as well as '.
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|\bi(?: am|['’]m) (?:not able|unable) to (?:see|view|open|process|access|assist|help|provide|"
    r"answer|identify|analy[sz]e|comply|fulfil)"
    r"|\bi (?:can['’]?t|cannot|can not|won['’]t|am not going to) (?:assist|help|provide|answer|"
    r"comply|fulfil|process|identify|analy[sz]e|access|discuss|do (?:that|this)|"
    r"(?:see|view) (?:the |this |any )?(?:images?|pictures?|photos?))"
    r"|\bi (?:do not|don['’]t) have (?:access to|the (?:ability|capability))"
    r"|^\W*(?:i['’]m |i am )?(?:very |so |really )?sorry,? (?:but |i )"
    r"|^\W*(?:es tut mir leid, (?:aber|ich)|je suis désolée?, mais|lo siento, pero|很?抱歉|对不起)",
    re.IGNORECASE,
)
#: Of models that this workflow does not use: Gemma, DeepSeek, BERT.
_OTHER_TOKEN = re.compile(
    r"<(?:bos|eos|start_of_turn|end_of_turn)>|<｜[^｜\n]{1,40}｜>|\[(?:CLS|SEP|PAD|MASK)\]"
)
#: A refusal is what an answer begins with.
_BEGINNING = 200
_TEMPLATE = re.compile(
    r"^\s*(?:###\s*)?(?:USER|ASSISTANT|Human|Assistant|SYSTEM|Instruction|Response)\s*:|"
    r"\bASSISTANT:|\bUSER:|^#{2,3} ?(?:Human|Assistant|Instruction|Response)\b|"
    r"\{(?:instruction|question|prompt|input)\}",
    re.MULTILINE,
)
#: A question, or the prompt of its picture, of fewer characters may well stand in an answer.
_LEAK = 25

Problem = Callable[[str], str | None]


def of_sides(problem: Problem) -> Callable[[LookedAt], Iterator[str]]:
    """Looks at both answers in turn."""

    def find(looked_at: LookedAt) -> Iterator[str]:
        for side, text in texts_of(looked_at.pair).items():
            if found := problem(text):
                yield f"{side}: {found}"

    return find


def of_all_texts(problem: Problem) -> Callable[[LookedAt], Iterator[str]]:
    """Looks at the question and both answers in turn."""
    sides = of_sides(problem)

    def find(looked_at: LookedAt) -> Iterator[str]:
        if found := problem(looked_at.pair.question):
            yield f"question: {found}"
        yield from sides(looked_at)

    return find


@lru_cache(maxsize=4)
def letters(text: str) -> int:
    """How many letters and digits a text has."""
    return sum(map(str.isalnum, text))


def empty_question(looked_at: LookedAt) -> Iterator[str]:
    """A question without a letter."""
    if not letters(looked_at.pair.question):
        yield shown(looked_at.pair.question)


def empty(looked_at: LookedAt) -> Iterator[str]:
    """An answer without a letter or digit."""
    for side, text in texts_of(looked_at.pair).items():
        if not letters(text):
            yield f"{side}: {shown(text)}"


def near_empty(looked_at: LookedAt) -> Iterator[str]:
    """An answer of a letter or four beside a long one, but for yes, no and numbers."""
    pair = looked_at.pair
    longest = max(letters(pair.chosen), letters(pair.rejected))
    for side, text in texts_of(pair).items():
        count = letters(text)
        is_short = 0 < count < NEAR_EMPTY and longest >= 10 * count
        if is_short and not _SHORT_ANSWER.fullmatch(text.strip()):
            yield f"{side}: {shown(text)}"


def equal(looked_at: LookedAt) -> Iterator[str]:
    """Both answers the same."""
    if looked_at.pair.chosen == looked_at.pair.rejected:
        yield shown(looked_at.pair.chosen)


def looks_equal(looked_at: LookedAt) -> Iterator[str]:
    """Both answers the same but for blanks, and characters that show nothing."""
    pair = looked_at.pair
    if pair.chosen != pair.rejected and visible(pair.chosen) == visible(pair.rejected):
        yield shown(pair.chosen)


def repetition(text: str) -> str | None:
    """An answer caught in a loop."""
    folded = text.casefold()
    words = re.findall(r"\w+", folded)
    if repeats(words, REPEATS_ALLOWED) or repeats_sentences(folded, REPEATS_ALLOWED):
        return f"{len(words)} words, the end {shown(text[-SHOWN_END:])}"
    return None


def unfinished(text: str) -> str | None:
    """A long answer that stops in the middle of a sentence."""
    last = text.rstrip().rpartition("\n")[2]
    if len(text.split()) < LONG or _END.search(text) or _LIST_ITEM.match(last):
        return None
    return f"ends with {shown(text[-SHOWN_END:])}"


def run_on(text: str) -> str | None:
    """A sentence without an end."""
    longest = max((len(piece.split()) for piece in _PIECES.split(text)), default=0)
    return f"{longest} words without a stop" if longest > LONGEST_SENTENCE else None


def refusal(text: str) -> str | None:
    """An answer that begins with not answering."""
    found = _REFUSAL.search(text[:_BEGINNING])
    return shown(text[found.start() :]) if found else None


def template(text: str) -> str | None:
    """Words of a chat template in a text."""
    found = _TEMPLATE.search(text)
    return shown(text[found.start() :]) if found else None


def leaked_prompt(looked_at: LookedAt) -> Iterator[str]:
    """The question, or the prompt of the picture, said again in an answer."""
    pair = looked_at.pair
    for name, said in (("question", pair.question), ("picture's prompt", pair.prompt)):
        for side, text in texts_of(pair).items():
            if len(said) >= _LEAK and said in text:
                yield f"{side}: has the {name}, {shown(said)}"


def special_token(text: str) -> str | None:
    """A token that steers a language model."""
    found = SPECIAL_TOKEN.search(text) or _OTHER_TOKEN.search(text)
    return shown(found[0]) if found else None


TEXT_CHECKS = (
    Check("empty question", "nothing is asked", 0.0, empty_question),
    Check("empty", "an answer without a letter or digit", 0.0, empty),
    Check("near-empty", "an answer of one to four letters beside a long one", 0.0, near_empty),
    Check("equal", "chosen and rejected are the same", 0.0, equal),
    Check("looks equal", "... the same but for blanks", 0.0, looks_equal),
    Check("repetition", "a phrase or sentence again and again", 0.0, of_sides(repetition)),
    Check("unfinished", "a long answer cut in mid-sentence", 0.02, of_sides(unfinished)),
    Check("run-on", "a sentence of over a hundred words", 0.01, of_sides(run_on)),
    Check("refusal", "an answer that refuses to answer", 0.01, of_sides(refusal)),
    Check("template", "words of a chat template in a text", 0.0, of_all_texts(template)),
    Check(
        "leaked prompt", "the question or the picture's prompt in an answer", 0.01, leaked_prompt
    ),
    Check(
        "special token", "a token that steers a model in a text", 0.0, of_all_texts(special_token)
    ),
    Check(
        "control character",
        "a control character, or half of one, in a text",
        0.0,
        of_all_texts(control_character_in),
    ),
)
