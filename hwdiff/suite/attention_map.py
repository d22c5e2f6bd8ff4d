"""The attention of a written line as a piece of HTML: ink, map and text under the mouse, without Jupyter."""

import hashlib
import json
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader

from hwdiff.diffusion.alignment import token_names
from hwdiff.diffusion.tracing import Trace
from hwdiff.ink.ink import MARGIN, Ink
from hwdiff.utils.errors import HwdiffError

MAX_STEPS = 13  # that the slider has, evenly spread over those of the line
UNIT = 10  # of the drawing, a unit of the offsets; coordinates are whole numbers
CELL = 1.6  # width of a cell of the map; a row is 1 high


def attention_map(written: Trace, block: int = -1) -> str:
    """A line to look through: its ink, its text, and the map of the attention, at a step that a slider sets.

    At each step the ink is the clean line that the network predicts (Eq. 10 of Luhman & Luhman 2020), at the
    last one what was written. Pointing at a character lights up the ink that attends to it, and pointing at
    ink the characters that it attends to.

    block: whose attention, averaged over the heads; -1 is the last, that of Fig. 4.
    Returns HTML with its own style and script, which loads nothing. All texts are escaped.
    Raises HwdiffError when nothing was written or there is no such block.
    """
    if not len(written.ink):
        raise HwdiffError("attention: nothing was written; choose another seed or text")
    places = np.linspace(0, len(written.steps) - 1, min(MAX_STEPS, len(written.steps))).round().astype(int)
    steps = [written.steps[place] for place in places]
    weights = [written.weights(t, block).mean(axis=0) for t in steps]
    text, (cells, tokens) = written.ink.text, weights[0].shape
    inks = [written.predicted[t].trimmed() for t in steps[:-1]] + [written.ink]
    drawn = [_paths(ink, cells, written.length // cells) for ink in inks]
    data = {
        "steps": [int(t) for t in steps],
        "weights": [(100 * one).round().astype(int).flatten().tolist() for one in weights],
        "paths": [paths for paths, _ in drawn],
        "points": written.length // cells,
    }
    content = json.dumps(data, separators=(",", ":"))
    width, height = np.max([size for _, size in drawn], axis=0)
    spacing = width / tokens
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    return templates.get_template("attention_map.html").render(
        id="attention-" + hashlib.sha256(content.encode()).hexdigest()[:8],
        text=text,
        steps=steps,
        names=list(enumerate(token_names(text, tokens))),
        cells=range(cells),
        tokens=range(tokens),
        paths=data["paths"][-1],
        weights=data["weights"][-1],
        data=content,  # of numbers and path commands alone, so that it may stand in a script
        width=int(width),
        height=int(height),
        spacing=float(spacing),
        letter=float(min(0.9 * spacing, 40)),
        cell=CELL,
    )


def _paths(ink: Ink, cells: int, points: int) -> tuple[list[str], np.ndarray]:
    """The SVG path of each cell's ink, and the size (width, height) of all."""
    positions = np.cumsum(ink.offsets, axis=0, dtype=np.float64) * (1, -1)
    low = positions.min(axis=0) - MARGIN if len(ink) else np.zeros(2)
    placed = (UNIT * (positions - low)).round().astype(int)
    ends = np.append(ink.pen_up[1:], True)
    paths = [""] * cells
    for number, (x, y) in enumerate(placed):
        if not ink.pen_up[number] and number:
            u, v = placed[number - 1]
            paths[number // points] += f"M{u} {v}L{x} {y}"
        elif ends[number]:
            paths[number // points] += f"M{x} {y}h0"  # a dot, which round caps make visible
    size = placed.max(axis=0) + UNIT * MARGIN if len(ink) else np.ones(2)
    return paths, size
