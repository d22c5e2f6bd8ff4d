"""Drawing ink into figures; `save_figure` is the one way to write a figure."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write

COLOURS = np.array(matplotlib.color_sequences["Dark2"][:7])  # of neighbouring characters


def save_figure(figure, path):
    """Write `figure` to `path` (.png or .svg), whole or not at all; the same figure gives the same bytes."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg"):
        raise HwdiffError(f"{path}: figures are saved as .png or .svg; choose such a name")
    # Without a fixed salt and date two SVGs of one figure differ.
    with atomic_write(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "hwdiff"}):
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        figure.savefig(temporary, dpi=150, bbox_inches="tight", metadata=metadata)


def plot_inks(inks, columns=1, title=None, titles=None, width=7):
    """A page of lines, a list of `Ink`, each under its text or its own of `titles`. width: of a column, in inches."""
    rows = -(-len(inks) // columns)
    figure = Figure(figsize=(width * columns, 1.1 * rows + (0.4 if title else 0)), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=9)
    for number, (ink, caption) in enumerate(zip(inks, titles or [ink.text for ink in inks], strict=True), start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(ink.to_image(), cmap="gray", vmin=0, vmax=255)
        axes.set_title(caption, fontsize=7, loc="left", pad=2, parse_math=False)
        axes.set_axis_off()
    return figure


def draw_coloured(axes, ink, colours):
    """Draw an `Ink` into matplotlib axes, the line to each point, or its dot, in a colour of its own: colours (N, 3)."""
    positions = np.cumsum(ink.offsets, axis=0, dtype=np.float64)
    drawn = np.flatnonzero(~ink.pen_up[1:]) + 1
    segments = np.stack((positions[drawn - 1], positions[drawn]), axis=1)
    axes.add_collection(LineCollection(segments, colors=colours[drawn], linewidths=1.6, capstyle="round"))
    dots = np.flatnonzero(ink.pen_up & np.append(ink.pen_up[1:], True))
    axes.scatter(*positions[dots].T, s=3, c=colours[dots])
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_axis_off()


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
