"""Single cells of the notebooks, with what they use replaced: does what they show stand under its name?"""

import json
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import nbformat
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from hwdiff import HwdiffError
from hwdiff.diffusion.style_gallery import mixed
from hwdiff.evaluation.spread import spread
from hwdiff.evaluation.tables import Table
from hwdiff.evaluation.writer_retrieval import place_between
from hwdiff.suite.runner import NOTEBOOKS
from hwdiff.suite.verdicts import measured_table, network_title


def source_of(name, beginning):
    """The source of the one code cell of a notebook that begins so."""
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    [found] = [one.source for one in cells if one.cell_type == "code" and one.source.startswith(beginning)]
    return found


def test_peoples_lines_are_not_scored_in_a_table_that_is_published(tmp_path):
    names = {
        "Dataset": lambda path: SimpleNamespace(path=path, of_people=path.name == "lines.npz"),
        "prepare": MagicMock(),
        "outputs": SimpleNamespace(run=tmp_path),
    }
    exec(source_of("03_attention", "dataset = Dataset(").partition("features = ")[0], names)
    assert not names["dataset"].of_people
    assert names["prepare"].call_args.args == (None, names["dataset"].path)


@pytest.mark.parametrize("photo", [None, "hand.jpg"])
def test_a_photo_that_is_given_is_somebodys(photo):
    cell, names = (
        source_of("08_letter", "def take_photo"),
        {"photo": photo, "SimpleNamespace": SimpleNamespace},
    )
    exec(next(line for line in cell.splitlines() if line.startswith("shows = ")), names)
    assert names["shows"].of_people == (photo is not None)


def test_each_sampler_stands_under_its_name():
    def write(words, styles, *, sampler, steps, guidance):
        return [f"{sampler.replace('eq', 'Eq. ')}, guidance {guidance:g}" for _ in words]

    def trace(network, text, *, sampler, **options):
        frame = SimpleNamespace(trimmed=lambda: sampler.replace("eq", "Eq. "))
        return SimpleNamespace(predicted=dict.fromkeys(range(61), frame))

    rate = SimpleNamespace(cer=SimpleNamespace(value=0))
    names = {"PAPER_TEXTS": "abcd", "names": "wxyz", "STEPS": 60, "guidances": [1.0, 2.5], "write": write}
    names |= {"trace": trace, "network": None, "seed": 0, "own": 1, "recognizer": None}
    names |= {"legibility": lambda *given, **options: rate}
    names |= {name: MagicMock() for name in ("plot_inks", "plot_inks_at", "outputs")}
    exec(source_of("06_sampling", "pairs, titles"), names)
    assert names["pairs"] == names["titles"] and names["titles"][0] == "Eq. 9, guidance 1"
    exec(source_of("06_sampling", "strips = {"), names)
    assert all(title.startswith(f"{ink}, t = ") for ink, title in names["frames"])


def test_a_wrong_level_is_told():
    names = {"sample_eq12": lambda call, *given, **options: call(None, None, torch.tensor(0.9), None)}
    exec(source_of("06_sampling", "def told_wrongly").partition("level_rows")[0], names)
    told = [names["told_wrongly"](f)(lambda y, text, level, style, attention: level.item()) for f in (0.5, 2)]
    assert told == pytest.approx([0.45, 1])


def test_the_answers_of_the_quiz_are_right():
    real = SimpleNamespace(trimmed=lambda: "from the dataset")
    names = {
        "regenerate_lines": lambda network, dataset, features, lines, **how: ["generated"] * len(lines),
        "dataset": SimpleNamespace(ink=lambda index: real),
        "quiz_lines": np.array([4, 5, 6]),
        "generated": np.array([True, False, True]),
        "numbers": list("123"),
        "outputs": MagicMock(),
        **dict.fromkeys(("network", "features", "seed", "own")),
    }
    exec(source_of("06_sampling", "generated_inks = iter(").partition("numbers = ")[0], names)
    exec(source_of("06_sampling", "answers = ["), names)
    assert [row["answer"] for row in names["answers"]] == names["inks"]


def test_intervals_are_drawn_where_they_are():
    values = {row: {"kernel_distance": [1.0], "cer": [0.1]} for row in ("eq12", "eq9")}
    found = {"kernel_distance": (0.003, 0.002, 0.007), "cer": (-0.1, -0.2, 0.1)}
    table = Table("d", {}, values, differences={"eq9": {"eq12": found}})
    names = {"table": table, "Figure": Figure, "lines": 6, "seeds": 2, "outputs": MagicMock()}
    exec(source_of("05_evaluation", "pairs = ["), names)
    bars = [axes.containers[0].lines[2][0].get_segments()[0] for axes in names["figure"].axes]
    assert [bar[:, 0].tolist() for bar in bars] == [pytest.approx([2, 7]), pytest.approx([-20, 10])]
    assert names["clear"] == ["Eq. 9 less Eq. 12 in kernel distance"]


