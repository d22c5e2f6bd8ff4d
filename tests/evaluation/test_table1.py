import json

import numpy as np
import pytest

from hwdiff import HwdiffError
from hwdiff.data.dataset import style_lines
from hwdiff.data.style_features import StyleFeatures
from hwdiff.evaluation.measures import Measures, points
from hwdiff.evaluation.notes import notes_on_sets, notes_on_values
from hwdiff.evaluation.protocol import table1
from hwdiff.evaluation.report import named_geometry, named_rows, save_table, table_text
from hwdiff.evaluation.sampler_comparison import BASE, comparison_text, fewest_steps, sampler_rows
from hwdiff.evaluation.sets import Sets
from hwdiff.evaluation.tables import CORRUPTED, GROUND_TRUTH, Table, row_title
from hwdiff.ink.ink import Ink
from hwdiff.model.style_encoder import load_style_extractor


@pytest.fixture(scope="module")
def measures(written, recognizer):
    # Beside the data, where the commands look for them too.
    features = StyleFeatures(written, load_style_extractor("bundled", "cpu"))
    return Measures(written, "train", features=features, recognizer=recognizer, landmarks=8, repetitions=20)


def test_sets_are_disjoint_and_what_is_known_gave_nothing_away(written):
    sets = Sets.draw(written, "train", count=20, seed=1)
    assert set(written.splits[np.concatenate((sets.first, sets.second, sets.known))]) == {"train"}
    assert len(np.unique(np.concatenate((sets.first, sets.second)))) == 40
    assert not np.intersect1d(sets.known, sets.second).size
    assert not np.intersect1d(sets.known, style_lines(written.forms)[sets.second]).size
    assert np.unique(written.forms[sets.known], return_counts=True)[1].max() <= 4
    again, other = (
        Sets.draw(written, "train", count=20, seed=1),
        Sets.draw(written, "train", count=20, seed=2),
    )
    np.testing.assert_array_equal(again.second, sets.second)
    assert (other.second != sets.second).any()
    longer = Sets.draw(written, "train", count=21, seed=1)
    assert np.isin(sets.first, longer.first).all()
    with pytest.raises(
        HwdiffError, match=r"two sets of 5000 lines of the split test are asked for, which has \d+"
    ):
        Sets.draw(written, "test", count=5000, seed=0)
    with pytest.raises(HwdiffError, match="sets of 1 lines"):
        Sets.draw(written, "test", count=1, seed=0)


def test_lines_become_points_of_one_space():
    short, long = Ink(np.ones((3, 2)), [True, False, False]), Ink(np.full((600, 2), 2), np.zeros(600))
    found = points([short, long])
    assert found.shape == (2, 488 * 3)
    assert found[0, :12].tolist() == [1, 1, 1, 1, 1, 0, 1, 1, 0, 0, 0, 1]
    assert (found[1].reshape(-1, 3) == (2, 2, 0)).all()


@pytest.fixture(scope="module")
def table(measures, written, tmp_path_factory):
    """Real lines handed over as what was written: once the right ones, once scribbles."""

    def copied(indices, seed):
        return [written.ink(index).trimmed() for index in indices]

    def scribbled(indices, seed):
        generator = np.random.default_rng(seed)
        return [
            Ink(generator.normal(size=(40, 2)), np.arange(40) == 0, str(written.texts[index]))
            for index in indices
        ]

    rows = {"copied": copied, "scribbled": scribbled}
    return table1(
        measures,
        "train",
        count=12,
        seeds=[0, 1],
        generators=rows,
        settings={"origin": "a test"},
        folder=tmp_path_factory.mktemp("table"),
    )


def test_every_measure_moves_the_way_it_should(table):
    assert list(table.values) == [GROUND_TRUTH, "copied", "scribbled", CORRUPTED]
    assert table.values["copied"] == table.values[GROUND_TRUTH]

    def mean(row, key):
        return np.mean(table.values[row][key])

    for key in ("distance", "kernel_distance", "cer"):
        assert mean(GROUND_TRUTH, key) < mean(CORRUPTED, key) < mean("scribbled", key), key
    assert mean(GROUND_TRUTH, "geometry_score") < mean("scribbled", "geometry_score")
    assert mean(GROUND_TRUTH, "style_top10") > mean("scribbled", "style_top10")
    assert table.worse("copied", GROUND_TRUTH) == []
    assert "cer" in [column.key for column in table.worse("scribbled", GROUND_TRUTH)]
    assert mean(CORRUPTED, "style_top10") < mean(GROUND_TRUTH, "style_top10")
    assert set(table.seconds) == {"copied", "scribbled"}
    assert all(set(rows) == set(table.values) for rows in table.canvases.values())
    assert len({rows[CORRUPTED] for rows in table.canvases.values()}) == len(table.canvases)


