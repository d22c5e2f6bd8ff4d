import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.torture import kills


def test_killed_commands_lose_nothing(capsys):
    assert kills.main(["--kills", "1", "--only", "prepare, built-in"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("prepare, built-in writers: 1 kills, finished 1 times, ")
    assert told[1] == "1 kills, 0 faults"


def test_half_files_are_noticed(tmp_path):
    save_file({"a": torch.zeros(40)}, tmp_path / "model.safetensors")
    np.savez(tmp_path / "lines.npz", a=np.zeros(40))
    (tmp_path / "table.json").write_text('{"a": [1, 2]}')
    assert list(kills._not_whole(tmp_path)) == []
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    found = [line.partition(" ")[0] for line in kills._not_whole(tmp_path)]
    assert found == ["lines.npz", "model.safetensors", "table.json"]


def test_other_results_and_files_that_were_left_are_noticed(tmp_path):
    """A command that gives something else each time, and leaves a temporary file."""
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        save_file({"a": torch.full((2,), float(name == "killed"))}, folder / "model.safetensors")
        (folder / "metrics.jsonl").write_text(f'{{"step": 1, "loss": 2.0, "seconds": {len(name)}}}\n')
        (folder / "manifest.json").write_text(name)
    (tmp_path / "killed" / ".partial-table-abc.csv").write_text("half")
    whole, killed = (kills.result(tmp_path / name) for name in ("whole", "killed"))
    assert set(killed) - set(whole) == {".partial-table-abc.csv"}
    assert [name for name in whole if whole[name] != killed[name]] == ["model.safetensors"]


@pytest.mark.parametrize("lives", [True, False])
def test_processes_that_are_left_are_noticed(lives):
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    process = subprocess.Popen([sys.executable, "-c", code])
    family, end = [], time.monotonic() + 60
    while not family and time.monotonic() < end:
        family = kills.descendants(process.pid)
    assert family
    process.kill()
    process.wait()
    if not lives:
        for pid in family:
            os.kill(pid, signal.SIGKILL)
    assert bool(kills.left_alive(family, seconds=2)) == lives
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
