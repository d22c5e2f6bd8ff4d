import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from hwdiff import HwdiffError, Ink
from hwdiff.cli import app
from hwdiff.cli.writing import mixture
from hwdiff.data.dataset import Dataset
from hwdiff.data.lines import Limits
from hwdiff.diffusion.pages import Written
from hwdiff.diffusion.samplers import schedule
from hwdiff.evaluation.error_rates import reads_right, recognize
from hwdiff.evaluation.recognizer import load_recognizer
from hwdiff.ink.page import Layout, place_lines
from hwdiff.model.checkpoint import BUNDLED, load_model
from hwdiff.model.unet import UNet
from hwdiff.suite.verdicts import OPEN, verdicts
from tests.conftest import TINY


def hwdiff(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(source, style_weights, tmp_path_factory):
    """prepare and train, one after the other, as a user would."""
    folder = tmp_path_factory.mktemp("cli")
    prepared = hwdiff("prepare", "--source", source, "--out", folder / "data" / "lines.npz")
    assert prepared.exit_code == 0, prepared.output
    assert "24 lines of 6 forms (16 train, 4 validation, 4 test), split scheme authors" in prepared.output
    options = ("--steps", 2, "--batch-size", 3, "--style-encoder", style_weights, "--processes", 1)
    result = hwdiff("train", "--data", folder / "data" / "lines.npz", "--out", folder / "run", *options)
    assert result.exit_code == 0, result.output
    return folder


def test_write(trained, style_weights):
    model = trained / "run" / "model.safetensors"
    result = hwdiff("write", "hello world", "--model", model, "-o", trained / "new" / "hello.svg")
    assert result.exit_code == 0, result.output
    assert (trained / "new" / "hello.svg").read_text().startswith("<svg")
    picture = Image.new("L", (300, 60), 255)
    picture.paste(0, (20, 20, 280, 40))
    picture.save(trained / "style.png")
    options = ("--style", trained / "style.png", "--style-encoder", style_weights)
    options += ("--sampler", "dpm", "--steps", 4, "--seed", 5)
    result = hwdiff("write", "hi", "--model", model, *options, "-o", trained / "hi.png")
    assert result.exit_code == 0, result.output
    assert Image.open(trained / "hi.png").format == "PNG"


@pytest.mark.parametrize(
    ("options", "model"),
    [
        ((), "fast"),
        (("--style-guidance", 1), "fast"),
        (("--sampler", "eq12"), "pretrained"),
        (("--sampler", "eq9"), "pretrained"),
        (("--steps", 60), "pretrained"),
        (("--guidance", 1), "pretrained"),
        (("--style-guidance", 2), "pretrained"),
        (("--guidance", 2, "--model", "small"), "small"),
    ],
)
def test_a_student_writes_unless_what_it_has_not_learnt_is_asked_for(monkeypatch, tmp_path, options, model):
    def spied(name, device):
        raise HwdiffError(f"loads {name}")

    monkeypatch.setattr("hwdiff.model.checkpoint.load_model", spied)
    assert hwdiff("write", "hi", *options, "-o", tmp_path / "hi.svg").output == f"error: loads {model}\n"


def test_the_bundled_model_writes_in_named_styles(tmp_path):
    result = hwdiff("write", "hello", "--style", "ada", "-o", tmp_path / "hello.gif")
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "hello.gif").n_frames > 3
    other = hwdiff("write", "hello", "--model", "small", "--steps", 2, "-o", tmp_path / "small.gif")
    assert other.exit_code == 0, other.output
    assert (tmp_path / "small.gif").read_bytes() != (tmp_path / "hello.gif").read_bytes()
    result = hwdiff("write", "hello", "--style", "nobody", "--steps", 2, "-o", tmp_path / "hello.svg")
    assert result.exit_code == 1
    assert "error: style: no such style as 'nobody'; choose one of ada, " in result.output
    result = hwdiff("styles", "some words", "--steps", 2, "-o", tmp_path / "styles.png")
    assert result.exit_code == 0, result.output
    assert "styles.png: ada, boris" in result.output
    assert Image.open(tmp_path / "styles.png").width > 1000
    result = hwdiff("samples", "--model", "small", "--steps", 1, "-o", tmp_path / "samples")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "samples").glob("*.png"))) == 4


def test_measuring_and_releasing_a_model(trained, style_weights, monkeypatch):
    monkeypatch.setattr("hwdiff.suite.release.CANDIDATES", 5)
    model, data = trained / "run" / "model.safetensors", trained / "data" / "lines.npz"
    of_model = ("--model", model, "--data", data, "--style-encoder", style_weights)
    result = hwdiff("loss", *of_model, "--lines", 3)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()[1:]]
    assert [row[:2] for row in rows] == [["train", "3"], ["validation", "3"], ["test", "3"]]
    assert all(0 < float(row[2]) < 10 for row in rows)
    options = ("--lines", 2, "--sampler", "dpm", "--steps", 2, "-o", trained / "regenerated.json")
    result = hwdiff("legibility", *of_model, *options)
    assert result.exit_code == 0, result.output
    assert "dpm in 2 steps, guidance 1, seed 0" in result.output
    assert "ceiling: 2 real lines" in result.output
    assert "note: the CER is micro-averaged" in result.output
    written = json.loads((trained / "regenerated.json").read_text())
    assert written["written_by"]["metadata"]["step"] == 2
    assert written["ceiling"]["value"] != written["cer"]["value"]
    result = hwdiff("legibility", "--model", model, "--data", data, "--lines", 2)
    assert "the model was trained with" in result.output
    monkeypatch.setattr("hwdiff.suite.release.NAMES", ("one", "two"))
    monkeypatch.setattr("hwdiff.suite.release.TRIAL_TEXTS", ("a fox",))
    options = ("--name", "small", "--data", data, "--style-encoder", style_weights)
    result = hwdiff("release", trained / "run", *options, "-o", trained / "released")
    assert result.exit_code == 0, result.output
    refused = hwdiff(
        "release", trained / "run", "--name", "a", "--style-encoder", style_weights, "-o", trained
    )
    assert "error: --style-encoder: only styles of its own need it; give --data FILE" in refused.output
    assert "wrote small.safetensors and small-styles.safetensors in" in result.output
    assert result.output.rstrip().endswith(("default style is one", "default style is two"))
    info = hwdiff("info", trained / "released" / "small.safetensors").output
    assert json.loads(info.split("\n", 1)[1])["step"] == 2


