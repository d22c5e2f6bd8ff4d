"""Figures of a dataset: pages of its lines, official line images beside drawn ones."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from hwdiff.data.dataset import Dataset
from hwdiff.ink import images

SHOWN = 12  # pairs of line images


def compare_line_images(
    pairs: dict[str, tuple[np.ndarray, np.ndarray]], extractor: Callable[[Tensor], Tensor]
) -> tuple[Figure, dict[str, float]]:
    """Official line images beside those drawn from the strokes.

    pairs: {line id: (official, drawn)}, (96, W) uint8 each.
    extractor: images (B, 96, 1400) uint8 to style features (B, 14, 1280), such as a `StyleExtractor`.
    Returns a figure of at most 12 pairs, spread evenly, and the cosine of the (14, 1280) style features of
    each pair, {line id: cosine}.
    """
    cosines, names = {}, sorted(pairs)
    shown = [names[place] for place in np.unique(np.linspace(0, len(names) - 1, SHOWN).astype(int))]
    figure = Figure(figsize=(10, 1.5 * len(shown)), layout="constrained")
    for line_id in names:
        padded = np.stack([images.pad_to_width(image, name=line_id) for image in pairs[line_id]])
        official, drawn = extractor(torch.from_numpy(padded)).flatten(1)
        cosines[line_id] = F.cosine_similarity(official, drawn, dim=0).item()
        if line_id not in shown:
            continue
        row, titles = shown.index(line_id), ("official", f"drawn, cosine {cosines[line_id]:.3f}")
        for half, (image, title) in enumerate(zip(padded, titles, strict=True)):
            axes = figure.add_subplot(2 * len(shown), 1, 2 * row + half + 1)
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.set_title(f"{line_id} {title}", fontsize=7, loc="left", pad=2)
            axes.set_axis_off()
    return figure, cosines


def plot_lines(dataset: Dataset, rows: int = 16, columns: int = 3) -> Figure:
    """A page of a dataset's lines. IAM's are not for publication.

    rows: the number of forms, spread evenly over the dataset, a row for each.
    columns: the number of lines of a form, its first.
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
