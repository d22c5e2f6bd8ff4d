"""Progress of long runs, for a person or a log."""

import sys
import time

from tqdm import tqdm

QUIET_SECONDS = 60


class Progress:
    """A progress bar on a terminal, elsewhere a line a minute: steps, speed, time left and the last note."""

    def __init__(self, description: str, total: int | None = None, unit: str = "steps"):
        headless = not sys.stderr.isatty()
        self.bar = tqdm(desc=description, total=total, unit=f" {unit}", disable=headless, mininterval=0.5)
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

    def update(self, count: int = 1) -> None:
        """`count` more are done."""
        self.done += count
        self.bar.update(count)
        if self.bar.disable and time.monotonic() - self.said > QUIET_SECONDS:
            self._say()

    def reach(self, step: int, note: str | None = None) -> None:
        """Step `step` is done. The first call tells at which step a resumed run began.

        note: shown after the speed, until the next one.
        """
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
        more = ""
        if self.total and self.total > self.done:
            more = f", {tqdm.format_interval((self.total - self.done) / rate)} left"
        if self.note:
            more += f", {self.note}"
        done = f"{self.done}{of} {self.unit} in {tqdm.format_interval(seconds)}"
        print(f"{self.description}: {done}, {rate:.3g} a second{more}", file=sys.stderr, flush=True)
