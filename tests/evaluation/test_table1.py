import json

import numpy as np
import pytest

from hwdiff import HwdiffError
from hwdiff.data.dataset import style_lines
from hwdiff.data.style_features import StyleFeatures
from hwdiff.evaluation.measures import Measures, Sets, points
from hwdiff.evaluation.table1 import table1
from hwdiff.evaluation.tables import CORRUPTED, GROUND_TRUTH, Table
from hwdiff.ink.ink import Ink
from hwdiff.model.style_encoder import load_style_extractor


@pytest.fixture(scope="module")
def measures(written, recognizer):
    features = StyleFeatures(written, load_style_extractor("bundled", "cpu"))  # beside the data, where the commands look for them too
    return Measures(written, "train", features, recognizer, landmarks=8, repetitions=20)


def test_sets_are_disjoint_and_what_is_known_gave_nothing_away(written):
    sets = Sets.draw(written, "train", 20, seed=1)
    assert set(written.splits[np.concatenate((sets.first, sets.second, sets.known))]) == {"train"}
    assert len(np.unique(np.concatenate((sets.first, sets.second)))) == 40
    assert not np.intersect1d(sets.known, sets.second).size
    assert not np.intersect1d(sets.known, style_lines(written.forms)[sets.second]).size
    assert np.unique(written.forms[sets.known], return_counts=True)[1].max() <= 4
    again, other = Sets.draw(written, "train", 20, seed=1), Sets.draw(written, "train", 20, seed=2)
    np.testing.assert_array_equal(again.second, sets.second)
    assert (other.second != sets.second).any()
    longer = Sets.draw(written, "train", 21, seed=1)
    assert np.isin(sets.first, longer.first).all()
    with pytest.raises(HwdiffError, match=r"two sets of 5000 lines of the split test are asked for, which has \d+"):
        Sets.draw(written, "test", 5000, seed=0)
    with pytest.raises(HwdiffError, match="sets of 1 lines"):
        Sets.draw(written, "test", 1, seed=0)


def test_lines_become_points_of_one_space():
    short, long = Ink(np.ones((3, 2)), [True, False, False]), Ink(np.full((600, 2), 2), np.zeros(600))
    found = points([short, long])
    assert found.shape == (2, 488 * 3)
    assert found[0, :12].tolist() == [1, 1, 1, 1, 1, 0, 1, 1, 0, 0, 0, 1]
    assert (found[1].reshape(-1, 3) == (2, 2, 0)).all()


@pytest.fixture(scope="module")
def table(measures, written, tmp_path_factory):
    """Real lines handed over as what was written: once the right ones, once those of other hands."""

    def copied(indices, seed):
        return [written.ink(index).trimmed() for index in indices]

    def scribbled(indices, seed):
        generator = np.random.default_rng(seed)
        return [Ink(generator.normal(size=(40, 2)), np.arange(40) == 0, str(written.texts[index])) for index in indices]

    rows = {"copied": copied, "scribbled": scribbled}
    return table1(measures, "train", 12, [0, 1], rows, {"origin": "a test"}, folder=tmp_path_factory.mktemp("table"))


def test_every_measure_moves_the_way_it_should(table):
    assert list(table.values) == [GROUND_TRUTH, "copied", "scribbled", CORRUPTED]
    assert table.values["copied"] == table.values[GROUND_TRUTH]

    def mean(row, key):
        return np.mean(table.values[row][key])

    for key in ("distance", "kernel distance", "error rate"):
        assert mean(GROUND_TRUTH, key) < mean(CORRUPTED, key) < mean("scribbled", key), key
    assert mean(GROUND_TRUTH, "Geometry Score") < mean("scribbled", "Geometry Score")
    assert mean(GROUND_TRUTH, "style") > mean("scribbled", "style")
    assert table.worse("copied", GROUND_TRUTH) == []
    assert "recognizer's errors, %" in table.worse("scribbled", GROUND_TRUTH)
    assert mean(CORRUPTED, "style") < mean(GROUND_TRUTH, "style")
    assert set(table.seconds) == {"copied", "scribbled"}
    assert all(set(rows) == set(table.values) for rows in table.canvases.values())
    assert len({rows[CORRUPTED] for rows in table.canvases.values()}) == len(table.canvases)


def test_the_geometry_score_of_many_real_lines_notices_what_is_spoilt(table, measures, written):
    count = len(written.split("train")) // 2
    assert table.settings["lines of a larger set"] == count > 12
    for real, jittered, repeated in zip(*table.geometry.values(), strict=True):
        assert real < jittered
        assert real < repeated
    assert f"sets of {count} real lines: ground truth" in table.text()
    assert measures.geometry_of_real("train", 20, 3) == measures.geometry_of_real("train", 20, 3) != measures.geometry_of_real("train", 20, 4)


def test_nothing_of_built_in_writers_is_set_beside_the_paper(table):
    assert table.paper == {}
    assert "2.91" not in table.text()
    assert any("nothing here can be compared with the paper's numbers" in note for note in table.notes)
    assert not any("guidance" in note for note in table.notes)


