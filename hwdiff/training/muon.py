"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): momentum whose update is the nearest orthogonal matrix.

torch.optim.Muon computes in bf16 only, which most CPUs emulate, and one matrix at a time. This one computes in fp32 or bf16, all
matrices of one shape in one batched product, and its update is as large as Adam's (Liu et al. 2025, arXiv 2502.16982), so that both
share one learning rate.
"""

import torch
import torch.distributed as dist

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
ADAM_RMS = 0.2  # root mean square of the entries of a usual update of Adam
# What these layers map from or to is no space of features, or it is scales and shifts: Adam trains them.
ADAM_LAYERS = ("embedding", "noise_embedding", "input", "scale_shift", "eps_out", "pen_out")


class Muon(torch.optim.Optimizer):
    """Muon over matrices (rows, columns), with Nesterov's momentum of 0.95.

    dtype: of the products, torch.float32 or torch.bfloat16; the weights and the momentum are fp32 in any case.
    rank, count: of the processes that train together, which have the same gradients and each compute a part of the updates.
    """

    def __init__(self, params, lr=1e-3, dtype=torch.float32, rank=0, count=1):
        super().__init__(params, {"lr": lr})
        self.dtype, self.rank, self.count = dtype, rank, count

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
            momenta, gradients = (
                [self.state[weight]["momentum"] for weight in weights],
                [weight.grad for weight in weights],
            )
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            updates = torch._foreach_lerp(gradients, momenta, MOMENTUM)
            flat = torch.zeros(
                sum(weight.numel() for weight in weights), dtype=self.dtype, device=weights[0].device
            )
            orthogonal = [
                piece.view_as(weight)
                for piece, weight in zip(flat.split([w.numel() for w in weights]), weights, strict=True)
            ]
            by_shape = {}
            for number in sorted(range(len(weights)), key=lambda number: weights[number].shape)[
                self.rank :: self.count
            ]:
                by_shape.setdefault(weights[number].shape, []).append(number)
            for shape, numbers in by_shape.items():
                found = orthogonalize(torch.stack([updates[number] for number in numbers]).to(self.dtype)) * (
                    ADAM_RMS * max(shape) ** 0.5
                )
                torch._foreach_copy_([orthogonal[number] for number in numbers], list(found))
            if self.count > 1:
                dist.all_reduce(flat)
            torch._foreach_add_(
                weights,
                [piece.to(weight.dtype) for piece, weight in zip(orthogonal, weights, strict=True)],
                alpha=-group["lr"],
            )


def orthogonalize(matrices):
    """The orthogonal factors of `matrices` (K, rows, columns), about: singular values become 0.7 to 1.2, by five Newton-Schulz steps."""
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / (torch.linalg.vector_norm(wide, dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrices else x.mT


def matrices_and_rest(network):
    """The parameters of a `UNet` for Muon and those for Adam: (list, list)."""
    matrices, rest = [], []
    for name, weight in network.named_parameters():
        (
            rest if weight.ndim != 2 or any(layer in name.split(".") for layer in ADAM_LAYERS) else matrices
        ).append(weight)
    return matrices, rest