@pytest.mark.parametrize(("own", "seeds"), [(None, 3), (5, 5)])
def test_the_second_table_is_of_unseen_lines(own, seeds):
    seen = []
    names = {"unseen_lines": 600, "unseen_seeds": own, "seeds": 3, "data": "d", "model": "m"}
    names |= {"options": {"student": "s", "device": "cpu"}, "table1": lambda *given: seen.append(given)}
    names["Bench"] = lambda *given, **options: (*given, options)
    exec(source_of("05_evaluation", "if unseen_lines:"), names)
    bench = ("d", "m", "test", {"lines": 600, "student": "s", "device": "cpu"})
    assert seen == [(bench, "table1-unseen", seeds)]


def test_a_line_in_the_first_style_has_the_place_1():
    names = {
        "corners": [torch.ones(14, 1280), torch.zeros(14, 1280)],
        "fractions": np.linspace(1, 0, 6),
        "write": lambda features, seed: features,
        "line_features": lambda inks, extractor: inks.numpy(),
        "styles": "ab",
        "repeats": 2,
        "seed": 0,
        "guided": "",
        "extractor": None,
        "outputs": MagicMock(),
        "mixed": mixed,
        "place_between": place_between,
        "spread": spread,
        "HwdiffError": HwdiffError,
        "np": np,
    }
    exec(source_of("04_style_interpolation", "ends = ["), names)
    for row in names["interpolation_rows"]:
        assert row["place, mean"] == pytest.approx(row["lambda"], abs=1e-3)


def test_lines_that_gave_the_style_are_not_what_it_is_compared_with():
    class Data(list):
        def __getitem__(self, lines):
            self.append(lines.tolist())
            return torch.ones(len(lines), 14, 1280)

        half = __getitem__

    data, generator = Data(), np.random.default_rng(0)
    lines = SimpleNamespace(forms=np.repeat(["a", "b"], 6), split=lambda name: np.arange(12))
    names = {
        "Dataset": lambda path: lines,
        "StyleFeatures": lambda dataset, extractor: data,
        "descriptors": lambda features: generator.normal(size=(len(features), 3)),
        "line_features": lambda inks, extractor: inks,
        "write": lambda features, seed: list(features),
        "display": lambda *shown: None,
        "outputs": MagicMock(run=Path()),
        "extractor": None,
        "repeats": 1,
        "seed": 0,
        "guided": "",
        "np": np,
        "torch": torch,
        "spread": spread,
    }
    exec(source_of("04_style_interpolation", "dataset = Dataset("), names)
    _, *taken = data  # the first are the scale's
    assert taken[2::4] == [[4, 5]] * 3 and taken[3::4] == [[10, 11]] * 3


def test_where_the_linear_predictor_is_beaten_is_told(tmp_path):
    row = {"step": 2, "loss": 1.0, "stroke": {"1": 1.5, "60": 0.6}}
    (tmp_path / "validation.jsonl").write_text(json.dumps(row))
    names = {"json": json, "folder": tmp_path, "linear_baseline": lambda *given: {1: 2.0, 60: 0.5}}
    names |= {name: MagicMock() for name in ("dataset", "plot_validation", "outputs")}
    exec(source_of("02_training", "validated = ["), names)
    told = names["outputs"].figure.call_args.kwargs["takeaway"]
    assert told.endswith("at t = 1, and worse at t = 60.")


def test_what_was_measured_of_few_evaluations_stands_under_its_name():
    figure, drawn = MagicMock(), []
    names = {"measured_table": measured_table, "network_title": network_title, "np": np}
    names |= {"outputs": SimpleNamespace(figure=figure), "display": MagicMock()}
    names["plot_comparison"] = lambda table: drawn.append(table) or "figure"
    exec(source_of("06_sampling", "for name, drawn in"), names)
    assert ["student" in table.settings["rows"] for table in drawn] == [False, True]
    [small, few] = figure.call_args_list
    assert [one.args[1] for one in (small, few)] == ["06-measured", "06-few-evaluations"]
    assert "guidance 2.5, 20 validation lines" in small.args[2] and "network: small, " in small.args[2]
    assert "guidance 2, the student without, 240 validation lines" in few.args[2]
    assert "with 12 (student)." in few.kwargs["takeaway"]


@pytest.mark.parametrize(("checkpoint", "student"), [("pretrained", "fast"), ("small", None)])
def test_a_bundled_student_has_a_row_beside_its_teacher(monkeypatch, tmp_path, checkpoint, student):
    opened = MagicMock(side_effect=HwdiffError("enough"))
    monkeypatch.setattr("hwdiff.evaluation.bench.Bench", opened)
    monkeypatch.setattr("hwdiff.suite.outputs.Outputs", lambda run, name: SimpleNamespace(run=run))
    names = {"run": tmp_path, "checkpoint": checkpoint, "split": "train", "lines": 6, "device": None}
    with pytest.raises(HwdiffError, match="enough"):
        exec(source_of("05_evaluation", "from functools import"), names | {"inception_weights": None})
    assert opened.call_args.args[1] == checkpoint
    assert opened.call_args.kwargs["student"] == student
