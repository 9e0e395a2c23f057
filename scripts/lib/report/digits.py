"""Numbers that stand side by side, with the digits that tell them apart."""

from collections.abc import Sequence

#: What differs in later digits only is the same number, computed in another order.
SIGNIFICANT = 12
MOST_DECIMALS = 15


def told_apart(values: Sequence[float], decimals: int) -> list[str]:
    """The values, all with the same number of decimals: at least so many, and as many as it takes
    to show different values differently, so that nobody wonders why one of three "1.29" won.
    """
    different = len({f"{value:.{SIGNIFICANT}g}" for value in values})
    for digits in range(decimals, MOST_DECIMALS):
        shown = [f"{value:.{digits}f}" for value in values]
        if len(set(shown)) >= different:
            return shown
    return [f"{value:.{MOST_DECIMALS}f}" for value in values]
