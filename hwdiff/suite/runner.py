"""Run the notebooks in order with papermill, each into the folder of a run.

What has not changed is not run again. This cache rests on fingerprints, kept in records/NAME.json of the run:

- `Reproduction.key`: of all that a notebook depends on, the whole package included.
- `Reproduction.state_key`: of what a half-done state depends on, such as a half-trained network. While it
  stays the same, the state is resumed.
- `Reproduction.is_up_to_date`: whether a notebook was done under the key it has now, and its files are still
  what it wrote. If so, it is not run.

A run of an older version of the package has no such records, and runs again from the start.
"""

import ast
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path, PurePath

import papermill
import torch
from nbclient.exceptions import DeadKernelError
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillException, PapermillExecutionError
from tqdm import tqdm
from traitlets.config import Config

from hwdiff.model.checkpoint import BUNDLED
from hwdiff.suite.notebook_html import notebook_html
from hwdiff.suite.outputs import HEADLESS, RUNS
from hwdiff.suite.page import MANIFEST, changed_files, read_json, read_record, write_manifest, write_page
from hwdiff.suite.verdicts import MEASUREMENTS
from hwdiff.utils.environment import environment
from hwdiff.utils.errors import HwdiffError, require_choice
from hwdiff.utils.files import (
    files_below,
    json_fingerprint,
    sha256_of,
    tree_fingerprint,
    write_json,
    write_text,
)
from hwdiff.utils.json_values import misfit, parse_json
from hwdiff.utils.progress import Progress

PACKAGE = Path(__file__).parents[1]
NOTEBOOKS = PACKAGE.parent / "notebooks"
MAX_FILES = 50  # a folder with more has one fingerprint in the manifest, instead of one for each file
START_SECONDS = 300  # for a kernel to start, which may be the first to load torch on a busy machine


def _at_papers_size(checkpoint: str, **evaluation: object) -> dict[str, dict[str, object]]:
    """Parameters of the notebooks that measure a network with as many lines as the paper.

    evaluation: further ones of the notebook on evaluation.
    """
    return {
        "03_attention": {"checkpoint": checkpoint, "scored": 120, "known": 120},
        "04_style_interpolation": {"checkpoint": checkpoint, "repeats": 16},
        "05_evaluation": {
            "checkpoint": checkpoint,
            "lines": 4500,
            "unseen_lines": 600,
            "repetitions": 1000,
            "floor_draws": 5,
            "diversity_texts": 12,
            "diversity_repeats": 6,
            **evaluation,
        },
        "06_sampling": {
            "checkpoint": checkpoint,
            "measured_lines": 240,
            "step_counts": [60, 30, 20, 12, 8, 5],
        },
        "07_network": {"checkpoint": checkpoint},
        "08_letter": {"checkpoint": checkpoint},
    }


PROFILES = {
    "smoke": {},
    "paper": {
        "02_training": {"preset": "paper", "sample_every": 10_000},
        **_at_papers_size("trained", seeds=5, inception_weights="download"),
    },
    # Without training: `pretrained`, and its student in a row of the second table.
    "paper-on-cpu": _at_papers_size("pretrained", seeds=3, table_rows=["eq12", "eq9"], unseen_seeds=5),
}
LIMIT_MINUTES = {"smoke": 30, "paper": 48 * 60, "paper-on-cpu": 72 * 60}
# Of a notebook's file, what is used beside what papermill reads.
_NOTEBOOK = {
    "metadata": {"hwdiff": {"needs": [str], "keeps": [str], "measured?": [str]}},
    "cells": [{"cell_type": str, "source": (str, [str])}],
}
DONE, FAILED, STARTED, SKIPPED = "done", "failed", "started", "skipped"
KINDS = {"int": int, "float": float, "str": str, "list": list}
PATHS = ("source", "inception_weights", "checkpoint", "photo")  # parameters that may name a file or folder
# What they may be else, even where there is a file of that name.
WORDS = {"checkpoint": ("trained", *BUNDLED), "inception_weights": ("download",)}
# The code on which a state that is resumed depends, such as a half-trained network, and the weights.
STATE_CODE = (
    *("utils", "ink", "data", "model", "diffusion", "training"),
    *("weights/style-encoder.safetensors", "weights/small.safetensors"),
)


