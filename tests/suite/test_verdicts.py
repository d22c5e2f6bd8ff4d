import json

import numpy as np
import pytest

from hwdiff import HwdiffError
from hwdiff.suite.verdicts import (
    DIFFERS,
    OPEN,
    PAPER_PARAMETERS,
    PARTLY,
    REPRODUCED,
    measured_table,
    network_title,
    verdicts,
)


@pytest.fixture
def measurements(tmp_path):
    """Measurements of five seeds in which Eq. 12 is a little better than Eq. 9."""

    def write(*, guidance=1.0, kernel=(3, 2, 4), retrieval=None, file="pretrained.safetensors", **model):
        papers = {"file": file, "step": 60_000, "parameters": PAPER_PARAMETERS, "guided_attention": 0}
        settings = {
            "writing": {"guidance": guidance},
            "model": papers | model,
            "split": "test",
            "lines": 60,
            "seeds": [0, 1, 2, 3, 4],
        }
        scores = {"distance": [3.0] * 5, "form_top10": [0.5, 0.6, 0.4, 0.5, 0.5], "style_chance": [0.05] * 5}
        values = {
            "ground_truth": {**scores, "kernel_distance": [0.0] * 5, "cer": [0.08] * 5},
            "eq12": {**scores, "kernel_distance": [1, 2, 3, 2, 1], "cer": [0.1, 0.09, 0.1, 0.1, 0.1]},
            "eq9": {**scores, "kernel_distance": [4, 5, 6, 5, 5], "cer": [0.2] * 5},
        }
        (tmp_path / "evaluate-test").mkdir(exist_ok=True)
        differences = {
            "eq9": {"eq12": {"kernel_distance": kernel, "cer": (0.1, 0.09, 0.11)}},
            "eq12": {"ground_truth": {"cer": (0.02, 0.01, 0.03)}},
        }
        if retrieval:
            values["eq12_foreign"] = {**values["eq12"], "form_top10": [0.2] * 5}
            differences["eq12"]["eq12_foreign"] = {"form_top10": retrieval}
        table = {"settings": settings, "values": values, "differences": differences}
        table["distance"] = "Fréchet distance (MobileNetV2)"
        (tmp_path / "evaluate-test" / "table1.json").write_text(json.dumps(table))
        return {row["claim"]: row for row in verdicts(tmp_path)}

    return write


def test_a_claim_is_reproduced_by_the_papers_network_and_method_only(measurements):
    claim, skill = "Eq. 12 draws better than Eq. 9", "the text can be read"
    assert measurements()[claim]["verdict"] == REPRODUCED
    assert measurements(guidance=2.5)[claim]["verdict"] == OPEN
    # What it can do already after less training is something; a difference may come from that.
    assert measurements(step=59_999)[claim]["verdict"] == OPEN
    assert measurements(step=59_999)[skill]["verdict"] == PARTLY
    assert measurements(step=59_999, guidance=2.5)[skill]["verdict"] == OPEN
    assert measurements(parameters=2_593_491)[claim]["verdict"] == OPEN
    assert measurements(guided_attention=0.1)[claim]["verdict"] == OPEN
    assert "--model" not in measurements()[claim]["command"]
    for file, named in (("small.safetensors", "small"), ("student.safetensors", "student.safetensors")):
        assert measurements(file=file)[claim]["command"].endswith(f" --model {named}")


def test_the_interval_decides(measurements):
    claim = "Eq. 12 draws better than Eq. 9"
    assert measurements(kernel=(-4, -5, -3))[claim]["verdict"] == DIFFERS
    assert measurements(kernel=(1, -1, 3))[claim]["verdict"] == OPEN
    rows = measurements()
    assert (
        rows[claim]["here"]
        == "Eq. 9 less Eq. 12: kernel distance x 1000 2000.0 to 4000.0, CER 9.0 to 11.0 points"
    )
    assert rows["Table 1, Eq. 12"]["verdict"] == OPEN  # no FID
    assert rows["the text can be read"]["verdict"] == REPRODUCED
    assert rows["the style of an image is followed"]["verdict"] == OPEN  # no control
    rows = measurements(retrieval=(0.3, 0.2, 0.4))
    assert rows["the style of an image is followed"]["verdict"] == REPRODUCED
    assert "in foreign styles 20.0 ± 0.0 %" in rows["the style of an image is followed"]["here"]
    rows = measurements(retrieval=(0.1, -0.1, 0.3))
    assert rows["the style of an image is followed"]["verdict"] == OPEN
    assert rows["the text can be read"]["here"] == "CER 9.8 ± 0.4 %, of real lines 8.0 ± 0.0 %"


