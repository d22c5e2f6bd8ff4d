import numpy as np
import pytest
from scipy.linalg import sqrtm

from hwdiff import HwdiffError
from hwdiff.evaluation.frechet import (
    PrincipalAxes,
    frechet_at_infinity,
    frechet_distance,
    kernel_by_line,
    kernel_distance,
)


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


def halves(n, d=6, seed=0, shift=0.0):
    """Two sets of n points of the same distribution, whose axes are of different size; the second shifted."""
    generator = np.random.default_rng(seed)
    sizes = np.linspace(3, 1, d)
    return generator.normal(0, sizes, (n, d)), generator.normal(0, sizes, (n, d)) + shift


def test_without_bias_two_halves_of_a_distribution_are_at_no_distance():
    pairs = [halves(60, seed=seed) for seed in range(40)]
    fitted = np.array([frechet_at_infinity(*pair) for pair in pairs])
    plain = np.array([frechet_distance(*pair) for pair in pairs])
    assert abs(fitted.mean()) < 3 * fitted.std() / np.sqrt(40)
    assert plain.mean() > 5 * abs(fitted.mean())
    assert plain.min() > 0


def test_a_known_shift_is_recovered_where_the_plain_distance_is_too_large():
    pairs = [halves(60, seed=seed, shift=1.0) for seed in range(40)]
    fitted = [frechet_at_infinity(*pair) for pair in pairs]
    plain = [frechet_distance(*pair) for pair in pairs]
    assert np.mean(fitted) == pytest.approx(6, abs=3 * np.std(fitted) / np.sqrt(40))
    assert np.mean(plain) > 6 + 3 * np.std(plain) / np.sqrt(40)
    assert frechet_at_infinity(*pairs[0]) == fitted[0] != frechet_at_infinity(*pairs[0], seed=1)


def test_in_many_dimensions_the_fit_needs_a_projection_first():
    """With fewer lines than features the bias does not go like 1 / N, and no fit takes it away."""
    others = np.random.default_rng(9).normal(size=(300, 200)) * np.geomspace(3, 0.3, 200)
    first, second = (
        np.random.default_rng(seed).normal(size=(60, 200)) * np.geomspace(3, 0.3, 200) for seed in (1, 2)
    )
    assert frechet_at_infinity(first, second) is None
    axes = PrincipalAxes.learn(others)
    assert axes.axes.shape == (200, 10)
    np.testing.assert_allclose(axes.axes.T @ axes.axes, np.eye(10), atol=1e-12)
    projected = axes(first), axes(second)
    assert np.var(axes(others), axis=0)[0] > np.var(axes(others), axis=0)[-1]
    assert (
        abs(frechet_at_infinity(*projected)) < frechet_distance(*projected) < frechet_distance(first, second)
    )


def test_too_few_lines_give_no_distance_rather_than_a_wild_one():
    assert frechet_at_infinity(normal(49, 10), normal(80, 10)) is None
    assert frechet_at_infinity(normal(50, 10), normal(80, 10)) is not None


def test_the_kernel_distance_is_the_unbiased_estimate():
    x, y = normal(7, 3), normal(9, 3, 0.5, seed=1)

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    same = [
        np.mean([kernel(some[i], some[j]) for i in range(len(some)) for j in range(len(some)) if i != j])
        for some in (x, y)
    ]
    across = np.mean([kernel(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(sum(same) - 2 * across)
    alike = [
        kernel_distance(normal(100, seed=2 * seed), normal(100, seed=2 * seed + 1)) for seed in range(40)
    ]
    assert abs(np.mean(alike)) < 3 * np.std(alike) / np.sqrt(40)  # no bias
    assert kernel_distance(normal(100), normal(100, mean=0.5, seed=1)) > 5 * np.std(alike)


def test_values_of_lines_are_the_pseudo_values_of_the_jackknife():
    x, y = normal(12, 3), normal(9, 3, 0.5, seed=1)
    whole, found = kernel_distance(x, y), kernel_by_line(x, y)
    assert found.mean() == pytest.approx(whole, rel=1e-12)
    for some, values in zip((x, y), np.split(found, [len(x)]), strict=True):
        sets = [np.delete(some, number, 0) for number in range(len(some))]
        left_out = np.array(
            [kernel_distance(left, y) if some is x else kernel_distance(x, left) for left in sets]
        )
        pseudo_values = len(some) * whole - (len(some) - 1) * left_out
        weight = (len(x) + len(y)) / len(some)
        np.testing.assert_allclose(values - whole, weight * (pseudo_values - whole), rtol=1e-9)
    assert np.isnan(kernel_by_line(x[:2], y)).all()


def test_they_vary_as_the_distance_does_from_draw_to_draw():
    draws = [(normal(60, seed=2 * seed), normal(40, mean=0.5, seed=2 * seed + 1)) for seed in range(100)]
    spread = np.std([kernel_distance(*draw) for draw in draws])
    told = np.mean([kernel_by_line(*draw).std() / np.sqrt(100) for draw in draws])
    assert told == pytest.approx(spread, rel=0.25)


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
@pytest.mark.parametrize("distance", [frechet_distance, frechet_at_infinity, kernel_distance])
def test_bad_features_are_named(distance, first, second, message):
    with pytest.raises(HwdiffError, match=message):
        distance(first, second)


def test_constant_features_have_the_distance_of_their_means():
    assert frechet_distance(np.zeros((5, 3)), np.ones((4, 3))) == pytest.approx(3)