@dataclass
class Notebook:
    """A notebook of the suite.

    path: of its source.
    parameters: {name: default}.
    kinds: {name: type}, None where neither the default nor an annotation tells it.
    needs: names of the notebooks whose files it reads.
    keeps: folders with its state, from which it resumes when it was stopped.
    measured: names of the project's measurements that it shows (see `verdicts.measured_table`).
    """

    path: Path
    parameters: dict[str, object]
    kinds: dict[str, type | None]
    needs: list[str]
    keeps: list[str]
    measured: list[str]

    @property
    def name(self) -> str:
        """The file name without its suffix, such as "03_attention"."""
        return self.path.stem

    @classmethod
    def read(cls, path: Path) -> "Notebook":
        """The notebook in the file `path`. Raises HwdiffError when it is not one of the suite."""
        try:
            content = parse_json(path.read_bytes())
            if wrong := misfit(content, _NOTEBOOK):
                raise ValueError(wrong)
            about = content["metadata"]["hwdiff"]
            found = papermill.inspect_notebook(str(path))
            defaults = {name: ast.literal_eval(one["default"]) for name, one in found.items()}
        except Exception as error:  # papermill and nbformat raise many kinds
            raise HwdiffError(f"{path}: not a notebook of the suite ({error}); restore it") from error
        stated = {name: KINDS.get(one["inferred_type_name"]) for name, one in found.items()}
        kinds = {
            name: stated[name] if default is None else type(default) for name, default in defaults.items()
        }
        return cls(path, defaults, kinds, about["needs"], about["keeps"], about.get("measured", []))

    def about(self) -> dict[str, str]:
        """{"title", "about"}: the heading of its first cell and the paragraph below it."""
        heading, _, text = "".join(self._cells()[0]["source"]).partition("\n")
        return {"title": heading.strip("# "), "about": text.strip().split("\n\n")[0]}

    def fingerprint(self) -> str:
        """Of its code cells: a change of prose does not make it run again."""
        return json_fingerprint([cell["source"] for cell in self._cells() if cell["cell_type"] == "code"])

    def _cells(self):
        return parse_json(self.path.read_bytes())["cells"]


def find_notebooks(folder: str | Path = NOTEBOOKS) -> list[Notebook]:
    """The notebooks of the suite, in order.

    Raises HwdiffError when there are none: an installed package comes without them.
    """
    found = [Notebook.read(path) for path in sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))]
    if not found:
        raise HwdiffError(f"{folder}: no notebooks; run this in a clone of the project")
    for place, notebook in enumerate(found):
        earlier = [other.name for other in found[:place]]
        if unknown := [name for name in notebook.needs if name not in earlier]:
            raise HwdiffError(f"{notebook.path}: needs {unknown[0]!r}, no notebook before it; restore it")
    return found


def newest_run(profile: str, runs: str | Path = RUNS) -> Path:
    """The folder of the newest run of a profile, to be resumed, or else a new one, named after the time."""
    old = sorted(Path(runs).glob(f"*-{profile}"))
    return old[-1] if old else Path(runs) / f"{datetime.now():%Y%m%d-%H%M%S}-{profile}"


