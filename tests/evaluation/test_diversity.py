import json

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from hwdiff import HwdiffError
from hwdiff.evaluation.diversity import DIVERSITY, dtw_distance, measure_diversity, positions
from hwdiff.evaluation.measures import Measures
from hwdiff.ink.ink import Ink


def by_definition(first, second):
    """The least of all paths, cell by cell."""
    distances = cdist(first, second)
    costs = np.full((len(first) + 1, len(second) + 1), np.inf)
    costs[0, 0] = 0
    for i, row in enumerate(distances):
        for j, here in enumerate(row):
            costs[i + 1, j + 1] = min(costs[i, j + 1] + here, costs[i + 1, j] + here, costs[i, j] + 2 * here)
    return costs[-1, -1] / (len(first) + len(second))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 6), (6, 1), (2, 2), (9, 14), (31, 17)])
def test_warping_is_exact(n, m):
    generator = np.random.default_rng(n)
    first, second = generator.normal(size=(n, 2)), generator.normal(size=(m, 2))
    assert dtw_distance(first, second) == pytest.approx(by_definition(first, second), rel=1e-12)
    assert dtw_distance(first, second) == pytest.approx(dtw_distance(second, first), rel=1e-12)
    assert dtw_distance(first, first) == 0


def test_warping_forgives_speed_and_counts_distance():
    line = np.stack((np.linspace(0, 1, 20), np.zeros(20)), axis=1)
    assert dtw_distance(line, np.repeat(line, 3, axis=0)) == 0  # a pen three times as slow
    up, right = np.array((0, 5)), np.array((1, 0))
    assert dtw_distance(line, line + up) == pytest.approx(5)
    # No number grows with the length of the lines alone.
    longer = np.concatenate((line, line + right))
    assert dtw_distance(longer, longer + up) == pytest.approx(5)


def test_positions_lie_about_their_mean():
    ink = Ink([(1, 0), (2, 2)], [True, False])
    np.testing.assert_allclose(positions(ink), [(-1, -1), (1, 1)])
    assert positions(Ink(np.zeros((0, 2)), [])).tolist() == [[0, 0]]


@pytest.fixture(scope="module")
def measures(written, written_features, recognizer):
    return Measures(written, "train", features=written_features, recognizer=recognizer, repetitions=3)


def test_a_sampler_with_more_noise_is_more_diverse(measures, written, tmp_path):
    def shaken(size):
        def generate(indices, seed):
            generator = np.random.default_rng(seed)
            inks = [written.ink(index).trimmed() for index in indices]
            return [
                Ink(ink.offsets + generator.normal(0, size, ink.offsets.shape), ink.pen_up, ink.text)
                for ink in inks
            ]

        return generate

    rows = {row: {"guidance": 1.0, "levels": [1.0] * 61} for row in ("eq12", "eq9")}
    done = []
    found = measure_diversity(
        measures,
        written.split("train")[:4],
        3,
        generators={"eq12": shaken(0.05), "eq9": shaken(0.5)},
        settings={"rows": rows},
        progress=done.append,
    )
    assert done == ["eq12", "eq9"]
    assert [len(lines) for lines in found.inks["eq9"]] == [3] * 4
    assert {ink.text for ink in found.inks["eq9"][1]} == {str(written.texts[written.split("train")[1]])}
    assert found.cer["eq12"] < found.cer["eq9"]
    for column in DIVERSITY:
        value, low, high = found.differences["eq9"]["eq12"][column.key]
        assert 0 < low < value < high, column.key
        assert len(found.values["eq12"][column.key]) == 4
    # Lines of one text and style are nearer to one another than unrelated ones.
    assert all(np.mean(found.values["eq12"][key]) < 0.7 for key in ("form_top10", "style_top10"))
    assert (
        "ablation (Eq. 9), guidance 1 less model (Eq. 12), guidance 1: DTW distance of the ink +"
        in found.text()
    )
    found.save(tmp_path / "diversity.json")
    saved = json.loads((tmp_path / "diversity.json").read_text())
    assert saved["values"] == found.values
    assert saved["settings"]["repeats"] == 3
    assert "inks" not in saved


def test_lines_that_are_all_the_same_have_no_diversity(measures, written):
    found = measure_diversity(
        measures,
        written.split("train")[:2],
        2,
        generators={"eq12": lambda indices, seed: [written.ink(index).trimmed() for index in indices]},
        settings={"rows": {"eq12": {"guidance": 1.0}}},
    )
    assert all(np.allclose(values, 0, atol=1e-6) for values in found.values["eq12"].values())
    assert found.differences == {}


@pytest.mark.parametrize(("texts", "repeats"), [(1, 3), (3, 1)])
def test_too_little_is_refused(measures, texts, repeats):
    with pytest.raises(HwdiffError, match=f"{texts} texts, each written {repeats} times"):
        measure_diversity(measures, np.arange(texts), repeats, generators={}, settings={})
