"""Samplers: from noise to pen offsets. Each is a function that gets the network, the noise and a callback.

The network is conditioned on the noise level itself. So any decreasing `alpha_bar` with alpha_bar[0] = 1 can
be used, without retraining.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hwdiff.data import tokenizer
from hwdiff.diffusion.process import STEPS, alpha_bars
from hwdiff.utils.errors import HwdiffError, require_choice

SPACINGS = ("log-snr", "time", "karras")
MAX_STEPS = 1000

NoiseSource = Callable[[int | None], Tensor]
"""noise(t): (B, N, 2) standard normal draws for step t; t = None for those that sampling starts from."""


class Step(NamedTuple):
    """What the network saw and said at one step of a sampler.

    t: T, ..., 1.
    y: (B, N, 2) the noisy offsets that it saw.
    clean: (B, N, 2) the offsets without noise that it predicts, Eq. 10.
    pen_up: (B, N, 1) probabilities.
    attention: of every block to the text, (B, heads, N / 2, 4 or 8, L). The last is that of the paper's
        Fig. 4.
    """

    t: int
    y: Tensor
    clean: Tensor
    pen_up: Tensor
    attention: list[Tensor]


Callback = Callable[[Step], None]


class Network(Protocol):
    """What a sampler calls; see `model.unet.UNet`."""

    def __call__(
        self,
        strokes: Tensor,
        text: Tensor,
        noise_level: Tensor,
        style: Tensor,
        attention: bool | str = True,
    ) -> tuple[Tensor, Tensor, Tensor | list[Tensor] | None]: ...


class Sampler(Protocol):
    """A function like `sample_eq12`, where the arguments are described."""

    def __call__(
        self,
        network: Network,
        y: Tensor,
        text: Tensor,
        style: Tensor,
        alpha_bar: Tensor,
        noise: NoiseSource,
        *,
        callback: Callback | None = None,
    ) -> tuple[Tensor, Tensor]: ...


def schedule(steps: int = STEPS, spacing: str = "log-snr") -> Tensor:
    """Signal levels for a number of steps; for 60 the published ones.

    Both ends of the published schedule are kept: the network sees no noise level that training did not cover.

    spacing: "log-snr", evenly in the logarithm of signal over noise; "time", evenly in t; or "karras", evenly
        in the seventh root of noise over signal (Karras et al. 2022, Eq. 5).
    Returns alpha_bar (steps + 1,) float64, alpha_bar[0] = 1.
    Raises HwdiffError for steps below 1 or above 1000, or an unknown spacing.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise HwdiffError(f"steps = {steps}: must be between 1 and {MAX_STEPS}")
    require_choice("spacing", spacing, SPACINGS)
    published = alpha_bars()
    if steps == STEPS:
        return published
    place = torch.ones(1, dtype=torch.float64)
    if steps > 1:
        place = torch.linspace(0, 1, steps, dtype=torch.float64)
    noisy, clean = published[-1], published[1]
    if spacing == "log-snr":
        levels = torch.sigmoid(torch.lerp(torch.logit(clean), torch.logit(noisy), place))
    elif spacing == "time":
        t = 1 + (STEPS - 1) * place
        before = t.floor().long().clamp(max=STEPS - 1)
        levels = torch.lerp(torch.logit(published[before]), torch.logit(published[before + 1]), t - before)
        levels = torch.sigmoid(levels)
    else:
        low, high = (((1 - level) / level).sqrt() ** (1 / 7) for level in (clean, noisy))
        levels = 1 / (1 + torch.lerp(low, high, place) ** 14)
    return torch.cat((published[:1], levels))


def published_levels(steps: Sequence[int]) -> Tensor:
    """The published signal levels of some steps only.

    steps: t of the paper's 60, from the noisiest, such as 60, 30, 1.
    Returns alpha_bar (len(steps) + 1,) float64, alpha_bar[0] = 1.
    """
    published = alpha_bars()
    return torch.cat((published[:1], published[list(steps)[::-1]]))


