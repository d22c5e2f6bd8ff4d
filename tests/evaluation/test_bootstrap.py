import numpy as np
import pytest

from hwdiff.evaluation.bootstrap import Bootstrap, paired_difference


def test_whole_groups_are_drawn_as_many_as_there_are():
    groups = ["b", "a", "b", "c"]
    counts = Bootstrap(groups, 50, seed=1).counts
    assert counts.shape == (50, 4)
    np.testing.assert_array_equal(counts[:, 0], counts[:, 2])
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()
    np.testing.assert_array_equal(counts, Bootstrap(groups, 50, seed=1).counts)
    assert (counts != Bootstrap(groups, 50, seed=2).counts).any()
    assert Bootstrap(groups, 0, seed=1).counts.shape == (0, 4)


def test_each_line_is_drawn_once_in_the_mean():
    counts = Bootstrap(np.arange(20), 2000).counts
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.1)
    np.testing.assert_allclose(counts.var(axis=0), 1 - 1 / 20, atol=0.2)


def rates(edits, characters):
    return np.stack((edits, characters), axis=1).astype(float)


def test_a_difference_is_that_of_micro_averages():
    first, second = rates([1, 0, 3], [10, 20, 30]), rates([2, 0, 1], [10, 20, 30])
    difference, low, high = paired_difference(first, second, [0, 1, 2])
    assert difference == 4 / 60 - 3 / 60
    assert low < difference < high
    assert paired_difference(first, second, [0, 1, 2]) == (difference, low, high)
    assert paired_difference(first, first, [0, 1, 2]) == (0, 0, 0)


def test_lines_without_a_value_are_left_out_of_both():
    first, second = rates([1, np.nan, 3], [1, 1, 1]), rates([0, 5, 1], [1, 1, 1])
    assert paired_difference(first, second, [0, 1, 2])[0] == 2 - 0.5
    assert paired_difference(first[:2], second[:2], [0, 1]) is None


def test_what_is_common_to_both_drops_out():
    generator = np.random.default_rng(0)
    lines = generator.normal(0, 10, 200)
    ones = np.ones(200)
    noisy = [rates(lines + generator.normal(place, 1, 200), ones) for place in (0.5, 0)]
    _, low, high = paired_difference(*noisy, np.arange(200))
    assert 0 < low < high < 1.2
    _, low, high = paired_difference(noisy[0], noisy[1][::-1], np.arange(200))
    assert low < -1 and high > 1


@pytest.mark.parametrize("groups", [8, 40])
def test_the_interval_holds_the_difference_19_times_in_20(groups):
    inside, names, ones = [], np.repeat(np.arange(groups), 2), np.ones(2 * groups)
    for seed in range(500):
        generator = np.random.default_rng(seed)
        first, second = (rates(generator.normal(place, 1, groups).repeat(2), ones) for place in (0.3, 0))
        _, low, high = paired_difference(first, second, names, resamples=1000, seed=seed)
        inside.append(low < 0.3 < high)
    assert 0.925 < np.mean(inside) < 0.97


def test_without_two_groups_or_resamples_there_is_no_interval():
    for bootstrap in (Bootstrap([1, 1], 50), Bootstrap([1, 2], 0)):
        assert np.isnan(bootstrap.interval(np.zeros((len(bootstrap.counts), 3)))).all()


def test_a_line_that_stands_there_twice_counts_once():
    values = np.random.default_rng(0).normal(size=30)
    first, second = rates(values, np.ones(30)), rates(0 * values, np.ones(30))
    once = paired_difference(first, second, np.arange(30))
    twice = (np.concatenate((some, some)) for some in (first, second))
    np.testing.assert_allclose(paired_difference(*twice, np.tile(np.arange(30), 2)), once)
