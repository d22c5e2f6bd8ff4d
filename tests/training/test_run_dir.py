import os
import signal
import time

import pytest
import torch

from hwdiff.training import run_dir
from hwdiff.utils import files, interrupt, progress
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.tensors import load_tensors, save_tensors


def pair(seed):
    torch.manual_seed(seed)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return network, optimizer, torch.Generator().manual_seed(seed)


def test_a_state_comes_back_as_it_was(tmp_path):
    network, optimizer, generator = pair(0)
    torch.rand(5, generator=generator)
    run = run_dir.RunDirectory(tmp_path, {"kind": "test"})
    run.begin()
    run.save(3, {"network": network}, {"optimizer": optimizer}, generator)
    drawn = torch.rand(5, generator=generator)
    again = run_dir.RunDirectory(tmp_path, {"kind": "test"})
    assert again.find_step(resume=True) == again.done == 3
    other, other_optimizer, other_generator = pair(1)
    again.load({"network": other}, {"optimizer": other_optimizer}, other_generator)
    assert torch.equal(torch.rand(5, generator=other_generator), drawn)
    for one, its_optimizer in ((network, optimizer), (other, other_optimizer)):
        its_optimizer.zero_grad()
        one(torch.full((1, 3), 2.0)).sum().backward()
        its_optimizer.step()
    assert torch.equal(network.weight, other.weight)


def test_a_state_that_does_not_fit_is_refused(tmp_path):
    network, optimizer, generator = pair(0)
    run = run_dir.RunDirectory(tmp_path, {"kind": "test"})
    run.begin()
    run.save(1, {"network": network}, {"optimizer": optimizer}, generator)
    with pytest.raises(HwdiffError, match="another process has saved step 1 in it meanwhile"):
        run.load({"network": network}, {"optimizer": optimizer}, generator)
    with pytest.raises(HwdiffError, match="another process has saved a state in it meanwhile"):
        run_dir.RunDirectory(tmp_path, {"kind": "test"}).begin()
    run.find_step(resume=True)
    with pytest.raises(HwdiffError, match="do not fit its metadata"):
        run.load({"network": torch.nn.Linear(4, 2)}, {"optimizer": optimizer}, generator)
    with pytest.raises(HwdiffError, match="do not fit its metadata"):
        run.load({"other": network}, {"optimizer": optimizer}, generator)
    with pytest.raises(HwdiffError, match=r"holds a run of another kind \(test, not other\)"):
        run_dir.RunDirectory(tmp_path, {"kind": "other"}).find_step(resume=True)
    content = run.state.read_bytes()
    run.state.write_bytes(content.replace(b"hwdiff run 1", b"hwdiff run 9"))
    with pytest.raises(HwdiffError, match="its format is 'hwdiff run 9', not 'hwdiff run 1'"):
        run.find_step(resume=True)
    run.state.write_bytes(content[:100])
    with pytest.raises(HwdiffError, match="not a whole state of a run"):
        run.find_step(resume=True)


