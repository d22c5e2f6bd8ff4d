"""The Geometry Score (Khrulkov & Oseledets 2018): how alike the holes of two clouds of points are.

The conventions are those of its authors' program, since every published number comes from it: landmarks are
drawn with replacement, and distances are plain where GUDHI's documentation asks for squared ones.
"""

from collections.abc import Callable
from dataclasses import dataclass

import gudhi
import numpy as np
from joblib import delayed
from scipy.spatial.distance import cdist

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.parallel import in_parallel

I_MAX = 100
LANDMARKS = 64
REPETITIONS = 1000
CORNERS = 3  # of the largest simplex, a triangle: holes of dimension 1 need no more
_CHUNK = 8  # repetitions that a worker is handed at a time


@dataclass
class Relative:
    """Relative living times of one witness complex.

    values: (i_max,) fraction of [0, alpha_max] in which exactly i holes live.
    beyond: the fraction with i_max holes or more, which `values` lacks.
    alpha_max: where the complex ends.
    """

    values: np.ndarray
    beyond: float
    alpha_max: float


@dataclass
class Mean:
    """Mean relative living times.

    values: (i_max,) the mean over the complexes.
    beyond: mean fraction with i_max holes or more.
    repetitions: (n, i_max) of each complex.
    width: d of the points.
    """

    values: np.ndarray
    beyond: float
    repetitions: np.ndarray
    width: int


def as_points(X: np.ndarray, landmarks: int = 1, name: str = "X") -> np.ndarray:
    """X as (N, d) float64.

    Raises HwdiffError when it is no cloud of at least `landmarks` points that are not all the same.
    """
    X = np.asarray(X)
    if X.ndim != 2 or X.dtype.kind not in "fiu" or not X.shape[1]:
        raise HwdiffError(
            f"{name}: an array of shape {X.shape} and type {X.dtype}; numbers of shape (N, d) are needed"
        )
    if len(X) < max(2, landmarks):
        needed = f"at least {max(2, landmarks)} are needed for {landmarks} landmarks"
        raise HwdiffError(f"{name}: {len(X)} points; {needed}")
    X = X.astype(np.float64)
    if not np.isfinite(X).all():
        bad = np.sum(~np.isfinite(X).all(axis=1))
        raise HwdiffError(f"{name}: {bad} of {len(X)} points hold numbers that are not finite")
    if not np.ptp(X, axis=0).any():
        raise HwdiffError(f"{name}: all {len(X)} points are the same, so there is no geometry to compare")
    return X


def distances(X: np.ndarray) -> np.ndarray:
    """Euclidean distances (N, N) of the points X (N, d), by one matrix product."""
    X = X - X.mean(axis=0)
    squares = np.einsum("ij,ij->i", X, X)
    squared = X @ X.T
    squared *= -2
    squared += squares[:, None]
    squared += squares
    # The product loses all digits of a distance that is small beside the points' own size.
    close_i, close_j = np.nonzero(squared < 1e-6 * (squares[:, None] + squares))
    for start in range(0, len(close_i), 4096):
        i, j = close_i[start : start + 4096], close_j[start : start + 4096]
        squared[i, j] = np.square(X[i] - X[j]).sum(axis=1)
    return np.sqrt(squared, out=squared)


def rlt(
    X: np.ndarray,
    landmarks: int | np.ndarray = LANDMARKS,
    *,
    gamma: float | None = None,
    i_max: int = I_MAX,
    seed: int = 0,
) -> Relative:
    """Relative living times of one witness complex.

    X: (N, d) the points.
    landmarks: their number, drawn by `seed`, or their indices (L,).
    gamma: alpha_max as a fraction of the largest distance from a landmark to a point, by default
        N / (128 * 5000).
    i_max: so many holes or more are not told apart.
    Raises HwdiffError when X or the landmarks cannot be used.
    """
    count = landmarks if np.ndim(landmarks) == 0 else len(landmarks)
    _check_counts(count, i_max)
    X = as_points(X, count)
    if np.ndim(landmarks) == 0:
        landmarks = np.random.default_rng(seed).choice(len(X), landmarks)
    landmarks = np.asarray(landmarks)
    if landmarks.dtype.kind not in "iu" or landmarks.min() < 0 or landmarks.max() >= len(X):
        raise HwdiffError(f"landmarks: indices from 0 to {len(X) - 1} are needed")
    return _living_times(cdist(X, X[landmarks]), _gamma(gamma, len(X)), i_max)


