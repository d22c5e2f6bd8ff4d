"""Figures of the diffusion process: its noise schedule, and what noise does to a line."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from hwdiff.diffusion import process
from hwdiff.ink.ink import Ink
from hwdiff.ink.plot import plot_inks_at


def plot_schedule(alpha_bar: torch.Tensor) -> Figure:
    """A noise schedule: signal and noise of a line at each t, and beta_t.

    alpha_bar: (T + 1,) from `process.alpha_bars`.
    """
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    t = np.arange(len(alpha_bar))
    left.plot(t, alpha_bar.sqrt(), label=r"signal $\sqrt{\bar\alpha_t}$")
    left.plot(t, (1 - alpha_bar).sqrt(), label=r"noise $\sqrt{1-\bar\alpha_t}$")
    left.set(xlabel="t", ylabel="weight in the noisy ink", ylim=(0, 1.05))
    left.legend(frameon=False)
    right.plot(t[1:], 1 - alpha_bar[1:] / alpha_bar[:-1], color="C2")
    right.set(xlabel="t", ylabel=r"$\beta_t$")
    return figure


def plot_forward(ink: Ink, steps: Sequence[int] = (0, 5, 15, 30, 45, 60), seed: int = 0) -> Figure:
    """The forward process on one line, drawn from its noisy offsets with its own pen flags.

    steps: t of each panel.
    seed: of the noise, which is the same for all t.
    """
    alpha_bar = process.alpha_bars()
    clean = torch.from_numpy(ink.offsets)[None]
    eps = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    inks, titles = [], []
    for t in steps:
        noisy = process.add_noise(clean, alpha_bar[t].sqrt().float().view(1, 1, 1), eps)
        inks.append(Ink(noisy[0].numpy(), ink.pen_up))
        titles.append(f"t = {t}: {100 * alpha_bar[t].item():.3g} % of the variance is signal")
    return plot_inks_at(inks, titles)