def test_settings_that_differ_are_named(tmp_path):
    run_dir.check_same("run", {"a": 1, "b": 2}, {"a": 1, "b": 2})
    message = "run: cannot be resumed with other settings: it has b = 2, not 3, c = None, not 4"
    with pytest.raises(HwdiffError, match=message):
        run_dir.check_same("run", {"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4})


def test_logs_are_cut_back_to_a_step(tmp_path):
    log = tmp_path / "metrics.jsonl"
    assert files.truncate_jsonl(log, 3) is None
    files.append_jsonl(log, [{"step": 1}, {"step": 2}, {"step": 3}])
    with log.open("a") as file:
        file.write('{"step": 4')  # what a killed run leaves
    assert files.truncate_jsonl(log, 2) == {"step": 2}
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'
    with pytest.raises(HwdiffError, match="cannot be written"):
        files.append_jsonl(tmp_path, [{"step": 1}])


def test_a_directory_is_locked_and_cleared_of_what_a_killed_process_left(tmp_path):
    left = tmp_path / ".partial-abcd_123.safetensors"
    left.write_text("half")
    os.utime(left, (time.time() - 10,) * 2)
    (tmp_path / ".my-own").write_text("whole")
    with files.lock_directory(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".my-own"]
        held = pytest.raises(HwdiffError, match="another process is at work in it")
        with held, files.lock_directory(tmp_path):
            pass
    with files.lock_directory(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()


def test_a_signal_is_noted_and_a_second_one_does_not_wait():
    before = signal.getsignal(signal.SIGINT)
    with interrupt.Stop() as stop:
        assert stop.reason is None
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.reason == "interrupted"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert interrupt.Stop(minutes=0).reason == "time is up"
    assert interrupt.Stop(minutes=1).reason is None


def test_progress_without_a_terminal_is_a_line_a_minute(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Progress("training", 100) as shown:
        for step in range(11, 71):  # a run that is resumed after step 10
            now[0] += 3
            shown.reach(step, "loss 0.5" if step % 50 == 0 or step == 11 else None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 31 of 100 steps in 01:03, 0.333 a second, 03:27 left, loss 0.5"
    assert len(lines) == 3
    assert len(set(lines)) == 3
    with progress.Progress("drawing", 5, unit="lines"):
        pass
    assert not capsys.readouterr().err


@pytest.mark.parametrize("line", ["{", "[]", '{"loss": 1}', '{"step": "2"}', "[" * 100_000, "\udcff"])
def test_a_damaged_log_is_named_with_its_line(tmp_path, line):
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n'.encode(errors="surrogateescape"))
    before = log.read_bytes()
    with pytest.raises(HwdiffError, match=r"metrics\.jsonl: line 2 is no row of a log"):
        files.truncate_jsonl(log, 3)
    assert log.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "3",
        "[" * 100_000,
        '{"steps": "many"}',
        '{"changes": [3]}',
        '{"kind": []}',
        '{"changes": [{"after": 2, "drop_text": 3}]}',
    ],
)
def test_a_damaged_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(HwdiffError, match=r"config\.json: (no|not the) configuration of a training run"):
        run_dir.read_config(tmp_path)


@pytest.mark.parametrize(
    "change", [{"step": -1}, {"step": "3"}, {"settings": None}, {"settings": {"steps": "a"}}]
)
def test_a_state_with_damaged_metadata_is_refused(tmp_path, change):
    run = run_dir.RunDirectory(tmp_path, {"kind": "test"})
    run.begin()
    about = {"format": run_dir.FORMAT, "step": 1, "settings": {"kind": "test"}, **change}
    save_tensors(run.state, {"a": torch.zeros(1)}, about)
    with pytest.raises(HwdiffError, match=r"state\.safetensors: not the state of a run"):
        run.find_step(resume=True)


@pytest.mark.parametrize(
    "change", [{"generator": torch.zeros(3)}, {"optimizer.0.exp_avg": torch.zeros(1, 3)}]
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, change):
    network, optimizer, generator = pair(0)
    run = run_dir.RunDirectory(tmp_path, {"kind": "test"})
    run.begin()
    run.save(1, {"network": network}, {"optimizer": optimizer}, generator)
    metadata, state = load_tensors(run.state, run_dir.FORMAT, what="state", advice="")
    save_tensors(run.state, {**state, **change}, metadata)
    run.find_step(resume=True)
    with pytest.raises(HwdiffError, match="its tensors do not fit its metadata"):
        run.load({"network": network}, {"optimizer": optimizer}, generator)


def test_times_that_are_no_numbers_are_refused(tmp_path):
    run = run_dir.RunDirectory(tmp_path, {"kind": "test"})
    run.done = 1
    files.append_jsonl(tmp_path / "metrics.jsonl", [{"step": 1, "seconds": "long"}])
    with pytest.raises(HwdiffError, match=r"metrics\.jsonl: not the log of a run \(seconds = 'long'\)"):
        run.begin()


def test_a_minute_has_sixty_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(interrupt.time, "monotonic", lambda: now[0])
    stop = interrupt.Stop(minutes=2)
    now[0] = 119.0
    assert stop.reason is None
    now[0] = 121.0
    assert stop.reason == "time is up"
