"""The optimizers of a run, clipping, and the EMA of the weights."""

import torch
from torch.optim.swa_utils import AveragedModel

from hwdiff.training.muon import Muon, matrices_and_rest

CLIP_NORM = 100.0
BETAS = (0.9, 0.98)


def clip_gradients(network, clipping):
    """Clip gradients to norm 100, of all together or of each weight on its own. Returns the norm of all before clipping."""
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    norm = torch.nn.utils.get_total_norm(gradients.values())
    if clipping == "all":
        torch.nn.utils.clip_grads_with_norm_(network.parameters(), CLIP_NORM, norm)
        return norm
    for name, gradient in gradients.items():
        # The authors keep scale and shift as two weights.
        for piece in gradient.chunk(2) if "scale_shift" in name else (gradient,):
            piece.mul_((CLIP_NORM / (piece.norm() + 1e-6)).clamp(max=1))
    return norm


def make_optimizers(network, config, processes):
    """The optimizers of a run by the name that its state keeps them under; their learning rate is set at each step."""
    if config.optimizer == "adam":
        return {"optimizer": torch.optim.Adam(network.parameters(), lr=0.0, betas=BETAS, fused=True)}
    matrices, rest = matrices_and_rest(network)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    muon = Muon(matrices, lr=0.0, dtype=dtype, rank=processes.rank, count=processes.count)
    return {"muon": muon, "optimizer": torch.optim.Adam(rest, lr=0.0, betas=BETAS, fused=True)}


def make_ema(network, decay):
    """The exponential moving average (EMA) of the weights of `network`.

    In the first steps, in which they change fast, its decay is lower: (1 + n) / (10 + n).
    """

    @torch.no_grad()
    def update(averages, weights, _):
        count = int(ema.n_averaged)  # on the CPU, unlike the copy that is handed in, for which one would wait
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + count) / (10 + count)))

    ema = AveragedModel(network, multi_avg_fn=update)
    return ema
