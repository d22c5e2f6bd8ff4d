"""Damaged files, read by everything in hwdiff that reads files: `python -m tests.torture.fuzz --count 1000`.

What is read may be refused with an HwdiffError, or read. Anything else is a finding: another exception, a
hang, more than 2 GB of memory, something run, a file written where it should not be, an input changed.
"""

import argparse
import hashlib
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from random import Random

import torch

from hwdiff.utils.errors import HwdiffError
from tests.torture.mutations import mutate
from tests.torture.readers import READERS, Reader

SECONDS = 10.0  # of processor time that reading may take, and six times as many by the clock
MEMORY = 2 * 2**30  # bytes that it may take, above what a process has at its start
CASES_PER_PROCESS = 50
CONTEXT = multiprocessing.get_context("fork")
RUNS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class")
CHANGES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
)
_NO_MEMORY = re.compile(r"can't allocate memory|unable to allocate", re.IGNORECASE)


@dataclass(frozen=True)
class Case:
    """A damaged file: its reader, and what the damage is drawn from. Without a number the file is whole."""

    reader: Reader
    seed: int = 0
    number: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "read" or "refused" and why, or what is wrong with it."""

    case: Case
    kind: str
    message: str

    @property
    def is_finding(self) -> bool:
        return self.kind not in ("read", "refused")

    def __str__(self) -> str:
        case = self.case
        return f"{case.reader.name}: seed {case.seed} case {case.number}: {self.kind}: {self.message}"


def cases_of(readers: Sequence[Reader], seed: int, numbers: Iterable[int]) -> list[Case]:
    """Cases by number; each reader has as many, and its own are the same however many there are."""
    return [Case(readers[number % len(readers)], seed, number) for number in numbers]


def run(
    cases: Sequence[Case], work: Path, *, seconds: float = SECONDS, memory: int = MEMORY
) -> list[Outcome]:
    """Run cases in processes of their own, some in each.

    work: an empty folder.
    seconds, memory: that each may take.
    """
    for reader in dict.fromkeys(case.reader for case in cases):
        (work / "seeds" / reader.name).mkdir(parents=True)
        reader.make(work / "seeds" / reader.name)
    outcomes = []
    while left := cases[len(outcomes) :]:
        receiver, sender = CONTEXT.Pipe(duplex=False)
        some = left[:CASES_PER_PROCESS]
        process = CONTEXT.Process(target=_run_some, args=(some, work, sender, seconds, memory))
        process.start()
        sender.close()
        done = 0
        for case in some:
            try:
                outcomes.append(Outcome(case, *receiver.recv()))
            except EOFError:
                break
            done += 1
        process.join()
        if done < len(some):
            hung = process.exitcode in (-signal.SIGALRM, -signal.SIGPROF)
            found = (
                ("a hang", f"more than {seconds:g} s") if hung else ("a death", f"exit {process.exitcode}")
            )
            outcomes.append(Outcome(some[done], *found))
    return outcomes


def _run_some(cases, work, sender, seconds, memory):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.dont_write_bytecode = True
    # What a reader prints is no matter, and what it reads of the terminal is nothing.
    for number in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    watch = _Watch()
    sys.addaudithook(watch)
    for case in cases:
        try:
            outcome = _run_one(case, work, watch, seconds)
        except Exception as error:
            outcome = "a fault of the harness", _place(error)
        sender.send(outcome)


def _run_one(case, work, watch, seconds):
    folder = work / "case"
    shutil.rmtree(folder, ignore_errors=True)
    inputs, out, elsewhere = folder / "in", folder / "out", folder / "elsewhere"
    shutil.copytree(work / "seeds" / case.reader.name, inputs)
    out.mkdir()
    elsewhere.mkdir()
    damaged = damage(case, inputs)
    before = _content_of(inputs)
    os.chdir(elsewhere)
    watch.begin(out, inputs if case.reader.writes else out)
    signal.setitimer(signal.ITIMER_REAL, 6 * seconds)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        kind, message = read(case, inputs, damaged, out)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        watch.end()
    after = _content_of(inputs)
    changed = [name for name in before | after if before.get(name) != after.get(name)]
    changed = [name for name in changed if not any(fnmatch(name, glob) for glob in case.reader.writes)]
    if watch.seen:
        return "something done", "; ".join(watch.seen[:3])
    if changed or any(elsewhere.iterdir()):
        return "a file changed", ", ".join([*changed, *map(str, elsewhere.iterdir())])
    return kind, message


def damage(case: Case, inputs: Path) -> Path:
    """Damage one of the files in the folder `inputs`. Returns which, of whole ones the first."""
    random = Random(f"{case.reader.name} {case.seed} {case.number}")
    files = sorted(path for path in inputs.rglob("*") if path.is_file())
    files = [path for path in files if case.reader.damages(path)]
    if case.number is None:
        return files[0]
    path = random.choice(files)
    for _ in range(random.choice((1, 1, 1, 2))):
        mutate(path, random)
    return path


def read(case: Case, inputs: Path, damaged: Path, out: Path) -> tuple[str, str]:
    """Read a damaged file. Returns the kind of outcome, and a message."""
    try:
        case.reader.read(inputs, damaged, out)
    except Exception as error:
        chain = [error]
        while chain[-1].__cause__ or chain[-1].__context__:
            chain.append(chain[-1].__cause__ or chain[-1].__context__)
        if any(isinstance(one, MemoryError) or _NO_MEMORY.search(str(one)) for one in chain):
            return "no memory", _place(chain[-1])
        if isinstance(error, HwdiffError):
            return "refused", str(error)
        return "an exception", _place(error)
    return "read", ""


def _place(error):
    """An exception in a line, with the last place in the package that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    inner = [frame for frame in frames if "hwdiff" in Path(frame.filename).parts] or frames
    place = f"{Path(inner[-1].filename).name}:{inner[-1].lineno}" if inner else "?"
    return f"{type(error).__name__}: {str(error)[:160]!r} at {place}"


