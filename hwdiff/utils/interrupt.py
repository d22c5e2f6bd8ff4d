"""What ends a long run early, in good order."""

import signal
import time


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