def test_info(trained):
    checkpoint = hwdiff("info", trained / "run" / "model.safetensors")
    assert "parameters" in checkpoint.output
    assert json.loads(checkpoint.output.split("\n", 1)[1])["step"] == 2
    assert "24 lines of 6 forms" in hwdiff("info", trained / "data" / "lines.npz").output
    assert "guided_attention" in hwdiff("info", "small").output
    assert "10,028,451 parameters" in hwdiff("info", "pretrained").output
    weights = BUNDLED["pretrained"].parent
    for name, about in (
        ("recognizer", "hwdiff reader 1"),
        ("small-styles", "hwdiff styles 1"),
        ("style-encoder", "tensors, in no format of hwdiff"),
    ):
        path = weights / f"{name}.safetensors"
        assert f"{name}.safetensors: {about}" in hwdiff("info", path).output
    refused = hwdiff(
        "write", "hello", "--model", weights / "recognizer.safetensors", "-o", trained / "no.svg"
    )
    assert "not a checkpoint: its format is 'hwdiff reader 1'" in refused.output
    Ink([(0, 0), (1, 1)], [True, False], "a <b>").save(trained / "ink.svg")
    assert "ink of 2 points in 1 strokes, text 'a <b>'" in hwdiff("info", trained / "ink.svg").output


def test_the_alphabet_and_how_often_it_was_seen(trained):
    result = hwdiff("alphabet")
    assert "written: !\"',-.0123456789?ABC" in result.output
    assert "written with these: “ ”" in result.output
    counted = hwdiff("alphabet", "--data", trained / "data" / "lines.npz").output.splitlines()
    dataset = Dataset(trained / "data" / "lines.npz")
    letters = "".join(str(dataset.texts[line]) for line in dataset.split("train"))
    assert counted[0].split() == ["space", str(letters.count(" "))]
    numbers = [int(line.split()[1].replace(",", "")) for line in counted[:-2]]
    assert sum(numbers) == len(letters)


def test_a_dataset_without_unseen_lines_is_told(tmp_path):
    few, encoder = tmp_path / "few.npz", BUNDLED["pretrained"].parent / "style-encoder.safetensors"
    result = hwdiff("prepare", "--out", few, "--writers", 1)
    assert "few.npz: no lines in the split validation and test" in result.output
    for command in (("compare-encoders",), ("distil", "--out", tmp_path / "run")):
        result = hwdiff(*command, "--data", few, "--teacher", encoder)
        assert result.exit_code == 1
        assert "few.npz: has no lines in the split test; prepare more lines" in result.output
    assert not (tmp_path / "run").exists()
    result = hwdiff("loss", "--data", few, "--lines", 1)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines()] == ["split", "train"]


@pytest.mark.parametrize(
    "command",
    [("train", "--preset", "smoke", "--processes", "1"), ("chain", "--preset", "smoke"), ("distil-steps",)],
)
def test_emulated_bf16_is_warned_of(trained, tmp_path, monkeypatch, command):
    monkeypatch.setattr("hwdiff.utils.machine.bf16_is_emulated", lambda device: True)
    monkeypatch.setattr("hwdiff.training.pipeline.run_chain", lambda *given: None)
    monkeypatch.setattr("hwdiff.training.step_distillation.distil_steps", lambda *given, **options: 10**6)
    data = ("--data", trained / "data" / "lines.npz", "--out", tmp_path / "run", "--batch-size", 200)
    result = hwdiff(*command, *data, "--precision", "bf16")
    assert "warning: cpu has no bf16: it is emulated, many times slower" in result.output


def test_a_short_run_of_a_preset_has_a_shorter_schedule(tmp_path):
    options = ("--preset", "small", "--steps", 600, "--out", tmp_path / "run", "--dry-run")
    told = json.loads(hwdiff("train", *options).output)
    assert (told["warmup"], told["cooldown"]) == (10, 60)
    assert json.loads(hwdiff("train", *options, "--cooldown", 90).output)["cooldown"] == 90


