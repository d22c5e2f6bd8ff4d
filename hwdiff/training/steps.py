"""The steps of a training run: what is logged of each, what is due when, and when the run stops."""

import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from hwdiff.training.distributed import Processes
from hwdiff.training.run_dir import RunDirectory
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import append_jsonl
from hwdiff.utils.interrupt import Stop
from hwdiff.utils.progress import Progress

MAX_STEP_SECONDS = 60.0
GPU_LOG_STEPS = 50  # steps between reading losses from a GPU, which makes it wait


class Steps:
    """The steps of a run, from the first that is not done to the last, or until the run is stopped.

        for step in steps:
            ...
            steps.log({"loss": loss}, learning_rate=0.001)
            if steps.due(validate_every): ...
            if steps.due(save_every) or steps.stopping: ...

    directory: of the run, after `begin` in the first process.
    last: the last step.
    every: all the intervals, in steps, at which something is due; 0 for never. Everything is due after the
        last step.
    processes: those that train together.
    stop: looked at between steps.
    progress: told of each step.
    """

    def __init__(
        self,
        directory: RunDirectory,
        last: int,
        *,
        every: tuple[int, ...],
        processes: Processes,
        stop: Stop | None = None,
        progress: Progress | None = None,
    ):
        self.directory, self.last, self.every, self.processes = directory, last, every, processes
        self.stop, self.progress = stop or Stop(), progress
        self.step, self.stopping, self._note = directory.done, False, None
        self._clock, self._cpu_seconds = Clock(directory.seconds), directory.cpu_seconds
        self._waiting = []  # what is logged but still on the device
        self._log_every = GPU_LOG_STEPS if processes.device.type == "cuda" else 1

    def __iter__(self) -> Iterator[int]:
        while self.step < self.last and not self.stopping:
            self.step, self._note = self.step + 1, None
            yield self.step
            if self.progress and self.processes.first:
                self.progress.reach(self.step, self._note)

    def due(self, every: int) -> bool:
        """Whether something that is due every so many steps is due after this one."""
        return bool(every) and (self.step % every == 0 or self.step == self.last)

    def log(self, values: dict[str, Tensor], **settings: float) -> None:
        """Log the step, which is computed now. From here on `stopping` says whether to stop after it.

        values: 0-dimensional, of this process, "loss" among them; their means over all processes are logged.
        settings: logged as they are.
        Raises HwdiffError when a value is not finite, after writing the steps before it. On a GPU that may be
        some steps later.
        """
        cpu = torch.full((), self._clock.tick(), device=self.processes.device)  # a copy would wait for a GPU
        own = [value.detach().float() for value in values.values()]
        means = self.processes.mean(torch.stack([*own, cpu]))
        self._waiting.append((self.step, list(values), means, settings, self._clock.seconds))
        # One process can stop after any step. Several must agree on it, which they do when they meet.
        self.stopping = self.processes.count == 1 and self.stop.reason is not None
        if self.stopping or any(map(self.due, self.every)) or self.step % self._log_every == 0:
            self._write()
            self.stopping = self.processes.any(self.stop.reason is not None)

    def _write(self):
        rows, failure = [], None
        for step, names, means, settings, seconds in self._waiting:
            *values, cpu = means.tolist()
            if not all(map(math.isfinite, values)):
                found = ", ".join(f"{name} = {value}" for name, value in zip(names, values, strict=True))
                advice = "the last saved state is kept; try a lower learning rate"
                failure = HwdiffError(f"{self.directory.path}: {found} at step {step}; {advice}")
                break
            self._cpu_seconds += self.processes.count * cpu
            times = {"seconds": round(seconds, 3), "cpu_seconds": round(self._cpu_seconds, 3)}
            rows.append({"step": step, **dict(zip(names, values, strict=True)), **settings, **times})
        self._waiting = []
        if self.processes.first:
            append_jsonl(self.directory.path / "metrics.jsonl", rows)
        if failure:
            raise failure
        self._note = f"loss {rows[-1]['loss']:.3f}"


class Clock:
    """Seconds of training over all sessions of a run.

    A step counts for a minute at most, so that a pause does not.
    """

    def __init__(self, seconds: float):
        self.seconds, self._last, self._cpu = seconds, time.perf_counter(), time.process_time()

    def tick(self) -> float:
        """A step is done. Returns the CPU seconds of this process since the one before."""
        last, self._last = self._last, time.perf_counter()
        cpu, self._cpu = self._cpu, time.process_time()
        self.seconds += min(self._last - last, MAX_STEP_SECONDS)
        return self._cpu - cpu
