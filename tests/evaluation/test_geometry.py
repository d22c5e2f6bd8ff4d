import gudhi
import joblib
import numpy as np
import pytest

from hwdiff import HwdiffError
from hwdiff.evaluation import geometry
from hwdiff.evaluation.geometry import geometry_score, mrlt, nearest_landmarks, rlt
from tests.conftest import GOLDEN, golden


def circle(points=200, seed=0, noise=0.02):
    generator = np.random.default_rng(seed)
    angle = generator.uniform(0, 2 * np.pi, points)
    return np.column_stack((np.cos(angle), np.sin(angle))) + generator.normal(0, noise, (points, 2))


@pytest.mark.parametrize("name", ["circle", "disk", "plane", "plane_wide"])
def test_living_times_are_those_of_the_authors_program(name):
    found = golden(GOLDEN / "geometry_score.npz")
    X, gamma = found[f"{name}.X"], float(found[f"{name}.gamma"])
    for landmarks, expected, alpha_max in zip(
        found[f"{name}.landmarks"], found[f"{name}.rlt"], found[f"{name}.alpha_max"], strict=True
    ):
        one = rlt(X, landmarks=landmarks, gamma=gamma)
        np.testing.assert_allclose(one.values, expected, atol=1e-9)
        assert one.alpha_max == pytest.approx(alpha_max, rel=1e-12)


def test_gamma_is_that_of_the_authors_program_where_none_is_given():
    found = golden(GOLDEN / "geometry_score.npz")
    assert geometry.default_gamma(4500) == 4500 / 5000 / 128
    assert float(found["plane.gamma"]) == geometry.default_gamma(len(found["plane.X"]))
    some = found["plane.landmarks"][0]
    assert rlt(found["plane.X"], landmarks=some).alpha_max == pytest.approx(found["plane.alpha_max"][0])


def test_the_score_is_that_of_the_authors_program():
    found = golden(GOLDEN / "geometry_score.npz")
    means = []
    for name in ("circle", "disk"):
        values = np.stack(
            [
                rlt(found[f"{name}.X"], landmarks=some, gamma=float(found[f"{name}.gamma"])).values
                for some in found[f"{name}.landmarks"]
            ]
        )
        means.append(geometry.Mean(values.mean(axis=0), 0.0, values, 2))
    assert geometry_score(*means) == pytest.approx(float(found["score.circle_disk"]), abs=1e-9)


def test_a_circle_has_one_hole_and_two_have_two():
    """Small cases of the project's own."""
    one = rlt(circle(), landmarks=40, gamma=0.15)
    assert one.values.argmax() == 1
    assert one.values[1] > 0.6
    assert one.values.sum() + one.beyond == pytest.approx(1)
    two = rlt(np.concatenate((circle(), np.add(circle(seed=1), (5, 0)))), landmarks=80, gamma=0.06)
    assert two.values.argmax() == 2
    far = [np.sqrt(0.5), np.sqrt(2)]
    assert geometry.distances(np.array([[0.0, 0.0], [1, 1], [0.5, 0.5]]))[0].tolist() == pytest.approx(
        [0, far[1], far[0]]
    )


def full_table(table):
    """Every landmark, nearest first, as the plain way has it."""
    order = np.argsort(table, axis=1, kind="stable")
    return [
        [(int(landmark), float(row[landmark])) for landmark in places]
        for places, row in zip(order, table, strict=True)
    ]


