"""Commands that are killed at random moments and started again. Nothing may be lost, and nothing left behind.

    python -m tests.torture.kills --kills 50

Each command is first left alone. Then, in another folder, it is ended by SIGKILL, with all processes of its
session, at moments drawn between its start and its usual end, and started again with the same arguments.
After each kill every file must be whole, and no process may be left. After some kills it may finish, and must
give what it gave when it was left alone, with no other file beside it.
"""

import argparse
import contextlib
import hashlib
import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file

from hwdiff.data.preparation import prepare
from hwdiff.utils.tensors import fingerprint_of
from tests.commands import Command
from tests.conftest import make_source, save_random_style_weights
from tests.suite.conftest import SMALL, save_untrained

KILLS_OF_A_RUN = 4  # before it may finish
# What holds times, or names of temporary files, and so differs from run to run.
TIMED = {"timings", "timings.json", "written", "logs", "records", "notebooks", "manifest.json", "index.html"}
Arguments = Callable[[Path], list]
"""arguments(out): the command line that writes into the folder `out`."""


class Needs:
    """What the commands need, in a folder, made when it is first asked for."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def source(self) -> Path:
        """A folder like a download of IAM."""
        (self.folder / "iam").mkdir()
        return make_source(self.folder / "iam")

    @cached_property
    def data(self) -> Path:
        prepare(self.source, self.folder / "lines.npz", workers=1)
        return self.folder / "lines.npz"

    @cached_property
    def written(self) -> Path:
        """A dataset of built-in writers."""
        prepare(None, self.folder / "writers.npz", writers=16, workers=1)
        return self.folder / "writers.npz"

    @cached_property
    def weights(self) -> Path:
        """Random weights of a style encoder."""
        return save_random_style_weights(self.folder / "mobilenet.safetensors")

    @cached_property
    def model(self) -> Path:
        """A small untrained network that passes for the small bundled one."""
        save_untrained(self.folder / "model.safetensors")
        return self.folder / "model.safetensors"


def commands(folder: Path) -> dict[str, Arguments]:
    """The commands to be killed. What they need is made in `folder`."""
    needs = Needs(folder)

    def train(out, processes):
        small = ["--preset", "smoke", "--batch-size", 4, "--steps", 24, "--processes", processes]
        given = ["--data", needs.data, "--style-encoder", needs.weights, "--out", out]
        return ["train", *given, *small, "--save-every", 5, "--validate-every", 10, "--resume"]

    def distil(out):
        small = ["--evaluations", 3, "--batches", 6, "--batch-size", 2, "--save-every", 2]
        given = ["--data", needs.written, "--model", needs.model, "--out", out]
        return ["distil-steps", *given, *small, "--resume"]

    def evaluate(out):
        small = ["--lines", 4, "--seeds", 2, "--repetitions", 5]
        return ["evaluate", "--data", needs.written, "--model", needs.model, *small, "--out", out]

    def reproduce(out):
        small = [*SMALL, f"checkpoint={needs.model}"]
        parameters = [part for parameter in small for part in ("--param", parameter)]
        return ["reproduce", "--out", out, *parameters]

    return {
        "prepare": lambda out: ["prepare", "--source", needs.source, "--out", out / "lines.npz"],
        "prepare, built-in writers": lambda out: ["prepare", "--writers", 1, "--out", out / "lines.npz"],
        "train, one process": lambda out: train(out, 1),
        "train, two processes": lambda out: train(out, 2),
        "distil-steps": distil,
        "evaluate": evaluate,
        "reproduce": reproduce,
    }


def torture(
    arguments: Arguments, kills: int, generator: np.random.Generator, folder: Path
) -> Iterator[tuple[float, str]]:
    """Kill a command so many times, and let it finish in between.

    Yields for each kill when it came, as a fraction of the command's usual time, and what was wrong after it,
    "" for nothing; and so with NaN for each time that the command finished.
    """
    whole = folder / "whole"
    began = time.monotonic()
    _finish(Command(*arguments(whole)))
    usual, expected, killed = time.monotonic() - began, result(whole), 0
    while killed < kills:
        out = folder / f"killed-{killed}"
        for _ in range(min(KILLS_OF_A_RUN, kills - killed)):
            fraction = generator.random()
            process = Command(*arguments(out))
            time.sleep(fraction * usual)
            family = descendants(process.pid)
            with contextlib.suppress(ProcessLookupError):  # it has just begun, or ended
                process.send(signal.SIGKILL, everyone=True)
            process.process.kill()
            process.wait()
            killed += 1
            yield fraction, "; ".join([*left_alive(family), *_not_whole(out)])
        _finish(Command(*arguments(out)))
        found = result(out)
        wrong = [name for name in expected if found.get(name) != expected[name]]
        beside = [name for name in found if name not in expected]
        differ = f"differ from the undisturbed run: {', '.join(wrong)}" if wrong else ""
        yield float("nan"), "; ".join(filter(None, [differ, f"left: {', '.join(beside)}" if beside else ""]))


def _finish(process):
    if process.wait(1200):
        raise AssertionError(f"it ended with {process.wait()}: {process.output}{process.errors}")


def descendants(pid: int) -> list[int]:
    """The processes below a process."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = list(map(int, path.read_text().split()))
        except OSError:  # it has just ended
            continue
        found += [*children, *(one for child in children for one in descendants(child))]
    return found


