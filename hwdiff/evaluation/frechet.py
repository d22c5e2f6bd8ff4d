"""Distances between sets of features: Fréchet (Heusel et al. 2017) and kernel (Bińkowski et al. 2018).

Only a Fréchet distance on the features of the standard Inception network may be called FID. On others it is
named after them.
"""

from dataclasses import dataclass

import numpy as np

from hwdiff.utils.errors import HwdiffError

AXES = 10  # principal axes that features are projected on: nearly 90 % of the variance of IAM's lines
LINES_PER_AXIS = 5  # with fewer the fit to infinitely many lines is wild
SIZES, DRAWS = 5, 10  # of the subsets that the fit is made to: how many sizes, and draws of each


def as_features(features: np.ndarray, name: str = "features") -> np.ndarray:
    """Features as (n, d) float64. Raises HwdiffError unless they are at least two rows of finite numbers."""
    features = np.asarray(features)
    if features.ndim != 2 or features.dtype.kind not in "fiu" or not features.shape[1]:
        found = f"an array of shape {features.shape} and type {features.dtype}"
        raise HwdiffError(f"{name}: {found}; numbers of shape (n, d) are needed")
    if len(features) < 2:
        raise HwdiffError(f"{name}: {len(features)} lines; at least 2 are needed for a distance")
    features = features.astype(np.float64)
    if not np.isfinite(features).all():
        raise HwdiffError(f"{name}: holds numbers that are not finite")
    return features


def _pair(first, second):
    first, second = as_features(first, "first set"), as_features(second, "second set")
    if first.shape[1] != second.shape[1]:
        widths = f"{first.shape[1]} and {second.shape[1]}"
        raise HwdiffError(f"sets of different width: {widths} features; compute both with the same network")
    return first, second


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance of Gaussians with the means and covariances of features: Heusel et al. 2017, Eq. 6.

    first, second: (n, d) and (m, d).
    With few lines it is biased upwards, by an amount that depends on what is compared: see
    `frechet_at_infinity`.
    """
    first, second = _pair(first, second)
    mean = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    # The trace of the root of both covariances' product, without a root of a matrix that is not symmetric.
    roots = [_root(features) for features in (first, second)]
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return float(mean + sum(np.square(root).sum() for root in roots) - 2 * shared)


def _root(features):
    """R with R^T R the covariance of features (n, d): min(n, d) rows."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.linalg.qr(centred, mode="r") if len(centred) > centred.shape[1] else centred


@dataclass
class PrincipalAxes:
    """The axes along which features vary most.

    centre: (d,).   axes: (d, k), orthonormal.
    """

    centre: np.ndarray
    axes: np.ndarray

    @classmethod
    def learn(cls, features: np.ndarray, count: int = AXES) -> "PrincipalAxes":
        """The first `count` axes of features (n, d); fewer when n or d is smaller."""
        features = as_features(features)
        centre = features.mean(axis=0)
        _, _, axes = np.linalg.svd(features - centre, full_matrices=False)
        return cls(centre, axes[:count].T)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Features (n, d) along the axes: (n, k)."""
        return (as_features(features) - self.centre) @ self.axes


def frechet_at_infinity(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> float | None:
    """The Fréchet distance that infinitely many lines would have: Chong & Forsyth 2020.

    The distances of random subsets are fitted linearly in 1 / size. The bias goes like 1 / size only where
    there are many more lines than features, so these are to be projected on few axes first (`PrincipalAxes`),
    learnt from other real lines.

    first, second: (n, k) and (m, k).
    seed: of the subsets.
    Returns the distance, which by chance may be a little below 0; None when a set has fewer than 5 k lines.
    """
    first, second = _pair(first, second)
    most = min(len(first), len(second))
    if most < LINES_PER_AXIS * first.shape[1]:
        return None
    generator, found = np.random.default_rng(seed), []
    sizes = np.repeat(np.linspace(most // 2, most, SIZES).astype(int), DRAWS)
    for size in sizes:
        drawn = [some[generator.choice(len(some), size, replace=False)] for some in (first, second)]
        found.append(frechet_distance(*drawn))
    return float(np.polynomial.Polynomial.fit(1 / sizes, found, 1)(0))


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Kernel distance (KID): the unbiased squared maximum mean discrepancy with the kernel (x y / d + 1)^3.

    first, second: (n, d) and (m, d).
    """
    first, second = _pair(first, second)
    within = (_sums(some).sum() / (len(some) * (len(some) - 1)) for some in (first, second))
    return float(sum(within) - 2 * _kernel(first, second).mean())


def kernel_by_line(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """What each line has to do with the kernel distance: pseudo-values of the jackknife (Efron 1982).

    Their mean is the distance. Those of a set of n lines are moved away from it (n + m) / n times, so that
    the standard error of the mean over both sets is that of the distance: a bootstrap may draw them as it
    draws any value of a line.

    first, second: (n, d) and (m, d).
    Returns (n + m,) float64, the lines of `first` before those of `second`; NaN where a set has fewer than
    three.
    """
    first, second = _pair(first, second)
    count = len(first) + len(second)
    if min(len(first), len(second)) < 3:
        return np.full(count, np.nan)
    across, differences = _kernel(first, second), []
    for some, with_others in ((first, across.sum(axis=1)), (second, across.sum(axis=0))):
        n, sums = len(some), _sums(some)
        within = sums.sum() / (n * (n - 1)) - (sums.sum() - 2 * sums) / ((n - 1) * (n - 2))
        between = across.mean() - (across.sum() - with_others) / (across.size - across.size // n)
        differences.append(count / n * (n - 1) * (within - 2 * between))
    return kernel_distance(first, second) + np.concatenate(differences)


def _kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def _sums(x):
    """The kernel of each line with the others, summed up: (n,)."""
    kernel = _kernel(x, x)
    return kernel.sum(axis=1) - np.diag(kernel)
