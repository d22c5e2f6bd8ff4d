"""Figures. Each function returns a matplotlib Figure; `save_figure` is the one way to write them."""

import json
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from hwdiff.data import images
from hwdiff.errors import HwdiffError
from hwdiff.evaluation.legibility import letters
from hwdiff.evaluation.reader import ALPHABET, BLANK
from hwdiff.files import replacing

# Loss (stroke + pen) of a public PyTorch port on training batches: constant learning rate 3e-4, released noise levels, padding included.
PORT_CURVE = {100: 2.02, 200: 1.23, 300: 0.93, 500: 0.68, 1000: 0.501, 5000: 0.347, 10_000: 0.315, 20_000: 0.284, 40_000: 0.261, 60_000: 0.246}


COLOURS = np.array(matplotlib.color_sequences["Dark2"][:7])  # of neighbouring characters


def save_figure(figure, path):
    """Write `figure` to `path` (.png or .svg), whole or not at all; the same figure gives the same bytes."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg"):
        raise HwdiffError(f"{path}: figures are saved as .png or .svg; choose such a name")
    # Without a fixed salt and date two SVGs of one figure differ.
    with replacing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "hwdiff"}):
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        figure.savefig(temporary, dpi=150, bbox_inches="tight", metadata=metadata)


def compare_line_images(pairs, extractor):
    """Official line images beside those drawn from the strokes.

    pairs: {line id: (official, drawn)}, (96, W) uint8 each.   extractor: a `StyleExtractor`.
    Returns the figure and the cosine of the (14, 1280) style features of each pair, {line id: cosine}.
    """
    figure = Figure(figsize=(10, 1.5 * len(pairs)), layout="constrained")
    cosines = {}
    for row, (line_id, pair) in enumerate(sorted(pairs.items())):
        padded = np.stack([images.pad_to_width(image, name=line_id) for image in pair])
        official, drawn = extractor(torch.from_numpy(padded)).flatten(1)
        cosines[line_id] = F.cosine_similarity(official, drawn, dim=0).item()
        for half, (image, name) in enumerate(zip(padded, ("official", f"drawn, cosine {cosines[line_id]:.3f}"), strict=True)):
            axes = figure.add_subplot(2 * len(pairs), 1, 2 * row + half + 1)
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.set_title(f"{line_id} {name}", fontsize=7, loc="left", pad=2)
            axes.set_axis_off()
    return figure, cosines


def plot_lines(dataset, rows=16, columns=3):
    """A page of a dataset's lines: a row for each of `rows` forms, evenly spread, with its first `columns` lines.

    The page shows the dataset's ink: of IAM it is for one's own eyes, not for publication.
    """
    forms = list(dict.fromkeys(dataset.forms))
    forms = [forms[place] for place in np.linspace(0, len(forms) - 1, min(rows, len(forms))).astype(int)]
    figure = Figure(figsize=(5 * columns, 0.5 * len(forms)), layout="constrained")
    for row, form in enumerate(forms):
        for column, index in enumerate(np.flatnonzero(dataset.forms == form)[:columns]):
            axes = figure.add_subplot(len(forms), columns, row * columns + column + 1)
            axes.imshow(images.pad_to_width(dataset.line_image(index)), cmap="gray", vmin=0, vmax=255)
            axes.set_axis_off()
    return figure


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


def plot_reading(ink, reading):
    """How a line was read: its ink coloured by the character that each part was read as, and below how probable each was, with its rival in grey.

    ink: an `Ink`, trimmed.   reading: the `Reading` of it.
    Where one character's ink ends is taken from where the next was told, so that strokes added later, such as the bar of a t, may go astray.
    """
    figure = Figure(figsize=(max(5.0, 0.27 * len(reading.text)), 3), layout="constrained")
    above, below = figure.subplots(2, height_ratios=(2, 1))
    owner = np.searchsorted(letters(ink, reading)[1:-1], np.arange(len(ink)), side="right")
    draw_coloured(above, ink, COLOURS[owner % len(COLOURS)])
    title = f"read as: {reading.text}" + (f"\nmeant: {ink.text}" if ink.text else "")
    above.set_title(title, fontsize=8, loc="left", parse_math=False)
    for number, (character, probability, row) in enumerate(zip(reading.text, reading.probabilities, reading.rows, strict=True)):
        colour, rivals = COLOURS[number % len(COLOURS)], reading.classes[row].copy()
        rivals[[BLANK, ALPHABET.index(character) + 1]] = 0
        rival = int(rivals.argmax())
        below.bar(number, probability, width=0.6, color=colour)
        below.text(number, -0.1, "␣" if character == " " else character, color=colour, ha="center", va="top", fontsize=9)
        if rivals[rival] > 0.02:
            below.bar(number, rivals[rival], width=0.6, bottom=probability, color="0.75")
            below.text(number, probability + rivals[rival], ALPHABET[rival - 1], color="0.3", ha="center", va="bottom", fontsize=7)
    below.set(ylim=(0, 1.2), ylabel="probability", yticks=(0, 0.5, 1))
    below.tick_params(labelsize=7, bottom=False, labelbottom=False)
    below.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def read_metrics(run):
    """The metrics of a training run: {name: (steps,) array}. run: its folder. Raises HwdiffError when it has none."""
    path = Path(run) / "metrics.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]  # the last may be half
        return {name: np.array([line[name] for line in lines]) for name in lines[0]}
    except (OSError, ValueError, LookupError) as error:
        raise HwdiffError(f"{path}: no training metrics ({error}); give the folder that hwdiff train wrote") from error


def plot_loss(metrics):
    """The loss of a run by step, its running mean since step 1, and the curve of a public port.

    The port's numbers behave like running means: read so, they follow ours; read as the loss of single steps they would lie far above.
    """
    step, loss = metrics["step"], metrics["loss"]
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(step, loss, color="0.7", linewidth=0.7, label="hwdiff, each step")
    axes.plot(step, np.cumsum(loss) / step, color="C0", label="hwdiff, mean since step 1")
    port = {at: value for at, value in PORT_CURVE.items() if at <= step[-1]}
    axes.plot(port.keys(), port.values(), "kx", label="public PyTorch port, as it logs its loss")
    axes.set(xlabel="step", ylabel="loss (stroke + pen)", yscale="log")
    axes.legend(frameon=False)
    return figure