def chosen_parameters(
    notebooks: Sequence[Notebook],
    profile: str,
    given: dict[str, str],
) -> dict[str, dict[str, object]]:
    """The parameters of every notebook: its defaults, changed by the profile, and then by those given.

    given: {name: text}, as on a command line, for all notebooks that have it; "null" is None. Paths may be
        relative to the working folder.
    Returns {notebook: {parameter: value}}.
    Raises HwdiffError for a parameter that no notebook has, or a value of another type than the default's.
    """
    require_choice("profile", profile, PROFILES)
    known = sorted({name for notebook in notebooks for name in notebook.parameters} - {"run"})
    for name in given:
        if name not in known:
            raise HwdiffError(
                f"--param {name}: no notebook has such a parameter; they have {', '.join(known)}"
            )
    chosen = {}
    for notebook in notebooks:
        values = {**notebook.parameters, **PROFILES[profile].get(notebook.name, {})}
        values |= {name: _value(name, text, notebook) for name, text in given.items() if name in values}
        chosen[notebook.name] = {name: value for name, value in values.items() if name != "run"}
    return chosen


def _value(name, text, notebook):
    kind = notebook.kinds[name]
    if text == "null" and notebook.parameters[name] is None:
        return None
    if kind is str:
        is_path = name in PATHS and text not in WORDS.get(name, ()) and os.path.exists(text)
        return str(Path(text).resolve()) if is_path else text
    try:
        value = parse_json(text)
        value = float(value) if kind is float and type(value) is int else value
    except (ValueError, OverflowError):
        value = text
    if kind and type(value) is not kind:
        default = notebook.parameters[name]
        given = text if len(text) < 100 else f"{text[:100]}..."
        raise HwdiffError(f"--param {name}={given}: {kind.__name__} is needed, as in {name} = {default!r}")
    return value


def selected(
    notebooks: Sequence[Notebook],
    only: str | None = None,
    start: str | None = None,
) -> Sequence[Notebook]:
    """The notebooks that are asked for: the one called `only`, or all from `start` on, or all.

    A number, such as "03", stands for a name. Raises HwdiffError when there is none of that name.
    """
    names = [notebook.name for notebook in notebooks]

    def place(asked):
        found = [place for place, name in enumerate(names) if asked in (name, name.split("_")[0])]
        if not found:
            raise HwdiffError(f"no such notebook as {asked!r}; choose one of {', '.join(names)}")
        return found[0]

    if only:
        return [notebooks[place(only)]]
    return notebooks[place(start) :] if start else notebooks