def test_the_geometry_score_of_many_real_lines_notices_what_is_corrupted(table, measures, written):
    count = len(written.split("train")) // 2
    assert table.settings["geometry_lines"] == count > 12
    for real, jittered, repeated in zip(*table.geometry.values(), strict=True):
        assert real < jittered
        assert real < repeated
    assert f"sets of {count} real lines: ground truth" in table_text(table)
    one, other = (Sets.draw(written, "train", count=20, seed=seed) for seed in (3, 4))
    scores = measures.geometry_of_real(one)
    assert scores == measures.geometry_of_real(one) != measures.geometry_of_real(other)
    assert [row["row"] for row in named_geometry(table)] == [
        "ground truth",
        "real, corrupted",
        "real, repeated",
    ]


def test_nothing_of_built_in_writers_is_set_beside_the_paper(table):
    assert table.paper == {}
    assert "2.91" not in table_text(table)
    assert any("nothing here can be compared with the paper's numbers" in note for note in table.notes)
    assert not any("with guidance" in note for note in table.notes)


def test_notes_tell_of_chance_and_guidance(table):
    rows = {"eq12": {"guidance": 1.0}, "eq12_guided": {"guidance": 2.5}, "fast": {"guidance": 2.5}}
    table = Table("FID", {"rows": rows}, table.values)
    [guided] = [note for note in notes_on_values(table) if "guidance 2.5, which is not in the paper" in note]
    assert "twice a step: Eq. 12, guided, fast; the others" in guided
    [chance] = [note for note in notes_on_values(table) if "by chance" in note]
    assert f"{100 * np.mean(table.values[GROUND_TRUTH]['style_chance']):.1f} %" in chance


def test_what_is_no_fid_is_not_called_so(table, tmp_path):
    save_table(table, tmp_path)
    cells, everything = (
        (tmp_path / name).read_text(encoding="utf-8") for name in ("table1.csv", "table1.json")
    )
    name = "Fréchet distance (MobileNetV2)"
    assert all(name in content for content in (table_text(table), everything))
    assert f"{name}, mean" in named_rows(table)[0]
    assert "FID" not in cells
    assert "FID" not in table_text(table)


def test_notes_tell_what_is_not_as_in_the_paper(table, written, recognizer):
    assert table.notes[0] in table_text(table)
    assert "12 lines a set, not the paper's 4500" in table.notes[0]
    notes = notes_on_sets(written, "train", count=4500, recognizer=recognizer, landmarks=64, is_fid=True)
    assert not any("lines a set" in note or "landmarks" in note for note in notes)


def test_the_files_hold_the_table_and_times_lie_apart(table, tmp_path):
    save_table(table, tmp_path)
    saved = json.loads((tmp_path / "table1.json").read_text())
    assert saved["values"] == table.values
    canvas = {"width": 1200, "height": 120, "scale": 5.0, "pen": 2.0}
    settings = {"origin": "a test", "split": "train", "lines": 12, "seeds": [0, 1], "canvas": canvas}
    assert {key: saved["settings"][key] for key in settings} == settings
    assert saved["settings"]["geometry_score"] == {
        "landmarks": 8,
        "repetitions": 20,
        "gamma": 12 / 640_000,
        "i_max": 100,
        "points_per_line": 488,
    }
    assert saved["notes"] == table.notes
    assert "seconds" not in saved
    assert json.loads((tmp_path / "timings.json").read_text())["seconds_per_line"] == table.seconds
    [head, first, *_] = [line.split(",") for line in (tmp_path / "table1.csv").read_text().splitlines()]
    assert first[0] == GROUND_TRUTH
    rates = table.values[GROUND_TRUTH]["cer"]
    assert float(first[head.index("cer_mean")]) == pytest.approx(np.mean(rates), rel=1e-5)
    assert float(first[head.index("cer_sd")]) == pytest.approx(np.std(rates, ddof=1), rel=1e-5)


def test_a_table_that_is_cut_short_keeps_the_seeds_that_are_done(measures, written, tmp_path):
    def fails_later(indices, seed):
        if seed:
            raise KeyboardInterrupt
        return [written.ink(index) for index in indices]

    with pytest.raises(KeyboardInterrupt):
        table1(
            measures,
            "train",
            count=8,
            seeds=[0, 1],
            generators={"row": fails_later},
            canvases=False,
            folder=tmp_path,
        )
    saved = json.loads((tmp_path / "table1.json").read_text())
    assert saved["settings"]["seeds"] == [0]
    assert [len(values["distance"]) for values in saved["values"].values()] == [1, 1, 1]


