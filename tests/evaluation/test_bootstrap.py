import numpy as np

from hwdiff.evaluation.bootstrap import bootstrap_counts


def test_whole_groups_are_drawn_as_many_as_there_are():
    groups = ["b", "a", "b", "c"]
    counts = bootstrap_counts(groups, 50, seed=1)
    assert counts.shape == (50, 4)
    np.testing.assert_array_equal(counts[:, 0], counts[:, 2])
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()
    np.testing.assert_array_equal(counts, bootstrap_counts(groups, 50, seed=1))
    assert (counts != bootstrap_counts(groups, 50, seed=2)).any()
    assert bootstrap_counts(groups, 0, seed=1).shape == (0, 4)


def test_each_line_is_drawn_once_in_the_mean():
    counts = bootstrap_counts(np.arange(20), 2000)
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.1)
    np.testing.assert_allclose(counts.var(axis=0), 1 - 1 / 20, atol=0.2)
