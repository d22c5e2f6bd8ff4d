"""The bootstrap over groups of lines: how an average varies with the lines that it is taken of."""

from collections.abc import Sequence

import numpy as np


def bootstrap_counts(groups: Sequence | np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """How often each line is drawn in each resample. Whole groups are drawn, as many as there are.

    groups: (n,) what belongs together, such as the form.
    Returns (resamples, n) int.
    """
    names, members = np.unique(np.asarray(groups), return_inverse=True)
    fractions = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), fractions, size=resamples)
    return drawn[:, members]
