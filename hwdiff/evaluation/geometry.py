"""The Geometry Score (Khrulkov & Oseledets 2018): how alike the holes of two clouds of points are, seen through witness complexes.

The conventions are those of its authors' program, since every published figure comes from it: landmarks drawn with replacement, and plain
distances where GUDHI's documentation asks for squared ones.
"""

from dataclasses import dataclass

import gudhi
import numpy as np
from joblib import Parallel, delayed
from scipy.spatial.distance import cdist

from hwdiff.utils.errors import HwdiffError

I_MAX = 100
LANDMARKS = 64
REPETITIONS = 1000
CORNERS = 3  # of the largest simplex, a triangle: holes of dimension 1 need no more
_CHUNK = 8  # repetitions that a worker is handed at a time


@dataclass
class Relative:
    """Relative living times of one witness complex. values: (i_max,) fraction of [0, alpha_max] in which exactly i holes live.

    beyond: the fraction with i_max holes or more, which `values` lacks.   alpha_max: where the complex ends.
    """

    values: np.ndarray
    beyond: float
    alpha_max: float


@dataclass
class Mean:
    """Mean relative living times.

    values: (i_max,).   beyond: mean fraction with i_max holes or more.   repetitions: (n, i_max) of each complex.   width: d of the points.
    """

    values: np.ndarray
    beyond: float
    repetitions: np.ndarray
    width: int


def as_points(X, landmarks=1, name="X"):
    """X as (N, d) float64. Raises HwdiffError when it is no cloud of at least `landmarks` points that are not all the same."""
    X = np.asarray(X)
    if X.ndim != 2 or X.dtype.kind not in "fiu" or not X.shape[1]:
        raise HwdiffError(f"{name}: an array of shape {X.shape} and type {X.dtype}; numbers of shape (N, d) are needed")
    if len(X) < max(2, landmarks):
        raise HwdiffError(f"{name}: {len(X)} points; at least {max(2, landmarks)} are needed for {landmarks} landmarks")
    X = X.astype(np.float64)
    if not np.isfinite(X).all():
        raise HwdiffError(f"{name}: {np.sum(~np.isfinite(X).all(axis=1))} of {len(X)} points hold numbers that are not finite")
    if not np.ptp(X, axis=0).any():
        raise HwdiffError(f"{name}: all {len(X)} points are the same, so there is no geometry to compare")
    return X


def distances(X):
    """Euclidean distances (N, N) of the points X (N, d), by one matrix product; those of points that nearly coincide exactly."""
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


def rlt(X, landmarks=LANDMARKS, gamma=None, i_max=I_MAX, seed=0, squared=False, replace=True):
    """Relative living times of one witness complex of the points X (N, d).

    landmarks: their number, drawn by `seed`, or their indices (L,).   gamma: alpha_max as a fraction of the largest distance from a landmark to
    a point, by default N / (128 * 5000).
    squared, replace: squared distances, and landmarks with replacement; the authors' program has False, True.
    Returns a `Relative`. Raises HwdiffError when X or the landmarks cannot be used.
    """
    count = landmarks if np.ndim(landmarks) == 0 else len(landmarks)
    _check_counts(count, i_max)
    X = as_points(X, count)
    if np.ndim(landmarks) == 0:
        landmarks = _draw(np.random.default_rng(seed), len(X), landmarks, replace)
    landmarks = np.asarray(landmarks)
    if landmarks.dtype.kind not in "iu" or landmarks.min() < 0 or landmarks.max() >= len(X):
        raise HwdiffError(f"landmarks: indices from 0 to {len(X) - 1} are needed")
    return _living_times(cdist(X, X[landmarks]), _gamma(gamma, len(X)), i_max, squared)


def mrlt(X, n=REPETITIONS, seed=0, landmarks=LANDMARKS, gamma=None, i_max=I_MAX, workers=-1, squared=False, replace=True, progress=None):
    """Mean relative living times of the points X (N, d) over n sets of landmarks.

    Repetition i draws its landmarks by (seed, i): the result does not depend on the number of workers, nor does a longer run on a shorter.
    workers: of joblib, -1 for one a core; under `joblib.parallel_config` any of its backends (Dask, Ray).   progress(count): repetitions
    done since the last call.   The other arguments as for `rlt`. Returns a `Mean`. Raises HwdiffError when X cannot be used.
    """
    X = as_points(X, landmarks)
    if n < 1:
        raise HwdiffError(f"n = {n}: at least one repetition is needed")
    _check_counts(landmarks, i_max)
    table = distances(X)
    jobs = (
        delayed(_repeat)(table, range(start, min(start + _CHUNK, n)), seed, landmarks, _gamma(gamma, len(X)), i_max, squared, replace)
        for start in range(0, n, _CHUNK)
    )
    found = []
    for some in Parallel(n_jobs=workers, return_as="generator")(jobs):
        found += some
        if progress:
            progress(len(some))
    values = np.stack([one.values for one in found])
    return Mean(values.mean(axis=0), float(np.mean([one.beyond for one in found])), values, X.shape[1])