def test_a_dataset_is_opened_before_processes_start(tmp_path, monkeypatch):
    monkeypatch.setattr("hwdiff.training.distributed.launch", lambda *given: pytest.fail("processes started"))
    monkeypatch.setattr("hwdiff.training.distributed.default_count", lambda *given: 2)
    result = hwdiff("train", "--data", tmp_path / "none.npz", "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "none.npz: no such file" in result.output


def test_report(trained):
    result = hwdiff("report", trained / "run", "-o", trained / "figures")
    assert result.exit_code == 0, result.output
    assert Image.open(trained / "figures" / "loss.png").width > 300
    assert Image.open(trained / "figures" / "samples.png").width > 1000


def test_reading(trained):
    data, ink = trained / "data" / "lines.npz", trained / "ink.svg"
    dataset = Dataset(data)
    dataset.ink(0).save(ink)
    [recognition] = recognize([Ink.load(ink)])
    result = hwdiff("recognize", ink, "-o", trained / "recognition.png")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[0] == recognition.text
    assert Image.open(trained / "recognition.png").width > 300
    [recognition] = recognize([dataset.ink(1)])
    assert hwdiff("recognize", data, "--line", dataset.ids[1]).output.splitlines()[0] == recognition.text


def test_training_a_recognizer_and_measuring_legibility(trained):
    data, out = trained / "data" / "lines.npz", trained / "recognizer"
    options = ("train-recognizer", "--data", data, "--out", out)
    options += ("--preset", "smoke", "--batch-size", 4, "--steps", 3)
    result = hwdiff(*options, "--minutes", 0)
    assert result.exit_code == 3
    assert "time is up: saved at step 1 of 3; resume with the same command and --resume" in result.output
    assert hwdiff(*options, "--resume").exit_code == 0
    marks = {
        "test": "split test: 4 lines, 67 characters",
        "train": "split train: 16 lines, 16 of them seen in the recognizer's training, ",
    }
    for split, mark in marks.items():
        options = ("--split", split, "--recognizer", out / "recognizer.safetensors", "--corrupted")
        result = hwdiff("legibility", "--data", data, *options, "-o", trained / "legibility.json")
        assert result.exit_code == 0, result.output
        assert mark in result.output
        assert "character error rate" in result.output
        assert "the same recognitions, texts shuffled" in result.output
    written = json.loads((trained / "legibility.json").read_text())
    assert written["lines"] == len(written["recognized"]) == 16
    assert written["recognizer"]["step"] == 3
    assert written["lines_in_training"] == {"seen": 16, "watched": 0}
    assert "corrupted: 1 letter in 10 missing" in result.output
    assert len(written["corrupted"]) > 8


def test_preparing_twice_says_so(trained, source):
    again = hwdiff("prepare", "--source", source, "--out", trained / "data" / "lines.npz")
    assert "nothing to do" in again.output
    assert again.exit_code == 0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("write '' --model {run}/model.safetensors -o a.svg", "error: text '': nothing in it can be written"),
        ("write hi --model {run}/none.safetensors -o a.svg", "none.safetensors: cannot be read"),
        ("write hi --model {run}/config.json -o a.svg", "config.json: not a whole checkpoint"),
        (
            "write hi --model {run}/model.safetensors -o a.bmp",
            "a.bmp: a line is saved as .svg, .png, .gif, .inkml or",
        ),
        (
            "write hi --model {run}/model.safetensors --style no.png --style-encoder {weights} -o a.svg",
            "no.png: no such file",
        ),
        ("recognize none.svg", "none.svg: cannot be read"),
        ("recognize {data}", "lines.npz: give --line with a dataset file"),
        ("recognize LINES.NPZ", "LINES.NPZ: give --line with a dataset file"),
        ("alignment --data {data} --lines 2", "lines.npz: 2 lines; a correlation takes at least 3"),
        (
            "write hi --style ada:0.5 --style ben:0.5 --style-encoder f -o a.svg",
            "--style-encoder: only a picture",
        ),
        ("write hi --no-padded-style -o a.svg", "--no-padded-style: only a picture of handwriting has it"),
        ("attention --style-encoder f", "--style-encoder: only a picture of handwriting has it"),
        ("recognize {data} --line z", "lines.npz: no line 'z' in it; its first is a01-000u-01"),
        ("recognize {run}/config.json", "config.json: holds no ink"),
        (
            "legibility --data {data} --recognizer {run}/model.safetensors",
            "model.safetensors: not a recognizer: its format",
        ),
        (
            "train-recognizer --data {data} --out x --preset huge",
            "no such preset as 'huge'",
        ),
        ("train --data none.npz --out x", "none.npz: no such file; make it with hwdiff prepare"),
        (
            "train --data {data} --out {run} --style-encoder {weights} --processes 1",
            "holds a training run already",
        ),
        ("train --data {data} --out x --precision fp8", "precision = 'fp8': choose one of fp32, bf16"),
        (
            "train --data {data} --out x --preset huge",
            "no such preset as 'huge'; choose one of smoke, small, paper, paper-cpu, tune",
        ),
        ("train --out x", "--data: give the dataset file"),
        (
            "train --data {data} --out {run} --style-encoder {weights} --resume --seed 3",
            "it has seed = 0, not 3",
        ),
        ("chain --data {data} --out x --preset huge", "no such preset as 'huge'"),
        ("chain --data {data} --out x --distillation-steps 3", "--distillation-steps: of the encoder; give"),
        (
            "legibility --data {data} --guidance 2",
            "--guidance, --seed, --style-encoder: of what a model writes; name it with",
        ),
        ("prepare --source none --out x.npz", "none: no such folder"),
        ("info none.npz", "none.npz: no such file"),
        ("info {data}.svg", ".svg: cannot be read"),
        ("write hello -o x.svg --color red", "--color: only pages have it; give --file FILE"),
        ("write hello -o x.svg --check 2", "--check: only pages have it"),
        ("write hello -o x.svg --smooth", "--smooth: only pages have it"),
        (
            "write hello -o x.pdf",
            "x.pdf: a line is saved as .svg, .png, .gif, .inkml or .json; choose such a name; ",
        ),
        ("write hello --file {data} -o x.pdf", "both a text and --file: give a text to write on a line"),
        ("write -o x.pdf", "neither a text nor --file: give a text"),
        ("write 'one\ntwo' -o x.svg", "the text has several lines; put it in a file and give --file FILE"),
        ("write 'a€' --strict -o x.svg", "the text: the model cannot write '€' (character 2) (--strict)"),
        ("styles -o x.pdf", "x.pdf: figures are saved as .png or .svg"),
        ("style {data} -o x.pdf", "x.pdf: figures are saved as .png or .svg"),
        ("style no.jpg -o x.png", "no.jpg: no such file; give a picture of handwriting"),
        ("write hello --style '' -o x.svg", "--style: an empty name; give a picture, or one of the names"),
    ],
)
def test_errors_are_one_line(trained, style_weights, command, message):
    places = {"run": trained / "run", "data": trained / "data" / "lines.npz", "weights": style_weights}
    result = hwdiff(*(argument.format(**places) for argument in shlex.split(command)))
    assert result.exit_code == 1
    [line] = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in result.output


