import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from hwdiff import HwdiffError
from hwdiff.cli import app
from hwdiff.data.dataset import Dataset
from hwdiff.diffusion.samplers import published_levels, schedule
from hwdiff.evaluation import attention
from hwdiff.evaluation.bench import Bench, table1_evaluations
from hwdiff.evaluation.error_rates import legibility
from hwdiff.model.checkpoint import load_model, save_model
from hwdiff.utils.tensors import fingerprint_of


def hwdiff(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def data(written, written_features):
    return written.path


@pytest.fixture
def student(untrained, tmp_path):
    """A network like its teacher, that writes in two steps."""
    network = load_model(untrained)
    about = {key: network.metadata[key] for key in ("style_weights", "training", "step")}
    writing = {**network.metadata["writing"], "guidance": 1.0, "levels": [60, 30]}
    teacher = fingerprint_of(network.state_dict())
    with torch.no_grad():
        network.eps_out.bias += 0.1
    save_model(network, tmp_path / "student.safetensors", writing=writing, teacher=teacher, **about)
    return tmp_path / "student.safetensors"


def test_evaluate_makes_the_table(data, untrained, student, tmp_path):
    options = ("--split", "train", "--lines", 2, "--seeds", 2, "--repetitions", 3, "--guidance", 1)
    bench = Bench(data, untrained, split="train", lines=2, student=student)
    assert {row: written.guidance for row, written in bench.table1_rows.items()} == {
        "eq12": 1,  # the paper's method, whatever the model's own guidance is
        "eq9": 1,
        "eq12_foreign": 1,
        "eq12_guided": None,
        "eq9_guided": None,
        "student": None,
    }
    given = ("--model", untrained, "--student", student)
    assert bench.guidance != 1 == bench._settings(bench.table1_rows)["rows"]["student"]["guidance"]
    assert bench.writer(bench.table1_rows["student"]).args[0] is bench.student
    assert bench.writer(bench.table1_rows["eq12"]).args[0] is bench.network
    # Without guidance 60 for Eq. 12 and Eq. 9 and in foreign styles, twice as many with it, and 2.
    assert table1_evaluations(bench.network, student=bench.student) == 60 * 7 + 2
    result = hwdiff("evaluate", "--data", data, *given, *options, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "are not FID: for FID give --inception-weights download" in result.output
    assert "note: no Fréchet distance: it needs 50 lines a set" in result.output
    assert "note: no Geometry Score of sets of 2 lines" in result.output
    written = ("model (Eq. 12), guidance 1", "ablation (Eq. 9), guidance 1", "student, 2 steps")
    for row in ("ground truth", *written, "real, corrupted"):
        assert any(line.startswith(row) and "±" in line for line in result.output.splitlines()), result.output
    assert "ablation (Eq. 9), guidance 1 less model (Eq. 12), guidance 1: CER, % " in result.output
    settings = json.loads((tmp_path / "out" / "table1.json").read_text())["settings"]
    assert settings["lines"] == 2
    # with guidance 1 there is nothing to add
    assert list(settings["rows"]) == ["eq12", "eq9", "eq12_foreign", "student"]
    assert settings["rows"]["eq12_foreign"]["foreign_styles"]
    assert len(settings["rows"]["eq12"]["levels"]) == 61
    assert settings["rows"]["student"]["guidance"] == 1
    assert settings["rows"]["student"]["levels"] == published_levels([60, 30]).tolist()
    assert settings["rows"]["student"]["model"]["file"] == "student.safetensors"
    assert settings["model"]["sha256"]
    assert settings["model"]["step"] == settings["model"]["planned"] == 33_145
    assert settings["environment"]["packages"]["gudhi"]
    result = hwdiff("evaluate", "--data", data, *options, "--inception-weights", tmp_path / "none.pth")
    assert result.exit_code == 1
    assert "none.pth: cannot be read" in result.output
    result = hwdiff("evaluate", "--data", data, *options, "--model", "small", "--student", student)
    assert result.exit_code == 1
    assert "student.safetensors: not a student of " in result.output
    result = hwdiff("evaluate", "--data", data, *options, "--recognizer", tmp_path / "none.safetensors")
    assert result.exit_code == 1
    assert f"{tmp_path / 'none.safetensors'}: " in result.output
    result = hwdiff("evaluate", "--data", data, *options, "--rows", "eq12, none")
    assert result.exit_code == 1
    assert "row: no such row as 'none'; choose one of eq12, eq9, " in result.output
    for option, rows, unused in (
        (("--guidance", 2), "eq12,eq9", "--guidance"),
        (("--student", student), "eq12,eq9", "--student"),
        (("--student", student, "--guidance", 2), "eq12,student", "--guidance"),
    ):
        result = hwdiff("evaluate", "--data", data, "--model", untrained, *option, "--rows", rows)
        assert result.exit_code == 1
        assert f"error: {unused}: none of --rows {rows} has it; leave it out" in result.output
    result = hwdiff("evaluate", "--data", data, "--lines", 5000)
    assert result.exit_code == 1
    assert "two sets of 5000 lines of the split train" in result.output


def test_a_student_of_another_style_encoder_is_refused_before_anything_is_written(data, untrained, student):
    network = load_model(student)
    about = {key: network.metadata[key] for key in ("writing", "teacher")}
    other = {"name": "other", "padding": "both", "fingerprint": "f" * 64}
    save_model(network, student, style_weights=other, **about)
    with pytest.raises(HwdiffError, match="but the model was trained with"):
        Bench(data, untrained, split="train", lines=2, student=student)


def test_compare_samplers_tells_which_are_as_good(data, untrained, student, tmp_path):
    options = (
        "--student",
        student,
        "--split",
        "train",
        "--sampler",
        "dpm",
        "--steps",
        "2,1",
        "--spacing",
        "time",
    )
    options += ("--lines", 3, "--seeds", 2, "--repetitions", 3)
    result = hwdiff("compare-samplers", "--data", data, "--model", untrained, *options, "-o", tmp_path)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    [difference] = [line for line in lines if line.startswith("  dpm, 1 steps, time, guidance 2.5 less eq12")]
    assert "; CER, % +" in difference
    for title in ("dpm, 1 steps, time, guidance 2.5", "student, 2 steps"):
        [verdict] = [line for line in lines if line.startswith(f"  {title}  ")]
        assert verdict.endswith("not shown to be no worse")
    assert "end below 1 points of CER and 0.5 of kernel distance" in result.output
    row = json.loads((tmp_path / "table1.json").read_text())["settings"]["rows"]["dpm_2_time"]
    assert row["sampler"] == "dpm"
    assert Image.open(tmp_path / "evaluations.png").width > 500
    assert row["levels"] == schedule(2, "time").tolist()
    result = hwdiff("compare-samplers", "--data", data, "--steps", "few")
    assert result.exit_code == 1
    assert "--steps few: must be numbers" in result.output
    result = hwdiff("compare-samplers", "--data", data, "--sampler", "eq13", "--steps", 5)
    assert result.exit_code == 1
    assert "no such sampler as 'eq13'" in result.output
    result = hwdiff("compare-samplers", "--data", data, "--steps", 60, "--spacing", "even")
    assert result.exit_code == 1
    assert "no such spacing as 'even'" in result.output


def test_a_bench_draws_sets_for_its_table_only(data, untrained):
    bench = Bench(data, untrained, split="train", lines=10_000)  # diversity needs none
    with pytest.raises(HwdiffError, match="two sets of 10000 lines of the split train are asked for"):
        bench.table()


def test_diversity_compares_the_samplers(data, untrained, tmp_path):
    options = ("--split", "train", "--texts", 2, "--repeats", 2, "--guidance", 1, "-o", tmp_path / "d.json")
    result = hwdiff("diversity", "--data", data, "--model", untrained, *options)
    assert result.exit_code == 0, result.output
    assert "2 texts, each written 2 times in one style" in result.output
    assert "ablation (Eq. 9), guidance 1 less model (Eq. 12), guidance 1: DTW distance" in result.output
    assert "note: the CER is micro-averaged" in result.output
    saved = json.loads((tmp_path / "d.json").read_text())
    assert set(saved["values"]) == set(saved["settings"]["rows"]) == {"eq12", "eq9"}
    assert saved["settings"]["rows"]["eq9"]["guidance"] == 1


def test_alignment_prints_correlations_and_keeps_the_lines(data, recognizer, tmp_path, monkeypatch):
    def without_the_first(*given, **options):
        return [None, *attention.regenerate_aligned(*given, **options)[1:]]

    fake = SimpleNamespace(**{**vars(attention), "regenerate_aligned": without_the_first})
    monkeypatch.setitem(sys.modules, "hwdiff.evaluation.attention", fake)
    options = ("--model", "small", "--lines", 5, "--sampler", "dpm", "--steps", 6, "--guidance", 1)
    result = hwdiff("alignment", "--data", data, *options, "-o", tmp_path / "lines.csv")
    assert result.exit_code == 0, result.output
    assert "monotonicity" in result.output
    assert "4 of 5 lines with ink" in result.output
    rows = list(csv.DictReader((tmp_path / "lines.csv").open(newline="")))
    assert len(rows) == 4
    dataset = Dataset(data)
    for row in rows:
        real = legibility([dataset.ink(dataset.index_of(row["line"]))], recognizer, resamples=0).cer.value
        assert float(row["real_cer"]) == pytest.approx(real, abs=1e-6)
    assert any(row["cer"] != row["real_cer"] for row in rows)
    kept = json.loads((tmp_path / "lines.json").read_text())
    assert {key: kept["settings"][key] for key in ("guidance", "steps", "split", "lines", "with_ink")} == {
        "guidance": 1,
        "steps": 6,
        "split": "test",
        "lines": 5,
        "with_ink": 4,
    }
    assert kept["settings"]["model"]["file"] == "small.safetensors"
    assert set(kept["relations"]) == set(rows[0]) - {"line", "cer", "real_cer"}
    assert f"{kept['relations']['monotonicity']['correlation']:6.2f} (" in result.output


def test_alignment_keeps_what_it_has(data, tmp_path, monkeypatch):
    scores = {"coverage": 1.0, "monotonicity": 0.5}
    line = attention.AlignedLine(text="a fox", scores=scores, by_step=[], cer=0.5, real_cer=0.0)
    fake = SimpleNamespace(**vars(attention))
    monkeypatch.setitem(sys.modules, "hwdiff.evaluation.attention", fake)
    options = ("--data", data, "--model", "small", "--lines", 3, "-o", tmp_path / "lines.csv")
    # Lines alike have no correlation.
    fake.regenerate_aligned = lambda *given, **options: [line] * 3
    result = hwdiff("alignment", *options)
    assert result.exit_code == 0, result.output
    kept = json.loads((tmp_path / "lines.json").read_text(), parse_constant=pytest.fail)
    assert kept["relations"]["coverage"]["correlation"] is None
    # Of too few with ink there is none either; they are kept.
    fake.regenerate_aligned = lambda *given, **options: [line, None, None]
    result = hwdiff("alignment", *options)
    assert "alignment: 1 lines; a correlation takes at least 3" in result.output
    [row] = csv.DictReader((tmp_path / "lines.csv").open(newline=""))
    assert (row["coverage"], row["cer"]) == ("1.000000", "0.500000")


@pytest.mark.parametrize("command", ["evaluate", "compare-samplers", "diversity"])
def test_options_of_measuring_reach_the_bench(monkeypatch, command):
    seen = {}

    def spied(*given, **options):
        seen.update(options, given=given)
        raise HwdiffError("seen")

    monkeypatch.setattr("hwdiff.evaluation.bench.Bench", spied)
    asked = ("--data", "a.npz", "--model", "m", "--split", "test", "--guidance", 2)
    asked += ("--style-encoder", "e", "--recognizer", "r", "--device", "cpu")
    sets = () if command == "diversity" else ("--lines", 7, "--inception-weights", "i", "--student", "s")
    assert "error: seen" in hwdiff(command, *asked, *sets).output
    wanted = {"given": (Path("a.npz"), "m", "test"), "guidance": 2, "style_encoder": "e"}
    wanted |= {"recognizer": Path("r"), "device": "cpu"}
    assert seen == wanted | ({"lines": 7, "inception_weights": "i", "student": "s"} if sets else {})


def test_the_margin_is_the_one_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr("hwdiff.evaluation.bench.Bench", lambda *given, **options: None)
    monkeypatch.setattr("hwdiff.cli.evaluation._measure", lambda *given, **options: None)
    monkeypatch.setattr("hwdiff.cli.evaluation._finish", lambda *given: None)
    name = "hwdiff.evaluation.sampler_comparison.comparison_text"
    monkeypatch.setattr(name, lambda table, margin: seen.append(margin) or "")
    hwdiff("compare-samplers", "--data", "a.npz", "--margin", 3)
    assert seen == [0.03]