def mrlt(
    X: np.ndarray,
    n: int = REPETITIONS,
    *,
    seed: int | tuple[int, ...] = 0,
    landmarks: int = LANDMARKS,
    gamma: float | None = None,
    i_max: int = I_MAX,
    workers: int = -1,
    progress: Callable[[int], None] | None = None,
) -> Mean:
    """Mean relative living times of points over n sets of landmarks.

    X: (N, d) the points.
    seed: repetition i draws its landmarks by (seed, i). The result does not depend on the number of workers,
        nor are the first repetitions of a longer run others than those of a shorter one.
    landmarks: how many.
    workers: of joblib, -1 for one a core. Under `joblib.parallel_config` any of its backends (Dask, Ray).
    progress(count): repetitions done since the last call.
    The other arguments as for `rlt`. Raises HwdiffError when X cannot be used.
    """
    X = as_points(X, landmarks)
    if n < 1:
        raise HwdiffError(f"n = {n}: at least one repetition is needed")
    _check_counts(landmarks, i_max)
    table, gamma = distances(X), _gamma(gamma, len(X))
    chunks = (range(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK))
    jobs = (delayed(_repeat)(table, numbers, seed, landmarks, gamma, i_max) for numbers in chunks)
    found = []
    for some in in_parallel(jobs, workers):
        found += some
        if progress:
            progress(len(some))
    values = np.stack([one.values for one in found])
    return Mean(values.mean(axis=0), float(np.mean([one.beyond for one in found])), values, X.shape[1])


def geometry_score(first: Mean, second: Mean) -> float:
    """The Geometry Score: the sum of squared differences.

    Raises HwdiffError when i_max or the widths differ.
    """
    if first.values.shape != second.values.shape:
        found = f"i_max {len(first.values)} and {len(second.values)}"
        raise HwdiffError(f"geometry score: {found}; compute both with the same")
    if first.width != second.width:
        found = f"of points with {first.width} and with {second.width} dimensions"
        raise HwdiffError(f"geometry score: {found}; both must be of one space")
    return float(np.square(first.values - second.values).sum())


def default_gamma(points: int) -> float:
    """The authors' choice for a cloud of so many points: alpha_max as a fraction of the largest distance."""
    return points / (128 * 5000)


def _gamma(gamma, points):
    gamma = default_gamma(points) if gamma is None else gamma
    if not 0 < gamma < np.inf:
        raise HwdiffError(f"gamma = {gamma}: must be above 0")
    return gamma


def _check_counts(landmarks, i_max):
    if landmarks < 1 or i_max < 1:
        raise HwdiffError(f"landmarks = {landmarks}, i_max = {i_max}: both must be at least 1")


def _repeat(table, numbers, seed, landmarks, gamma, i_max):
    # With replacement, as in the authors' program.
    drawn = (np.random.default_rng((seed, number)).choice(len(table), landmarks) for number in numbers)
    # The table is symmetric, and its rows are read far faster than its columns.
    return [_living_times(np.ascontiguousarray(table[some].T), gamma, i_max) for some in drawn]


def nearest_landmarks(table: np.ndarray, alpha_max: float) -> list[list[tuple[int, float]]]:
    """What GUDHI needs to see of the distances from points to landmarks.

    table: (N, L).
    alpha_max: where the complex ends.
    Returns (landmark, distance) for each point, nearest first.

    A point witnesses a simplex whose farthest corner is no more than alpha_max farther away than the nearest
    landmark that it leaves out. A simplex of at most three corners with one beyond the third nearest landmark
    leaves out one of the first three. So no corner is farther than the third by more than alpha_max.
    """
    third = min(table.shape[1], CORNERS) - 1
    bound = np.partition(table, third, axis=1)[:, third, None] + alpha_max
    counts = (table <= bound).sum(axis=1)
    widest = counts.max()
    near = np.argpartition(table, widest - 1, axis=1)[:, :widest]
    near.sort(axis=1)  # of landmarks equally far the lower number comes first, as by a stable sort of all
    order = np.argsort(np.take_along_axis(table, near, axis=1), axis=1, kind="stable")
    near = np.take_along_axis(near, order, axis=1)
    lengths = np.take_along_axis(table, near, axis=1)
    pairs = list(zip(near.ravel().tolist(), lengths.ravel().tolist(), strict=True))
    starts = range(0, len(pairs), widest)
    return [pairs[start : start + count] for start, count in zip(starts, counts.tolist(), strict=True)]


def _living_times(table, gamma, i_max):
    alpha_max = gamma * table.max()
    if not alpha_max > 0:
        raise HwdiffError(
            "geometry score: all landmarks lie where all points are, so there is no distance to compare with"
        )
    complex_ = gudhi.WitnessComplex(nearest_landmark_table=nearest_landmarks(table, alpha_max))
    tree = complex_.create_simplex_tree(max_alpha_square=alpha_max, limit_dimension=CORNERS - 1)
    tree.compute_persistence(homology_coeff_field=2, persistence_dim_max=False)
    holes = tree.persistence_intervals_in_dimension(1)
    return Relative(*_fractions(holes, alpha_max, i_max), float(alpha_max))


def _fractions(holes, alpha_max, i_max):
    """Fractions of [0, alpha_max] in which 0, ..., i_max - 1 of `holes` (n, 2) live, and in which more do."""
    values = np.zeros(i_max)
    holes = np.asarray(holes).reshape(-1, 2)
    births, deaths = holes[:, 0], np.minimum(holes[:, 1], alpha_max)
    times = np.unique(np.concatenate(([0, alpha_max], births, deaths)))
    lengths = np.diff(times)
    alive = ((births <= times[:-1, None]) & (deaths > times[:-1, None])).sum(axis=1)
    within = alive < i_max
    np.add.at(values, alive[within], lengths[within] / alpha_max)
    return values, float(lengths[~within].sum() / alpha_max)