class _Watch:
    """An audit hook that notes what is run, and what is written outside two folders."""

    def __init__(self):
        self.allowed, self.seen = None, []

    def begin(self, *folders):
        self.allowed, self.seen = tuple(str(folder) for folder in folders), []

    def end(self):
        self.allowed = None

    def __call__(self, event, arguments):
        if self.allowed is None:
            return
        if event in RUNS:
            self.seen.append(f"{event} {arguments[:2]!r:.100}")
        elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            if (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
                self._note(event, arguments[0])
        elif event in ("os.remove", "os.rmdir") and arguments[1] >= 0:  # a path below a folder that is open
            self._note(
                event, os.path.join(os.readlink(f"/proc/self/fd/{arguments[1]}"), os.fsdecode(arguments[0]))
            )
        elif event in CHANGES:
            self._note(event, *arguments[: 2 if event in ("os.rename", "os.link") else 1])

    def _note(self, event, *paths):
        for path in paths:
            if isinstance(path, int):  # a file that is open already
                continue
            place = os.path.realpath(os.fsdecode(path))
            inside = place.startswith(tuple(f"{folder}/" for folder in self.allowed))
            if not inside and place not in (*self.allowed, os.devnull):
                self.seen.append(f"{event} {place}")


def _content_of(folder):
    """{name: SHA-256} of the files below a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 1 if there was any finding, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="how many cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", help="only the cases of this reader")
    parser.add_argument("--case", type=int, help="only this case, here, with its traceback")
    options = parser.parse_args(arguments)
    numbers = range(options.count) if options.case is None else [options.case]
    cases = cases_of(READERS, options.seed, numbers)
    if options.reader:
        cases = [case for case in cases if case.reader.name == options.reader]
    with tempfile.TemporaryDirectory(prefix="hwdiff-fuzz-") as folder:
        if options.case is not None:
            return _show(cases[0], Path(folder))
        outcomes = run(cases, Path(folder).resolve())
    findings = [outcome for outcome in outcomes if outcome.is_finding]
    for outcome in findings:
        print(outcome)
    kinds = Counter((outcome.case.reader.name, outcome.kind) for outcome in outcomes)
    print(f"{'reader':24}{'cases':>7}{'read':>7}{'refused':>9}{'findings':>10}")
    for name in dict.fromkeys(case.reader.name for case in cases):
        total = sum(count for (reader, _), count in kinds.items() if reader == name)
        well, refused = kinds[name, "read"], kinds[name, "refused"]
        print(f"{name:24}{total:7}{well:7}{refused:9}{total - well - refused:10}")
    print(f"{len(outcomes)} cases, {len(findings)} findings")
    return int(bool(findings))


def _show(case, folder):
    inputs, out = folder / "in", folder / "out"
    inputs.mkdir()
    out.mkdir()
    case.reader.make(inputs)
    damaged = damage(case, inputs)
    print(f"{case.reader.name}: {damaged.relative_to(inputs)} is damaged")
    case.reader.read(inputs, damaged, out)
    print("read")
    return 0


if __name__ == "__main__":
    sys.exit(main())
