"""Drawing ink into figures; `save_figure` is the one way to write a figure."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from hwdiff.ink.ink import Ink
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write

COLOURS = np.array(matplotlib.color_sequences["Dark2"][:7])  # of neighbouring characters


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write `figure` to `path` (.png or .svg), whole or not at all. The same figure gives the same bytes.

    Raises HwdiffError for another suffix, or when the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg"):
        raise HwdiffError(f"{path}: figures are saved as .png or .svg; choose such a name")
    # Without a fixed salt and date two SVGs of one figure differ.
    with atomic_write(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "hwdiff"}):
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        figure.savefig(temporary, dpi=150, bbox_inches="tight", metadata=metadata)


def plot_inks(
    inks: Sequence[Ink],
    columns: int = 1,
    title: str | None = None,
    titles: Sequence[str] | None = None,
    width: float = 7,
) -> Figure:
    """A page of lines.

    title: of the page.
    titles: of each line; its text by default.
    width: of a column, in inches.
    """
    rows = -(-len(inks) // columns)
    figure = Figure(figsize=(width * columns, 1.1 * rows + (0.4 if title else 0)), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=9)
    captions = titles or [ink.text for ink in inks]
    for number, (ink, caption) in enumerate(zip(inks, captions, strict=True), start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(ink.to_image(), cmap="gray", vmin=0, vmax=255)
        axes.set_title(caption, fontsize=7, loc="left", pad=2, parse_math=False)
        axes.set_axis_off()
    return figure


def draw_coloured(axes: Axes, ink: Ink, colours: np.ndarray) -> None:
    """Draw `ink` into `axes`, the line to each point, or its dot, in a colour of its own.

    colours: (N, 3), red, green and blue from 0 to 1.
    """
    positions = np.cumsum(ink.offsets, axis=0, dtype=np.float64)
    drawn = np.flatnonzero(~ink.pen_up[1:]) + 1
    segments = np.stack((positions[drawn - 1], positions[drawn]), axis=1)
    axes.add_collection(LineCollection(segments, colors=colours[drawn], linewidths=1.6, capstyle="round"))
    dots = np.flatnonzero(ink.pen_up & np.append(ink.pen_up[1:], True))
    axes.scatter(*positions[dots].T, s=3, c=colours[dots])
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_axis_off()


def plot_inks_at(inks: Sequence[Ink], titles: Sequence[str], columns: int = 2) -> Figure:
    """Lines of any height, such as noisy ones, each under its title in a frame that fits it."""
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


def plot_curve(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray | dict[str, Sequence[float] | np.ndarray],
    xlabel: str,
    ylabel: str,
    low: Sequence[float] | np.ndarray | None = None,
    high: Sequence[float] | np.ndarray | None = None,
) -> Figure:
    """One or several curves.

    x: (n,).
    y: (n,), or {name: (n,)} of several curves.
    low, high: (n,) each, a band about a single curve.
    """
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
