"""The diffusion process of Luhman & Luhman (2020): noise schedule (5.1), forward process and loss (2.1, 2.2).

`alpha_bar` is indexed by the paper's t: alpha_bar[0] = 1 is clean ink, alpha_bar[T] almost only noise. The
network sees t as the noise level, sqrt(alpha_bar).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 60


def alpha_bars() -> Tensor:
    """The published schedule: (61,) float64, alpha_bar[0] = 1.

    beta_t is 0.02 plus a geometric progression of 60 values from 1e-5 to 0.4.
    """
    last = torch.log10(torch.tensor(0.4, dtype=torch.float64)).item()
    beta = 0.02 + torch.logspace(-5, last, STEPS, dtype=torch.float64)
    alpha = 1 - beta
    return torch.cat((torch.ones(1, dtype=torch.float64), torch.cumprod(alpha, dim=0)))


def draw_noise_levels(
    count: int,
    alpha_bar: Tensor,
    generator: torch.Generator,
    *,
    variant: str = "paper",
) -> Tensor:
    """Noise levels for Algorithm 1: t uniform in 1, ..., T, then a level uniform between l_(t-1) and l_t.

    alpha_bar: (T + 1,); l_t = sqrt(alpha_bar[t]).
    variant: "paper"; or "released", in which alpha_bar itself is uniform between neighbours, and the interval
        up to 1 is never drawn.
    Returns (count, 1, 1) float32 on the generator's device.
    """
    device = generator.device
    ladder = (alpha_bar if variant == "released" else alpha_bar.sqrt()).to(device, torch.float32)
    first = 2 if variant == "released" else 1
    t = torch.randint(first, len(alpha_bar), (count,), generator=generator, device=device)
    level = torch.lerp(ladder[t], ladder[t - 1], torch.rand(count, generator=generator, device=device))
    return (level.sqrt() if variant == "released" else level).view(-1, 1, 1)


def add_noise(clean: Tensor, noise_level: Tensor, eps: Tensor) -> Tensor:
    """The forward process, Eq. 6: sqrt(alpha_bar) y_0 + sqrt(1 - alpha_bar) eps.

    clean, eps: (B, N, 2).
    noise_level: (B, 1, 1), sqrt(alpha_bar).
    """
    return noise_level * clean + (1 - noise_level**2).sqrt() * eps


def pen_weights(noise_level: Tensor, variant: str = "paper") -> Tensor:
    """The weights of the pen's loss, (B, 1, 1).

    noise_level: (B, 1, 1).
    variant: "paper", each example's own alpha_bar; or "released", its mean over the batch.
    """
    alpha_bar = noise_level**2
    return alpha_bar.mean().expand_as(alpha_bar) if variant == "released" else alpha_bar


def loss_terms(
    eps: Tensor,
    eps_predicted: Tensor,
    pen_up: Tensor,
    pen_logit: Tensor,
    pen_weight: Tensor,
) -> tuple[Tensor, Tensor]:
    """The two terms of Algorithm 1's loss (Eq. 13 and 14), each a mean over all points, padding included.

    eps, eps_predicted: (B, N, 2).
    pen_up: (B, N, 1), the flag.
    pen_logit: (B, N, 1), the logit of its predicted probability.
    pen_weight: (B, 1, 1), see `pen_weights`.
    Returns (stroke, pen), whose sum is the loss.
    """
    stroke, pen = point_losses(eps, eps_predicted, pen_up, pen_logit)
    return stroke.mean(), (pen * pen_weight[..., 0]).mean()


def point_losses(
    eps: Tensor, eps_predicted: Tensor, pen_up: Tensor, pen_logit: Tensor
) -> tuple[Tensor, Tensor]:
    """Both losses of each point, not weighted: (B, N) each. Arguments as of `loss_terms`."""
    stroke = (eps - eps_predicted).square().sum(dim=-1)  # Eq. 13, summed over x and y
    pen = F.binary_cross_entropy_with_logits(pen_logit, pen_up, reduction="none")[..., 0]  # Eq. 14
    return stroke, pen
