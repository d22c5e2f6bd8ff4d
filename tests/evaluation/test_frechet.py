import numpy as np
import pytest
from scipy.linalg import sqrtm

from hwdiff import HwdiffError
from hwdiff.evaluation.frechet import frechet_distance, kernel_distance


def normal(n, d=6, mean=0.0, scale=1.0, seed=0):
    return np.random.default_rng(seed).normal(mean, scale, (n, d))


def exactly(mean, deviations):
    """2 d points whose mean and covariance (diagonal) are exactly those."""
    d = len(deviations)
    away = np.diag(np.asarray(deviations) * np.sqrt((2 * d - 1) / 2))
    return np.concatenate((away, -away)) + mean


def test_the_frechet_distance_of_known_gaussians():
    one, two = exactly([0, 0, 0], [1, 2, 3]), exactly([3, 0, 4], [2, 2, 1])
    # |m1 - m2|^2 + sum of (s1 - s2)^2, for covariances that commute
    assert frechet_distance(one, two) == pytest.approx(25 + 1 + 0 + 4, rel=1e-12)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(two, one) == pytest.approx(frechet_distance(one, two))


@pytest.mark.parametrize(("n", "m"), [(50, 80), (5, 4), (5, 80), (80, 5)])
def test_the_frechet_distance_is_that_with_the_root_of_a_matrix(n, m):
    first, second = normal(n, 20), normal(m, 20, 0.3, 2.0, seed=1)
    covariances = [np.cov(some, rowvar=False) for some in (first, second)]
    root = sqrtm(covariances[0] @ covariances[1] + 1e-12 * np.eye(20)).real
    expected = (
        np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
        + sum(np.trace(some) for some in covariances)
        - 2 * np.trace(root)
    )
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-4)


def test_the_kernel_distance_is_the_unbiased_estimate():
    x, y = normal(7, 3), normal(7, 3, 0.5, seed=1)

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    same = [
        np.mean([kernel(some[i], some[j]) for i in range(7) for j in range(7) if i != j]) for some in (x, y)
    ]
    across = np.mean([kernel(a, b) for a in x for b in y])
    mean, deviation = kernel_distance(x, y)
    assert mean == pytest.approx(sum(same) - 2 * across)
    assert deviation > 0
    alike = [
        kernel_distance(normal(100, seed=2 * seed), normal(100, seed=2 * seed + 1))[0] for seed in range(40)
    ]
    assert abs(np.mean(alike)) < 3 * np.std(alike) / np.sqrt(40)  # no bias
    mean, deviation = kernel_distance(
        normal(500, seed=1), normal(300, mean=0.5, seed=2), subset=100, subsets=30, seed=3
    )
    assert mean > 3 * deviation > 0
    assert kernel_distance(
        normal(500, seed=1), normal(300, mean=0.5, seed=2), subset=100, subsets=30, seed=3
    ) == (mean, deviation)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (normal(5, 3), normal(5, 4), "sets of different width: 3 and 4"),
        (normal(0, 3), normal(5, 3), "first set: 0 lines; at least 2"),
        (normal(5, 3), normal(1, 3), "second set: 1 lines; at least 2"),
        (np.full((5, 3), np.inf), normal(5, 3), "first set: holds numbers that are not finite"),
        (np.zeros(5), normal(5, 3), r"first set: an array of shape \(5,\)"),
    ],
)
@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_bad_features_are_named(distance, first, second, message):
    with pytest.raises(HwdiffError, match=message):
        distance(first, second)


def test_constant_features_have_the_distance_of_their_means():
    assert frechet_distance(np.zeros((5, 3)), np.ones((4, 3))) == pytest.approx(3)
