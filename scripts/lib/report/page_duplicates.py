"""The prompts of a run that are most alike, by the words that they share: what the report's page on
quality lists of near duplicates, whether or not a check finds them too near.
"""

import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

#: Pairs that are listed.
SHOWN = 10
#: Prompts that are compared with all others; more are drawn from, by their ids' order.
MOST = 20_000
#: Rows that are compared at once.
BLOCK = 500
#: A word in more prompts than this share tells nothing of two.
COMMON = 0.5


def most_alike(prompts: Mapping[str, str]) -> list[tuple[float, str, str]]:
    """The pairs of prompts that are most alike, each prompt with its nearest: the cosine of their
    words' vectors (a word weighs more the fewer prompts have it) and both ids. `prompts`: texts by
    id.
    """
    from scipy.sparse import csr_array

    names = sorted(prompts)[:: -(-len(prompts) // MOST) or 1]
    words = [set(re.findall(r"\w+", prompts[name].lower())) for name in names]
    frequency = Counter(word for each in words for word in each)
    most = min(max(COMMON * len(names), 2), len(names) - 1)
    weights = {
        word: np.log(len(names) / count) for word, count in frequency.items() if count <= most
    }
    columns = {word: column for column, word in enumerate(sorted(weights))}
    entries = [
        (row, columns[word], weights[word])
        for row, each in enumerate(words)
        for word in sorted(each & columns.keys())
    ]
    if not entries:
        return []
    rows, places, values = (np.array(each) for each in zip(*entries, strict=True))
    lengths = np.sqrt(np.bincount(rows, values**2, len(names)))
    vectors = csr_array((values / lengths[rows], (rows, places)), (len(names), len(columns)))
    nearest: dict[tuple[int, int], float] = {}
    for first in range(0, len(names), BLOCK):
        alike = (vectors[first : first + BLOCK] @ vectors.T).toarray()
        own = np.arange(len(alike))
        alike[own, first + own] = 0
        best = alike.argmax(axis=1)
        for row, other in enumerate(best):
            if alike[row, other] > 0:
                pair = tuple(sorted((first + row, int(other))))
                nearest[pair[0], pair[1]] = float(alike[row, other])
    ordered = sorted(nearest.items(), key=lambda each: (-round(each[1], 6), each[0]))
    return [(round(value, 3), names[one], names[other]) for (one, other), value in ordered[:SHOWN]]
