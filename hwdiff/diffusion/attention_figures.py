"""Figures of the attention from ink to text.

Fig. 4 of Luhman & Luhman (2020), the same for every block and head, and ink coloured by character.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure

from hwdiff.diffusion.tracing import Trace
from hwdiff.ink.ink import Ink
from hwdiff.ink.plot import COLOURS, draw_coloured

PALE = (0.82, 0.82, 0.82)


class CharacterAlignment(Protocol):
    """Which points were written for which character; see `evaluation.alignment.Alignment`."""

    text: str

    def owners(self, count: int) -> np.ndarray: ...


def _names(text, tokens):
    return ["␣" if character == " " else character for character in text] + ["end"] * (tokens - len(text))


def _heat_map(axes, weights, text, points, labels=True):
    """Draw weights (M, L): the text downwards, the points of the line to the right."""
    axes.imshow(
        weights.T,
        aspect="auto",
        cmap="magma",
        interpolation="nearest",
        origin="upper",
        extent=(0, points, weights.shape[1] - 0.5, -0.5),
    )
    names = _names(text, weights.shape[1]) if labels else []
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.tick_params(labelsize=6, length=2)


def plot_attention(
    written: Trace,
    steps: Sequence[int] = (55, 30, 5),
    block: int = -1,
    head: int | None = None,
) -> Figure:
    """Fig. 4 of the paper: which characters (downwards) the points (to the right) attend to.

    Each panel's colours span its own range.

    steps: t of each panel.
    block: -1 for the last, as in the paper.
    head: None for the mean of all.
    Raises HwdiffError when there is no such step or block.
    """
    panels = [written.weights(t, block) for t in steps]
    tokens = panels[0].shape[-1]
    figure = Figure(figsize=(3.6 * len(steps), 0.5 + 0.13 * tokens), layout="constrained")
    for axes, t, weights in zip(np.atleast_1d(figure.subplots(1, len(steps))), steps, panels, strict=True):
        shown = weights.mean(axis=0) if head is None else weights[head]
        _heat_map(axes, shown, written.ink.text, written.length)
        axes.set_title(f"t = {t}", fontsize=8)
        axes.set_xlabel("point", fontsize=7)
    return figure


def plot_every_head(written: Trace, t: int) -> Figure:
    """The attention of every head at step t, a row for each block."""
    blocks = range(len(written.attention[t]))
    columns = max(len(written.weights(t, block)) for block in blocks)
    figure = Figure(figsize=(1.7 * columns, 1.5 * len(blocks)), layout="constrained")
    grid = np.atleast_2d(figure.subplots(len(blocks), columns))
    for block in blocks:
        weights = written.weights(t, block)
        for head, axes in enumerate(grid[block]):
            if head < len(weights):
                _heat_map(axes, weights[head], written.ink.text, written.length, labels=False)
                axes.set_title(f"block {block}, head {head}", fontsize=6)
            else:
                axes.set_axis_off()
    figure.suptitle(f"t = {t}: characters downwards, points of the line to the right", fontsize=8)
    return figure


def plot_characters(ink: Ink, aligned: CharacterAlignment, chosen: int | None = None) -> Figure:
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
    for number, name in enumerate(_names(aligned.text, len(aligned.text))):
        above.text(number, 0, name, color=colours[number], **centred)
    above.set(xlim=(-1, len(aligned.text)), ylim=(-1, 1))
    above.set_axis_off()
    draw_coloured(axes, ink, colours[owners])
    return figure
