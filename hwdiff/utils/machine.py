"""How fast this machine multiplies matrices: the yardstick for everything else."""

import time
from collections.abc import Callable
from functools import partial

import torch


def rate_of(
    function: Callable[[], object], flop: float, device: str | torch.device, *, seconds: float = 3.0
) -> float:
    """Floating-point operations a second of a function.

    flop: how many it does.
    seconds: how long to repeat it, after a call to warm up.
    """
    on_gpu = torch.device(device).type == "cuda"
    burst = 10 if on_gpu else 1  # a GPU works while it is given more to do
    wait = partial(torch.cuda.synchronize, device) if on_gpu else lambda: None
    function()
    wait()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(burst):
            function()
        wait()
        calls += burst
    return flop * calls / (time.perf_counter() - start)


def matrix_product_rate(
    dtype: torch.dtype, device: str | torch.device, *, size: int | None = None, seconds: float = 3.0
) -> float:
    """Floating-point operations a second of a product of two square matrices.

    size: by default 1024 on a CPU, 8192 on a GPU.
    """
    size = size or (8192 if torch.device(device).type == "cuda" else 1024)
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    return rate_of(lambda: left @ right, 2 * size**3, device, seconds=seconds)


def bf16_is_emulated(device: str | torch.device) -> bool:
    """Whether bf16 is far slower than fp32 here, because PyTorch has to emulate it."""
    fp32, bf16 = (
        matrix_product_rate(dtype, device, size=128, seconds=0.05)
        for dtype in (torch.float32, torch.bfloat16)
    )
    return bf16 < fp32 / 4
