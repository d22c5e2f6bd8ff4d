"""The steps of a training run: what is logged of each, when something is due, and when the run stops."""

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
GPU_LOG_STEPS = 50  # a GPU is asked for its losses this seldom: asking makes it wait


class Steps:
    """The steps of a run, from the first that is not done to the last, or until it is stopped.

        for step in steps:
            ...
            steps.log({"loss": loss}, learning_rate=0.001)
            if steps.due(validate_every): ...
            if steps.due(save_every) or steps.stopping: ...

    directory: begun, where processes that train together have one.
    every: how often something is due, in steps, for all that may be; 0 for never. All is due after the last step.
    stop: looked at between steps.   progress: told of each step.
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
        self._waiting = []  # what was logged and lies where it was computed
        self._log_every = GPU_LOG_STEPS if processes.device.type == "cuda" else 1

    def __iter__(self) -> Iterator[int]:
        while self.step < self.last and not self.stopping:
            self.step, self._note = self.step + 1, None
            yield self.step
            if self.progress and self.processes.first:
                self.progress.reach(self.step, self._note)

    def due(self, every: int) -> bool:
        """Whether this step is one of those after which something is due that is due every so many."""
        return bool(every) and (self.step % every == 0 or self.step == self.last)

    def log(self, values: dict[str, Tensor], **settings: float) -> None:
        """The step is computed. values: of this process, 0-dimensional, its "loss" among them.   settings: logged as they are.

        Whether to stop is known from here on. Raises HwdiffError at the first step of which a value is not finite, after
        writing those before it.
        """
        cpu = torch.tensor(self._clock.tick(), device=self.processes.device)
        means = self.processes.mean(
            torch.stack([*(value.detach().float() for value in values.values()), cpu])
        )
        self._waiting.append((self.step, list(values), means, settings, self._clock.seconds))
        # One process looks at every step whether to stop; several must meet to agree on it.
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
    """Seconds of training over all the stretches of a run. A pause does not count: a step takes a minute at most."""

    def __init__(self, seconds: float):
        self.seconds, self._last, self._cpu = seconds, time.perf_counter(), time.process_time()

    def tick(self) -> float:
        """A step is done. Returns the CPU seconds of this process since the last one."""
        last, self._last = self._last, time.perf_counter()
        cpu, self._cpu = self._cpu, time.process_time()
        self.seconds += min(self._last - last, MAX_STEP_SECONDS)
        return self._cpu - cpu