def guided(network: Network, weight: float, style_weight: float = 1.0) -> Network:
    """A network with classifier-free guidance by the text, and by the style (Ho & Salimans 2022, Eq. 6).

    The noise predicted with the text is moved to `weight` times its distance from that predicted without, and
    `style_weight` does the same for the style. More than 1 follows it more closely; 1 changes nothing and
    costs nothing. The network must have been trained on some lines without text, and some without style.
    """
    if weight == style_weight == 1:
        return network

    def call(y, text, noise_level, style, attention=False):
        # All evaluations in one batch: for few lines that takes hardly longer than one.
        texts, styles = [text], [style]
        if weight != 1:
            texts, styles = [*texts, tokenizer.without_text(text)], [*styles, style]
        if style_weight != 1:
            texts, styles = [*texts, text], [*styles, torch.zeros_like(style)]
        count = len(texts)
        batch = (y.repeat(count, 1, 1), torch.cat(texts), noise_level.repeat(count, 1, 1), torch.cat(styles))
        every, pen_up, weights = network(*batch, attention=attention)
        eps, *free = every.chunk(count)
        found = free[0] + weight * (eps - free[0]) if weight != 1 else eps
        if style_weight != 1:
            found = found + (style_weight - 1) * (eps - free[-1])
        if attention:
            weights = [seen[: len(y)] for seen in weights] if attention == "all" else weights[: len(y)]
        return found, pen_up[: len(y)], weights

    return call


def network_evaluations(steps: int, guidance: float, style_guidance: float = 1.0) -> int:
    """How often the network is evaluated for a line (NFE): once a step, and once more for each guidance."""
    return steps * (1 + (guidance != 1) + (style_guidance != 1))


def _call(network, y, text, style, alpha_bar, t, callback):
    """The network's eps and pen_up at step t. The attention is only computed for a callback."""
    noise_level = alpha_bar[t].sqrt().to(y).expand(len(y), 1, 1)
    eps, pen_up, attention = network(y, text, noise_level, style, attention="all" if callback else False)
    if callback:
        callback(Step(t, y, clean_ink(y, eps, alpha_bar[t]), pen_up, attention))
    return eps, pen_up


def clean_ink(y: Tensor, eps: Tensor, alpha_bar_t: Tensor) -> Tensor:
    """Eq. 10: the clean ink (B, N, 2) that noisy ink and its predicted noise imply.

    alpha_bar_t: 0-dim, or (B, 1, 1).
    """
    return (y - (1 - alpha_bar_t).sqrt() * eps) / alpha_bar_t.sqrt()


def sample_eq12(
    network: Network,
    y: Tensor,
    text: Tensor,
    style: Tensor,
    alpha_bar: Tensor,
    noise: NoiseSource,
    *,
    callback: Callback | None = None,
    released: bool = False,
) -> tuple[Tensor, Tensor]:
    """Denoise `y` by Eq. 12 of Luhman & Luhman (2020), Algorithm 2.

    Each step predicts the clean ink, then noises it to the next level.

    y: (B, N, 2) standard normal, N divisible by 8.
    text: (B, L) tokens.
    style: (B, S, 1280).
    alpha_bar: (T + 1,) signal levels by the paper's t, alpha_bar[0] = 1.
    noise: asked for draws at t = T, ..., 2.
    callback: called at each step.
    released: add no noise at t = 2, as in the authors' program.
    Returns offsets (B, N, 2) and pen-up probabilities (B, N, 1), both of the last step.
    """
    for t in range(len(alpha_bar) - 1, 0, -1):
        eps, pen_up = _call(network, y, text, style, alpha_bar, t, callback)
        alpha = alpha_bar[t] / alpha_bar[t - 1]
        # Eq. 10 and 11 in one: dividing by sqrt(alpha) leaves the clean ink at the next level's signal.
        y = (y - (1 - alpha_bar[t]).sqrt() * eps) / alpha.sqrt()
        if t > (2 if released else 1):
            y = y + (1 - alpha_bar[t - 1]).sqrt() * noise(t)
    return y, pen_up


