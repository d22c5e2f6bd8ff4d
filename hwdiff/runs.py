"""What long runs share: stopping in good order, progress for a person or a log, and their whole state on disk."""

import fcntl
import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from itertools import chain

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from hwdiff.errors import HwdiffError
from hwdiff.files import replacing

QUIET_SECONDS = 60


class Stop:
    """Watches, inside a `with` block, for what should end a run early: Ctrl-C, SIGTERM, or `minutes` having passed.

    `reason` says which, or is None. The run looks at it between steps, saves its state and ends. A second Ctrl-C does not wait,
    unless `patient`: so are processes that another one has started, which may hear of one Ctrl-C from it and from the terminal.
    """

    patient = False

    def __init__(self, minutes=None):
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self.signal = None

    def __enter__(self):
        self._handlers = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._handlers[number] = signal.signal(number, self._catch)
            except ValueError:  # not in the main thread, where signals do not arrive
                break
        return self

    def __exit__(self, *_):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _catch(self, number, frame):
        if self.signal is not None and not self.patient:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    @property
    def reason(self):
        if self.signal is None and self.deadline is not None and time.monotonic() > self.deadline:
            return "time is up"
        return {"SIGINT": "interrupted", None: None}.get(self.signal, self.signal)


class Progress:
    """A progress bar on a terminal; elsewhere a line a minute. Both tell steps, speed, time left, and the last `note` given."""

    def __init__(self, description, total=None, unit="steps"):
        self.bar = tqdm(desc=description, total=total, unit=f" {unit}", disable=not sys.stderr.isatty(), mininterval=0.5)
        self.description, self.total, self.unit = description, total, unit
        self.done = self.start = self.said_at = 0
        self.note = ""
        self.began = self.said = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()
        if self.bar.disable and self.done > max(self.start, self.said_at):
            self._say()

    def update(self, count=1):
        """`count` more are done."""
        self.done += count
        self.bar.update(count)
        if self.bar.disable and time.monotonic() - self.said > QUIET_SECONDS:
            self._say()

    def reach(self, step, note=None):
        """Step `step` is done; the first call tells where a run that goes on began."""
        if not self.done and step > 1:
            self.done = self.start = self.bar.initial = self.bar.n = step - 1
        if note is not None:
            self.note = note
            self.bar.set_postfix_str(note, refresh=False)
        self.update(step - self.done)

    def _say(self):
        self.said, self.said_at = time.monotonic(), self.done
        seconds = self.said - self.began
        rate = (self.done - self.start) / seconds
        of = f" of {self.total}" if self.total else ""
        left = f", {tqdm.format_interval((self.total - self.done) / rate)} left" if self.total and self.total > self.done else ""
        took = tqdm.format_interval(seconds)
        print(
            f"{self.description}: {self.done}{of} {self.unit} in {took}, {rate:.3g} a second{left}{self.note and ', ' + self.note}",
            file=sys.stderr,
            flush=True,
        )


def append_rows(path, rows):
    """Append rows, dictionaries in JSON types, to the log `path`, one a line. Raises HwdiffError when it cannot be written."""
    try:
        with open(path, "a") as log:
            log.write("".join(json.dumps(row) + "\n" for row in rows))
    except OSError as error:
        raise HwdiffError(f"{path}: cannot be written ({error.strerror}); what was saved is kept; free some space, then --resume") from error


def cut_rows(path, step):
    """Cut a log back to the rows up to step `step`, as a run does that goes on from there. Returns the last of them, or None."""
    rows = []
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        rows = [row for row in (json.loads(line) for line in lines if line.endswith("\n")) if row["step"] <= step]
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows[-1] if rows else None


@contextmanager
def holding(folder):
    """Hold the folder of a run, so that no second process writes to it too, and clear away what a killed one left half-written.

    Raises HwdiffError when another process holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise HwdiffError(f"{folder}: cannot be the folder of a run ({error.strerror}); choose another") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in ("state", "model", "style", "reader", "config", "metrics", "held_out"):
            for left_over in folder.glob(f".{name}-????????.*"):  # as `replacing` names them
                left_over.unlink()
        yield
    except BlockingIOError as error:
        raise HwdiffError(f"{folder}: another process is at work in it; wait for it, or choose another folder") from error
    finally:
        os.close(handle)


def save_state(path, header, modules, optimizers, generator):
    """Write the state of a run, whole or not at all: safetensors with `header`, in JSON, beside it.

    modules: {name: Module}.   optimizers: {name: Optimizer}, their moments and step counts.   generator: a torch.Generator.
    Raises HwdiffError when it cannot be written; what stood at `path` stays.
    """
    state = {f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        for number, moments in optimizer.state_dict()["state"].items():
            state |= {f"{name}.{number}.{key}": tensor for key, tensor in moments.items()}
    state["generator"] = generator.get_state()
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata={"hwdiff": json.dumps(header)})


def read_header(path, form):
    """The header of a state file of the format `form`. Raises HwdiffError when the file is missing, cut short or of another format."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("hwdiff", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise HwdiffError(f"{path}: not a whole state of a run ({error}); nothing can be resumed from it: start again in another folder") from error
    if header.get("format") != form:
        raise HwdiffError(f"{path}: format {header.get('format')!r}, but this version reads {form!r}; use the version that wrote it")
    return header


def load_state(path, modules, optimizers, generator):
    """Put the state that `save_state` wrote back into modules, optimizers and generator. Raises HwdiffError when it does not fit them."""
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        for name, module in modules.items():
            module.load_state_dict({key: state[f"{name}.{key}"] for key in module.state_dict()})
        for name, optimizer in optimizers.items():
            weights, moments = [weight for group in optimizer.param_groups for weight in group["params"]], {}
            for entry in [entry for entry in state if entry.startswith(f"{name}.")]:
                _, number, key = entry.split(".")
                weight = weights[int(number)]
                # The fused Adam goes through memory in order: moments must lie there as their weights do (channels_last).
                tensor = torch.empty_like(weight).copy_(state[entry]) if state[entry].shape == weight.shape else state[entry]
                moments.setdefault(int(number), {})[key] = tensor
            optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        generator.set_state(state["generator"])
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, RuntimeError, KeyError, IndexError, ValueError) as error:
        raise HwdiffError(f"{path}: its content does not fit its header ({str(error).splitlines()[0]}); start again in another folder") from error


def check_same(path, found, wanted):
    """Raises HwdiffError naming what differs between a run's settings, dictionaries `found` (of the run at `path`) and `wanted`."""
    keys = [key for key in dict.fromkeys(chain(found, wanted)) if found.get(key) != wanted.get(key)]
    if keys:
        differences = ", ".join(f"{key} = {found.get(key)!r}, not {wanted.get(key)!r}" for key in keys)
        raise HwdiffError(f"{path}: cannot be resumed with other settings: it has {differences}; give the same, or another folder")