class Reproduction:
    """A run of the suite in the folder `out`.

    profile: one of `PROFILES`.
    notebooks: from `find_notebooks`.
    parameters: from `chosen_parameters`.
    minutes: the limit of each notebook; None for the profile's.
    say(line): tells a person.
    """

    def __init__(
        self,
        out: str | Path,
        profile: str,
        notebooks: Iterable[Notebook],
        parameters: dict[str, dict[str, object]],
        minutes: float | None = None,
        *,
        say: Callable[[str], object] = print,
    ):
        self.out, self.profile, self.parameters, self.say = Path(out), profile, parameters, say
        self.notebooks = {notebook.name: notebook for notebook in notebooks}
        self.minutes = LIMIT_MINUTES[profile] if minutes is None else minutes
        if not math.isfinite(self.minutes):
            raise HwdiffError(f"--minutes {self.minutes}: must be a finite number")
        self.code, self._fingerprints = tree_fingerprint(PACKAGE), {}
        weights = sorted((PACKAGE / "weights").glob("*.safetensors"))
        self.weights = {path.name: sha256_of(path) for path in weights}
        self.environment = environment("cuda" if torch.cuda.is_available() else "cpu")

    def run(self, wanted: Iterable[Notebook]) -> list[str]:
        """Run the notebooks `wanted`, and before them those that they need.

        Returns the names of those that failed or were skipped.
        Raises HwdiffError when the folder holds other things than a run.
        """
        found = [name for name in os.listdir(self.out) if name[0] != "."] if os.path.isdir(self.out) else []
        manifest = read_json(self.out / MANIFEST, None)  # all that a run of an older version has
        if found and "records" not in found and not _is_runs(manifest):
            raise HwdiffError(f"{self.out}: no folder of a run (it holds {found[0]}); choose another")
        order = self._with_needs([notebook.name for notebook in wanted])
        bad = []
        for number, name in enumerate(order, start=1):
            missing = [need for need in self._needs(name) if need in bad]
            if missing:
                needs = ", ".join(missing)
                skipped = {"status": SKIPPED, "error": f"needs {needs}", "listed": []}
                self._record(name, {**self.record(name), **skipped})
                self.say(f"[{number}/{len(order)}] {name}: skipped, it needs {needs}")
                bad.append(name)
            elif self.is_up_to_date(name):
                self.say(f"[{number}/{len(order)}] {name}: up to date")
            else:
                self.say(f"[{number}/{len(order)}] {name}")
                record = self._execute(name)
                if record["status"] == FAILED:
                    bad.append(name)
                    self.say(f"    failed: {record['error']}")
                else:
                    self.say(f"    done in {tqdm.format_interval(record['seconds'])}")
            self._show()
        return bad

    def plan(self, wanted: Iterable[Notebook]) -> list[dict[str, str]]:
        """What `run` would do, without doing it: for each notebook "name", "why" ("" if up to date), "took".

        took: how long it ran last time, "" if it never did.
        """
        planned, stale = [], set()
        for name in self._with_needs([notebook.name for notebook in wanted]):
            why = self._why(name, [need for need in self._needs(name) if need in stale])
            stale |= {name} if why else set()
            seconds = self.record(name).get("seconds")
            took = tqdm.format_interval(seconds) if seconds is not None else ""
            planned.append({"name": name, "why": why, "took": took})
        return planned

    def _why(self, name, stale):
        """Why a notebook must run, "" if it need not. stale: those it needs that must run."""
        record = self.record(name)
        if not record:
            return "never run"
        if record.get("status") != DONE:
            return f"was {record.get('status')}"
        if self.is_up_to_date(name):
            return f"{', '.join(stale)} will run again" if stale else ""
        if record.get("parameters") != self.parameters[name]:
            values = self.parameters[name].items()
            old = record.get("parameters", {})
            changed = [f"{key} = {value}" for key, value in values if key not in old or old[key] != value]
            return f"other parameters: {', '.join(changed)}" if changed else "other parameters"
        if changed := changed_files(self.out, record):
            return f"{changed[0]} is missing or was changed"
        if record.get("code") != self.code:
            return "the package was changed"
        return "its cells or inputs were changed"

    def _needs(self, name):
        trained = ["02_training"] if self.parameters[name].get("checkpoint") == "trained" else []
        return [*self.notebooks[name].needs, *trained]

    def _with_needs(self, names):
        wanted = set()

        def add(name):
            wanted.add(name)
            for need in self._needs(name):
                add(need)

        for name in names:
            add(name)
        return [name for name in self.notebooks if name in wanted]

    def key(self, name: str) -> str:
        """Fingerprint of all that a notebook depends on: its cells, the whole package, and `state_key`."""
        return json_fingerprint([self.notebooks[name].fingerprint(), self.state_key(name), self.code])

    def state_key(self, name: str) -> str:
        """Fingerprint of what a half-done state depends on: parameters, inputs, the code of `STATE_CODE`."""
        code = [tree_fingerprint(PACKAGE / package) for package in STATE_CODE]
        return json_fingerprint([self.parameters[name], self.inputs(name), code])

    def inputs(self, name: str) -> dict[str, str]:
        """{file or folder: fingerprint} of what a notebook reads.

        These are the files that its parameters name, those that the notebooks it needs wrote, and the
        project's measurements that it shows.
        """
        tops = [
            Path(value)
            for key, value in self.parameters[name].items()
            if key in PATHS and isinstance(value, str) and value not in WORDS.get(key, ())
        ]
        tops += [MEASUREMENTS / measured / "table1.json" for measured in self.notebooks[name].measured]
        inputs = {}
        for top in tops:
            if os.path.exists(top):
                inputs |= self._files_of(top)
        for need in self._needs(name):
            inputs |= self._files(need)
        return inputs

    def _files_of(self, top):
        if top not in self._fingerprints:
            files = [top] if top.is_file() else files_below(top)
            if len(files) <= MAX_FILES:  # archives rather than what was unpacked from them
                self._fingerprints[top] = {_printable(path): sha256_of(path) for path in files}
            else:
                self._fingerprints[top] = {_printable(top): tree_fingerprint(top)}
        return self._fingerprints[top]

    def _files(self, name):
        """{file: SHA-256} of what a notebook wrote for others to read: neither figures nor tables."""
        record = self.record(name)
        files = [output["file"] for output in record.get("listed", []) if output["kind"] == "file"]
        return {file: record["outputs"][file] for file in files if file in record.get("outputs", {})}

    def record(self, name: str) -> dict:
        """What is known of a notebook, {} if it was never run.

        {"status", "key", "state", "listed", "outputs": {file: SHA-256}, "error", ...}, see `_execute`.
        """
        return read_record(self._record_path(name))

    def is_up_to_date(self, name: str) -> bool:
        """Whether a notebook was done under the key it has now, and its files are still what it wrote."""
        record = self.record(name)
        if record.get("status") != DONE or record.get("key") != self.key(name):
            return False
        return not changed_files(self.out, record)

    def _record_path(self, name):
        return self.out / "records" / f"{name}.json"

    def _record(self, name, record):
        write_json(self._record_path(name), record)
        return record

    def _execute(self, name):
        before, key, state = self.record(name), self.key(name), self.state_key(name)
        self._set_aside(name, before, state)
        record = {
            "status": STARTED,
            "key": key,
            "state": state,
            "parameters": self.parameters[name],
            "inputs": self.inputs(name),
        }
        self._record(name, record)
        listing = self.out / "records" / f"{name}.outputs.json"
        write_text(listing, "[]")
        self._show()

        record["started"], start = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}", time.perf_counter()
        error = self._run_notebook(name)
        record |= {
            "status": FAILED if error else DONE,
            **self.notebooks[name].about(),
            "seconds": round(time.perf_counter() - start, 1),
            "code": self.code,
            "environment": self.environment,
            "weights": self.weights,
            "listed": read_json(listing, []),
        }
        executed = [f"notebooks/{name}{suffix}" for suffix in (".ipynb", ".html")]
        files = [*(output["file"] for output in record["listed"]), *executed]
        files = [file for file in dict.fromkeys(files) if (self.out / file).exists()]
        record["outputs"] = {file: sha256_of(self.out / file) for file in files}
        if error:
            record["error"] = error
        return self._record(name, record)

    def _set_aside(self, name, before, state):
        """Rename the folders with a notebook's state when they do not fit, and bring back those that do.

        before: its last record.
        state: its `state_key` now. Folders made under another one do not fit, nor do damaged ones.
        """
        known, keeps = before.get("state"), self.notebooks[name].keeps
        changed = changed_files(self.out, before) if before.get("status") == DONE and known == state else ()
        damaged = any(PurePath(file).parts[0] in keeps for file in changed)
        if known == state and not damaged:
            return
        why = "damaged" if damaged else "of other parameters, data or code"
        for folder in keeps:
            here, back = self.out / folder, self.out / f"{folder}.{state[:8]}"
            if here.exists():
                aside = _free(self.out / f"{folder}.{'damaged' if damaged else (known or 'unknown')[:8]}")
                os.rename(here, aside)
                self.say(f"    {folder} is {why}: it is kept as {aside.name}")
            if back.exists() and not damaged:
                os.rename(back, here)
                self.say(f"    {back.name} fits again: the notebook resumes from it")

    def _run_notebook(self, name):
        """Run a notebook into notebooks/, whole or with its error; what it prints goes to logs/.

        Returns one line about what went wrong, or None.
        """
        notebook = self.notebooks[name]
        partial, log = self.out / "logs" / f".{name}.ipynb", self.out / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        (self.out / "notebooks").mkdir(exist_ok=True)
        # Relative, so that the executed notebook tells nothing of the machine's folders.
        run = os.path.relpath(self.out.resolve(), notebook.path.parent.resolve())
        os.environ[HEADLESS] = "1"
        error = None
        try:
            with open(log, "w", encoding="utf-8") as file, Progress(name, unit="cells") as progress:
                papermill.execute_notebook(
                    notebook.path,
                    partial,
                    {**self.parameters[name], "run": run},
                    engine_name=_Engine.NAME,
                    progress_bar=False,
                    start_timeout=START_SECONDS,
                    cwd=notebook.path.parent,
                    stdout_file=_Tee(file),
                    stderr_file=_Tee(file),
                    minutes=self.minutes,
                    progress=progress,
                )
        except PapermillExecutionError as failure:
            error = f"cell {failure.exec_count}: {failure.ename}: {_first_line(failure.evalue)}"
        except TimeoutError:
            error = f"ran past the limit of {self.minutes:g} minutes for a notebook (--minutes)"
        except DeadKernelError:
            error = "its kernel died; often there was not enough memory"
        except (PapermillException, OSError, RuntimeError) as failure:
            error = f"{type(failure).__name__}: {_first_line(str(failure)) or 'for no reason given'}"
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        if partial.exists():
            executed = self.out / "notebooks" / f"{name}.ipynb"
            os.replace(partial, executed)
            try:
                write_text(executed.with_suffix(".html"), notebook_html(executed))
            except (HwdiffError, ValueError) as failure:
                # Such as a notebook that was cut short by a full disk.
                error = error or f"{executed.name}: {_first_line(str(failure))}"
        return error and f"{error}; see notebooks/{name}.ipynb and logs/{name}.log"

    def _show(self):
        write_manifest(self.out, self.profile, list(self.notebooks))
        write_page(self.out)


