import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hwdiff import HwdiffError
from hwdiff.data.dataset import style_lines
from hwdiff.evaluation import bench as bench_module
from hwdiff.evaluation import geometry, protocol
from hwdiff.evaluation import measures as measures_module
from hwdiff.evaluation.corruption import jittered
from hwdiff.evaluation.measures import Measures, points
from hwdiff.evaluation.notes import notes_on_sets, notes_on_values
from hwdiff.evaluation.protocol import table1
from hwdiff.evaluation.report import (
    named_differences,
    named_geometry,
    named_rows,
    save_table,
    table_text,
)
from hwdiff.evaluation.sampler_comparison import (
    BASE,
    comparison_text,
    fewest_evaluations,
    not_worse,
    sampler_rows,
)
from hwdiff.evaluation.sets import Sets, real_inks
from hwdiff.evaluation.tables import CORRUPTED, GROUND_TRUTH, REPEATED, Table, row_title
from hwdiff.ink.ink import Ink


@pytest.fixture(scope="module")
def measures(written, written_features, recognizer):
    return Measures(written, "train", features=written_features, recognizer=recognizer, repetitions=20)


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
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("table")


@pytest.fixture(scope="module")
def table(measures, written, folder):
    """Real lines handed over as what was written: once the right ones, once scribbles."""

    def copied(indices, seeds):
        return [written.ink(index).trimmed() for index in indices]

    def scribbled(indices, seeds):
        generator = np.random.default_rng(seeds)
        return [
            Ink(generator.normal(size=(40, 2)), np.arange(40) == 0, str(written.texts[index]))
            for index in indices
        ]

    rows = {"copied": copied, "scribbled": scribbled}
    with pytest.MonkeyPatch.context() as patch:  # there are not so many lines here
        patch.setattr(protocol, "GEOMETRY_LINES", len(written.split("train")) // 2)
        return table1(
            measures,
            "train",
            count=12,
            seeds=[0, 1],
            generators=rows,
            compared=[("copied", GROUND_TRUTH), ("scribbled", "copied")],
            settings={"origin": "a test"},
            folder=folder,
        )


def test_every_measure_moves_the_way_it_should(table):
    assert list(table.values) == [GROUND_TRUTH, "copied", "scribbled", CORRUPTED]
    assert table.values["copied"] == table.values[GROUND_TRUTH]

    def mean(row, key):
        return np.mean(table.values[row][key])

    for key in ("distance", "kernel_distance", "cer"):
        assert mean(GROUND_TRUTH, key) < min(mean(CORRUPTED, key), mean("scribbled", key)), key
    assert mean(CORRUPTED, "cer") < mean("scribbled", "cer")
    for key in ("form_top10", "style_top10"):
        assert mean(GROUND_TRUTH, key) > max(mean(CORRUPTED, key), mean("scribbled", key)), key
        assert mean(GROUND_TRUTH, key) > mean(GROUND_TRUTH, "style_chance"), key
    assert set(table.seconds) == {"copied", "scribbled"}
    assert all(set(rows) == set(table.values) for rows in table.canvases.values())
    assert len({rows[CORRUPTED] for rows in table.canvases.values()}) == len(table.canvases)
    tables_canvas, *_ = table.canvases.values()
    for row, distance in tables_canvas.items():
        assert distance == pytest.approx(table.values[row]["kernel_distance"][0])


def test_what_was_measured_of_each_line_is_kept(table, written, folder):
    """So that other differences and intervals can be computed from it later."""
    sets = Sets.draw(written, "train", count=12, seed=1)
    with np.load(folder / "lines.npz") as kept:
        assert kept["1/first"].tolist() == [written.ids[line] for line in sets.first]
        assert kept["1/second"].tolist() == [written.ids[line] for line in sets.second]
        for row, values in table.values.items():
            edits, characters = kept[f"1/{row}/cer"].T
            assert values["cer"][1] == pytest.approx(edits.sum() / characters.sum())
            assert values["right"][1] == kept[f"1/{row}/right"][:, 0].mean() == (edits == 0).mean()
            assert len(kept[f"1/{row}/kernel_distance"]) == 24
            assert values["style_chance"][1] == min(1, 10 / len(set(written.forms[sets.known])))


def test_lines_without_an_error_are_counted(measures, written, monkeypatch):
    monkeypatch.setattr(measures_module, "edits_of", lambda inks, recognizer: np.array([[0, 9], [1, 9]] * 3))
    sets = Sets.draw(written, "train", count=6, seed=0)
    found = measures([written.ink(line).trimmed() for line in sets.second], measures.reference(sets))
    assert found.values["right"] == 0.5
    assert found.values["cer"] == pytest.approx(3 / 54)


def test_canvases_are_compared_on_lines_spread_over_the_sets(measures, written, monkeypatch):
    monkeypatch.setattr(protocol, "CANVAS_LINES", 3)
    seen = []
    monkeypatch.setattr(measures, "picture_features", lambda inks, canvas: seen.append(list(inks)))
    monkeypatch.setattr(protocol, "kernel_distance", lambda first, second: 0.0)
    sets = Sets.draw(written, "train", count=9, seed=0)
    protocol._distances_by_canvas(measures, sets, {"row": list(range(9))})
    assert [ink.text for ink in seen[0]] == written.texts[sets.first[[0, 4, 8]]].tolist()
    assert seen[1] == [0, 4, 8]


def test_the_geometry_score_is_taken_with_and_without_the_pen_flag(measures, written, monkeypatch):
    few = partial(geometry.mrlt, landmarks=8, workers=1)  # there are not so many lines here
    fake = SimpleNamespace(**{**vars(geometry), "mrlt": few})
    monkeypatch.setattr("hwdiff.evaluation.measures.geometry", fake)
    monkeypatch.setattr("hwdiff.evaluation.measures.GEOMETRY_LINES", 20)
    sets = Sets.draw(written, "train", count=20, seed=0)
    lines = [written.ink(line).trimmed() for line in sets.second]
    reference, lifted = measures.reference(sets), [replace(ink, pen_up=~ink.pen_up) for ink in lines]
    found, other = (measures(inks, reference).values for inks in (lines, lifted))
    scores = ("geometry_score", "geometry_score_offsets")
    assert all(found[score] is not None for score in scores)
    assert found[scores[0]] != other[scores[0]]
    assert found[scores[1]] == other[scores[1]]
    assert found["beyond_i_max"] is not None


def test_differences_have_intervals_over_the_same_lines(table):
    # Where no line differs there is no interval: one of no width would say too much.
    assert table.differences["copied"][GROUND_TRUTH] == {}
    worse = table.differences["scribbled"]["copied"]
    for key, sign in (("kernel_distance", 1), ("cer", 1), ("form_top10", -1)):
        value, low, high = worse[key]
        assert low < value < high
        assert min(sign * low, sign * high) > 0, key
    [kernel] = [
        row
        for row in named_differences(table)
        if row["measure"].startswith("kernel") and row["difference"] == "scribbled less copied"
    ]
    assert kernel["value"] == 1000 * worse["kernel_distance"][0]
    assert kernel["2.5 %"] < kernel["value"] < kernel["97.5 %"]
    # The same number as in the table: there the kernel distances are means over the seeds.
    means = [np.mean(table.values[row]["kernel_distance"]) for row in ("scribbled", "copied")]
    assert worse["kernel_distance"][0] == pytest.approx(means[0] - means[1])
    assert "scribbled less copied: kernel distance x 1000 +" in table_text(table)


def test_the_text_says_on_how_many_lines_canvases_were_compared(table):
    assert "on this and other canvases, first seed, 12 lines a set:" in table_text(table)
    fewer = replace(table, settings=table.settings | {"canvas_lines": 6})
    assert "on this and other canvases, first seed, 6 lines a set:" in table_text(fewer)


def test_what_few_lines_cannot_tell_is_left_out(table):
    for values in table.values.values():
        assert values["frechet"] == values["geometry_score"] == values["beyond_i_max"] == [None, None]
    assert [column.key for column in table.columns] == [
        "kernel_distance",
        "cer",
        "right",
        "form_top10",
        "style_top10",
    ]
    assert any("no Fréchet distance: it needs 50 lines a set" in note for note in table.notes)
    assert any("no Geometry Score of sets of 12 lines" in note for note in table.notes)


def test_the_bootstrap_draws_whole_forms():
    # Two forms, of which one is far better in all its lines: of lines the interval would be much narrower.
    halves = np.repeat([0.0, 1.0], 50)
    values = {"new": {"cer": halves}, "old": {"cer": np.zeros(100)}}
    # In the kernel distance the lines that they are compared with count too.
    values["new"]["kernel_distance"] = np.concatenate((halves, np.full(100, 0.5)))
    values["old"]["kernel_distance"] = np.zeros(200)
    rows = {
        row: {measure: np.stack((found, np.ones_like(found)), axis=1) for measure, found in of.items()}
        for row, of in values.items()
    }
    forms = np.repeat(["a", "b", "c", "d"], 50)
    sets = Sets(np.arange(100), np.arange(100, 200), np.arange(0), seed=0)
    found = protocol._differences([(sets, rows)], forms, [("new", "old")])["new"]["old"]
    assert found["cer"] == (0.5, 0, 1)
    value, low, high = found["kernel_distance"]
    assert value == 0.5 and low < 0.25 and high > 0.75


def test_the_frechet_distance_of_enough_lines_has_no_bias(measures, written, monkeypatch):
    monkeypatch.setattr("hwdiff.evaluation.measures.MAX_AXES_LINES", 80)
    sets = Sets.draw(written, "train", count=50, seed=0)
    reference, inks = measures.reference(sets), real_inks(written, sets.second)
    real, corrupted = (measures(some, reference).values for some in (inks, jittered(inks, 0.4, 0)))
    assert abs(real["frechet"]) < real["distance"] / 2
    assert corrupted["frechet"] > 3 * abs(real["frechet"])
    assert measures.axes.axes.shape == (1280, 10)


def test_the_geometry_score_of_many_real_lines_notices_what_is_corrupted(table, measures, written):
    count = len(written.split("train")) // 2
    assert table.settings["geometry_lines"] == count > 12
    real, jittered_, repeated_ = (np.mean(scores) for scores in table.geometry.values())
    assert real < jittered_ < repeated_
    assert f"sets of {count} real lines: ground truth" in table_text(table)
    one, other = (Sets.draw(written, "train", count=20, seed=seed) for seed in (3, 4))
    scores = measures.geometry_of_real(one)
    assert scores == measures.geometry_of_real(one) != measures.geometry_of_real(other)
    assert [row["row"] for row in named_geometry(table)] == [
        "ground truth",
        "real, corrupted",
        "real, repeated",
    ]


def test_a_geometry_score_that_does_not_tell_is_commented_on(table):
    geometry = {GROUND_TRUTH: [0.1, 0.1], CORRUPTED: [0.2, 0.2], REPEATED: [0.4, 0.5]}
    rising = Table("FID", {}, table.values, geometry=geometry)
    assert not any("partly noise" in note for note in notes_on_values(rising))
    geometry = {GROUND_TRUTH: [0.1, 0.3], CORRUPTED: [0.2, 0.2], REPEATED: [0.4, 0.5]}
    dipped = Table("FID", {}, table.values, geometry=geometry)
    [note] = [note for note in notes_on_values(dipped) if "partly noise" in note]
    assert note.startswith("in 1 of 2 seeds")
    assert "“real, corrupted”" in note


def test_nothing_of_built_in_writers_is_set_beside_the_paper(table):
    assert table.paper == {}
    assert "2.91" not in table_text(table)
    assert any("nothing here can be compared with the paper's numbers" in note for note in table.notes)
    assert not any("with guidance" in note for note in table.notes)


def test_notes_tell_of_chance_guidance_and_the_recognizer(table):
    rows = {"eq12": {"guidance": 1.0}, "eq12_guided": {"guidance": 2.5}, "student": {"guidance": 1.0}}
    guided = Table("FID", {"rows": rows}, table.values)
    assert [note for note in notes_on_values(guided) if note.startswith("guidance 2.5 is not in the paper")]
    [chance] = [note for note in notes_on_values(guided) if "drawn at random" in note]
    assert f"{100 * np.mean(table.values[GROUND_TRUTH]['style_chance']):.1f} %" in chance
    for said in ("standard deviation over the seeds", "micro-averaged", "chose", "circular"):
        assert any(said in note for note in table.notes), said


def test_what_is_no_fid_is_not_called_so(table, tmp_path):
    save_table(table, tmp_path)
    cells, everything = (
        (tmp_path / name).read_text(encoding="utf-8") for name in ("table1.csv", "table1.json")
    )
    assert "Fréchet distance (MobileNetV2)" in everything
    assert "FID" not in cells
    assert "FID" not in table_text(table)
    values = {key: [1.0] for key in ("kernel_distance", "frechet", "distance", "cer")}
    names = [
        [column.name for column in Table(distance, {}, {"eq12": values}).columns]
        for distance in ("FID", "Fréchet distance (MobileNetV2)")
    ]
    assert names == [
        ["kernel distance", "Fréchet distance, N → ∞ (10 axes of Inception)", "FID", "CER"],
        ["kernel distance", "Fréchet distance, N → ∞ (10 axes of MobileNetV2)", "CER"],
    ]


def test_notes_tell_what_is_not_as_in_the_paper(table, written, recognizer):
    assert table.notes[0] in table_text(table)
    few, many = (
        list(notes_on_sets(written, "train", count=count, recognizer=recognizer, is_fid=True))
        for count in (60, 4500)
    )
    assert any("60 lines a set, not the paper's 4500: FID of small sets is biased" in note for note in few)
    assert not any("lines a set" in note or "Geometry" in note for note in many)


def test_the_files_hold_the_table_and_times_lie_apart(table, tmp_path):
    save_table(table, tmp_path)
    saved = json.loads((tmp_path / "table1.json").read_text())
    assert saved["values"] == table.values
    canvas = {"width": 1200, "height": 120, "scale": 5.0, "pen": 2.0}
    settings = {"origin": "a test", "split": "train", "lines": 12, "seeds": [0, 1], "canvas": canvas}
    assert {key: saved["settings"][key] for key in settings} == settings
    assert saved["settings"]["geometry_score"] == {
        "landmarks": 64,
        "repetitions": 20,
        "repetitions_of_larger_sets": 20,
        "gamma": 12 / 640_000,
        "i_max": 100,
        "points_per_line": 488,
        "min_lines": 600,
    }
    assert saved["differences"]["scribbled"]["copied"]["cer"] == list(
        table.differences["scribbled"]["copied"]["cer"]
    )
    assert saved["notes"] == table.notes
    assert "seconds" not in saved
    assert json.loads((tmp_path / "timings.json").read_text())["seconds_per_line"] == table.seconds
    [head, first, *_] = [line.split(",") for line in (tmp_path / "table1.csv").read_text().splitlines()]
    assert first[0] == GROUND_TRUTH
    rates = table.values[GROUND_TRUTH]["cer"]
    assert float(first[head.index("cer_mean")]) == pytest.approx(np.mean(rates), rel=1e-5)
    assert float(first[head.index("cer_sd")]) == pytest.approx(np.std(rates, ddof=1), rel=1e-5)


def test_rows_for_a_person_are_in_the_units_of_their_titles():
    rates, distances = [0.1, 0.3], [0.002, None]
    table = Table("distance", {}, {GROUND_TRUTH: {"cer": rates, "kernel_distance": distances}})
    [row] = named_rows(table)
    assert row["row"] == "ground truth"
    assert row["CER, %, mean"] == pytest.approx(20)
    assert row["CER, %, sd"] == pytest.approx(100 * np.std(rates, ddof=1))
    assert row["kernel distance x 1000, mean"] == pytest.approx(2)
    assert np.isnan(row["kernel distance x 1000, sd"])


def test_a_table_that_is_cut_short_keeps_what_is_done(measures, written, tmp_path):
    calls = []

    def fails_later(indices, seeds):
        if seeds.min():
            raise KeyboardInterrupt
        calls.append(len(indices))
        return [written.ink(index) for index in indices]

    def measure(seeds, row):
        options = {"settings": {"rows": {"row": row}}, "canvases": False, "folder": tmp_path}
        table1(measures, "train", count=4, seeds=seeds, generators={"row": fails_later}, **options)
        return json.loads((tmp_path / "table1.json").read_text())

    with pytest.raises(KeyboardInterrupt):
        measure([0, 1], {"guidance": 1})
    saved = json.loads((tmp_path / "table1.json").read_text())
    assert saved["settings"]["seeds"] == [0]
    assert [len(values["distance"]) for values in saved["values"].values()] == [1, 1, 1]
    # Its lines are not written again, but for a row that is written otherwise.
    again = measure([0], {"guidance": 1})
    assert calls == [4]
    assert again == saved
    measure([0], {"guidance": 2})
    assert calls == [4, 4]


def test_lines_of_other_sets_are_not_taken_for_these(written, tmp_path):
    def generate(indices, seeds):
        return [written.ink(index) for index in indices]

    train, test = (Sets.draw(written, split, count=4, seed=0) for split in ("train", "test"))
    for sets in (train, test, train):
        inks, _ = protocol.write_row("row", sets, written, generate, {}, folder=tmp_path)
        assert [ink.text for ink in inks] == written.texts[sets.second].tolist()


def test_lines_written_elsewhere_are_not_taken_over(written, tmp_path):
    """Another device or version of torch writes other bits, and takes another time."""
    sets, calls = Sets.draw(written, "train", count=4, seed=0), []

    def generate(indices, seeds):
        calls.append(len(indices))
        return [written.ink(index) for index in indices]

    for device, torch_version in (("cpu", "2.11"), ("cpu", "2.11"), ("cuda", "2.11"), ("cpu", "2.12")):
        about = {"environment": {"device": device, "packages": {"torch": torch_version}}}
        protocol.write_row("row", sets, written, generate, about, folder=tmp_path)
    assert calls == [4, 4, 4]


def test_a_score_of_real_lines_has_the_repetitions_that_its_record_says(measures, written, monkeypatch):
    seen = []

    def spied(X, n, **options):
        seen.append(n)
        return geometry.mrlt(X, 2, workers=1, **options)

    fake = SimpleNamespace(**{**vars(geometry), "mrlt": spied})
    monkeypatch.setattr("hwdiff.evaluation.measures.geometry", fake)
    for asked in (1000, 7):
        monkeypatch.setattr(measures, "repetitions", asked)
        seen.clear()
        measures.geometry_of_real(Sets.draw(written, "train", count=20, seed=0))
        recorded = measures.settings(12)["geometry_score"]
        assert set(seen) == {recorded["repetitions_of_larger_sets"]} == {min(asked, 100)}
        assert recorded["repetitions"] == asked


def test_the_text_has_means_spreads_and_the_papers_numbers():
    values = {
        "distance": [1.0, 3.0],
        "kernel_distance": [0.001, 0.001],
        "geometry_score": [0.0, 0.002],
        "cer": [0.5, 0.5],
        "style_top10": [None, None],
    }
    levels = [1.0] * 61
    written = {"eq12": {"guidance": 1, "levels": levels}, "eq12_guided": {"guidance": 2.5, "levels": levels}}
    settings = {"rows": written}
    rows = {"eq12": values, "eq12_guided": values}
    head, row, guided = table_text(Table("FID", settings, rows, {"eq12": [0.5, 0.7]})).splitlines()
    assert head.split()[:3] == ["NFE", "kernel", "distance"]
    assert row.startswith("model (Eq. 12), guidance 1  ")
    cells = [cell.strip() for cell in row.split("  ")[1:] if cell.strip()]
    assert cells == [
        "60",
        "1.00 ± 0.00",
        "2.00 ± 1.41",
        "1.00 ± 1.41",
        "50.0 ± 0.0",
        "0.60 ± 0.14",
        "7.10",
        "3.30",
    ]
    # The paper's name and numbers stand beside the paper's method alone.
    assert guided.startswith("Eq. 12, guidance 2.5  ")
    assert "  120  " in guided  # a guided step takes two evaluations
    assert "7.10" not in guided
    few = table_text(Table("FID", {**settings, "lines": 60}, rows))
    assert "Geometry Score" not in few
    assert "GS x 1000" not in few
    assert "7.10" in few


def test_a_table_of_an_older_version_is_read():
    values = {"distance": [3.0], "kernel_distance": [0.1], "kernel_sd": [0.2], "cer": [0.1]}
    settings = {"writing": {"guidance": 2.5}, "rows": {"eq12": {"sampler": "eq12"}}, "lines": 60}
    table = Table("Fréchet distance (MobileNetV2)", settings, {"eq12": values})
    assert table.title("eq12") == "Eq. 12, guidance 2.5"
    assert "7.10" not in table_text(table)
    assert [column.key for column in table.columns] == ["kernel_distance", "cer"]


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
    named = [
        (GROUND_TRUTH, None),
        ("eq12", 1),
        ("eq12", 2.5),
        ("eq9", 1.0),
        ("eq9", None),
        ("student", 1.0, 12),
    ]
    named += [("eq12", 1, 12), ("eq9_guided", 2.5, 12)]
    assert [row_title(*one) for one in named] == [
        "ground truth",
        "model (Eq. 12), guidance 1",
        "Eq. 12, guidance 2.5",
        "ablation (Eq. 9), guidance 1",
        "Eq. 9",
        "student, 12 steps",
        "Eq. 12, 12 steps, guidance 1",
        "Eq. 9, 12 steps, guidance 2.5",
    ]


@pytest.fixture
def comparison():
    """A comparison of two rows with 60 steps, of which neither is worse."""
    rows = sampler_rows(["eq12"], [30, 8], ["time"])
    settings = {"rows": {row: {"levels": written.alpha_bar.tolist()} for row, written in rows.items()}}
    values = {row: {"kernel_distance": [0.01, 0.02], "cer": [0.1, 0.2]} for row in rows}
    alike = {"kernel_distance": (0.1e-3, -0.2e-3, 0.4e-3), "cer": (0.002, -0.004, 0.008)}
    differences = {row: {BASE: dict(alike)} for row in rows if row != BASE}
    return Table("FID", settings, values, differences=differences)


def test_a_comparison_names_the_fewest_evaluations_that_are_not_worse(comparison):
    assert fewest_evaluations(comparison) == ["eq12_8_time"]
    # An interval that ends above the margin is no success, even where it holds 0.
    comparison.differences["eq12_8_time"][BASE]["cer"] = (0.002, -0.02, 0.03)
    assert not not_worse(comparison, "eq12_8_time")
    assert not_worse(comparison, "eq12_8_time", cer=0.04)
    assert fewest_evaluations(comparison) == ["eq12_30_time"]
    assert comparison_text(comparison).splitlines() == [
        f"not worse than {row_title(BASE)}, guidance 1: the intervals of the differences end below "
        "1 points of CER and 0.5 of kernel distance x 1000",
        "  eq12, 30 steps, time, guidance 1          not worse",
        "  eq12, 8 steps, time, guidance 1           not shown to be no worse",
        "fewest network evaluations that are not worse: eq12, 30 steps, time, guidance 1",
    ]


def test_evaluations_count_not_steps(comparison):
    comparison.settings["rows"]["student"] = {"levels": [1.0] * 13, "guidance": 1.0}
    comparison.differences["student"] = comparison.differences["eq12_30_time"]
    comparison.settings["rows"]["eq12_8_time"]["guidance"] = 2.0
    assert fewest_evaluations(comparison) == ["student"]  # 12, and 8 steps with guidance 16
    assert comparison_text(comparison).endswith("that are not worse: student, 12 steps")


def test_a_row_without_intervals_is_not_chosen(comparison):
    comparison.differences["eq12_8_time"][BASE].pop("kernel_distance")
    comparison.differences["eq12_30_time"][BASE]["kernel_distance"] = (0.1e-3, -0.2e-3, 0.6e-3)
    assert fewest_evaluations(comparison) == []
    assert "fewest" not in comparison_text(comparison)


def test_a_split_whose_others_have_too_few_forms_is_refused(dataset, features, recognizer):
    with pytest.raises(HwdiffError, match=r"lines of \d forms"):
        Measures(dataset, "test", features=features, recognizer=recognizer)


def test_rows_are_chosen_by_name_and_compared_with_those_that_there_are():
    rows = bench_module.table1_rows(2.5, student=True)
    chosen = bench_module.chosen_rows(rows, ["eq9", "eq12"])
    assert list(chosen) == ["eq12", "eq9"]
    assert bench_module.compared_rows(chosen) == [
        ("eq12", GROUND_TRUTH),
        ("eq9", GROUND_TRUTH),
        ("eq9", "eq12"),
    ]
    assert bench_module.chosen_rows(rows, None) == rows
    assert ("student", "eq12_guided") in bench_module.compared_rows(rows)
    assert ("student", "eq12") in bench_module.compared_rows(bench_module.table1_rows(1.0, student=True))
    assert "student" not in bench_module.table1_rows(1.0)
    with pytest.raises(HwdiffError, match="no such row as 'eq13'; choose one of eq12, eq9, eq12_foreign"):
        bench_module.chosen_rows(rows, ["eq12", "eq13"])


def test_a_bench_writes_in_as_many_processes_as_there_are_threads(written, monkeypatch):
    bench = bench_module.Bench.__new__(bench_module.Bench)
    bench.dataset = written
    bench.network, bench.split, bench.lines = torch.nn.Linear(1, 1), "train", 4
    bench.guidance, bench.student = 1.0, None
    for name in ("measures", "writer", "_settings"):
        monkeypatch.setattr(bench, name, lambda *given: None, raising=False)
    monkeypatch.setattr(bench_module, "table1", lambda *given, **options: options)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert bench.table()["workers"] == 3


def test_writer_styles_and_axes_are_learnt_from_other_splits(measures, written):
    assert set(written.splits[measures._others]) == {"validation", "test"}


def test_seeds_do_not_share_noise(written):
    seeds = []

    def generate(indices, own):
        seeds.append(set(own.tolist()))
        return [written.ink(index) for index in indices]

    for seed in (0, 1):
        protocol.write_row("row", Sets.draw(written, "train", count=20, seed=seed), written, generate, {})
    assert len(seeds[0]) == len(seeds[1]) == 20
    assert not seeds[0] & seeds[1]


def test_the_first_ten_are_ten():
    found = measures_module._within(np.array([1.0, 10.0, 11.0, np.nan]), 10)
    np.testing.assert_array_equal(found, [1, 1, 0, np.nan])
