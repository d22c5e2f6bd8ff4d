"""Ending a long run early, with its state saved."""

import signal
import time


class Stop:
    """Watches, inside a `with` block, for what should end a run: Ctrl-C, SIGTERM, or `minutes` having passed.

    The run looks at `reason` between steps, saves its state and ends. A second Ctrl-C does not wait for that,
    unless `patient` is set: a process that another one started may get one Ctrl-C twice, from its parent and
    from the terminal.
    """

    patient = False

    def __init__(self, minutes: float | None = None):
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self.signal: str | None = None

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
    def reason(self) -> str | None:
        """Why to stop: "interrupted", "SIGTERM" or "time is up"; None while there is no reason."""
        if self.signal is None and self.deadline is not None and time.monotonic() > self.deadline:
            return "time is up"
        return {"SIGINT": "interrupted", None: None}.get(self.signal, self.signal)
