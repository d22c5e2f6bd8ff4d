"""From the dataset on disk to batches of tensors: style features, the order of the lines, padding."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hwdiff.data import tokenizer
from hwdiff.data.dataset import Dataset
from hwdiff.data.excerpts import Excerpts, whole_lines
from hwdiff.data.lines import MAX_POINTS
from hwdiff.data.style_features import StyleFeatures
from hwdiff.ink import strokes
from hwdiff.utils.errors import HwdiffError

BUCKET_BATCHES = 50  # lines are sorted by length within this many batches
BUCKET_UNIT = 32  # batches come in at most 16 lengths, each of which a GPU compiles once


@dataclass
class Batch:
    """B lines.

    strokes: (B, N, 2) float32, their offsets.
    pen_up: (B, N, 1) float32.
    text: (B, L) int64, tokens.
    style: (B, 14, 1280) float32.
    lengths: (B,) int64, points without the padding.
    places: (B, N) float32, about which character each point belongs to, NaN where it is uncertain; None
        unless the `Lines` have `Excerpts`.
    """

    strokes: Tensor
    pen_up: Tensor
    text: Tensor
    style: Tensor
    lengths: Tensor
    places: Tensor | None = None


class Lines:
    """The lines of a dataset as tensors on the device that trains, padded to 488 points.

    On a GPU all style features are in its memory (36 kB a line). On a CPU they come from their cache and are
    computed when they are first needed.

    style_features: of the dataset.
    style_lines: (n,), for each line the one that gives its style.
    excerpts: of the dataset, for batches with `places`.
    """

    def __init__(
        self,
        dataset: Dataset,
        style_features: StyleFeatures,
        style_lines: np.ndarray,
        device: str | torch.device,
        excerpts: Excerpts | None = None,
    ):
        if dataset.lengths.max() > MAX_POINTS:
            found = f"a line of {dataset.lengths.max()} points; the network takes at most {MAX_POINTS}"
            raise HwdiffError(f"{dataset.path}: {found}; prepare it again")
        offsets, pen_up = zip(*(dataset.strokes(index) for index in range(len(dataset))), strict=True)
        padded_offsets, padded_pen_up = strokes.pad(offsets, pen_up, MAX_POINTS)
        text = tokenizer.pad([dataset.tokens(index) for index in range(len(dataset))])
        self._places = None
        if excerpts is not None:
            self._places = torch.from_numpy(excerpts.places(MAX_POINTS)).to(device)
        self._whole = whole_lines(dataset)
        self.offsets, self.pen_up, self.text = (
            torch.from_numpy(array).to(device) for array in (padded_offsets, padded_pen_up, text)
        )
        self.lengths, self.style_lines, self.device = dataset.lengths, style_lines, torch.device(device)
        self._style_features, self._style = style_features, None
        if self.device.type == "cuda":
            self._style = style_features.half(np.arange(len(dataset))).to(device)

    def batch(self, indices: np.ndarray, length: int | None = None, spans: np.ndarray | None = None) -> Batch:
        """Some lines as a `Batch`, padded with offset (0, 0), the pen up, and token 0.

        indices: (B,) of the lines.
        length: points to pad to; by default those of the longest, rounded up to a multiple of 32.
        spans: (B, 4) of `Excerpts`, what to take of each line; by default all of it. An excerpt begins with
            the first offset of its line.
        """
        spans = self._whole[indices] if spans is None else spans
        lengths = spans[:, 1] - spans[:, 0]
        length = length or bucket_length(lengths)
        if self._style is None:
            style = self._style_features[self.style_lines[indices]]
        else:
            rows = torch.from_numpy(self.style_lines[indices]).to(self.device, non_blocking=True)
            style = self._style[rows].float()
        row, first, end, first_character, end_character = (
            torch.from_numpy(column).to(self.device, non_blocking=True)[:, None]
            for column in (indices, *np.ascontiguousarray(spans.T))
        )
        width = self.text.shape[1]
        if self.device.type != "cuda":  # a GPU would have to compile each width; a CPU gains by a smaller one
            longest = int((spans[:, 3] - spans[:, 2]).max()) + 1
            width = min(-(-longest // 8) * 8, width)
        points, characters = (torch.arange(size, device=self.device) for size in (length, width))
        at = (first + points).clamp(max=MAX_POINTS - 1)
        at[:, 0] = 0
        inside = first + points < end
        text = self.text[row, (first_character + characters).clamp(max=self.text.shape[1] - 1)]
        text_end = end_character - first_character
        after_text = torch.where(characters == text_end, tokenizer.END, tokenizer.PADDING)
        places = None
        if self._places is not None:
            known = self._places[row, at.clamp(min=first)] - first_character
            places = torch.where(inside, known, torch.nan)
        return Batch(
            strokes=self.offsets[row, at] * inside[..., None],
            pen_up=torch.where(inside, self.pen_up[row, at], 1.0)[..., None],
            text=torch.where(characters < text_end, text, after_text),
            style=style,
            lengths=torch.from_numpy(lengths.astype(np.int64)),
            places=places,
        )


def bucket_length(lengths: np.ndarray, extra: float = 0.0) -> int:
    """The points that a batch is padded to: those of its longest line up to a multiple of 32, at most 488.

    lengths: (B,) points of the lines.
    extra: this fraction is added to the longest before rounding.
    """
    return min(-(-int(lengths.max() * (1 + extra)) // BUCKET_UNIT) * BUCKET_UNIT, MAX_POINTS)


def batch_order(
    lengths: np.ndarray,
    batch_size: int,
    seed: int,
    epoch: int,
    bucketed: bool = True,
) -> list[np.ndarray]:
    """Which lines go into which batch in an epoch. The order depends on the arguments alone.

    lengths: (n,) points of each line.
    bucketed: put lines of similar length together, within random groups of 50 batches.
    Returns the (batch_size,) indices of each batch. The few lines left over are not used in this epoch.
    Raises HwdiffError when there are fewer lines than make one batch.
    """
    if len(lengths) < batch_size:
        found = f"the dataset's split has only {len(lengths)} lines"
        raise HwdiffError(f"batch size {batch_size}: {found}; choose a smaller batch")
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(lengths))
    if bucketed:
        group = BUCKET_BATCHES * batch_size
        groups = [order[start : start + group] for start in range(0, len(order), group)]
        order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in groups])
        # Drop the left-over lines at random, not always the longest.
        left_over = len(order) % batch_size
        order = np.delete(order, generator.choice(len(order), left_over, replace=False))
    batches = [
        order[start : start + batch_size] for start in range(0, len(order) - batch_size + 1, batch_size)
    ]
    return [batches[i] for i in generator.permutation(len(batches))]


def training_order(
    excerpts: Excerpts,
    lines: np.ndarray,
    batch_size: int,
    *,
    seed: int,
    done: int = 0,
    bucketed: bool = True,
    fraction: Callable[[int], float] = lambda step: 0.0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless batches, epoch after epoch, from that of step `done` + 1. They depend on the arguments alone.

    lines: (n,) indices of the lines.
    bucketed: see `batch_order`.
    fraction(step): of the lines of which only an excerpt is used. An epoch keeps that of the step before it.
    Yields (lines (B,), spans (B, 4)).
    Raises HwdiffError when there are fewer lines than make one batch.
    """
    epoch_steps = max(1, len(lines) // batch_size)
    epoch, at = divmod(done, epoch_steps)
    while True:
        spans = excerpts.of_epoch(epoch, fraction(epoch * epoch_steps))[lines]
        for batch in batch_order(spans[:, 1] - spans[:, 0], batch_size, seed, epoch, bucketed)[at:]:
            yield lines[batch], spans[batch]
        epoch, at = epoch + 1, 0