@pytest.mark.parametrize(
    ("lowest", "least", "step", "parameters", "helped", "verdict"),
    [
        (0.95, 0.95, 60_000, PAPER_PARAMETERS, {}, REPRODUCED),
        (0.5, 0.95, 60_000, PAPER_PARAMETERS, {}, DIFFERS),
        (0.95, 0.5, 60_000, PAPER_PARAMETERS, {}, DIFFERS),
        (0.95, 0.95, 59_999, PAPER_PARAMETERS, {}, PARTLY),
        (0.5, 0.5, 59_999, PAPER_PARAMETERS, {}, OPEN),
        (0.95, 0.95, 60_000, 2_593_491, {}, OPEN),
        (0.95, 0.95, 60_000, PAPER_PARAMETERS, {"guided_attention": 0.1}, OPEN),
        (0.95, 0.95, 60_000, PAPER_PARAMETERS, {"distilled": True}, OPEN),
        (0.95, 0.95, 60_000, PAPER_PARAMETERS, {"planned": 96_000}, PARTLY),
        (0.95, 0.95, 6_545, PAPER_PARAMETERS, {"planned": 6_545, "init": "paper"}, PARTLY),
        (0.95, 0.95, 6_000, PAPER_PARAMETERS, {"planned": None, "distilled": True}, OPEN),
    ],
)
def test_attention_must_go_forward_in_every_line_once_training_has_ended(
    tmp_path, lowest, least, step, parameters, helped, verdict
):
    (tmp_path / "attention").mkdir()
    for step_then, forward, covered in (
        (step, (lowest, 1.0), (1.0, least)),
        (5_000, (0.1, 0.2), (1.0, 1.0)),  # trained for less
    ):
        content = {
            "step": step_then,
            "planned": 60_000,
            "parameters": parameters,
            "guided_attention": 0,
            "distilled": False,
            **helped,
            "guidance": 1,
            "scores": {text: {"coverage": one} for text, one in zip("ab", covered, strict=True)},
            "monotonicity_at": {text: {"55": one, "5": 1.0} for text, one in zip("ab", forward, strict=True)},
        }
        (tmp_path / "attention" / f"alignment-{step_then:06}.json").write_text(json.dumps(content))
    [row] = verdicts(tmp_path)
    assert row["verdict"] == verdict
    planned = helped.get("planned", 60_000) or 0
    steps = f"{step:,} of {planned:,} steps" if planned > step else f"{step:,} steps"
    assert row["network"].endswith(f", {steps}{' from earlier weights' if 'init' in helped else ''}")


def test_a_student_is_called_one_by_its_batches():
    model = {"step": 1_100, "planned": None, "parameters": PAPER_PARAMETERS, "distilled": True}
    assert network_title(model | {"student": True}) == "a student, 1,100 batches"
    assert network_title(model | {"student": False}).endswith("1,100 steps")  # trained on from a student


def test_without_measurements_there_are_no_verdicts(tmp_path):
    assert verdicts(tmp_path) == []


def test_the_projects_own_measurements_have_verdicts():
    rows = verdicts()
    assert len(rows) == 9
    small = [row for row in rows if row["network"].startswith("small")]
    assert small and all(row["verdict"] == OPEN for row in small)