def left_alive(pids, seconds=30):
    """Processes that are still there after some time, but for those that only wait to be collected."""
    deadline = time.monotonic() + seconds
    while alive := [pid for pid in pids if _state(pid) not in (None, "Z")]:
        if time.monotonic() > deadline:
            return [f"processes {alive} are left"]
        time.sleep(0.1)
    return []


def _state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def _not_whole(out):
    """What is wrong with the files of a folder, one line each; temporary ones don't count."""
    for path in sorted(out.rglob("*")):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            if path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix in (".json", ".ipynb"):
                json.loads(path.read_text())
            elif path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as file:
                    for name in file.files:
                        file[name]
            elif path.suffix == ".png":
                with Image.open(path) as image:
                    image.load()
        except Exception as error:  # whatever a reader says of half a file
            yield f"{path.relative_to(out)} is not whole ({type(error).__name__}: {error})"


def result(out: Path) -> dict[str, str]:
    """What a command leaves in its folder: {file: fingerprint}, without times."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out)
        if not path.is_file() or (TIMED & set(name.parts) and not path.name.startswith(".")):
            continue
        if path.suffix == ".safetensors":
            found[str(name)] = fingerprint_of(load_file(path))
        elif path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[str(name)] = str([(row["step"], row["loss"]) for row in rows])
        else:
            found[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def main(arguments: list[str] | None = None) -> int:
    """Kill all commands, or some. Prints what was found; the exit code is 1 if anything was."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="the commands whose names begin so")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="hwdiff-test-") as folder:
        chosen = {
            name: one for name, one in commands(Path(folder)).items() if name.startswith(given.only or "")
        }
        kills, faults = dict.fromkeys(chosen, given.kills // len(chosen)), 0
        for name in list(chosen)[: given.kills % len(chosen)]:
            kills[name] += 1
        for number, (name, arguments_of) in enumerate(chosen.items()):
            own, began, made, finished = Path(folder) / f"own-{number}", time.monotonic(), 0, 0
            own.mkdir()
            generator = np.random.default_rng((given.seed, number))
            for fraction, wrong in torture(arguments_of, kills[name], generator, own):
                made, finished = made + (fraction == fraction), finished + (fraction != fraction)
                if wrong:
                    faults += 1
                    when = f"killed after {100 * fraction:.0f} %" if fraction == fraction else "finished"
                    print(f"{name}, {when}: {wrong}", flush=True)
            seconds = time.monotonic() - began
            print(f"{name}: {made} kills, finished {finished} times, {seconds:.0f} s", flush=True)
    print(f"{sum(kills.values())} kills, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    raise SystemExit(main())
