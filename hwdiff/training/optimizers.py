"""The optimizers of a run, clipping, and the EMA of the weights."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from hwdiff.training.config import TrainingConfig
from hwdiff.training.distributed import Processes
from hwdiff.training.muon import Muon, matrices_and_rest

CLIP_NORM = 100.0
BETAS = (0.9, 0.98)


def clip_gradients(network: nn.Module, clipping: str) -> torch.Tensor:
    """Clip the gradients of `network` to norm 100.

    clipping: "all" of them together, or "each" weight's on its own.
    Returns the norm of all before clipping, 0-dimensional.
    """
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    norm = torch.nn.utils.get_total_norm(gradients.values())
    if clipping == "all":
        torch.nn.utils.clip_grads_with_norm_(network.parameters(), CLIP_NORM, norm)
        return norm
    for name, gradient in gradients.items():
        # In the authors' program scale and shift are two weights.
        for piece in gradient.chunk(2) if "scale_shift" in name else (gradient,):
            piece.mul_((CLIP_NORM / (piece.norm() + 1e-6)).clamp(max=1))
    return norm


def make_optimizers(
    network: nn.Module, config: TrainingConfig, processes: Processes
) -> dict[str, torch.optim.Optimizer]:
    """The optimizers of a run, by their names in its state. Their learning rate is to be set at each step."""
    if config.optimizer == "adam":
        return {"optimizer": torch.optim.Adam(network.parameters(), lr=0.0, betas=BETAS, fused=True)}
    matrices, rest = matrices_and_rest(network)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    muon = Muon(matrices, lr=0.0, dtype=dtype, rank=processes.rank, count=processes.count)
    return {"muon": muon, "optimizer": torch.optim.Adam(rest, lr=0.0, betas=BETAS, fused=True)}


class Ema(AveragedModel):
    """The EMA of the weights of a network; `update_parameters` updates it.

    In the first steps, in which the weights change fast, its decay is lower: (1 + n) / (10 + n) after n
    updates.
    """

    def __init__(self, network: nn.Module, decay: float):
        super().__init__(network)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take in the weights of `model`, the network after a step. Its buffers are copied."""
        # The class above would copy the count to the device of the weights, and make a GPU wait for it.
        count = int(self.n_averaged)
        averages, weights = list(self.module.parameters()), list(model.parameters())
        if count:
            torch._foreach_lerp_(averages, weights, 1 - min(self.decay, (1 + count) / (10 + count)))
        else:
            torch._foreach_copy_(averages, weights)
        for own, new in zip(self.module.buffers(), model.buffers(), strict=True):
            own.copy_(new)
        self.n_averaged += 1