class _Engine(NBClientEngine):
    """papermill's own engine, with progress by cells and one time limit for all of them."""

    NAME = "hwdiff"

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, minutes, progress, **options) -> None:
        deadline = time.monotonic() + 60 * minutes
        cell_start, progress.total = nb_man.cell_start, len(nb_man.nb.cells)
        progress.bar.total = progress.total

        def tell(cell, cell_index=None, **more):
            progress.reach(cell_index + 1)
            return cell_start(cell, cell_index, **more)

        nb_man.cell_start = tell
        options["timeout_func"] = lambda cell: max(1, int(deadline - time.monotonic()))
        # Below errors, a kernel's messages about itself concern nobody.
        options["extra_arguments"] = ["--IPKernelApp.log_level=ERROR"]
        # Sockets of its own instead of TCP ports: a port looked up for a kernel may be taken by
        # another program before the kernel has started.
        # A socket's path may have at most 103 bytes.
        short = None if len(os.fsencode(tempfile.gettempdir())) < 70 else "/tmp"
        with tempfile.TemporaryDirectory(prefix="hwdiff-", dir=short) as folder:
            sockets = {"transport": "ipc", "ip": str(Path(folder) / "kernel")}
            options["config"] = Config(KernelManager=sockets)
            super().execute_managed_notebook(nb_man, kernel_name, **options)


papermill_engines.register(_Engine.NAME, _Engine)


class _Tee:
    """Sends what a notebook prints to its log and to the terminal."""

    def __init__(self, file):
        self.file = file

    def write(self, text):
        self.file.write(text)
        if text.strip():
            tqdm.write("    " + text.strip().replace("\n", "\n    "))

    def flush(self):
        self.file.flush()


def _is_runs(manifest):
    """Whether a manifest is that of a run, and not of a published one."""
    return isinstance(manifest, dict) and "profile" in manifest and "left_out" not in manifest


def _printable(path):
    """A path as text. A name of a file may be bytes that are no text."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _free(path):
    """The path, or one like it that does not exist yet."""
    others = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(one for one in chain([path], others) if not one.exists())


def _first_line(text):
    return next(iter(text.strip().splitlines()), "")
