"""What is logged of each training step: its loss, and the time that it took."""

import math
import time

import torch

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import append_jsonl

MAX_STEP_SECONDS = 60.0  # seconds


class Clock:
    """Seconds of training over all the stretches of a run. A pause is none: a step counts for a minute at most."""

    def __init__(self, seconds):
        self.seconds, self._last, self._cpu = seconds, time.perf_counter(), time.process_time()

    def tick(self):
        """A step is done. Returns the CPU seconds of this process since the last one."""
        last, self._last = self._last, time.perf_counter()
        cpu, self._cpu = self._cpu, time.process_time()
        self.seconds += min(self._last - last, MAX_STEP_SECONDS)
        return self._cpu - cpu


class StepLog:
    """The log `metrics.jsonl` of the run in the folder `run`: a line for each step with step, loss, stroke, pen, gradient norm, learning rate,
    seconds of training until then, and CPU seconds of all processes together.

    seconds, cpu_seconds: what the run had taken until now.   processes: `Processes`, of which the first writes.
    Losses stay where they were computed until `flush`: asking a GPU for one makes it wait.
    """

    def __init__(self, run, seconds, cpu_seconds, processes):
        self.run, self.cpu_seconds, self.processes = run, cpu_seconds, processes
        self.clock, self._steps, self._values = Clock(seconds), [], []

    def add(self, step, learning_rate, terms, norm):
        """A step is done. terms: (2,) stroke and pen, or (3,) with attention; norm: of the gradient; tensors of this process."""
        cpu = torch.tensor(self.clock.tick(), device=terms.device)
        self._steps.append((step, learning_rate, self.clock.seconds))
        self._values.append(self.processes.mean(torch.cat((terms, norm[None], cpu[None]))))

    def flush(self):
        """Write what was added. Returns the last loss; raises HwdiffError at the first that is not finite, after writing those before it."""
        rows, failure = [], None
        for (step, learning_rate, seconds), values in zip(self._steps, torch.stack(self._values).tolist(), strict=True):
            *terms, norm, cpu = values
            stroke, pen, *attention = terms
            if not all(map(math.isfinite, values)):
                found = f"the loss is {sum(terms)} and the gradient {norm}"
                failure = HwdiffError(f"{self.run}: {found} at step {step}; the last saved state is kept; try a lower learning rate")
                break
            self.cpu_seconds += self.processes.count * cpu
            row = {"step": step, "loss": stroke + pen, "stroke": stroke, "pen": pen, "gradient_norm": norm}
            row |= {"attention": attention[0]} if attention else {}
            rows.append({**row, "learning_rate": learning_rate, "seconds": round(seconds, 3), "cpu_seconds": round(self.cpu_seconds, 3)})
        self._steps, self._values = [], []
        if self.processes.first:
            append_jsonl(self.run / "metrics.jsonl", rows)
        if failure:
            raise failure
        return rows[-1]["loss"]
