"""Training as a user runs it: a process that is killed, interrupted, out of disk, or one of two."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
STEPS = 24


@pytest.fixture(scope="module")
def command(dataset, style_weights):
    """(launcher, out, options) -> the command of a small training run."""

    def build(out, *options, launcher=(sys.executable, "-m", "hwdiff")):
        given = ("--data", dataset.path, "--style-encoder", style_weights, "--preset", "smoke")
        size = ("--batch-size", 4, "--steps", STEPS, "--processes", 1)
        every = ("--save-every", 5, "--validate-every", 10)
        return [str(part) for part in (*launcher, "train", "--out", out, *given, *size, *every, *options)]

    return build


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def execute(arguments, **options):
    options |= {"capture_output": True, "text": True, "timeout": 300, "check": False}
    return subprocess.run(arguments, env=ENVIRONMENT, cwd=ROOT, **options)


def start(arguments, **options):
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(arguments, env=ENVIRONMENT, cwd=ROOT, **options)


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The directory of the run that nothing ever stopped."""
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


def test_a_killed_run_resumes_bit_for_bit(whole, command, tmp_path):
    out = tmp_path / "run"
    for step in (3, 14):  # before the first saved state, and after two
        process = start(command(out, "--resume"))
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
    process = start(command(out), text=True)
    wait_for_step(out, 7, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    reached = len(losses(out))
    assert f"interrupted: saved at step {reached} of {STEPS}; " in output
    assert "the same command and --resume" in output
    assert execute(command(out, "--resume")).returncode == 0
    assert losses(out) == losses(whole)


def test_a_full_disk_loses_nothing_that_was_saved(whole, command, tmp_path):
    out = tmp_path / "run"
    assert execute(command(out, "--minutes", 0)).returncode == 3
    before = (out / "state.safetensors").read_bytes()
    # A limit on the size of files acts like a full disk: the state no longer fits, the log still does.
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2},) * 2)"
    program = f"{limit}\nfrom hwdiff.cli import app\napp()"
    result = execute(command(out, "--resume", launcher=(sys.executable, "-c", program)))
    assert result.returncode == 1
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "state.safetensors: cannot be written" in line
    assert "free some space" in line
    assert (out / "state.safetensors").read_bytes() == before
    assert not list(out.glob(".*")), "temporary files were left"


@pytest.fixture(scope="module")
def two(command, tmp_path_factory):
    """The directory of the run of two processes that nothing ever stopped."""
    out = tmp_path_factory.mktemp("two") / "run"
    result = execute(command(out, "--processes", 2, "--optimizer", "muon"))
    assert result.returncode == 0, result.stderr
    return out


def test_two_processes_train_as_one(two, command, tmp_path):
    out = tmp_path / "run"
    assert execute(command(out, "--optimizer", "muon", "--processes", 1)).returncode == 0
    assert losses(two) == pytest.approx(losses(out), rel=1e-3)
    assert losses(two)[:5] == pytest.approx(losses(out)[:5], rel=1e-5)


def children(process):
    found = execute(["pgrep", "-P", str(process.pid), "-f", "spawn_main"])
    return [int(pid) for pid in found.stdout.split()]


def start_two(command, out, step=3):
    arguments = command(out, "--processes", 2, "--optimizer", "muon", "--resume")
    process = start(arguments, text=True, start_new_session=True)
    wait_for_step(out, step, process)
    return process


@pytest.mark.parametrize(("number", "whom"), [(signal.SIGTERM, "one"), (signal.SIGINT, "all")])
def test_a_signal_to_several_processes_saves(two, command, tmp_path, number, whom):
    """SIGTERM goes to the first process, as from a service manager; Ctrl-C to all, as from a terminal."""
    out = tmp_path / "run"
    process = start_two(command, out)
    (os.kill if whom == "one" else os.killpg)(process.pid, number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    reached = len(losses(out))
    assert 0 < reached < STEPS
    assert f"saved at step {reached} of {STEPS}; " in output
    assert "the same command and --resume" in output
    assert execute(command(out, "--processes", 2, "--optimizer", "muon", "--resume")).returncode == 0
    assert losses(out) == losses(two)
    ours, theirs = load_file(out / "model.safetensors"), load_file(two / "model.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_process_that_dies_ends_the_others_with_one_line(two, command, tmp_path):
    out = tmp_path / "run"
    for victim, step in ((0, 7), (1, 14)):  # after the first saved state, after the second
        process = start_two(command, out, step)
        os.kill(children(process)[victim], signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        [line] = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert "one of 2 processes was ended by SIGKILL" in line
        assert "resume with --resume" in line
        assert "Traceback" not in errors
    assert execute(command(out, "--processes", 2, "--optimizer", "muon", "--resume")).returncode == 0
    assert losses(out) == losses(two)


def test_no_process_outlives_the_first(command, tmp_path):
    out = tmp_path / "run"
    process = start_two(command, out)
    pids = children(process)
    assert len(pids) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert len(losses(out)) < STEPS


def test_a_pause_breaks_nothing(two, command, tmp_path):
    out = tmp_path / "run"
    process = start_two(command, out)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(3)
    os.killpg(process.pid, signal.SIGCONT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert losses(out) == losses(two)


@pytest.mark.parametrize(
    ("count", "message"),
    [(3, "cannot be divided among|give no more"), (0, "give a divisor"), (1000, "give no more")],
)
def test_processes_that_make_no_sense_are_refused(command, tmp_path, count, message):
    result = execute(command(tmp_path / "run", "--processes", count))
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("error: --processes")
    assert re.search(message, line)
    assert not (tmp_path / "run").exists()