@pytest.mark.parametrize("gamma", [1e-4, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("replace", [True, False])
def test_what_is_kept_from_gudhi_changes_nothing(gamma, replace):
    generator = np.random.default_rng(3)
    for seed in range(6):
        X = np.round(generator.normal(size=(120, 2 + seed)), 1 if seed % 2 else 6)  # some with ties
        landmarks = generator.choice(len(X), 25, replace=replace)
        table = geometry.distances(X)[:, landmarks]
        alpha_max = gamma * table.max()
        trees = [
            gudhi.WitnessComplex(nearest_landmark_table=some).create_simplex_tree(
                max_alpha_square=alpha_max, limit_dimension=2
            )
            for some in (full_table(table), nearest_landmarks(table, alpha_max))
        ]
        whole, kept = (
            {tuple(sorted(simplex)): value for simplex, value in tree.get_filtration()} for tree in trees
        )
        assert whole == kept
        assert len(whole) > 25


def test_gudhi_is_handed_a_fraction_of_the_distances():
    """At the size of the paper's table, where handing over and sorting all of them takes long."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(4500, 8)) @ generator.normal(
        size=(8, 1464)
    )  # in noise of 1464 dimensions all points lie equally far apart
    table = geometry.distances(X)[:, :64]
    kept = nearest_landmarks(table, table.max() * geometry.default_gamma(len(X)))
    assert 3 * len(X) <= sum(map(len, kept)) < table.size / 8


def test_few_neighbours_are_handed_over_where_few_matter():
    X = np.random.default_rng(0).normal(size=(400, 30))
    table = geometry.distances(X)[:, :64]
    assert sum(map(len, nearest_landmarks(table, 400 / (128 * 5000) * table.max()))) < 4 * len(X)
    assert all(len(row) == 2 for row in nearest_landmarks(table[:, :2], 1.0))


def test_distances_of_near_points_keep_their_digits():
    X = np.random.default_rng(0).normal(size=(50, 20)) + 1000
    X[1], X[2] = X[0], X[0] + 1e-9
    expected = np.sqrt(np.square(X[:, None] - X[None]).sum(axis=2))
    np.testing.assert_allclose(geometry.distances(X), expected, rtol=1e-10, atol=0)


def test_the_mean_does_not_depend_on_workers_nor_on_how_many_repetitions_follow():
    X, counts = circle(), []
    one, two = (
        mrlt(X, n=20, seed=5, landmarks=20, gamma=0.1, workers=workers, progress=counts.append)
        for workers in (1, 2)
    )
    np.testing.assert_array_equal(one.repetitions, two.repetitions)
    assert sum(counts) == 40
    longer = mrlt(X, n=30, seed=5, landmarks=20, gamma=0.1, workers=1)
    np.testing.assert_array_equal(longer.repetitions[:20], one.repetitions)
    assert not np.array_equal(mrlt(X, n=20, seed=6, landmarks=20, gamma=0.1, workers=1).values, one.values)
    np.testing.assert_allclose(one.values, one.repetitions.mean(axis=0))
    with joblib.parallel_config("threading"):
        np.testing.assert_array_equal(
            mrlt(X, n=20, seed=5, landmarks=20, gamma=0.1, workers=2).values, one.values
        )
    alone = rlt(X, landmarks=np.random.default_rng((5, 3)).choice(len(X), 20), gamma=0.1)
    np.testing.assert_allclose(one.repetitions[3], alone.values, atol=1e-9)


def test_mass_beyond_i_max_is_reported():
    X = np.random.default_rng(1).uniform(size=(300, 2))
    whole, cut = (rlt(X, landmarks=100, gamma=0.02, i_max=i_max) for i_max in (200, 3))
    assert cut.beyond > 0.01
    assert cut.beyond == pytest.approx(whole.values[3:].sum())
    np.testing.assert_allclose(cut.values, whole.values[:3])
    mean = mrlt(X, n=3, landmarks=100, gamma=0.02, i_max=3, workers=1)
    assert mean.values.sum() + mean.beyond == pytest.approx(1)


def test_clouds_of_one_shape_score_lower_than_clouds_of_two():
    one, same, other = (
        mrlt(X, n=20, landmarks=32, gamma=0.1, workers=1)
        for X in (circle(seed=1), circle(seed=2), circle(seed=3, noise=0.5))
    )
    assert geometry_score(one, same) < 0.3 * geometry_score(one, other)
    assert geometry_score(one, one) == 0


@pytest.mark.parametrize(
    ("X", "options", "message"),
    [
        (np.zeros(5), {}, r"shape \(5,\)"),
        (np.zeros((0, 3)), {}, "0 points; at least 64"),
        (np.zeros((1, 3)), {"landmarks": 1}, "1 points; at least 2"),
        (np.ones((70, 3)), {}, "all 70 points are the same"),
        (np.full((70, 3), np.nan), {}, "70 of 70 points hold numbers that are not finite"),
        (np.array([["a"] * 3] * 70), {}, "type <U1"),
        (circle(40), {}, "40 points; at least 64 are needed for 64 landmarks"),
        (circle(), {"gamma": 0}, "gamma = 0: must be above 0"),
        (circle(), {"n": 0}, "n = 0: at least one repetition"),
        (circle(), {"landmarks": 0}, "landmarks = 0"),
    ],
)
def test_bad_clouds_are_named(X, options, message):
    with pytest.raises(HwdiffError, match=message):
        mrlt(X, **options)


def test_landmarks_must_be_points():
    with pytest.raises(HwdiffError, match="indices from 0 to 199"):
        rlt(circle(), landmarks=[0, 200])
    with pytest.raises(HwdiffError, match="compute both with the same"):
        geometry_score(
            mrlt(circle(), n=1, landmarks=9, i_max=5, workers=1), mrlt(circle(), n=1, landmarks=9, workers=1)
        )
    flat, deep = (
        mrlt(X, n=1, landmarks=9, workers=1) for X in (circle(), np.pad(circle(), ((0, 0), (0, 1))))
    )
    with pytest.raises(HwdiffError, match="points with 2 and with 3 dimensions"):
        geometry_score(flat, deep)
    same = np.concatenate((np.zeros((3, 2)), np.zeros((1, 2)) + 1e-200))
    with pytest.raises(HwdiffError, match="no distance to compare"):
        rlt(same, landmarks=[0, 1])
