"""Several processes that share each batch of a training run, one thread each on a CPU, one GPU each where there are GPUs."""

import os
import signal
import tempfile
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import multiprocessing

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.interrupt import Stop

PAUSE = timedelta(days=1)  # so long a process may stand still before the others give it up
GRACE_SECONDS = 120  # so long the others may take to notice that one is gone


def first_process():
    """Whether this process is the one, among those that train together, that writes files and talks."""
    return int(os.environ.get("RANK", 0)) == 0


def room(device):
    """How many processes this machine has room for: GPUs, or cores that this process may use."""
    if device.type == "cuda":
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def default_count(batch_size, device):
    """On a CPU the largest divisor of the batch size that is not above the number of cores, on a GPU one."""
    return (
        1
        if device.type == "cuda"
        else max(count for count in range(1, room(device) + 1) if batch_size % count == 0)
    )


def check_count(count, batch_size, device):
    """Raises HwdiffError when `count` processes have no room here, or cannot share a batch."""
    if count > room(device):
        raise HwdiffError(
            f"--processes {count}: this machine has {room(device)} {'GPUs' if device.type == 'cuda' else 'cores'}; give no more"
        )
    if count < 1 or batch_size % count:
        raise HwdiffError(
            f"--processes {count}: a batch of {batch_size} cannot be divided among them; give a divisor"
        )


def launch(function, arguments, count, device):
    """Run `function(*arguments)` in `count` processes that train together, and wait for them. Returns what the first of them returns.

    function: a module's own; it returns an exit code or raises HwdiffError.
    Ctrl-C and SIGTERM are passed on and waited for: the processes save and end. A second one ends them at once.
    Raises HwdiffError when a process does or when one dies; the others end then, too.
    """
    if device.type == "cpu":
        # The maths libraries of the new processes read these as they are loaded. A batch of each length has some hundred kernels of its own,
        # which are compiled again and again where the default number of them is kept.
        os.environ |= {"OMP_NUM_THREADS": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "100000"}
    with tempfile.TemporaryDirectory(prefix="hwdiff-") as folder, Stop() as stop:
        arguments = (count, device.type, folder, function, arguments)
        workers = multiprocessing.start_processes(
            _work, arguments, nprocs=count, join=False, start_method="spawn"
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
            return (
                results[0][1] if results[0][0] else 130
            )  # without a result where it was stopped before it began
        if killed:
            name = signal.Signals(-killed[0]).name
            raise HwdiffError(
                f"one of {count} processes was ended by {name} (out of memory?); what was saved is kept, go on with --resume"
            )
        if results[0][0] is None:
            raise HwdiffError(
                f"the {count} processes lost one another; what was saved is kept, go on with --resume"
            )
        return results[0][1]


def _all_ended(workers):
    try:
        return workers.join(timeout=0.2, grace_period=GRACE_SECONDS)
    except multiprocessing.ProcessExitedException:
        return True  # then all others have been ended


def _result(folder, rank):
    """("code", exit code) or ("error", message) of a process; (None, None) of one that came to neither."""
    path = folder / str(rank)
    if not path.exists():
        return None, None
    kind, value = path.read_text().split(" ", 1)
    return kind, int(value) if kind == "code" else value


def _work(rank, count, device, folder, function, arguments):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    if device == "cpu":
        torch.set_num_threads(1)
    Stop.patient = True
    store = f"file://{folder}/store"
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo", init_method=store, rank=rank, world_size=count, timeout=PAUSE
    )
    try:
        result = f"code {function(*arguments)}"
    except HwdiffError as error:
        result = f"error {error}"
    except RuntimeError as error:
        if "onnection" not in str(error):  # as gloo says it of a process that is gone
            raise
        result = None
    if result:
        (Path(folder) / str(rank)).write_text(result)
    if not result or result.startswith("error"):
        os._exit(1)  # past the destructors of a group that may not be whole any more
    dist.destroy_process_group()


class Processes:
    """This process among those that `launch` started; alone where there are no others."""

    def __init__(self, device):
        self.count, self.rank, self.first = (
            int(os.environ.get("WORLD_SIZE", 1)),
            int(os.environ.get("RANK", 0)),
            first_process(),
        )
        self.device = device
        if self.count > 1 and device.type == "cuda":
            torch.cuda.set_device(device)

    def part(self, count):
        """The slice of a batch of `count` lines that is this process's."""
        return slice(self.rank * count // self.count, (self.rank + 1) * count // self.count)

    def mean(self, tensor):
        """The mean of a tensor over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
            tensor /= self.count
        return tensor

    def wait(self):
        if self.count > 1:
            dist.barrier()

    def any(self, flag):
        """Whether `flag` is true in any process."""
        return (
            bool(self.mean(torch.tensor(float(flag), device=self.device)).item()) if self.count > 1 else flag
        )
