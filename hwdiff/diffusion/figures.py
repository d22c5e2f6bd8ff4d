"""Figures of the diffusion process: its noise schedule, and what noise does to a line."""

import numpy as np
import torch
from matplotlib.figure import Figure

from hwdiff.diffusion import process
from hwdiff.ink.ink import Ink
from hwdiff.ink.plot import plot_inks_at


def plot_schedule(alpha_bar):
    """The published noise schedule, alpha_bar (T + 1,): how much signal and noise a line holds at each t, and the beta_t that it comes of."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    t = np.arange(len(alpha_bar))
    left.plot(t, alpha_bar.sqrt(), label=r"signal $\sqrt{\bar\alpha_t}$")
    left.plot(t, (1 - alpha_bar).sqrt(), label=r"noise $\sqrt{1-\bar\alpha_t}$")
    left.set(xlabel="t", ylim=(0, 1.05))
    left.legend(frameon=False)
    right.plot(t[1:], 1 - alpha_bar[1:] / alpha_bar[:-1], color="C2")
    right.set(xlabel="t", ylabel=r"$\beta_t$")
    return figure


def plot_forward(ink, steps=(0, 5, 15, 30, 45, 60), seed=0):
    """The forward process on one line, an `Ink`: the same line at several t, drawn from its noisy offsets with its own pen flag."""
    alpha_bar = process.alpha_bars()
    clean = torch.from_numpy(ink.offsets)[None]
    eps = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    inks = [
        Ink(process.add_noise(clean, alpha_bar[t].sqrt().float().view(1, 1, 1), eps)[0].numpy(), ink.pen_up)
        for t in steps
    ]
    return plot_inks_at(
        inks, [f"t = {t}: {100 * alpha_bar[t].item():.3g} % of the variance is signal" for t in steps]
    )