def test_the_text_has_means_spreads_and_the_papers_numbers():
    values = {
        "distance": [1.0, 3.0],
        "kernel_distance": [0.001, 0.001],
        "kernel_sd": [0.002, 0.002],
        "geometry_score": [0.0, 0.002],
        "cer": [0.5, 0.5],
        "style_top10": [None, None],
    }
    table = Table("FID", {}, {"eq12": values}, {"eq12": [0.5, 0.7]})
    head, row = table_text(table).splitlines()
    assert head.split()[:2] == ["kernel", "distance"]
    assert row.split("  ")[0] == "model (Eq. 12)"
    cells = [cell.strip() for cell in row.split("  ")[1:] if cell.strip()]
    assert cells == [
        "1.00 ± 0.00",
        "2.00 ± 0.00",
        "2.00 ± 1.41",
        "1.00 ± 1.41",
        "50.0 ± 0.0",
        "-",
        "0.60 ± 0.14",
        "7.10",
        "3.30",
    ]
    few = Table("FID", {"lines": 60}, {"eq12": values}, {"eq12": [0.5, 0.7]})
    assert "Geometry Score" not in table_text(few)
    many = Table("FID", {"lines": 600}, {"eq12": values}, {"eq12": [0.5, 0.7]})
    assert "Geometry Score x 1000" in table_text(many)


def test_worse_is_what_differs_by_more_than_chance_seed_by_seed():
    base = {
        "distance": [1.0, 5.0, 9.0],
        "kernel_distance": [1.0, 2.0, 3.0],
        "kernel_sd": [1.0, 1.0, 1.0],
        "geometry_score": [1.0, 1.0, 1.0],
        "cer": [0.1, 0.2, 0.3],
        "style_top10": [0.5, None, 0.6],
    }
    other = {
        "distance": [2.0, 6.1, 9.9],  # differs by far more from seed to seed
        "kernel_distance": [3.0, 1.0, 2.5],
        "kernel_sd": [9.0, 9.0, 9.0],
        "geometry_score": [0.5, 0.5, 0.4],
        "cer": [0.1, 0.2, 0.3],
        "style_top10": [0.2, 0.1, 0.31],
    }
    table = Table("FID", {"seeds": [0, 1, 2]}, {"base": base, "other": other})
    assert [column.key for column in table.worse("other", "base")] == ["distance", "style_top10"]
    assert [column.title for column in table.worse("base", "other")] == ["Geometry Score x 1000"]
    assert Table("FID", {"seeds": [0]}, table.values).worse("other", "base") is None


def test_rows_have_titles_for_people():
    rows = sampler_rows(["dpm", "eq12-released"], [60, 8], ["log-snr"])
    assert list(rows) == [
        "eq12_60",
        "dpm_60",
        "dpm_8_log-snr",
        "eq12-released_60",
        "eq12-released_8_log-snr",
    ]
    assert [row_title(row) for row in rows] == [
        "eq12, 60 steps",
        "dpm, 60 steps",
        "dpm, 8 steps, log-snr",
        "eq12-released, 60 steps",
        "eq12-released, 8 steps, log-snr",
    ]
    assert [row_title(row) for row in (GROUND_TRUTH, "eq12", "fast", "anything")] == [
        "ground truth",
        "model (Eq. 12)",
        "fast",
        "anything",
    ]


def test_a_comparison_names_the_fewest_steps_that_are_as_good():
    rows = sampler_rows(["eq12"], [30, 8], ["time"])
    settings = {
        "seeds": [0, 1],
        "rows": {row: {"levels": levels.tolist()} for row, (_, levels, _) in rows.items()},
    }
    keys = ("distance", "kernel_distance", "kernel_sd", "geometry_score", "cer", "style_top10")
    values = {row: {key: [0.1, 0.2] for key in keys} for row in rows}
    table = Table("FID", settings, values)
    assert fewest_steps(table) == ["eq12_8_time"]
    values["eq12_8_time"]["cer"] = [0.3, 0.4]
    assert fewest_steps(table) == ["eq12_30_time"]
    assert comparison_text(table).splitlines() == [
        f"worse than {row_title(BASE)}, by twice the standard error of the difference:",
        "  eq12, 30 steps, time          not worse in any measure",
        "  eq12, 8 steps, time           CER, %",
        "fewest steps that are not worse in any measure: eq12, 30 steps, time",
    ]
    settings["seeds"] = [0]
    assert fewest_steps(table) == []
    assert "cannot be told from one seed" in comparison_text(table)


def test_a_split_whose_others_have_too_few_forms_is_refused(dataset, features, recognizer):
    with pytest.raises(HwdiffError, match=r"lines of \d forms"):
        Measures(dataset, "test", features=features, recognizer=recognizer)