def test_a_dry_run_prints_the_configuration_and_does_nothing(trained, tmp_path):
    options = ("--preset", "small", "--seed", 4, "--ema", 0.5, "--dry-run")
    result = hwdiff("train", "--out", tmp_path / "new", *options)
    config = json.loads(result.output)
    assert (config["seed"], config["ema"], config["model"]["c1"]) == (4, 0.5, 64)
    assert not (tmp_path / "new").exists()
    begun = json.loads(hwdiff("train", "--out", trained / "run", "--resume", "--dry-run").output)
    assert (begun["steps"], begun["batch_size"]) == (2, 3)  # its own, not the preset's


def test_a_run_out_of_time_says_how_to_resume(trained, style_weights, tmp_path):
    options = ("--data", trained / "data" / "lines.npz", "--out", tmp_path / "run", "--steps", 3)
    options += ("--style-encoder", style_weights, "--batch-size", 3, "--processes", 1)
    stopped = hwdiff("train", *options, "--minutes", 0)
    assert stopped.exit_code == 3
    assert "time is up: saved at step 1 of 3; resume with the same command and --resume" in stopped.output
    finished = hwdiff("train", *options, "--resume")
    assert finished.exit_code == 0, finished.output
    assert hwdiff("train", *options, "--resume").exit_code == 0


def test_the_chain_with_the_smoke_preset(trained, style_weights, tmp_path, few_steps):
    options = ("--data", trained / "data" / "lines.npz", "--out", tmp_path)
    options += ("--preset", "smoke", "--teacher", style_weights)
    short = ("--steps", 3, "--distillation-steps", 2, "--batch-size", 4)
    stopped = hwdiff("chain", *options, *short, "--minutes", 0)
    assert stopped.exit_code == 3
    assert "time is up in the step line images: saved; run the same command to resume" in stopped.output
    finished = hwdiff("chain", *options, *short)
    assert finished.exit_code == 0, finished.output
    assert (tmp_path / "training" / "model.safetensors").exists()
    assert Image.open(tmp_path / "figures" / "samples.png").width > 1000


def test_encoders_are_compared(trained, style_weights):
    options = ("--data", trained / "data" / "lines.npz", "--teacher", style_weights)
    same = hwdiff("compare-encoders", *options, "--style-encoder", style_weights)
    assert "on 4 test lines: mean 1.000" in same.output
    assert hwdiff("compare-encoders", *options).exit_code == 0


def test_unknown_characters_are_named(trained):
    model, out = trained / "run" / "model.safetensors", trained / "euro.svg"
    result = hwdiff("write", "a € b", "--model", model, "--steps", 2, "-o", out)
    assert result.exit_code == 0
    assert "warning: text 'a € b': the model cannot write '€'" in result.output


def test_a_file_is_written_on_pages(trained, tmp_path, monkeypatch):
    judges = []

    def load(*given, **options):
        judges.append(options["device"])
        return load_recognizer(*given, **options)

    monkeypatch.setattr("hwdiff.evaluation.recognizer.load_recognizer", load)
    (tmp_path / "letter.txt").write_text(
        "Dear Mary,\n\nthank you for the book that you sent me in May.", encoding="utf-8-sig"
    )
    given = (
        "--model",
        trained / "run" / "model.safetensors",
        "--steps",
        2,
        "--file",
        tmp_path / "letter.txt",
        "--device",
        "cpu",
    )
    result = hwdiff(
        "write", *given, "--check", 1, "-o", tmp_path / "letter.svg", "--paper", "A5", "--smooth", "--strict"
    )
    assert result.exit_code == 0, result.output
    assert judges == ["cpu"]  # once, where the network is
    assert f"wrote {tmp_path / 'letter.svg'}: 3 pieces of lines" in result.output
    assert "the recognizer read 3 of them wrong at first, 3 in the end" in result.output
    assert 'width="148mm"' in (tmp_path / "letter.svg").read_text()
    for options, message in (
        (("-o", tmp_path / "letter.gif"), "letter.gif: pages are saved as .pdf, .svg, .png or .inkml"),
        (("-o", "a.pdf", "--paper", "A0"), "paper 'A0': no such paper"),
        (("-o", "a.pdf", "hello"), "give a text to write on a line, or --file FILE to write it on pages"),
        (("-o", "a.pdf", "--file", tmp_path / "none.txt"), "none.txt: cannot be read as text"),
    ):
        result = hwdiff("write", *given, *options)
        assert result.exit_code == 1
        assert message in result.output


def test_what_is_seen_of_a_picture_is_shown(tmp_path):
    assert (
        hwdiff("write", "a fox", "--model", "small", "--steps", 5, "-o", tmp_path / "fox.png").exit_code == 0
    )
    result = hwdiff("style", tmp_path / "fox.png", "-o", tmp_path / "seen.png")
    assert result.exit_code == 0, result.output
    assert "nearest named style: " in result.output
    assert Image.open(tmp_path / "seen.png").width > 1000
    assert "not an image" in hwdiff("style", __file__, "-o", tmp_path / "no.png").output


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (None, None),
        (["ada"], "ada"),
        (["a:b.png"], "a:b.png"),
        (["ada:0.7", "c:/line.png:.3"], {"ada": 0.7, "c:/line.png": 0.3}),
        (["ada", "bo", "cy", "di"], dict.fromkeys(("ada", "bo", "cy", "di"), 0.25)),
    ],
)
def test_styles_are_mixed_by_weights(given, wanted):
    assert mixture(given) == wanted


@pytest.mark.parametrize("given", [["ada", "bo:0.5"], ["ada:0.5", "ada:0.5"]])
def test_mixtures_that_make_no_sense_are_refused(given):
    with pytest.raises(HwdiffError, match="--style ada"):
        mixture(given)


def test_help_reads_well_and_does_not_wait_for_torch():
    code = "import sys, hwdiff.cli; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "False"
    subprocess.run([sys.executable, "-m", "hwdiff", "--help"], capture_output=True, check=True)
    result = hwdiff("--help")
    for command in ("prepare", "train", "write", "info"):
        assert command in result.output
        assert hwdiff(command, "--help").exit_code == 0


