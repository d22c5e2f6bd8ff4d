"""Distances between sets of features: Fréchet (Heusel et al. 2017) and kernel (Bińkowski et al. 2018).

Only a Fréchet distance on the features of the standard Inception network may be called FID. On others it is
named after them.
"""

import numpy as np

from hwdiff.utils.errors import HwdiffError

KERNEL_SUBSETS, KERNEL_SUBSET = 100, 1000


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
    With few lines it is biased upwards: compare only numbers of the same n and m.
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


def kernel_distance(
    first: np.ndarray,
    second: np.ndarray,
    *,
    subset: int = KERNEL_SUBSET,
    subsets: int = KERNEL_SUBSETS,
    seed: int = 0,
) -> tuple[float, float]:
    """Kernel distance (KID): the unbiased squared maximum mean discrepancy with the kernel (x y / d + 1)^3.

    first, second: (n, d) and (m, d).
    subset, subsets: as is usual, it is taken of so many pairs of random subsets, of at most so many lines
        each.
    Returns (mean, standard deviation). Where neither set is larger than a subset there is only one pair, and
    the deviation is that of the jackknife over lines.
    """
    first, second = _pair(first, second)
    size = min(subset, len(first), len(second))
    if size == len(first) == len(second):
        return _whole_sets(first, second)
    generator, found = np.random.default_rng(seed), []
    for _ in range(subsets):
        some = [
            features[generator.choice(len(features), size, replace=False)] for features in (first, second)
        ]
        found.append(_discrepancy(*_kernels(*some)))
    return float(np.mean(found)), float(np.std(found))


def _whole_sets(first, second):
    kernels, size = _kernels(first, second), len(first)
    left_out = [_discrepancy(*_without(kernels, number)) for number in range(size)] if size > 2 else [np.nan]
    return _discrepancy(*kernels), float(np.sqrt((size - 1) * np.var(left_out)))


def _kernels(x, y):
    return tuple((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))


def _without(kernels, number):
    return tuple(np.delete(np.delete(kernel, number, axis=0), number, axis=1) for kernel in kernels)


def _discrepancy(xx, yy, xy):
    n = len(xx)
    return float(((xx.sum() - np.trace(xx)) + (yy.sum() - np.trace(yy))) / (n * (n - 1)) - 2 * xy.mean())
