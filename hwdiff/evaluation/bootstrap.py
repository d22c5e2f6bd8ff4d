"""The bootstrap over groups of lines: how an average varies with the lines that it is taken of."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
ENDS = (2.5, 97.5)  # of a 95 % interval, in per cent


def bootstrap_counts(groups: Sequence | np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """How often each line is drawn in each resample. Whole groups are drawn, as many as there are.

    groups: (n,) what belongs together, such as the form.
    Returns (resamples, n) int.
    """
    names, members = np.unique(np.asarray(groups), return_inverse=True)
    fractions = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), fractions, size=resamples)
    return drawn[:, members]


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    groups: Sequence | np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float, float] | None:
    """The difference of two averages over the same lines, the first less the second, and its 95 % interval.

    A resample draws groups of lines, each line with what both have for it, so that what makes it easy or hard
    for both drops out of the difference.

    first, second: (n, 2), a numerator and a denominator for each line. Their sums are divided: edits and
        characters give a micro-averaged rate, a value and 1 a mean. NaN where a line has none.
    groups: (n,) what is drawn as a whole, such as the lines of a form.
    Returns (difference, low, high); None when fewer than two groups have values.
    """
    first, second, groups = np.asarray(first), np.asarray(second), np.asarray(groups)
    known = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    first, second, groups = first[known], second[known], groups[known]
    if len(np.unique(groups)) < 2:
        return None
    counts = bootstrap_counts(groups, resamples, seed)
    low, high = np.percentile(_average(counts @ first) - _average(counts @ second), ENDS)
    difference = _average(first.sum(axis=0)) - _average(second.sum(axis=0))
    return float(difference), float(low), float(high)


def _average(sums):
    return sums[..., 0] / sums[..., 1]