def geometry_score(first, second):
    """The Geometry Score of two `Mean`s: the sum of squared differences. Raises HwdiffError when their i_max or widths differ."""
    if first.values.shape != second.values.shape:
        raise HwdiffError(f"geometry score: i_max {len(first.values)} and {len(second.values)}; compute both with the same")
    if first.width != second.width:
        raise HwdiffError(f"geometry score: of points with {first.width} and with {second.width} dimensions; both must be of one space")
    return float(np.square(first.values - second.values).sum())


def default_gamma(points):
    """What the authors' program takes for a cloud of so many points: alpha_max as a fraction of the largest distance."""
    return points / (128 * 5000)


def _gamma(gamma, points):
    gamma = default_gamma(points) if gamma is None else gamma
    if not 0 < gamma < np.inf:
        raise HwdiffError(f"gamma = {gamma}: must be above 0")
    return gamma


def _check_counts(landmarks, i_max):
    if landmarks < 1 or i_max < 1:
        raise HwdiffError(f"landmarks = {landmarks}, i_max = {i_max}: both must be at least 1")


def _draw(generator, points, count, replace):
    return generator.choice(points, count, replace=replace)


def _repeat(table, numbers, seed, landmarks, gamma, i_max, squared, replace):
    drawn = (_draw(np.random.default_rng((seed, number)), len(table), landmarks, replace) for number in numbers)
    return [_living_times(np.ascontiguousarray(table[some].T), gamma, i_max, squared) for some in drawn]  # rows are read far faster than columns


def nearest_landmarks(table, alpha_max):
    """What GUDHI needs to see of distances (N, L) from points to landmarks: for each point a list of (landmark, distance), nearest first.

    A point witnesses a simplex whose farthest corner is no more than alpha_max farther away than the nearest landmark that it leaves out.
    A simplex of at most three corners with one beyond the third nearest landmark leaves out one of the first three, so no corner
    is farther than the third by more than alpha_max.
    """
    bound = np.partition(table, min(table.shape[1], CORNERS) - 1, axis=1)[:, min(table.shape[1], CORNERS) - 1, None] + alpha_max
    counts = (table <= bound).sum(axis=1)
    widest = counts.max()
    near = np.argpartition(table, widest - 1, axis=1)[:, :widest]
    near.sort(axis=1)  # of landmarks equally far the one with the lower number first, as a stable sort of all would have it
    near = np.take_along_axis(near, np.argsort(np.take_along_axis(table, near, axis=1), axis=1, kind="stable"), axis=1)
    pairs = list(zip(near.ravel().tolist(), np.take_along_axis(table, near, axis=1).ravel().tolist(), strict=True))
    return [pairs[start : start + count] for start, count in zip(range(0, len(pairs), widest), counts.tolist(), strict=True)]


def _living_times(table, gamma, i_max, squared):
    table = np.square(table) if squared else table
    alpha_max = gamma * table.max()
    if not alpha_max > 0:
        raise HwdiffError("geometry score: all landmarks lie where all points are, so there is no distance to compare with")
    tree = gudhi.WitnessComplex(nearest_landmark_table=nearest_landmarks(table, alpha_max)).create_simplex_tree(
        max_alpha_square=alpha_max, limit_dimension=CORNERS - 1
    )
    tree.compute_persistence(homology_coeff_field=2, persistence_dim_max=False)
    holes = tree.persistence_intervals_in_dimension(1)
    return Relative(*_shares(holes, alpha_max, i_max), float(alpha_max))


def _shares(holes, alpha_max, i_max):
    """Shares of [0, alpha_max] in which exactly 0, ..., i_max - 1 of the intervals `holes` (n, 2) live, and in which more do."""
    values = np.zeros(i_max)
    holes = np.asarray(holes).reshape(-1, 2)
    births, deaths = holes[:, 0], np.minimum(holes[:, 1], alpha_max)
    times = np.unique(np.concatenate(([0, alpha_max], births, deaths)))
    lengths = np.diff(times)
    alive = ((births <= times[:-1, None]) & (deaths > times[:-1, None])).sum(axis=1)
    within = alive < i_max
    np.add.at(values, alive[within], lengths[within] / alpha_max)
    return values, float(lengths[~within].sum() / alpha_max)
