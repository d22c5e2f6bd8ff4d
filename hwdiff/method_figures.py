"""Figures of the method: its noise schedule, what noise does to a line, and what training does to the loss."""

import numpy as np
import torch
from matplotlib.figure import Figure

from hwdiff import diffusion
from hwdiff.ink import Ink


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
    alpha_bar = diffusion.alpha_bars()
    clean = torch.from_numpy(ink.offsets)[None]
    eps = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    inks = [Ink(diffusion.add_noise(clean, alpha_bar[t].sqrt().float().view(1, 1, 1), eps)[0].numpy(), ink.pen_up) for t in steps]
    return plot_inks_at(inks, [f"t = {t}: {100 * alpha_bar[t].item():.3g} % of the variance is signal" for t in steps])


def plot_inks_at(inks, titles, columns=2):
    """Lines that need not lie flat, such as noisy ones: each in a frame of its own size."""
    rows = -(-len(inks) // columns)
    figure = Figure(figsize=(6 * columns, 1.5 * rows), layout="constrained")
    for number, (ink, title) in enumerate(zip(inks, titles, strict=True), start=1):
        axes = figure.add_subplot(rows, columns, number)
        for stroke in ink.strokes():
            axes.plot(*stroke.T, color="black", linewidth=0.8, solid_capstyle="round")
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_title(title, fontsize=8, loc="left")
        axes.set_axis_off()
    return figure


def plot_held_out(rows):
    """The loss on held-out lines by noise level: of the strokes left, of the pen right, a line for each row of `held_out.jsonl`."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, term in zip(figure.subplots(1, 2), ("stroke", "pen"), strict=True):
        for place, row in enumerate(rows):
            levels = sorted(map(int, row[term]))
            shade = str(0.75 - 0.75 * (place + 1) / len(rows))
            axes.plot(levels, [row[term][str(t)] for t in levels], "o-", markersize=3, color=shade, label=f"step {row['step']}")
        axes.set(xlabel="t (more noise to the right)", ylabel=f"{term} loss", ylim=(0, None))
        axes.legend(frameon=False, fontsize=7)
    return figure


def plot_curve(x, y, xlabel, ylabel, low=None, high=None):
    """One or several curves: y (n,) or {name: (n,)}; low, high: a band about a single one."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name, values in (y if isinstance(y, dict) else {None: y}).items():
        axes.plot(x, values, "o-", markersize=3, label=name)
    if low is not None:
        axes.fill_between(x, low, high, alpha=0.2, linewidth=0)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if isinstance(y, dict):
        axes.legend(frameon=False, fontsize=8)
    return figure
