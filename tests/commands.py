"""`hwdiff` commands in processes of their own, forked from one that has loaded torch already.

A Python that loads torch takes seconds of processor time; a fork of one takes none.
"""

import atexit
import multiprocessing
import os
import resource
import signal
import tempfile
from pathlib import Path

import pytest

from hwdiff.training import distributed

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch._dynamo", "hwdiff.model.style_encoder", "hwdiff.training.loop"])


class Command:
    """`hwdiff` with `arguments`, in a process and a session of its own, of one thread.

    file_size: no file may become larger, in bytes.
    forked: fork the processes that train together too, instead of starting them anew.
    output, errors: what it printed, once it has ended.
    """

    def __init__(self, *arguments, file_size: int | None = None, forked: bool = False):
        self.folder = tempfile.TemporaryDirectory(prefix="hwdiff-test-")
        arguments = ([str(argument) for argument in arguments], self.folder.name, file_size, forked)
        self.process = CONTEXT.Process(target=_run, args=arguments)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")
            self.process.start()
        self.pid = self.process.pid

    @property
    def ended(self) -> bool:
        return self.process.exitcode is not None

    @property
    def output(self) -> str:
        return (Path(self.folder.name) / "output").read_text()

    @property
    def errors(self) -> str:
        return (Path(self.folder.name) / "errors").read_text()

    def send(self, number: int, everyone: bool = False) -> None:
        """Send it a signal, or to everyone of its session, as a terminal does."""
        (os.killpg if everyone else os.kill)(self.pid, number)

    def wait(self, timeout: float = 300) -> int:
        """Its exit code; -N if signal N ended it."""
        self.process.join(timeout)
        if not self.ended:
            self.send(signal.SIGKILL, everyone=True)
            raise AssertionError(f"it did not end in {timeout} seconds: {self.output}{self.errors}")
        return self.process.exitcode


def _run(arguments, folder, file_size, forked):
    os.setsid()
    os.environ.pop("LOKY_MAX_CPU_COUNT", None)  # it has workers that it could leave behind, as for a user
    if forked:
        distributed.START_METHOD = "fork"
    for number, name in ((1, "output"), (2, "errors")):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT), number)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    from hwdiff.cli import app

    try:
        app(arguments)
    finally:
        # A forked process does not do so by itself, and would wait for joblib's idle workers.
        atexit._run_exitfuncs()