def test_names_that_a_terminal_cannot_show_are_told_in_another_way(tmp_path):
    command = [sys.executable, "-m", "hwdiff", "write", "a", "--steps", "1", "-o", tmp_path / "caf\udce9.svg"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "caf\\udce9.svg" in done.stdout


def test_attention_is_saved_as_verdicts_read_it(tmp_path):
    out = tmp_path / "attention"
    result = hwdiff("attention", "--model", "small", "--out", out)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("the quick brown fox jumps: forward on 100 % at t = 55,")
    assert sorted(path.name for path in out.iterdir()) == ["alignment-033145.json", "attention-033145.npz"]
    [row] = verdicts(tmp_path)
    assert row["network"] == "small, 33,145 steps"
    assert row["verdict"] == OPEN  # it was taught
    assert row["command"] == "hwdiff attention --model small"


def test_the_suite_in_small_computes_with_one_thread_unless_told_otherwise(monkeypatch, tmp_path):
    code = (
        "import os; from hwdiff.cli import app; app(['reproduce', '--dry-run', '--out', os.environ['OUT']], "
        "standalone_mode=False); import torch; print(torch.get_num_threads(), os.environ['GOMP_SPINCOUNT'])"
    )
    others = {
        name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")
    }
    options = {"capture_output": True, "text": True, "check": True}
    done = subprocess.run([sys.executable, "-c", code], env=others | {"OUT": str(tmp_path)}, **options)
    assert done.stdout.splitlines()[-1] == "1 3000"
    # Told otherwise.
    code = "import os, hwdiff.cli; print(os.environ['GOMP_SPINCOUNT'])"
    told = subprocess.run([sys.executable, "-c", code], env=others | {"GOMP_SPINCOUNT": "5"}, **options)
    assert told.stdout == "5\n"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert hwdiff("reproduce", "--dry-run", "--out", tmp_path).exit_code == 0
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_benchmark_reports_fractions(trained, source, monkeypatch, tmp_path):
    from hwdiff.evaluation import benchmark, speed

    monkeypatch.setattr(
        benchmark, "rate_of", lambda function, flop, device, seconds=3.0: function() is None or 1e9
    )
    monkeypatch.setattr(
        benchmark, "matrix_product_rate", lambda dtype, device: {4: 1e9, 2: 2e9}[dtype.itemsize]
    )
    monkeypatch.setattr(benchmark, "UNet", lambda: UNet(TINY))
    monkeypatch.setattr(benchmark, "schedule", lambda: schedule(2))
    monkeypatch.setattr(benchmark, "PAGE", "a fox")
    monkeypatch.setattr(benchmark, "TRIES", 1)
    monkeypatch.setattr(benchmark, "MIN_LINES", 1)
    # A million operations a point, forward and backward.
    line = 1e6 / 3 * benchmark.MAX_POINTS
    monkeypatch.setattr(benchmark, "_operations", lambda function, *inputs: line)
    monkeypatch.setattr(benchmark, "default_count", lambda batch_size, device: 2)
    monkeypatch.setattr(speed, "training_rate", lambda dataset, config, device: (2.0, 500.0))
    monkeypatch.setattr(
        speed, "shared_training_rate", lambda dataset, config, device, count: (1.0, count * 500.0)
    )
    monkeypatch.setattr(benchmark.geometry, "REPETITIONS", 8)
    commands = []
    monkeypatch.setattr(benchmark, "_run", lambda command: commands.append(" ".join(command[1:])))
    data = trained / "data" / "lines.npz"
    result = hwdiff("benchmark", "--data", data, "--source", source, "-o", tmp_path / "table.md")
    assert result.exit_code == 0, result.output
    rows = [line.strip("| ").split(" | ") for line in (tmp_path / "table.md").read_text().splitlines()[6:]]
    named = {row[0]: row[1:] for row in rows}
    assert len(named) == len(rows)
    assert named["writing 8 lines at once of 488 points, 60 steps, guidance 1"][1:] == ["1.0 GFLOP/s", "100%"]
    trained_in = {what: cells for what, cells in named.items() if what.startswith("training step")}
    assert [cells[0] for cells in trained_in.values()] == ["2.000 s", "1.000 s"] * 2
    assert [cells[2] for cells in trained_in.values()] == ["50%", "100%", "25%", "50%"]
    assert {"hwdiff --help", "import torch", "hwdiff prepare, all of it"} <= named.keys()
    assert any(what.startswith("most memory of this process, ") for what in named)
    assert all(what in result.output for what in named)
    assert commands[:2] == ["-m hwdiff --help", "-c import torch"]
    for command, model in zip(commands[2:5], BUNDLED, strict=True):
        assert command.startswith("-m hwdiff write hello world ")
        assert command.endswith(f" --model {model}")
    for model in (
        "pretrained, 60 steps, guidance 2",
        "fast, 12 steps, guidance 1",
        "small, 60 steps, guidance 2.5",
    ):
        assert f"a page of 1 lines in 1 pieces, model {model}" in named


def test_a_dataset_too_small_to_be_measured_is_told_at_once(trained):
    data = trained / "data" / "lines.npz"
    result = hwdiff("benchmark", "--data", data)
    assert result.output.endswith("lines.npz: fewer than 96 training lines; prepare more\n")
    result = hwdiff("legibility", "--data", data, "--corrupted", "--lines", 1)
    assert result.output.startswith("error: --corrupted: one line is corrupted with another's ink")
    result = hwdiff("compare-samplers", "--data", data, "--steps", "²")
    assert "--steps ²: must be numbers" in result.output


def test_benchmark_names_a_missing_source_at_once(trained, tmp_path):
    data = trained / "data" / "lines.npz"
    result = hwdiff("benchmark", "--data", data, "--source", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert result.output.startswith(f"error: {tmp_path / 'nowhere'}: no such folder")


def test_a_dry_run_of_a_branch_tells_its_configuration_and_makes_nothing(trained, tmp_path):
    options = ("--out", tmp_path / "branch", "--cooldown", 1, "--dry-run")
    result = hwdiff("train", "--branch", trained / "run", *options)
    assert result.exit_code == 0, result.output
    told, run = json.loads(result.output), json.loads((trained / "run" / "config.json").read_text())
    assert told == {**{key: run[key] for key in told}, "cooldown": 1}
    assert not (tmp_path / "branch").exists()
    # Nor does one that fails.
    options = ("--out", tmp_path / "branch", "--data", tmp_path / "none.npz")
    assert "none.npz: no such file" in hwdiff("train", "--branch", trained / "run", *options).output
    # Nor is another run taken for the copy of one.
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps(run | {"seed": 1}))
    options = ("--out", trained / "run", "--data", trained / "data" / "lines.npz", "--resume")
    result = hwdiff("train", "--branch", tmp_path / "other", *options)
    assert "run holds another run, no copy of it; choose another --out" in result.output
    assert not (tmp_path / "branch").exists()


def test_a_branch_that_cannot_be_resumed_is_not_made(trained, style_weights, tmp_path):
    given = ("--data", trained / "data" / "lines.npz", "--branch", trained / "run", "--processes", 1)
    out = tmp_path / "branch"
    result = hwdiff("train", *given, "--out", out, "--style-encoder", style_weights, "--batch-size", 4)
    assert result.exit_code == 1
    assert "cannot be resumed with other settings: it has batch_size = 3, not 4" in result.output
    assert not out.exists()
    made = hwdiff("train", *given, "--out", out, "--style-encoder", style_weights, "--steps", 3)
    assert made.exit_code == 0, made.output
    steps = [load_model(run / "model.safetensors").metadata["step"] for run in (out, trained / "run")]
    assert steps == [3, 2]


def test_a_model_of_another_style_encoder_is_watched_with_a_picture(
    trained, style_weights, tmp_path, monkeypatch
):
    monkeypatch.setattr("hwdiff.evaluation.attention.WATCHED", ("a fox", "ten", "no way"))
    model, out = trained / "run" / "model.safetensors", tmp_path / "attention"
    refused = hwdiff("attention", "--model", model, "--out", out)
    assert refused.exit_code == 1
    assert "the named styles do not fit it; give a picture of handwriting and those weights" in refused.output
    picture = Image.new("L", (300, 60), 255)
    picture.paste(0, (20, 20, 280, 40))
    picture.save(tmp_path / "style.png")
    options = ("--style", tmp_path / "style.png", "--style-encoder", style_weights)
    result = hwdiff("attention", "--model", model, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["alignment-000002.json", "attention-000002.npz"]


@pytest.mark.parametrize("command", ["legibility", "diversity", "geometry-floor"])
def test_results_that_could_not_be_written_are_not_computed(trained, tmp_path, command):
    data = trained / "data" / "lines.npz"
    result = hwdiff(command, "--data", data, "--out", tmp_path / "result.txt")
    assert (result.exit_code, result.output) == (
        1,
        f"error: --out {tmp_path / 'result.txt'}: must be a *.json file\n",
    )
    (tmp_path / "taken.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("taken.json", "pipe.json", "pipe.json/result.json"):
        result = hwdiff(command, "--data", data, "--out", tmp_path / name)
        assert (result.exit_code, result.output) == (
            1,
            f"error: --out {tmp_path / name}: cannot be written; choose another path\n",
        )


@pytest.mark.parametrize(("command", "package"), [("reproduce", "papermill"), ("publish", "nbformat")])
def test_missing_packages_of_the_notebooks_are_told(command, package, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith("hwdiff.suite.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    result = hwdiff(command, *([tmp_path] if command == "publish" else []), "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert (
        f"error: the package {package} is not installed; install those of the notebooks: pip" in result.output
    )


def test_a_plan_of_the_paper_needs_neither_its_data_nor_a_gpu(tmp_path):
    result = hwdiff("reproduce", "--profile", "paper", "--dry-run", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "02_training: runs: never run" in result.output
    refused = hwdiff("reproduce", "--profile", "paper", "--out", tmp_path)
    assert "profile paper: requires the IAM archives" in refused.output


@pytest.mark.parametrize("command", ["distil", "distil-steps"])
def test_a_distillation_is_stopped_and_resumed(trained, style_weights, tmp_path, command):
    small = {
        "distil": ("--teacher", style_weights, "--preset", "smoke", "--steps", 2),
        "distil-steps": (
            *("--model", trained / "run" / "model.safetensors", "--style-encoder", style_weights),
            *("--evaluations", 2, "--batches", 2, "--batch-size", 2),
        ),
    }
    given = (command, "--data", trained / "data" / "lines.npz", "--out", tmp_path, *small[command])
    assert hwdiff(*given, "--minutes", 0).exit_code == 3
    assert "--resume" in hwdiff(*given).output
    done = hwdiff(*given, "--resume")
    assert done.exit_code == 0, done.output
    assert f"wrote {tmp_path}" in done.output
    if command == "distil-steps":
        about = hwdiff("info", tmp_path / "model.safetensors").output
        assert json.loads(about.split("\n", 1)[1])["writing"]["levels"] == [60, 1]


def test_a_page_of_a_dataset_is_drawn(trained, tmp_path):
    given = ("show", "--data", trained / "data" / "lines.npz", "--rows", 2)
    assert hwdiff(*given, "-o", tmp_path / "page.png").exit_code == 0
    assert Image.open(tmp_path / "page.png").width > 500


def test_options_of_writing_reach_the_sampler(trained, monkeypatch, tmp_path):
    seen, ink = {}, Ink([(0, 0), (1, 1)], [True, False])

    def spied(network, texts, style, **options):
        seen.update(options, texts=texts, style=style)
        return [ink]

    monkeypatch.setattr("hwdiff.diffusion.generate.sample", spied)
    model = ("--model", trained / "run" / "model.safetensors")
    options = {
        "--style": "line.png",
        "--sampler": "dpm",
        "--steps": 4,
        "--seed": 5,
        "--guidance": 2,
        "--style-guidance": 3,
        "--end-tokens": 2,
        "--style-encoder": "x",
    }
    given = [part for option in options.items() for part in option]
    result = hwdiff("write", "hi", *model, *given, "--no-padded-style", "-o", tmp_path / "hi.svg")
    assert result.exit_code == 0, result.output
    of_a_line = {
        "style": "line.png",
        "sampler": "dpm",
        "steps": 4,
        "seed": 5,
        "guidance": 2,
        "style_guidance": 3,
        "end_tokens": 2,
        "padded_style": False,
        "style_extractor": "x",
    }
    assert seen == {"texts": ["hi"], **of_a_line}

    def paged(network, text, style, *, progress, **options):
        seen.clear()
        seen.update(options, text=text, style=style)
        return Written(place_lines([[ink]], options["layout"]), 1, None)

    monkeypatch.setattr("hwdiff.diffusion.pages.write_pages", paged)
    (tmp_path / "letter.txt").write_text("Dear you")
    paper = {
        "--paper": "A5",
        "--margin": 11,
        "--line-spacing": 13,
        "--pen-width": 0.4,
        "--color": "navy",
        "--check": 2,
    }
    given += [part for option in paper.items() for part in option]
    letter = ("--file", tmp_path / "letter.txt", "--smooth", "--no-padded-style")
    result = hwdiff("write", *letter, *model, *given, "-o", tmp_path / "letter.svg")
    assert result.exit_code == 0, result.output
    assert seen.pop("layout") == Layout("A5", 11, 13, 0.4, color="navy", smooth=True)
    assert seen.pop("is_right").func is reads_right
    assert seen == {"text": "Dear you", "tries": 2, **of_a_line}


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(trained, monkeypatch, tmp_path):
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    out, data = tmp_path / "new" / "floor.json", trained / "data" / "lines.npz"
    for given in (
        ("geometry-floor", "--data", data, "-o", out),
        ("prepare", "--out", out.with_suffix(".npz")),
    ):
        result = hwdiff(*given)
        assert result.output == f"error: --out {given[-1]}: cannot be written; choose another path\n"


def test_what_is_read_is_not_replaced(trained, tmp_path):
    photo, line, data = tmp_path / "photo.png", tmp_path / "line.svg", trained / "data" / "lines.npz"
    Image.new("L", (300, 60), 255).save(photo)
    dataset = Dataset(data)
    dataset.ink(0).save(line)
    (tmp_path / "link.png").symlink_to(photo)
    before = photo.read_bytes(), line.read_bytes()
    model = ("--model", trained / "run" / "model.safetensors")
    for arguments in (
        ("style", photo, "-o", photo),
        ("style", photo, "-o", tmp_path / "link.png"),
        ("recognize", line, "-o", line),
        ("write", "a fox", *model, "--style", photo, "-o", photo),
        ("write", "a fox", *model, "--style", f"{photo}:0.5", "--style", "ada:0.5", "-o", photo),
    ):
        result = hwdiff(*arguments)
        assert result.exit_code == 1
        assert f"error: --out {arguments[-1]}: is read, and would be replaced" in result.output
    assert (photo.read_bytes(), line.read_bytes()) == before

    letter, page = tmp_path / "letter.txt", photo.rename(tmp_path / "page-2.png")
    letter.write_text("two\nlines")
    result = hwdiff("write", "--file", letter, "--style", page, *model, "-o", tmp_path / "page.png")
    assert f"error: --out {page}: is read, and would be replaced" in result.output
    assert page.read_bytes() == before[0]


@pytest.mark.parametrize("command", ["show", "recognize", "styles"])
def test_a_figure_of_another_kind_is_refused_before_anything_is_drawn(trained, tmp_path, command):
    data, name = trained / "data" / "lines.npz", tmp_path / "page.pdf"
    given = {"show": ("--data", data), "recognize": (tmp_path / "none.svg",), "styles": ("a fox",)}
    result = hwdiff(command, *given[command], "-o", name)
    assert (result.exit_code, result.output) == (
        1,
        f"error: {name}: figures are saved as .png or .svg; choose such a name\n",
    )


def test_a_full_gpu_is_one_line(tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")

    monkeypatch.setattr("hwdiff.model.checkpoint.load_model", fails)
    result = hwdiff("write", "a fox", "-o", tmp_path / "a.svg")
    assert (result.exit_code, result.output) == (
        1,
        "error: CUDA out of memory; give fewer lines or a smaller batch, or --device cpu\n",
    )


def test_lines_are_regenerated_as_asked(trained, style_weights, monkeypatch):
    seen, model = {}, trained / "run" / "model.safetensors"

    def spied(network, dataset, features, indices, seed, **options):
        seen.update(options, seed=seed)
        return [dataset.ink(index) for index in indices]

    monkeypatch.setattr("hwdiff.evaluation.generation.regenerate_lines", spied)
    given = ("--data", trained / "data" / "lines.npz", "--model", model, "--style-encoder", style_weights)
    asked = ("--lines", 2, "--sampler", "dpm", "--steps", 3, "--guidance", 2, "--seed", 5)
    assert hwdiff("legibility", *given, *asked).exit_code == 0
    assert len(seen.pop("alpha_bar")) == 4
    assert seen == {"sampler": "dpm", "guidance": 2, "seed": 5}


def test_options_of_a_release_reach_it(trained, monkeypatch, tmp_path):
    seen = []

    def spied(network, name, out, writing, **options):
        seen.extend((name, out, writing, options))
        return "one"

    monkeypatch.setattr("hwdiff.suite.release.release", spied)
    asked = ("--name", "mine", "--guidance", 2, "--points-per-character", 9, "--seed", 5)
    assert hwdiff("release", trained / "run", *asked, "-o", tmp_path).exit_code == 0
    assert seen == ["mine", tmp_path, {"guidance": 2, "points_per_character": 9}, {"seed": 5}]


def test_options_of_preparing_reach_it(monkeypatch):
    seen = []

    def spied(*given, progress):
        seen.extend(given)
        raise HwdiffError("seen")

    monkeypatch.setattr("hwdiff.data.preparation.prepare", spied)
    asked = ("--out", "a.npz", "--long-offsets", "released")
    hwdiff("prepare", "--source", "s", "--split-scheme", "official", *asked)
    hwdiff("prepare", "--seed", 3, "--writers", 7, *asked)
    limits = Limits(long_offsets="released")
    assert seen[:6] == [Path("s"), Path("a.npz"), "official", limits, 0, 64]
    assert seen[6:] == [None, Path("a.npz"), "authors", limits, 3, 7]


@pytest.mark.parametrize(
    ("source", "option", "found"),
    [
        (True, ("--seed", 5), "--seed 5: only the built-in writers have it"),
        (True, ("--writers", 0), "--writers 0: only the built-in writers have it"),
        (True, ("--split-scheme", "official"), "--split-scheme official: only IAM's lines have one"),
        (False, ("--split-scheme", "authors"), "--split-scheme authors: only IAM's lines have one"),
    ],
)
def test_options_of_other_lines_are_refused_by_prepare(tmp_path, source, option, found):
    lines, out = tmp_path / "mine", tmp_path / "lines.npz"
    lines.mkdir()
    result = hwdiff("prepare", *(("--source", lines) if source else ()), *option, "--out", out)
    assert result.exit_code == 1
    assert result.output.startswith(f"error: {found}; ")
    assert not out.exists()


def test_options_of_reproducing_reach_the_run(monkeypatch, tmp_path):
    seen = []

    class Run:
        def __init__(self, *given):
            seen.append(given)

        def plan(self, wanted):
            seen.append([one.name for one in wanted])
            return []

    monkeypatch.setattr("hwdiff.suite.runner.Reproduction", Run)
    hwdiff("reproduce", "--dry-run", "--out", tmp_path, "--minutes", 7, "--from", "07")
    (out, profile, _, _, minutes), wanted = seen
    assert (out, profile, minutes, wanted) == (tmp_path, "smoke", 7, ["07_network", "08_letter"])


def test_options_of_pages_reach_what_draws_them(monkeypatch, tmp_path):
    seen = []

    def spied(*given, **options):
        seen.append((given[1:], options))
        raise HwdiffError("seen")

    monkeypatch.setattr("hwdiff.model.checkpoint.load_model", lambda *given: None)
    monkeypatch.setattr("hwdiff.diffusion.generate.named_styles", lambda network: {"a": torch.zeros(1)})
    for name in ("diffusion.generate.sample", "suite.release.sample_pages", "training.pipeline.report_run"):
        monkeypatch.setattr(f"hwdiff.{name}", spied)
    asked = ("--steps", 3, "--guidance", 2, "--seed", 5)
    hwdiff("styles", "-o", tmp_path / "a.png", "--sampler", "dpm", *asked)
    hwdiff("samples", "-o", tmp_path, *asked)
    hwdiff("report", tmp_path / "run", "-o", tmp_path, "--seed", 5)
    assert seen[0][1] == {"sampler": "dpm", "steps": 3, "seed": 5, "guidance": 2}
    assert seen[1:] == [((5,), {"steps": 3, "guidance": 2}), ((None, tmp_path, 5), {})]


def test_losses_are_in_the_style_of_another_line(trained, style_weights, monkeypatch):
    def spied(dataset, features, styles, device):
        assert (dataset.forms[styles] == dataset.forms).all()
        assert (styles != np.arange(len(dataset))).all()
        raise HwdiffError("seen")

    monkeypatch.setattr("hwdiff.data.batches.Lines", spied)
    given = ("--data", trained / "data" / "lines.npz", "--model", trained / "run" / "model.safetensors")
    assert "error: seen" in hwdiff("loss", *given, "--style-encoder", style_weights).output


def test_options_of_training_reach_it(trained, style_weights, monkeypatch, tmp_path):
    seen, data = {}, ("--data", trained / "data" / "lines.npz", "--out", tmp_path / "new")
    monkeypatch.setattr("hwdiff.training.loop.train", lambda *given, **how: seen.update(how) or (None, 2))
    small = ("--steps", 2, "--batch-size", 3, "--processes", 1, "--style-encoder", style_weights)
    assert hwdiff("train", *data, *small, "--compiled").exit_code == 0
    name = "hwdiff.training.pipeline.run_chain"
    monkeypatch.setattr(name, lambda data, out, config, *more: seen.update(padding=config.padding))
    hwdiff("chain", *data, "--preset", "smoke", "--padding", "full")
    name = "hwdiff.evaluation.recognizer_training.train_recognizer"
    monkeypatch.setattr(name, lambda config, *given, **how: seen.update(config=config) or config.steps)
    hwdiff("train-recognizer", *data, "--learning-rate", 0.003, "--seed", 7)
    found = (seen["compiled"], seen["padding"], seen["config"].learning_rate, seen["config"].seed)
    assert found == (True, "full", 0.003, 7)


def test_options_of_the_alignment_reach_the_lines(trained, monkeypatch):
    seen = {}

    def spied(network, dataset, features, indices, judge, *, progress, **options):
        seen.update(options, splits=set(dataset.splits[indices]), lines=len(indices))
        raise HwdiffError("seen")

    monkeypatch.setattr("hwdiff.evaluation.attention.regenerate_aligned", spied)
    asked = ("--split", "train", "--lines", 3, "--block", 0, "--sampler", "dpm", "--steps", 4)
    data = ("--data", trained / "data" / "lines.npz", "--model", "small")
    assert "error: seen" in hwdiff("alignment", *data, *asked, "--guidance", 2, "--seed", 5).output
    wanted = {"block": 0, "sampler": "dpm", "steps": 4, "guidance": 2, "seed": 5}
    assert seen == wanted | {"splits": {"train"}, "lines": 3}
