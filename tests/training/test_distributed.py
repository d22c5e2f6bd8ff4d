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

from hwdiff.training import distributed
from tests.commands import Command
from tests.torture.kills import left_alive

STEPS = 24


@pytest.fixture(scope="module")
def train(dataset, style_weights):
    """train(out, *options): starts a small training run."""

    def begin(out, *options, **how):
        given = ("--data", dataset.path, "--style-encoder", style_weights, "--preset", "smoke")
        size = ("--batch-size", 4, "--steps", STEPS, "--processes", 1)
        every = ("--save-every", 5, "--validate-every", 10)
        return Command("train", "--out", out, *given, *size, *every, *options, **how)

    return begin


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """The directory of the run that nothing ever stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    process = train(out)
    assert process.wait() == 0, process.errors
    # Without a terminal there is little to read.
    *_, line = process.errors.splitlines()
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
        assert not process.ended, process.errors
        time.sleep(0.01)
    raise AssertionError(f"step {step} never came")


def assert_same(out, whole):
    """The run in `out` has the losses and, bit for bit, the weights of another."""
    assert losses(out) == losses(whole)
    for name in ("state.safetensors", "model.safetensors"):
        ours, theirs = load_file(out / name), load_file(whole / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    assert not list(out.glob(".*")), "temporary files were left"


def test_a_killed_run_resumes_bit_for_bit(whole, train, tmp_path):
    out = tmp_path / "run"
    for step in (3, 14):  # before the first saved state, and after two
        process = train(out, "--resume")
        wait_for_step(out, step, process)
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert len(losses(out)) < STEPS
    process = train(out, "--resume")
    assert process.wait() == 0, process.errors
    assert_same(out, whole)


def test_ctrl_c_saves(whole, train, tmp_path):
    out = tmp_path / "run"
    process = train(out)
    wait_for_step(out, 7, process)
    process.send(signal.SIGINT)
    assert process.wait(60) == 130
    reached = len(losses(out))
    assert f"interrupted: saved at step {reached} of {STEPS}; " in process.output
    assert "the same command and --resume" in process.output
    assert train(out, "--resume").wait() == 0
    assert_same(out, whole)


def test_a_full_disk_loses_nothing_that_was_saved(train, tmp_path):
    out = tmp_path / "run"
    assert train(out, "--minutes", 0).wait() == 3
    before = (out / "state.safetensors").read_bytes()
    # A limit on the size of files acts like a full disk: the state no longer fits, the log still does.
    process = train(out, "--resume", file_size=len(before) // 2)
    assert process.wait() == 1
    [line] = [line for line in process.errors.splitlines() if line.startswith("error: ")]
    assert "state.safetensors: cannot be written" in line
    assert "free some space" in line
    assert (out / "state.safetensors").read_bytes() == before
    assert not list(out.glob(".*")), "temporary files were left"


TWO = ("--processes", 2, "--optimizer", "muon", "--resume")


@pytest.fixture(scope="module")
def two(train, tmp_path_factory):
    """The directory of the run of two processes that nothing ever stopped."""
    out = tmp_path_factory.mktemp("two") / "run"
    process = train(out, *TWO, forked=True)
    assert process.wait() == 0, process.errors
    return out


def test_two_processes_train_as_one(two, train, tmp_path):
    out = tmp_path / "run"
    assert train(out, "--optimizer", "muon").wait() == 0
    assert losses(two) == pytest.approx(losses(out), rel=1e-3)
    assert losses(two)[:5] == pytest.approx(losses(out)[:5], rel=1e-5)


def children(process):
    lists = Path(f"/proc/{process.pid}/task").glob("*/children")
    return sorted(int(pid) for path in lists for pid in path.read_text().split())


def test_two_processes_save_at_a_signal_and_bear_a_pause(two, train, tmp_path):
    """SIGTERM goes to the first process, as from a service manager; Ctrl-C to all, as from a terminal."""
    out = tmp_path / "run"
    for number, everyone, step in ((signal.SIGTERM, False, 3), (signal.SIGINT, True, 11)):
        process = train(out, *TWO, forked=True)
        wait_for_step(out, step, process)
        process.send(number, everyone)
        assert process.wait(60) == 130, process.errors
        reached = len(losses(out))
        assert step <= reached < STEPS
        assert f"saved at step {reached} of {STEPS}; " in process.output
        assert "the same command and --resume" in process.output
    process = train(out, *TWO, forked=True)
    wait_for_step(out, reached + 1, process)
    process.send(signal.SIGSTOP, everyone=True)
    time.sleep(3)
    process.send(signal.SIGCONT, everyone=True)
    assert process.wait(120) == 0, process.errors
    assert_same(out, two)


def test_two_processes_end_together_and_resume(two, train, tmp_path):
    """Whether the first process dies or one that it started, before a saved state or after some."""
    out = tmp_path / "run"
    process = train(out, *TWO, forked=True)
    wait_for_step(out, 3, process)
    pids = children(process)
    assert len(pids) == 2
    process.send(signal.SIGKILL)
    assert not left_alive(pids, seconds=60)
    reached = len(losses(out))
    assert reached < STEPS
    for victim, step in ((0, 7), (1, 14)):
        process = train(out, *TWO, forked=True)
        wait_for_step(out, max(step, reached + 1), process)
        os.kill(children(process)[victim], signal.SIGKILL)
        assert process.wait(60) == 1
        [line] = [line for line in process.errors.splitlines() if line.startswith("error: ")]
        assert "one of 2 processes was ended by SIGKILL" in line
        assert "resume with --resume" in line
        assert "Traceback" not in process.errors
        reached = len(losses(out))
    assert train(out, *TWO, forked=True).wait() == 0
    assert_same(out, two)


def test_an_error_in_several_processes_is_one_line(dataset, style_weights, tmp_path):
    # Whole processes: what Python says of things left behind comes last, from a process of its own.
    given = ("--data", dataset.path, "--style-encoder", style_weights, "--preset", "smoke")
    command = [sys.executable, "-m", "hwdiff", "train", "--out", tmp_path / "run", *given, *TWO]
    # Without this gloo warns where the machine's name has no address.
    local = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    ended = subprocess.run(
        [*map(str, command), "--batch-size", "64"], capture_output=True, text=True, env=local
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: batch size 64: the dataset's split has only 16 lines; choose a smaller batch\n"
    )


@pytest.mark.parametrize(
    ("count", "message"),
    [(3, "cannot be divided among|give no more"), (0, "give a divisor"), (1000, "give no more")],
)
def test_processes_that_make_no_sense_are_refused(train, tmp_path, count, message):
    process = train(tmp_path / "run", "--processes", count)
    assert process.wait() == 1
    [line] = process.errors.splitlines()
    assert line.startswith("error: --processes")
    assert re.search(message, line)
    assert not (tmp_path / "run").exists()


def test_the_variables_of_another_launcher_are_left_alone(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    assert distributed.first_process()
    assert distributed.Processes(torch.device("cpu")).count == 1


def test_as_many_processes_as_divide_the_batch(monkeypatch):
    monkeypatch.setattr(distributed, "room", lambda device: 4)
    counts = [distributed.default_count(size, torch.device("cpu")) for size in (32, 9, 7)]
    assert counts == [4, 3, 1]
