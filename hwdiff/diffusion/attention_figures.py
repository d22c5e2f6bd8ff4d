"""Figures of the attention from ink to text.

Fig. 4 of Luhman & Luhman (2020), the same for every block and head, and ink coloured by character.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from hwdiff.diffusion.alignment import Alignment, token_names
from hwdiff.diffusion.tracing import Trace
from hwdiff.ink.ink import Ink
from hwdiff.ink.plot import COLOURS, draw_coloured

PALE = (0.82, 0.82, 0.82)


def _heat_map(axes, weights, text, points, labels=True):
    """Draw weights (M, L): the text downwards, the points of the line to the right."""
    shown = axes.imshow(
        weights.T,
        aspect="auto",
        cmap="magma",
        vmin=0,
        vmax=1,
        interpolation="nearest",
        origin="upper",
        extent=(0, points, weights.shape[1] - 0.5, -0.5),
    )
    names = token_names(text, weights.shape[1]) if labels else []
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.tick_params(labelsize=6, length=2)
    return shown


def _colour_bar(figure, shown, axes, of=""):
    bar = figure.colorbar(shown, ax=axes, pad=0.01, aspect=30)
    bar.ax.tick_params(labelsize=6, length=2)
    bar.set_label(f"fraction of a cell's attention{of}", fontsize=7)


def block_title(written: Trace, block: int = -1) -> str:
    """Which block of the network, its number of heads, and how many points a cell of its attention has."""
    blocks = written.attention[written.steps[0]]
    heads, cells, _ = written.weights(written.steps[0], block).shape
    number = range(len(blocks))[block]
    last = " (the last)" if number == len(blocks) - 1 else ""
    return f"block {number}{last}, {heads} heads, {written.length // cells} points a cell"


def plot_attention(
    written: Trace,
    steps: Sequence[int] = (55, 30, 5),
    block: int = -1,
    head: int | None = None,
) -> Figure:
    """Fig. 4 of the paper: which characters (downwards) the points (to the right) attend to.

    Above each map the clean ink that the network predicts at that step (Eq. 10), below it the height of that
    ink's pen, point by point. Colours go from 0 to 1 in all panels.

    steps: t of each panel.
    block: -1 for the last, as in the paper.
    head: None for the mean of all.
    Raises HwdiffError when there is no such step or block.
    """
    panels = [written.weights(t, block) for t in steps]
    tokens = panels[0].shape[-1]
    figure = Figure(figsize=(3.8 * len(steps), 1.9 + 0.13 * tokens), layout="constrained")
    grid = figure.subplots(3, len(steps), height_ratios=(0.7, 0.4 + 0.13 * tokens, 0.5), squeeze=False)
    for (above, axes, below), t, weights in zip(grid.T, steps, panels, strict=True):
        predicted = written.predicted[t]
        draw_coloured(above, predicted.trimmed(), np.zeros((len(predicted), 3)))
        above.set_title(f"t = {t}: the ink predicted (Eq. 10)", fontsize=7)
        shown = weights.mean(axis=0) if head is None else weights[head]
        image = _heat_map(axes, shown, written.ink.text, written.length)
        height = np.cumsum(predicted.offsets[:, 1])
        height[predicted.pen_up] = np.nan
        below.plot(np.arange(len(height)) + 0.5, height, color="black", linewidth=0.7)
        below.set_yticks([])
        below.set_xlabel("point of the line", fontsize=7)
        below.tick_params(labelsize=6, length=2)
        below.sharex(axes)
    grid[1, 0].set_ylabel("character", fontsize=7)
    grid[2, 0].set_ylabel("pen height", fontsize=7)
    _colour_bar(figure, image, list(grid[1]))
    of_heads = "mean of the heads" if head is None else f"head {head}"
    figure.suptitle(f"{block_title(written, block)}, {of_heads}", fontsize=8)
    return figure


def plot_every_head(written: Trace, t: int) -> Figure:
    """The attention of every head at step t, a row for each block. Colours go from 0 to 1."""
    blocks = range(len(written.attention[t]))
    columns = max(len(written.weights(t, block)) for block in blocks)
    figure = Figure(figsize=(1.7 * columns, 1.6 * len(blocks)), layout="constrained")
    rows = figure.subfigures(len(blocks), squeeze=False)[:, 0]
    for block, row in zip(blocks, rows, strict=True):
        weights = written.weights(t, block)
        row.suptitle(block_title(written, block), fontsize=7, x=0.01, ha="left")
        for head, axes in enumerate(row.subplots(1, columns, squeeze=False)[0]):
            if head < len(weights):
                image = _heat_map(axes, weights[head], written.ink.text, written.length, labels=False)
                axes.set_title(f"head {head}", fontsize=6)
            else:
                axes.set_axis_off()
            if not head:
                axes.set_ylabel("character", fontsize=6)
        row.colorbar(image, ax=row.axes, shrink=0.8, label="attention").ax.tick_params(labelsize=5)
    return figure


def plot_against_truth(aligned: dict[int, Alignment], true: np.ndarray) -> Figure:
    """Attention to the text of a line whose letters are known, with the true letter of each point.

    aligned: {t: the alignment of the line, noised to t}.
    true: (N,) the character that each point was written for.
    """
    figure = Figure(figsize=(3.8 * len(aligned), 3.4), layout="constrained")
    axes = figure.subplots(1, len(aligned), squeeze=False)[0]
    rim = [withStroke(linewidth=2.2, foreground="black")]  # the map is as bright where attention is right
    for one, (t, alignment) in zip(axes, aligned.items(), strict=True):
        cells = len(alignment.weights)
        image = _heat_map(one, alignment.weights, alignment.text, cells * alignment.points)
        one.step(np.arange(len(true)), true, where="post", color="cyan", linewidth=0.8, path_effects=rim)
        one.set_title(f"t = {t}", fontsize=8)
        one.set_xlabel("point of the line", fontsize=7)
    axes[0].set_ylabel("character", fontsize=7)
    _colour_bar(figure, image, list(axes), " to the characters")
    return figure


def plot_characters(ink: Ink, aligned: Alignment, chosen: int | None = None) -> Figure:
    """Ink coloured by the characters that it was written for, under the text in the same colours.

    aligned: the `Alignment` of the ink.
    chosen: the index of the only character to colour, the rest being pale; None for all.
    """
    owners = aligned.owners(len(ink))
    figure = Figure(figsize=(max(5.0, 0.3 * len(aligned.text)), 2.2), layout="constrained")
    above, axes = figure.subplots(2, height_ratios=(1, 4))
    characters = np.arange(len(aligned.text))
    coloured = np.where((chosen is None) | (characters == chosen), 1, 0)[:, None]
    colours = coloured * COLOURS[characters % len(COLOURS)]
    colours = np.where(colours.any(axis=1, keepdims=True), colours, PALE)
    centred = {"ha": "center", "va": "center", "fontsize": 11, "parse_math": False}
    for number, name in enumerate(token_names(aligned.text, len(aligned.text))):
        above.text(number, 0, name, color=colours[number], **centred)
    above.set(xlim=(-1, len(aligned.text)), ylim=(-1, 1))
    above.set_axis_off()
    draw_coloured(axes, ink, colours[owners])
    return figure


def plot_by_step(lines: Sequence[Sequence[dict[str, float]]]) -> Figure:
    """How attention aligns over the steps: the median over lines, and the middle half of them as a band.

    lines: the rows of `tracing.alignment_by_step` of each line, all written in the same steps.
    """
    figure = Figure(figsize=(10, 2.8), layout="constrained")
    titles = {
        "monotonicity": "monotonicity:\nfraction of the way that goes forward",
        "sharpness": "sharpness:\nlargest fraction of a cell's attention to the characters",
        "agreement": "agreement:\ncells with the last step's character",
    }
    for axes, (name, title) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
        values = np.array([[row[name] for row in line] for line in lines])
        t = [row["t"] for row in lines[0]]
        low, middle, high = np.percentile(values, (25, 50, 75), axis=0)
        axes.plot(t, middle, color="C0")
        axes.fill_between(t, low, high, alpha=0.25, linewidth=0, color="C0")
        axes.set(xlabel="step t, the noisiest first", ylim=(0, 1.05))
        axes.set_xlim(max(t), min(t))
        axes.set_title(title, fontsize=8)
    return figure
