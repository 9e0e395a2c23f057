"""Bootstrap intervals: how far a score would move if the benchmark had drawn other questions of the same kind."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: The share of resampled scores inside an interval.
COVERAGE = 0.95


def intervals(
    counts: Floats, scores: Callable[[Floats], Mapping[str, Floats]], *, samples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of scores that are functions of sums.

    counts    [unit, statistic]: what each unit (a question, an image with all its questions) adds to the sums
    scores    name -> [sample], from sums [sample, statistic]
    samples   how many resamples; 0 gives no intervals
    Units with equal counts are drawn together, as a multinomial: the same distribution, at a fraction of the work. A resample in which a
    score has no value (NaN: nothing to divide by) is left out of its interval.
    """
    if samples <= 0 or len(counts) == 0:
        return {}
    kinds, frequency = np.unique(counts, axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(counts), frequency / len(counts), size=samples)
    sums = drawn.astype(np.float64) @ kinds
    tail = 50 * (1 - COVERAGE)
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = scores(sums)
    found = {}
    for name, values in resampled.items():
        valid = values[np.isfinite(values)]
        if len(valid):
            low, high = np.percentile(valid, [tail, 100 - tail])
            found[name] = (float(low), float(high))
    return found
