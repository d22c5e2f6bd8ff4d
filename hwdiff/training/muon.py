"""Muon (Jordan et al. 2024): momentum, whose update is replaced by the nearest orthogonal matrix.

See https://kellerjordan.github.io/posts/muon/. torch.optim.Muon computes in bf16 only, which most CPUs
emulate, and one matrix at a time. This one computes in fp32 or bf16, with one batched product for all
matrices of a shape. Its update is as large as Adam's (Liu et al. 2025, arXiv 2502.16982), so that both can
use one learning rate.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
ADAM_RMS = 0.2  # usual root mean square of the entries of Adam's update
# Adam trains these layers: they map from or to no space of features, or to scales and shifts.
ADAM_LAYERS = ("embedding", "noise_embedding", "input", "scale_shift", "eps_out", "pen_out")


class Muon(torch.optim.Optimizer):
    """Muon over matrices (rows, columns), with Nesterov's momentum of 0.95.

    dtype: of the products, torch.float32 or torch.bfloat16; weights and momentum are fp32 in either case.
    rank, count: of the processes that train together. They have the same gradients, and each computes some of
        the updates.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        *,
        dtype: torch.dtype = torch.float32,
        rank: int = 0,
        count: int = 1,
    ):
        super().__init__(params, {"lr": lr})
        self.dtype, self.rank, self.count = dtype, rank, count

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights that have a gradient."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
            momenta = [self.state[weight]["momentum"] for weight in weights]
            gradients = [weight.grad for weight in weights]
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            updates = torch._foreach_lerp(gradients, momenta, MOMENTUM)

            # All updates lie in one tensor, so that processes exchange them at once.
            sizes = [weight.numel() for weight in weights]
            flat = torch.zeros(sum(sizes), dtype=self.dtype, device=weights[0].device)
            orthogonal = [
                piece.view_as(weight) for piece, weight in zip(flat.split(sizes), weights, strict=True)
            ]

            # This process's matrices, those of one shape together.
            ordered = sorted(range(len(weights)), key=lambda number: weights[number].shape)
            by_shape = {}
            for number in ordered[self.rank :: self.count]:
                by_shape.setdefault(weights[number].shape, []).append(number)
            for shape, numbers in by_shape.items():
                stacked = torch.stack([updates[number] for number in numbers]).to(self.dtype)
                found = orthogonalize(stacked) * (ADAM_RMS * max(shape) ** 0.5)
                torch._foreach_copy_([orthogonal[number] for number in numbers], list(found))
            if self.count > 1:
                dist.all_reduce(flat)

            changes = [piece.to(weight.dtype) for piece, weight in zip(orthogonal, weights, strict=True)]
            torch._foreach_add_(weights, changes, alpha=-group["lr"])


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """About the orthogonal factors of `matrices` (K, rows, columns), by five Newton-Schulz steps.

    Their singular values lie between 0.7 and 1.2 instead of at 1.
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / (torch.linalg.vector_norm(wide, dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrices else x.mT


def matrices_and_rest(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of a `UNet` for Muon, and those for Adam."""
    matrices, rest = [], []
    for name, weight in network.named_parameters():
        for_adam = weight.ndim != 2 or any(layer in name.split(".") for layer in ADAM_LAYERS)
        (rest if for_adam else matrices).append(weight)
    return matrices, rest
