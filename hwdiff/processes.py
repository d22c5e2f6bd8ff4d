"""Several processes that train together, as torchrun starts them."""

import os

import torch
import torch.distributed as dist


def first_process():
    """Whether this process is the one, among those that torchrun started, that writes files and talks."""
    return int(os.environ.get("RANK", 0)) == 0


class Processes:
    """This process among those that train together (torchrun's WORLD_SIZE and RANK); alone where there are no others."""

    def __init__(self, device):
        self.count, self.rank, self.first = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0)), first_process()
        self.device = device
        if self.count > 1:
            if device.type == "cuda":
                torch.cuda.set_device(device)
                dist.init_process_group("nccl", device_id=device)
            else:
                dist.init_process_group("gloo")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.count > 1:
            dist.destroy_process_group()

    def share(self, count):
        """The slice of a batch of `count` lines that is this process's."""
        return slice(self.rank * count // self.count, (self.rank + 1) * count // self.count)

    def mean(self, tensor):
        """The mean of a tensor over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
            tensor /= self.count
        return tensor

    def any(self, flag):
        """Whether `flag` is true in any process."""
        return bool(self.mean(torch.tensor(float(flag), device=self.device)).item()) if self.count > 1 else flag

    def wait(self):
        if self.count > 1:
            dist.barrier()