def sample_eq9(
    network: Network,
    y: Tensor,
    text: Tensor,
    style: Tensor,
    alpha_bar: Tensor,
    noise: NoiseSource,
    *,
    callback: Callback | None = None,
) -> tuple[Tensor, Tensor]:
    """Denoise `y` by Eq. 9, the paper's ablation: ancestral sampling as in DDPM, with variance beta_t.

    Arguments and result as in `sample_eq12`.
    """
    for t in range(len(alpha_bar) - 1, 0, -1):
        eps, pen_up = _call(network, y, text, style, alpha_bar, t, callback)
        alpha = alpha_bar[t] / alpha_bar[t - 1]
        beta = 1 - alpha
        y = (y - beta / (1 - alpha_bar[t]).sqrt() * eps) / alpha.sqrt()
        if t > 1:
            y = y + beta.sqrt() * noise(t)
    return y, pen_up


def sample_ddim(
    network: Network,
    y: Tensor,
    text: Tensor,
    style: Tensor,
    alpha_bar: Tensor,
    noise: NoiseSource | None = None,
    *,
    callback: Callback | None = None,
) -> tuple[Tensor, Tensor]:
    """Denoise `y` without further noise: DDIM (Song et al. 2021, Eq. 12 with sigma = 0).

    Arguments and result as in `sample_eq12`.
    """
    for t in range(len(alpha_bar) - 1, 0, -1):
        eps, pen_up = _call(network, y, text, style, alpha_bar, t, callback)
        y = alpha_bar[t - 1].sqrt() * clean_ink(y, eps, alpha_bar[t]) + (1 - alpha_bar[t - 1]).sqrt() * eps
    return y, pen_up


def sample_dpm(
    network: Network,
    y: Tensor,
    text: Tensor,
    style: Tensor,
    alpha_bar: Tensor,
    noise: NoiseSource | None = None,
    *,
    callback: Callback | None = None,
) -> tuple[Tensor, Tensor]:
    """Denoise `y` without further noise by second-order multistep DPM-Solver++ (Lu et al. 2022, Algorithm 2).

    It predicts clean ink. The first and the last step are of first order, that is DDIM's.
    Arguments and result as in `sample_eq12`.
    """
    log_snr = torch.logit(alpha_bar) / 2  # lambda_t of the paper: log of signal over noise
    previous = None
    for t in range(len(alpha_bar) - 1, 0, -1):
        eps, pen_up = _call(network, y, text, style, alpha_bar, t, callback)
        clean = clean_ink(y, eps, alpha_bar[t])
        if t == 1:
            return clean, pen_up
        step = log_snr[t - 1] - log_snr[t]
        if previous is None:
            direction = clean
        else:
            ratio = (log_snr[t] - log_snr[t + 1]) / step
            direction = clean + (clean - previous) / (2 * ratio)
        noise_ratio = ((1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])).sqrt()
        y = noise_ratio * y - alpha_bar[t - 1].sqrt() * torch.expm1(-step) * direction
        previous = clean
    return y, pen_up


SAMPLERS: dict[str, Sampler] = {
    "eq12": sample_eq12,
    "eq12-released": partial(sample_eq12, released=True),
    "eq9": sample_eq9,
    "ddim": sample_ddim,
    "dpm": sample_dpm,
}


def find_sampler(sampler: str | Sampler) -> Sampler:
    """The sampler of that name in `SAMPLERS`, or the function that is given.

    Raises HwdiffError for an unknown name.
    """
    if callable(sampler):
        return sampler
    require_choice("sampler", sampler, SAMPLERS)
    return SAMPLERS[sampler]
