import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hwdiff.cli import app
from hwdiff.evaluation import geometry
from hwdiff.evaluation.geometry_floor import floor_text, geometry_floor
from hwdiff.evaluation.measures import points
from hwdiff.evaluation.sets import Sets, real_inks


def test_the_floor_is_the_score_of_two_sets_of_real_lines(dataset):
    rows = geometry_floor(dataset, "train", 8, [0, 1], repetitions=10, workers=1)
    assert [row["repetitions"] for row in rows] == [1, 3, 10] * 4
    assert [row["seed"] for row in rows] == [0] * 6 + [1] * 6
    sets = Sets.draw(dataset, "train", count=8, seed=1)
    for name, width, with_pen in (("offsets and pen flag", 1464, True), ("offsets alone", 976, False)):
        clouds = [points(real_inks(dataset, some), with_pen=with_pen) for some in (sets.first, sets.second)]
        assert clouds[0].shape == (8, width)
        means = [
            geometry.mrlt(cloud, 10, seed=(1, number), landmarks=4, workers=1)
            for number, cloud in enumerate(clouds)
        ]
        [row] = [one for one in rows if (one["points"], one["seed"], one["repetitions"]) == (name, 1, 10)]
        assert row["score"] == pytest.approx(geometry.geometry_score(*means), abs=1e-15)
        assert row["beyond_i_max"] == max(mean.beyond for mean in means)
        alone = sum(np.var(mean.repetitions, axis=0, ddof=1).sum() / 10 for mean in means)
        assert row["by_landmarks"] == pytest.approx(alone)


def test_offsets_are_the_same_with_and_without_the_pen_flag(dataset):
    inks = real_inks(dataset, [0, 5])
    np.testing.assert_array_equal(
        points(inks).reshape(2, -1, 3)[..., :2], points(inks, with_pen=False).reshape(2, -1, 2)
    )


def test_the_text_has_means_and_ranges():
    scores = {0: 0.001, 1: 0.003}
    rows = [
        {"points": "offsets alone", "seed": seed, "repetitions": 5, "score": score, "by_landmarks": 0.004}
        for seed, score in scores.items()
    ]
    row = floor_text(rows).splitlines()[1]
    assert " ".join(row.split()) == "offsets alone 5 2 4.000 2.000 ± 1.414 (1.000 to 3.000)"
    assert floor_text(rows[:1]).splitlines()[1].endswith("1.000 (1.000 to 1.000)")


def test_the_command_keeps_all_values(dataset, tmp_path):
    options = ["--data", str(dataset.path), "--lines", "8", "--seeds", "1", "--repetitions", "2"]
    result = CliRunner().invoke(app, ["geometry-floor", *options, "-o", str(tmp_path / "floor.json")])
    assert result.exit_code == 0, result.output
    assert "split train, 8 real lines a set, 16 to draw from" in result.output
    saved = json.loads((tmp_path / "floor.json").read_text())
    assert saved["settings"]["dataset"] == dataset.fingerprint
    assert [row["repetitions"] for row in saved["rows"]] == [1, 2] * 2
    refused = CliRunner().invoke(app, ["geometry-floor", "--data", str(dataset.path), "--lines", "9"])
    assert refused.exit_code == 1
    assert "two sets of 9 lines of the split train" in refused.output