@pytest.fixture
def of_papers():
    """The settings of measurements by the paper's network and method."""
    model = {"file": "pretrained.safetensors", "step": 60_000, "parameters": PAPER_PARAMETERS}
    way = {"sampler": "eq12", "steps": 60, "block": -1}
    return {"model": model, "split": "test", "guidance": 1.0, "rows": {"eq12": {"guidance": 1.0}}, **way}


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.1, 0.5, REPRODUCED), (-0.1, 0.5, OPEN), (-0.5, -0.1, DIFFERS)]
)
def test_diversity_and_spelling_have_intervals(tmp_path, of_papers, low, high, verdict):
    differences = {"eq9": {"eq12": {"dtw": [0.3, low, high]}}}
    settings = of_papers | {"lines": [4, 7, 9], "repeats": 5}
    (tmp_path / "diversity.json").write_text(json.dumps({"settings": settings, "differences": differences}))
    # Spelling suffers where attention goes forward less: the correlation with the CER is negative.
    hard_texts = {"correlation": -0.9, "low": -1.0, "high": -0.8}
    given = {"given_text": -0.3, "given_low": -high, "given_high": -low}
    relations = {"monotonicity": hard_texts | given}
    content = {"settings": of_papers | {"lines": 120}, "relations": relations}
    (tmp_path / "alignment.json").write_text(json.dumps(content))
    diverse, spelt = verdicts(tmp_path)
    assert diverse["verdict"] == spelt["verdict"] == verdict
    assert diverse["here"].endswith(f"Eq. 9 less Eq. 12: 0.30 ({low:.2f} to {high:.2f})")
    assert spelt["here"].endswith(f"with the CER 0.30 ({low:.2f} to {high:.2f})")
    assert (diverse["lines"], spelt["lines"]) == (
        "3 texts of the test split, 5 lines each",
        "120 of the test split",
    )
    assert diverse["command"] == "hwdiff diversity --data iam.npz --split test --texts 3 --repeats 5"
    assert spelt["command"].endswith(" --split test --lines 120 --guidance 1 -o alignment.csv")
    way = content["settings"]
    for other in (
        {"settings": way | {"sampler": "dpm"}},
        {"relations": {"monotonicity": dict.fromkeys(given)}},
    ):
        (tmp_path / "alignment.json").write_text(json.dumps(content | other))
        assert verdicts(tmp_path)[1]["verdict"] == OPEN


def test_geometry_scores_stand_beside_the_papers(tmp_path, of_papers):
    rows = ("eq12", "eq9", "ground_truth")
    values = {
        row: {
            "geometry_score": [0.001 * n, 0.003 * n],
            "geometry_score_offsets": [0.005] * 2,
            "kernel_distance": [0.007, 0.009],
        }
        for n, row in enumerate(rows, 1)
    }
    settings = of_papers | {"writing": {"guidance": 1.0}, "lines": 4500, "split": "train", "seeds": [0, 1]}
    table = {"distance": "Fréchet distance (MobileNetV2)", "settings": settings, "values": values}
    settings["rows"] = {"eq12": {"guidance": 1.0}, "eq9": {"guidance": 1.0}}
    (tmp_path / "evaluate-4500").mkdir()
    (tmp_path / "evaluate-4500" / "table1.json").write_text(json.dumps(table))
    _, _, row = verdicts(tmp_path)
    assert row["paper"] == "x 1000: Eq. 12 3.30, Eq. 9 2.70, real lines 0.54"
    assert row["here"] == (
        "x 1000: Eq. 12 2.00 ± 1.41, Eq. 9 4.00 ± 2.83, real lines 6.00 ± 4.24; without pen flag "
        "Eq. 12 5.00 ± 0.00, Eq. 9 5.00 ± 0.00, real lines 5.00 ± 0.00"
    )
    assert row["verdict"] == OPEN  # how much a score varies with the lines is not known
    assert row["command"] == (
        "hwdiff evaluate --data iam.npz --split train --rows eq12,eq9 --lines 4500 --seeds 2"
    )
    for row in rows:
        values[row] = {key: scores[:1] for key, scores in values[row].items()}
    settings["seeds"] = [0]
    (tmp_path / "evaluate-4500" / "table1.json").write_text(json.dumps(table))
    _, _, row = verdicts(tmp_path)
    assert row["here"].startswith("x 1000: Eq. 12 1.00, Eq. 9 2.00, real lines 3.00; without pen flag ")
    assert row["lines"] == "4500 of the train split, 1 seed"


