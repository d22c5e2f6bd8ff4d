"""Samplers: from noise to pen offsets. Each is a plain function that is handed the network, the noise and a callback.

The network is called as `network(y, text, noise_level, style, attention=...)`, attention="all" for a callback, else False.
It is conditioned on the noise level itself, so any decreasing `alpha_bar`, alpha_bar[0] = 1, can be walked without retraining.
"""

from functools import partial

import torch

from hwdiff.data import tokenizer
from hwdiff.diffusion.process import STEPS, alpha_bars
from hwdiff.utils.errors import HwdiffError

SPACINGS = ("log-snr", "time", "karras")


def schedule(steps=STEPS, spacing="log-snr"):
    """Signal levels for `steps` network calls: (steps + 1,) float64, [0] = 1; the published ones for 60, else some between their ends.

    spacing: "log-snr" evenly in the logarithm of signal over noise; "time" evenly in t; "karras" evenly in the seventh root of
    noise over signal (Karras et al. 2022, Eq. 5).
    Both ends of the published schedule are kept: every network call sees a noise level that training covered.
    """
    if steps < 1:
        raise HwdiffError(f"steps = {steps}: must be at least 1")
    if spacing not in SPACINGS:
        raise HwdiffError(f"spacing: no such spacing as {spacing!r}; choose one of {', '.join(SPACINGS)}")
    published = alpha_bars()
    if steps == STEPS:
        return published
    place = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.ones(1, dtype=torch.float64)
    noisy, clean = published[-1], published[1]
    if spacing == "log-snr":
        levels = torch.sigmoid(torch.lerp(torch.logit(clean), torch.logit(noisy), place))
    elif spacing == "time":
        t = 1 + (STEPS - 1) * place
        before = t.floor().long().clamp(max=STEPS - 1)
        levels = torch.sigmoid(torch.lerp(torch.logit(published[before]), torch.logit(published[before + 1]), t - before))
    else:
        low, high = (((1 - level) / level).sqrt() ** (1 / 7) for level in (clean, noisy))
        levels = 1 / (1 + torch.lerp(low, high, place) ** 14)
    return torch.cat((published[:1], levels))


def guided(network, weight):
    """A network for a sampler that predicts the noise with classifier-free guidance by the text (Ho & Salimans 2022, Eq. 6).

    The noise predicted with the text is carried `weight` times as far from that predicted for the empty text: 1 changes nothing, more follows
    the text more closely, at twice the work. It takes a network that was trained with a fraction of empty texts.
    """
    if weight == 1:
        return network

    def call(y, text, noise_level, style, attention=False):
        # Both in one call: with few lines the time goes into calls, not into lines.
        texts = torch.cat((text, tokenizer.without_text(text)))
        both, pen_up, weights = network(y.repeat(2, 1, 1), texts, noise_level.repeat(2, 1, 1), style.repeat(2, 1, 1), attention=attention)
        eps, free = both.chunk(2)
        if attention:
            weights = [seen[: len(y)] for seen in weights] if attention == "all" else weights[: len(y)]
        return free + weight * (eps - free), pen_up[: len(y)], weights

    return call


def _call(network, y, text, style, alpha_bar, t, callback):
    """The network's eps and pen_up at step t of `alpha_bar`; the attention is asked for only if there is a callback."""
    noise_level = alpha_bar[t].sqrt().to(y).expand(len(y), 1, 1)
    eps, pen_up, attention = network(y, text, noise_level, style, attention="all" if callback else False)
    if callback:
        callback(t, y, pen_up, attention)
    return eps, pen_up


def _clean(y, eps, alpha_bar_t):
    """Eq. 10: the clean ink that y and the predicted noise imply."""
    return (y - (1 - alpha_bar_t).sqrt() * eps) / alpha_bar_t.sqrt()


def sample_eq12(network, y, text, style, alpha_bar, noise, callback=None, released=False):
    """Denoise y by Eq. 12 of Luhman & Luhman (2020), as in Algorithm 2: predict the clean ink, then noise it to the next level.

    The paper's Eq. 12 divides by sqrt(alpha_t) and so keeps the next level's fraction of the signal.
    y: (B, N, 2) standard normal.   text: (B, L) tokens.   style: (B, S, 1280).   alpha_bar: (T + 1,) by the paper's t, [0] = 1.
    noise(t): (B, N, 2) standard normal, asked for at t = T, ..., 2.   callback(t, y, pen_up, attention): what the network saw and said.
    attention is a list of every block's to the text, (B, heads, N / 2, 4 or 8, L); the last is that of the paper's Fig. 4.
    released: as in the authors' program, no noise is added at t = 2.
    Returns offsets (B, N, 2) and pen-up probabilities (B, N, 1), both of the last step.
    """
    for t in range(len(alpha_bar) - 1, 0, -1):
        eps, pen_up = _call(network, y, text, style, alpha_bar, t, callback)
        alpha = alpha_bar[t] / alpha_bar[t - 1]
        y = (y - (1 - alpha_bar[t]).sqrt() * eps) / alpha.sqrt()
        if t > (2 if released else 1):
            y = y + (1 - alpha_bar[t - 1]).sqrt() * noise(t)
    return y, pen_up


def sample_eq9(network, y, text, style, alpha_bar, noise, callback=None):
    """Denoise y by Eq. 9 of Luhman & Luhman (2020), the paper's ablation: ancestral sampling as in DDPM, with variance beta_t.

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


def sample_ddim(network, y, text, style, alpha_bar, noise=None, callback=None):
    """Denoise y without further noise: DDIM (Song et al. 2021, Eq. 12 with sigma = 0). Arguments and result as in `sample_eq12`."""
    for t in range(len(alpha_bar) - 1, 0, -1):
        eps, pen_up = _call(network, y, text, style, alpha_bar, t, callback)
        y = alpha_bar[t - 1].sqrt() * _clean(y, eps, alpha_bar[t]) + (1 - alpha_bar[t - 1]).sqrt() * eps
    return y, pen_up


def sample_dpm(network, y, text, style, alpha_bar, noise=None, callback=None):
    """Denoise y without further noise by the second-order multistep DPM-Solver++ (Lu et al. 2022, Algorithm 2), in terms of clean ink.

    The first and the last step are of first order, that is DDIM's. Arguments and result as in `sample_eq12`.
    """
    log_snr = torch.logit(alpha_bar) / 2  # lambda_t of the paper: log of signal over noise
    previous = None
    for t in range(len(alpha_bar) - 1, 0, -1):
        eps, pen_up = _call(network, y, text, style, alpha_bar, t, callback)
        clean = _clean(y, eps, alpha_bar[t])
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


SAMPLERS = {
    "eq12": sample_eq12,
    "eq12-released": partial(sample_eq12, released=True),
    "eq9": sample_eq9,
    "ddim": sample_ddim,
    "dpm": sample_dpm,
}
FAST, FAST_STEPS, FAST_SPACING = "eq12", 40, "time"  # the fewest calls that were worse than 60 in nothing on validation lines, see docs/samplers.md
SAMPLERS["fast"] = SAMPLERS[FAST]


def levels(sampler, steps=None):
    """The signal levels that a sampler goes through where no others are asked for: `schedule`'s, by default of 60 calls, fewer for "fast"."""
    return schedule(steps or FAST_STEPS, FAST_SPACING) if sampler == "fast" else schedule(steps or STEPS)
