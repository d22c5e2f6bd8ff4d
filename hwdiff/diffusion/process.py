"""The diffusion process of Luhman & Luhman (2020), sections 2.1 and 2.2: noise schedule, forward process, Algorithm 1 and its loss.

`alpha_bar` is indexed by the paper's t: alpha_bar[0] = 1 (clean ink), alpha_bar[T] (almost only noise). What the network sees of t is
the noise level sqrt(alpha_bar).
"""

import torch
import torch.nn.functional as F

STEPS = 60


def alpha_bars():
    """The published schedule, beta_t = 0.02 + (60 values in geometric progression from 1e-5 to 0.4): (61,) float64, alpha_bar[0] = 1."""
    beta = 0.02 + torch.logspace(
        -5, torch.log10(torch.tensor(0.4, dtype=torch.float64)).item(), STEPS, dtype=torch.float64
    )
    return torch.cat((torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, dim=0)))


def draw_noise_levels(count, alpha_bar, generator, variant="paper"):
    """Noise levels for training, Algorithm 1: t uniform in 1..T, then sqrt(alpha_bar) uniform between l_(t-1) and l_t, l = sqrt(alpha_bar).

    variant: "paper", or "released": there alpha_bar itself is uniform between two neighbours, and the interval up to 1 is never drawn.
    Returns (count, 1, 1) float32 on the generator's device.
    """
    device = generator.device
    ladder = (alpha_bar if variant == "released" else alpha_bar.sqrt()).to(device, torch.float32)
    first = 2 if variant == "released" else 1
    t = torch.randint(first, len(alpha_bar), (count,), generator=generator, device=device)
    level = torch.lerp(ladder[t], ladder[t - 1], torch.rand(count, generator=generator, device=device))
    return (level.sqrt() if variant == "released" else level).view(-1, 1, 1)


def add_noise(clean, noise_level, eps):
    """The forward process: sqrt(alpha_bar) y0 + sqrt(1 - alpha_bar) eps. clean and eps (B, N, 2), noise_level (B, 1, 1)."""
    return noise_level * clean + (1 - noise_level**2).sqrt() * eps


def pen_weights(noise_level, variant="paper"):
    """What the pen's loss is weighted with, (B, 1, 1): "paper" each example's own alpha_bar, "released" the batch's mean of it."""
    alpha_bar = noise_level**2
    return alpha_bar.mean().expand_as(alpha_bar) if variant == "released" else alpha_bar


def loss_terms(eps, eps_predicted, pen_up, pen_logit, pen_weight):
    """The two terms of the loss of Algorithm 1 (Eq. 6, 13 and 14), each a mean over all points, padding included.

    eps, eps_predicted: (B, N, 2).   pen_up, pen_logit: (B, N, 1), the flag and the logit of its predicted probability.
    pen_weight: (B, 1, 1), see `pen_weights`.
    Returns (stroke, pen): |eps - eps_predicted|^2 summed over x and y, and the weighted cross-entropy. The loss is their sum.
    """
    stroke = (eps - eps_predicted).square().sum(dim=-1).mean()
    cross_entropy = F.binary_cross_entropy_with_logits(pen_logit, pen_up, reduction="none")
    return stroke, (cross_entropy * pen_weight).mean()
