"""The Geometry Score of real lines against real ones: what it is where nothing was written.

The paper's Table 1 has 5.4e-4 for it, of one drawing of the two sets, and leaves open whether the pen flag is
part of a point. Here both are looked at, and how the score varies with the drawing and with the number of
repetitions.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from hwdiff.data.dataset import Dataset
from hwdiff.evaluation import geometry
from hwdiff.evaluation.measures import points
from hwdiff.evaluation.sets import Sets, real_inks

SPACES = {"offsets and pen flag": True, "offsets alone": False}
FRACTIONS = (0.1, 0.3, 1.0)  # of the repetitions, to see what more of them change


def geometry_floor(
    dataset: Dataset,
    split: str,
    count: int,
    seeds: Sequence[int],
    *,
    repetitions: int = geometry.REPETITIONS,
    workers: int = -1,
    progress: Callable[[int], None] | None = None,
) -> list[dict]:
    """Geometry Scores of two disjoint sets of real lines.

    count: lines of each set.   seeds: each draws two sets, and other landmarks for each of them.
    repetitions: sets of landmarks (n); scores of fewer are those of the first of them.
    workers: of `geometry.mrlt`.
    progress(count): called after so many sets of lines; of each drawing there are four.
    Returns rows {"points", "seed", "repetitions", "score", "by_landmarks", "beyond_i_max"}. by_landmarks is
    the mean score if the clouds did not differ, from the spread over sets of landmarks; None of one set.
    Raises HwdiffError when the split is too small.
    """
    rows = []
    landmarks = min(geometry.LANDMARKS, count // 2)
    for seed in seeds:
        sets = Sets.draw(dataset, split, count=count, seed=seed)
        inks = [real_inks(dataset, some) for some in (sets.first, sets.second)]
        for name, with_pen in SPACES.items():
            found = []
            for number, some in enumerate(inks):
                space = points(some, with_pen=with_pen)
                options = {"seed": (seed, number), "landmarks": landmarks, "workers": workers}
                found.append(geometry.mrlt(space, repetitions, **options))
                if progress:
                    progress(1)
            for n in sorted({max(1, round(fraction * repetitions)) for fraction in FRACTIONS}):
                few = [replace(one, values=one.repetitions[:n].mean(axis=0)) for one in found]
                noise = (
                    sum(one.repetitions[:n].var(axis=0, ddof=1).sum() for one in found) / n if n > 1 else None
                )
                rows.append(
                    {
                        "points": name,
                        "seed": seed,
                        "repetitions": n,
                        "score": geometry.geometry_score(*few),
                        "by_landmarks": noise and float(noise),
                        "beyond_i_max": max(one.beyond for one in found),
                    }
                )
    return rows


def floor_text(rows: Sequence[dict]) -> str:
    """Rows of `geometry_floor` as a table: mean, standard deviation and range over the drawings."""
    lines = ["points                  n     drawings  by landmarks alone x 1000  score x 1000"]
    for key in dict.fromkeys((row["points"], row["repetitions"]) for row in rows):
        some = [row for row in rows if (row["points"], row["repetitions"]) == key]
        scores, noise = (
            1000 * np.array([row[name] for row in some], dtype=float) for name in ("score", "by_landmarks")
        )
        alone = "-" if np.isnan(noise).any() else f"{noise.mean():.3f}"
        spread = f" ± {scores.std(ddof=1):.3f}" if len(scores) > 1 else ""
        name, n = key
        lines.append(
            f"{name:22}  {n:4}  {len(scores):8}  {alone:>25}  {scores.mean():.3f}{spread} "
            f"({scores.min():.3f} to {scores.max():.3f})"
        )
    return "\n".join(lines)