def test_notes_tell_of_chance_and_guidance(table):
    table = Table("FID", {"writing": {"guidance": 2.5}}, table.values)
    assert [note for note in table.found_notes() if "guidance 2.5, which is not in the paper" in note]
    [chance] = [note for note in table.found_notes() if "by chance" in note]
    assert f"{100 * np.mean(table.values[GROUND_TRUTH]['style, by chance']):.1f} %" in chance


def test_what_is_no_fid_is_not_called_so(table, tmp_path):
    table.save(tmp_path)
    files = [(tmp_path / name).read_text(encoding="utf-8") for name in ("table1.csv", "table1.json")]
    assert all("Fréchet distance (MobileNetV2)" in content for content in (table.text(), *files))
    assert "FID" not in files[0]


def test_notes_tell_what_is_not_as_in_the_paper(table, measures):
    assert table.notes[0] in table.text()
    assert "12 lines a set, not the paper's 4500" in table.notes[0]
    assert not any("lines a set" in note for note in measures.notes("train", 4500))


def test_the_files_hold_the_table_and_times_lie_apart(table, tmp_path):
    table.save(tmp_path)
    saved = json.loads((tmp_path / "table1.json").read_text())
    assert saved["values"] == table.values
    canvas = {"width": 1200, "height": 120, "scale": 5.0, "pen": 2.0}
    settings = {"origin": "a test", "split": "train", "lines": 12, "seeds": [0, 1], "canvas": canvas}
    assert {key: saved["settings"][key] for key in settings} == settings
    assert saved["settings"]["Geometry Score"] == {"landmarks": 8, "repetitions": 20, "gamma": 12 / 640_000, "i_max": 100, "points a line": 488}
    assert saved["notes"] == table.notes
    assert "seconds" not in saved
    assert json.loads((tmp_path / "timings.json").read_text())["seconds a line"] == table.seconds
    [head, first, *_] = [line.split(",") for line in (tmp_path / "table1.csv").read_text().splitlines()]
    assert first[0] == GROUND_TRUTH
    assert float(first[head.index("recognizer's error rate; mean")]) == pytest.approx(np.mean(table.values[GROUND_TRUTH]["error rate"]), rel=1e-5)
    assert float(first[head.index("recognizer's error rate; sd")]) == pytest.approx(
        np.std(table.values[GROUND_TRUTH]["error rate"], ddof=1), rel=1e-5
    )


def test_a_table_that_is_cut_short_keeps_the_seeds_that_are_done(measures, written, tmp_path):
    def fails_later(indices, seed):
        if seed:
            raise KeyboardInterrupt
        return [written.ink(index) for index in indices]

    with pytest.raises(KeyboardInterrupt):
        table1(measures, "train", 8, [0, 1], {"row": fails_later}, canvases=False, folder=tmp_path)
    saved = json.loads((tmp_path / "table1.json").read_text())
    assert saved["settings"]["seeds"] == [0]
    assert [len(values["distance"]) for values in saved["values"].values()] == [1, 1, 1]


def test_the_text_has_means_spreads_and_the_papers_numbers():
    values = {
        "distance": [1.0, 3.0],
        "kernel distance": [0.001, 0.001],
        "kernel distance deviation": [0.002, 0.002],
        "Geometry Score": [0.0, 0.002],
        "error rate": [0.5, 0.5],
        "style": [None, None],
    }
    table = Table("FID", {}, {"model (Eq. 12)": values}, {"model (Eq. 12)": [0.5, 0.7]})
    head, row = table.text().splitlines()
    assert head.split()[0] == "FID"
    assert row.split("  ")[0] == "model (Eq. 12)"
    cells = [cell.strip() for cell in row.split("  ")[1:] if cell.strip()]
    assert cells == ["2.00 ± 1.41", "1.00 ± 0.00", "2.00 ± 0.00", "1.00 ± 1.41", "50.0 ± 0.0", "-", "0.60 ± 0.14", "7.10", "3.30"]


def test_worse_is_what_differs_by_more_than_chance_seed_by_seed():
    base = {"distance": [1.0, 5.0, 9.0], "kernel distance": [1.0, 2.0, 3.0], "kernel distance deviation": [1.0, 1.0, 1.0]}
    base |= {"Geometry Score": [1.0, 1.0, 1.0], "error rate": [0.1, 0.2, 0.3], "style": [0.5, None, 0.6]}
    other = {"distance": [2.0, 6.1, 9.9], "kernel distance": [3.0, 1.0, 2.5], "kernel distance deviation": [9.0, 9.0, 9.0]}
    other |= {"Geometry Score": [0.5, 0.5, 0.4], "error rate": [0.1, 0.2, 0.3], "style": [0.2, 0.1, 0.31]}
    table = Table("FID", {"seeds": [0, 1, 2]}, {"base": base, "other": other})
    assert table.worse("other", "base") == ["FID", "hand among first 10, %"]  # though FID differs by far more from seed to seed
    assert table.worse("base", "other") == ["Geometry Score x 1000"]
    assert Table("FID", {"seeds": [0]}, table.values).worse("other", "base") is None


def test_a_part_whose_others_have_too_few_forms_is_refused(dataset, features, recognizer):
    with pytest.raises(HwdiffError, match=r"lines of \d forms"):
        Measures(dataset, "test", features, recognizer)
