"""Bootstrap intervals: how far a score would move if the benchmark had drawn other questions of the
same kind.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: The share of resampled scores inside an interval.
COVERAGE = 0.95


def intervals(
    groups: Sequence[Floats],
    scores: Callable[[Sequence[Floats]], Mapping[str, Floats]],
    *,
    samples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of scores that are functions of sums.

    groups    each [unit, statistic]: what each unit (a question, an image with all its questions)
              adds to the sums; every group is resampled by itself, with as many units as it has
    scores    name -> [sample], from the groups' sums, each [sample, statistic]
    samples   how many resamples; 0 gives no intervals

    Units with equal statistics are drawn together, as a multinomial: the same distribution, at a
    fraction of the work. A resample in which a score has no value (NaN: nothing to divide by) is
    left out of its interval.
    """
    if samples <= 0:
        return {}
    generator = np.random.default_rng(seed)
    sums = []
    for group in groups:
        kinds, frequency = np.unique(group, axis=0, return_counts=True)
        times_drawn = generator.multinomial(len(group), frequency / len(group), size=samples)
        sums.append(times_drawn.astype(np.float64) @ kinds)
    tail = 50 * (1 - COVERAGE)
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = scores(sums)
    bounds = {}
    for name, values in resampled.items():
        valid = values[np.isfinite(values)]
        if len(valid):
            low, high = np.percentile(valid, [tail, 100 - tail])
            bounds[name] = (float(low), float(high))
    return bounds
