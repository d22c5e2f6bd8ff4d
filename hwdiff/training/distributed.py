"""Several processes that share each batch of a training run, with one thread or one GPU each."""

import os
import signal
import tempfile
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import multiprocessing
from tqdm import tqdm

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.interrupt import Stop

PAUSE = timedelta(days=1)  # after which the others give up on a stalled process
GRACE_SECONDS = 120  # in which the others must notice that a process has died
START_METHOD = "spawn"  # of the processes: CUDA and threads do not bear a fork


def first_process() -> bool:
    """Whether this is the one of the processes that train together which writes files and prints."""
    return not dist.is_initialized() or dist.get_rank() == 0


def room(device: torch.device) -> int:
    """How many processes this machine has room for: as many as GPUs, or as cores that may be used."""
    if device.type == "cuda":
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def default_count(batch_size: int, device: torch.device) -> int:
    """On a CPU the largest divisor of the batch size that is not above the number of cores; on a GPU 1."""
    if device.type == "cuda":
        return 1
    return max(count for count in range(1, room(device) + 1) if batch_size % count == 0)


def check_count(count: int, batch_size: int, device: torch.device) -> None:
    """Raises HwdiffError when the machine has no room for `count` processes, or they cannot share a batch."""
    if count > room(device):
        found = f"{room(device)} {'GPUs' if device.type == 'cuda' else 'cores'}"
        raise HwdiffError(f"--processes {count}: this machine has {found}; give no more")
    if count < 1 or batch_size % count:
        raise HwdiffError(
            f"--processes {count}: a batch of {batch_size} cannot be divided among them; give a divisor"
        )


def launch(function: Callable[..., int], arguments: tuple, count: int, device: torch.device) -> int:
    """Run `function(*arguments)` in `count` processes that train together, and wait for them.

    Ctrl-C and SIGTERM are passed on: the processes save and end. A second one ends them at once.

    function: of a module, so that it can be pickled; returns an exit code or raises HwdiffError.
    Returns what it returns in the first process.
    Raises HwdiffError when a process raises it or dies; the others are ended then.
    """
    if device.type == "cpu":
        # The maths libraries of the new processes read these when they are loaded. Each length of batches
        # needs some hundred kernels; with the default cache they would be compiled over and over.
        os.environ |= {"OMP_NUM_THREADS": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "100000"}
    with tempfile.TemporaryDirectory(prefix="hwdiff-") as folder, Stop() as stop:
        arguments = (count, device.type, folder, function, arguments)
        workers = multiprocessing.start_processes(
            _work, arguments, nprocs=count, join=False, start_method=START_METHOD
        )
        try:
            passed_on = False
            while not _all_ended(workers):
                if stop.signal and not passed_on:
                    passed_on = True
                    for process in workers.processes:
                        if process.is_alive():
                            os.kill(process.pid, signal.Signals[stop.signal])
        except KeyboardInterrupt:
            for process in workers.processes:
                process.kill()
                process.join()
            raise
        results = [_result(Path(folder), rank) for rank in range(count)]
        for kind, value in results:
            if kind == "error":
                raise HwdiffError(value)
        killed = [process.exitcode for process in workers.processes if process.exitcode < 0]
        if stop.signal and set(killed) <= {-signal.Signals[stop.signal]}:
            return results[0][1] if results[0][0] else 130  # it has no result if stopped before it began
        advice = "what was saved is kept, resume with --resume"
        if killed:
            name = signal.Signals(-killed[0]).name
            raise HwdiffError(f"one of {count} processes was ended by {name} (out of memory?); {advice}")
        if results[0][0] is None:
            raise HwdiffError(f"the {count} processes lost contact; {advice}")
        return results[0][1]


def _all_ended(workers):
    try:
        return workers.join(timeout=0.2, grace_period=GRACE_SECONDS)
    except multiprocessing.ProcessExitedException:
        return True  # torch has ended all others then


def _result(folder, rank):
    """("code", exit code) or ("error", message) of a process; (None, None) if it left neither."""
    path = folder / str(rank)
    if not path.exists():
        return None, None
    kind, value = path.read_text(encoding="utf-8", errors="surrogateescape").split(" ", 1)
    return kind, int(value) if kind == "code" else value


def _work(rank, count, device, folder, function, arguments):
    if device == "cpu":
        torch.set_num_threads(1)
    Stop.patient = True
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which `os._exit` would leave behind
    store = f"file://{folder}/store"
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo", init_method=store, rank=rank, world_size=count, timeout=PAUSE
    )
    try:
        result = f"code {function(*arguments)}"
    except HwdiffError as error:
        result = f"error {error}"
    except torch.OutOfMemoryError as error:
        result = f"error {str(error).split('. ')[0]}; choose a smaller batch"
    except RuntimeError as error:
        # Gloo says it when a process has died; NCCL has a kind of its own, for other troubles too.
        if "onnection" not in str(error) and not isinstance(error, dist.DistBackendError):
            raise
        result = None
    if result:
        (Path(folder) / str(rank)).write_text(result, encoding="utf-8", errors="surrogateescape")
    if not result or result.startswith("error"):
        os._exit(1)  # without the destructors of a group that may have lost a process
    dist.destroy_process_group()


class Processes:
    """The processes that train together, seen from this one; one without `launch`.

    count: of the processes.
    rank: of this one, 0, ..., count - 1.
    first: whether this is the one that writes files and prints.
    """

    def __init__(self, device: torch.device):
        together = dist.is_initialized()
        self.count, self.rank = (dist.get_world_size(), dist.get_rank()) if together else (1, 0)
        self.first, self.device = first_process(), device
        if self.count > 1 and device.type == "cuda":
            torch.cuda.set_device(device)

    def part(self, count: int) -> slice:
        """This process's slice of a batch of `count` lines."""
        return slice(self.rank * count // self.count, (self.rank + 1) * count // self.count)

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean of `tensor` over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
            tensor /= self.count
        return tensor

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        if self.count == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=self.device)).item())
