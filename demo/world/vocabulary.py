"""The words that the world's tokenizers know as one token each; any other text is spelt out in
smaller pieces.
"""

from world.scenes import BACKGROUNDS, CELLS, COLOURS, KINDS
from world.words import DESCRIBE, NUMBERS, PLURALS

#: What questions, benchmarks and chat templates are made of, beyond the words for scenes.
FURTHER = """
Is there a in the image shape shapes Yes No How many are What color background Answer question
using single word or phrase please USER ASSISTANT INST A chat between curious human and an
artificial intelligence assistant The gives helpful detailed polite answers to system user
assistant left right top bottom of above below middle only nothing true It was show
"""


def vocabulary() -> tuple[str, ...]:
    """Every word once, as written and in small letters, in a fixed order."""
    texts = [
        *COLOURS,
        *KINDS,
        *PLURALS.values(),
        *NUMBERS.values(),
        *BACKGROUNDS,
        *CELLS,
        "on and",
        *DESCRIBE,
        FURTHER,
    ]
    words = [word.strip(".?") for text in texts for word in text.split()]
    words += [number.capitalize() for number in NUMBERS.values()]
    return tuple(dict.fromkeys([*words, *(word.lower() for word in words)]))
