"""Drawing ink into figures; `save_figure` is the one way to write a figure."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from hwdiff.ink.formats import printable
from hwdiff.ink.ink import PEN_WIDTH, Ink
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write

GAP, CAPTION, MAX_HEIGHT = 0.1, 0.16, 2.5  # of a page of lines: around them, above them, of a line; in inches
# Of neighbouring characters. Yellow is hardly seen on white.
COLOURS = np.delete(matplotlib.color_sequences["Dark2"][:7], 5, axis=0)


def require_figure_name(path: str | Path) -> None:
    """Raises HwdiffError when no figure can be saved under a name."""
    if Path(path).suffix.lower() not in (".png", ".svg"):
        raise HwdiffError(f"{path}: figures are saved as .png or .svg; choose such a name")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write `figure` to `path` (.png or .svg), whole or not at all. The same figure gives the same bytes.

    Raises HwdiffError for another suffix, or when the file cannot be written.
    """
    path = Path(path)
    require_figure_name(path)
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
    """A page of lines, all at one scale and with one pen, so that size and boldness can be compared.

    title: of the page.
    titles: of each line; its text by default.
    width: of a column, in inches.
    Raises HwdiffError without inks.
    """
    if not inks:
        raise HwdiffError("figure: there is no ink to draw; give at least one line")
    placed = [ink.placed() for ink in inks]
    sizes = np.array([size for _, size in placed])
    scale = min((width - 2 * GAP) / sizes[:, 0].max(), MAX_HEIGHT / sizes[:, 1].max())  # inches a unit
    rows = -(-len(inks) // columns)
    heights = [scale * sizes[row * columns : (row + 1) * columns, 1].max() for row in range(rows)]
    top = 2 * CAPTION if title else GAP
    size = np.array((width * columns, top + sum(heights) + rows * (CAPTION + GAP)))
    figure = Figure(figsize=size)
    if title:
        figure.suptitle(title, fontsize=9, y=1 - GAP / size[1], va="top")
    captions = titles or [ink.text for ink in inks]
    for number, ((strokes, extent), caption) in enumerate(zip(placed, captions, strict=True)):
        row, column = divmod(number, columns)
        bottom = size[1] - top - sum(heights[: row + 1]) - row * GAP - (row + 1) * CAPTION
        place = np.array((column * width + GAP, bottom))
        axes = figure.add_axes((*place / size, *(scale * extent[0], heights[row]) / size))
        _draw(axes, strokes, PEN_WIDTH * scale * 72)
        axes.set(xlim=(0, extent[0]), ylim=(heights[row] / scale, 0))
        axes.set_title(printable(caption), fontsize=7, loc="left", pad=2, parse_math=False)
        axes.set_axis_off()
    return figure


def _draw(axes, strokes, points):
    """Draw strokes in black with a pen of so many points (1/72 inch)."""
    lines = [stroke for stroke in strokes if len(stroke) > 1]
    pen = {"linewidths": points, "capstyle": "round", "joinstyle": "round"}
    axes.add_collection(LineCollection(lines, colors="black", clip_on=False, **pen))
    dots = [stroke[0] for stroke in strokes if len(stroke) == 1]
    if dots:
        axes.scatter(*np.array(dots).T, s=points**2, c="black", linewidths=0, clip_on=False)


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


def plot_inks_at(inks: Sequence[Ink], titles: Sequence[str]) -> Figure:
    """Lines of any height, such as noisy ones, two a row, each under its title in a frame that fits it."""
    rows = -(-len(inks) // 2)
    figure = Figure(figsize=(12, 1.5 * rows), layout="constrained")
    for number, (ink, title) in enumerate(zip(inks, titles, strict=True), start=1):
        axes = figure.add_subplot(rows, 2, number)
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