def test_what_the_paper_measures_on_training_lines_is_judged_by_them(measurements, of_papers, tmp_path):
    claim = "Eq. 12 draws better than Eq. 9"
    before = measurements()
    values = {"kernel_distance": [0.001], "geometry_score": [0.001], "geometry_score_offsets": [0.001]}
    table = {
        "distance": "Fréchet distance (MobileNetV2)",
        "settings": of_papers | {"writing": {"guidance": 1.0}, "lines": 4500, "split": "train", "seeds": [0]},
        "values": dict.fromkeys(("ground_truth", "eq12", "eq9"), values),
        "differences": {"eq9": {"eq12": {"kernel_distance": (-3, -4, -2), "cer": (0.1, 0.09, 0.11)}}},
    }
    (tmp_path / "evaluate-4500").mkdir()
    (tmp_path / "evaluate-4500" / "table1.json").write_text(json.dumps(table))
    after = {row["claim"]: row for row in verdicts(tmp_path)}
    assert (before[claim]["verdict"], after[claim]["verdict"]) == (REPRODUCED, DIFFERS)
    assert "4500 of the train split" in after["Table 1, Eq. 12"]["lines"]
    for skill in ("the text can be read", "the style of an image is followed"):
        assert after[skill] == before[skill]
        assert " --split test --lines 60 " in after[skill]["command"]
    assert " --split train --lines 4500 --seeds 1" in after[claim]["command"]
    table["settings"]["lines"] = 60
    (tmp_path / "evaluate-4500" / "table1.json").write_text(json.dumps(table))
    with pytest.raises(HwdiffError, match="of 60 lines of the split train, not of 4500 of train"):
        verdicts(tmp_path)


def test_a_measurement_is_read_by_its_name(tmp_path):
    assert "eq12_12_time" in measured_table("samplers").settings["rows"]
    assert measured_table("samplers", tmp_path) is None


@pytest.mark.parametrize(
    "content", ["", "[]", "3", "[" * 100_000, "{}", '{"distance": "a", "settings": {}}', "\ud800"]
)
@pytest.mark.parametrize(
    "name", ["evaluate-test/table1.json", "evaluate-4500/table1.json", "attention/alignment-000100.json"]
)
def test_a_damaged_measurement_is_named(tmp_path, name, content):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(content, errors="surrogatepass")
    with pytest.raises(HwdiffError, match=rf"{name}: not a file of measurements .*; restore it"):
        verdicts(tmp_path)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((0.0, 0.04), REPRODUCED), ((0.06, 0.1), DIFFERS), ((0.0, 0.1), OPEN), (None, OPEN)],
)
def test_fewer_steps_must_spell_about_as_well(tmp_path, interval, verdict):
    settings = {
        "writing": {"guidance": 1.0},
        "model": {"step": 60_000, "parameters": PAPER_PARAMETERS, "guided_attention": 0},
        "split": "validation",
        "lines": 60,
        "seeds": [0, 1, 2],
    }
    rows = ("eq12_60", "eq12_40_time", "eq12_30_time", "eq12_20_time")
    values = {row: {"cer": [0.08, 0.09, 0.1]} for row in rows}
    table = {"distance": "Fréchet distance (MobileNetV2)", "settings": settings, "values": values}
    if interval:
        table["differences"] = {"eq12_30_time": {"eq12_60": {"cer": (np.mean(interval), *interval)}}}
    (tmp_path / "samplers-fewer").mkdir()
    (tmp_path / "samplers-fewer" / "table1.json").write_text(json.dumps(table))
    [row] = verdicts(tmp_path)
    assert row["claim"] == "other numbers of steps need no training"
    assert row["verdict"] == verdict
    assert row["command"].endswith(" --guidance 1 --lines 60 --seeds 3")
