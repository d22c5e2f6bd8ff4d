"""Mean and standard deviation over the seeds, as two cells of a table for people."""

from collections.abc import Sequence

import numpy as np

MEAN, SD = ", mean", ", sd"  # what ends the names of two cells that belong together


def mean_sd(values: Sequence[float | None]) -> tuple[float, float]:
    """Mean and standard deviation of the values that there are; NaN where there are too few."""
    values = np.asarray([value for value in values if value is not None], dtype=float)
    mean = values.mean() if len(values) else np.nan
    return mean, values.std(ddof=1) if len(values) > 1 else np.nan


def spread(name: str, values: Sequence[float | None]) -> dict[str, float]:
    """Mean and standard deviation of some values as two cells of a table for people; NaN without values.

    The page of a run shows the two as one, by their names.
    """
    mean, sd = mean_sd(values)
    return {name + MEAN: mean, name + SD: sd}
