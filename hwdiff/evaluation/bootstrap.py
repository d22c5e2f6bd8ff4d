"""The bootstrap over groups of lines: how an average varies with the lines that it is taken of."""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, stdtrit  # scipy.stats takes a second to load

RESAMPLES = 2000
COVERED = 0.95  # by an interval


class Bootstrap:
    """Resamples of lines. Whole groups are drawn, as many as there are.

    groups: how many there are.
    counts: (resamples, n) int, how often each line is drawn in each resample.
    """

    def __init__(self, groups: Sequence | np.ndarray, resamples: int = RESAMPLES, seed: int = 0):
        """groups: (n,) what belongs together, such as the form."""
        names, members = np.unique(np.asarray(groups), return_inverse=True)
        self.groups, fractions = len(names), np.full(len(names), 1 / len(names))
        drawn = np.random.default_rng(seed).multinomial(self.groups, fractions, size=resamples)
        self.counts = drawn[:, members]

    def interval(self, values: np.ndarray) -> np.ndarray:
        """The 95 % intervals of averages, by expanded percentiles (Hesterberg 2015).

        Plain percentiles make intervals of few groups too short: of ten groups, one interval in ten leaves
        out the truth instead of one in twenty. These are the percentiles with which that of a mean of normal
        numbers would be Student's. Below six groups it nearly ends at the least and the greatest value, and
        is still too short.

        values: (resamples, ...) the averages in each resample.
        Returns (2, ...), low and high; NaN for fewer than two groups or no resamples.
        """
        if self.groups < 2 or not len(values):
            return np.full((2, *values.shape[1:]), np.nan)
        students = stdtrit(self.groups - 1, (1 - COVERED) / 2)
        below = ndtr(np.sqrt(self.groups / (self.groups - 1)) * students)
        return np.quantile(values, (below, 1 - below), axis=0)


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
    names, members = np.unique(groups, return_inverse=True)
    drawn = Bootstrap(names, resamples, seed)  # the sums of groups take less memory than their lines
    of_groups = (
        np.stack([np.bincount(members, column) for column in one.T], axis=1) for one in (first, second)
    )
    resampled = [_average(drawn.counts @ sums) for sums in of_groups]
    low, high = drawn.interval(resampled[0] - resampled[1])
    difference = _average(first.sum(axis=0)) - _average(second.sum(axis=0))
    return float(difference), float(low), float(high)


def _average(sums):
    return sums[..., 0] / sums[..., 1]
