"""Training as a user runs it: a process that is killed, interrupted, out of disk, or one of two."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
STEPS = 24


@pytest.fixture(scope="module")
def command(dataset, style_weights):
    """(launcher, out, options) -> the command of a small training run."""

    def build(out, *options, launcher=(sys.executable, "-m", "hwdiff")):
        common = ("--data", dataset.path, "--style-encoder", style_weights, "--preset", "smoke", "--batch-size", 4, "--steps", STEPS)
        every = ("--save-every", 5, "--held-out-every", 10)
        return [str(part) for part in (*launcher, "train", "--out", out, *common, *every, *options)]

    return build


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def execute(arguments, **options):
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=ENVIRONMENT, cwd=ROOT, check=False, **options)


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The folder of the run that nothing ever stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    result = execute(command(out))
    assert result.returncode == 0, result.stderr
    # Without a terminal there is little to read.
    [line] = result.stderr.splitlines()
    assert line.startswith(f"training: {STEPS} of {STEPS} steps in ")
    return out


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def wait_for_step(out, step, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        log = out / "metrics.jsonl"
        if log.exists() and log.read_text().count("\n") >= step:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"step {step} never came")


def test_a_killed_run_goes_on_bit_for_bit(whole, command, tmp_path):
    out = tmp_path / "run"
    for step in (3, 14):  # before the first saved state, and after two
        process = subprocess.Popen(command(out, "--resume"), env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for_step(out, step, process)
        process.kill()
        process.communicate()
        assert len(losses(out)) < STEPS
    result = execute(command(out, "--resume"))
    assert result.returncode == 0, result.stderr
    for name in ("state.safetensors", "model.safetensors"):
        ours, theirs = load_file(out / name), load_file(whole / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    assert losses(out) == losses(whole)
    assert not list(out.glob(".*")), "temporary files were left"


def test_ctrl_c_saves(whole, command, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(command(out), env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_step(out, 7, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    reached = len(losses(out))
    assert f"interrupted: saved at step {reached} of {STEPS}; go on with the same command and --resume" in output
    assert execute(command(out, "--resume")).returncode == 0
    assert losses(out) == losses(whole)


def test_a_full_disk_loses_nothing_that_was_saved(whole, command, tmp_path):
    out = tmp_path / "run"
    assert execute(command(out, "--minutes", 0)).returncode == 3
    before = (out / "state.safetensors").read_bytes()
    # A limit on the size of a file is what a full disk is to the one who writes: the state no longer fits, the log still does.
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2},) * 2)\nfrom hwdiff.cli import app\napp()"
    result = execute(command(out, "--resume", launcher=(sys.executable, "-c", limited)))
    assert result.returncode == 1
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "state.safetensors: cannot be written" in line
    assert "free some space" in line
    assert (out / "state.safetensors").read_bytes() == before
    assert not list(out.glob(".*")), "temporary files were left"


def test_two_processes_train_as_one(whole, command, tmp_path):
    out = tmp_path / "run"
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "hwdiff")
    result = execute(command(out, launcher=launcher))
    assert result.returncode == 0, result.stderr
    assert losses(out) == pytest.approx(losses(whole), rel=1e-3)
    assert losses(out)[:5] == pytest.approx(losses(whole)[:5], rel=1e-5)
