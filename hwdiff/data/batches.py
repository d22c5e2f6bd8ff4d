"""From the dataset on disk to batches of tensors: style features, the order of the lines, padding."""

from dataclasses import dataclass

import numpy as np
import torch

from hwdiff.data import tokenizer
from hwdiff.data.excerpts import whole_lines
from hwdiff.ink import strokes
from hwdiff.utils.errors import HwdiffError

FULL_LENGTH = 488  # the authors pad every line to this
BUCKET_BATCHES = 50  # lines are sorted by length within this many batches
BUCKET_UNIT = 32  # batches come in at most 16 lengths, each of which a GPU compiles once


@dataclass
class Batch:
    """B lines. strokes (B, N, 2) float32, pen_up (B, N, 1) float32, text (B, L) int64, style (B, 14, 1280) float32, lengths (B,) int64.

    places (B, N) float32, NaN where it is uncertain: about which character each point belongs to, of lines that were made with `Excerpts`.
    """

    strokes: torch.Tensor
    pen_up: torch.Tensor
    text: torch.Tensor
    style: torch.Tensor
    lengths: torch.Tensor
    places: torch.Tensor | None = None


class Lines:
    """The lines of a dataset as tensors on the device that trains, padded to 488 points, so that a batch is made by taking rows.

    dataset: a `Dataset`.   style_features: `StyleFeatures` of it.   style_lines: for each line the one that gives its style.
    excerpts: `Excerpts` of it, for batches with `places`.
    On a GPU all features lie in its memory (36 kB a line); on a CPU they come from their cache, and are computed when first needed.
    """

    def __init__(self, dataset, style_features, style_lines, device, excerpts=None):
        offsets, pen_up = zip(*(dataset.strokes(index) for index in range(len(dataset))), strict=True)
        padded_offsets, padded_pen_up = strokes.pad(offsets, pen_up, FULL_LENGTH)
        text = tokenizer.pad([dataset.tokens(index) for index in range(len(dataset))])
        self._places = None if excerpts is None else torch.from_numpy(excerpts.places(FULL_LENGTH)).to(device)
        self._whole = whole_lines(dataset)
        self.offsets, self.pen_up, self.text = (torch.from_numpy(array).to(device) for array in (padded_offsets, padded_pen_up, text))
        self.lengths, self.style_lines, self.device = dataset.lengths, style_lines, torch.device(device)
        self._style_features, self._style = style_features, None
        if self.device.type == "cuda":
            self._style = style_features.half(np.arange(len(dataset))).to(device)

    def batch(self, indices, length=None, spans=None):
        """The lines `indices` (B,) as a `Batch`, padded to `length` points, or to that of the longest rounded up to a multiple of 32.

        spans: (B, 4) of `Excerpts`, what to take of each; None for all. An excerpt begins with the first offset of its line.
        Padding is offset (0, 0) with the pen up, and token 0.
        """
        spans = self._whole[indices] if spans is None else spans
        lengths = spans[:, 1] - spans[:, 0]
        length = length or bucket_length(lengths)
        if self._style is None:
            style = self._style_features[self.style_lines[indices]]
        else:
            style = self._style[torch.from_numpy(self.style_lines[indices]).to(self.device, non_blocking=True)].float()
        row, first, end, first_character, end_character = (
            torch.from_numpy(column).to(self.device, non_blocking=True)[:, None] for column in (indices, *np.ascontiguousarray(spans.T))
        )
        # On a GPU the same width of text for all batches: what is compiled for one batch is good for another. A CPU gains by less.
        width = int((spans[:, 3] - spans[:, 2]).max()) + 1
        width = self.text.shape[1] if self.device.type == "cuda" else min(-(-width // 8) * 8, self.text.shape[1])
        points, characters = (torch.arange(size, device=self.device) for size in (length, width))
        at = (first + points).clamp(max=FULL_LENGTH - 1)
        at[:, 0] = 0
        inside = first + points < end
        text = self.text[row, (first_character + characters).clamp(max=self.text.shape[1] - 1)]
        text_end = end_character - first_character
        places = None if self._places is None else torch.where(inside, self._places[row, at.clamp(min=first)] - first_character, torch.nan)
        return Batch(
            self.offsets[row, at] * inside[..., None],
            torch.where(inside, self.pen_up[row, at], 1.0)[..., None],
            torch.where(characters < text_end, text, torch.where(characters == text_end, tokenizer.END, tokenizer.PADDING)),
            style,
            torch.from_numpy(lengths.astype(np.int64)),
            places,
        )


def bucket_length(lengths, extra=0.0):
    """The points that lines of these lengths (B,) are padded to: those of the longest, with a fraction `extra` more, rounded up to a multiple of 32;
    at most 488."""
    return min(-(-int(lengths.max() * (1 + extra)) // BUCKET_UNIT) * BUCKET_UNIT, FULL_LENGTH)


def batch_order(lengths, batch_size, seed, epoch, bucketed=True):
    """Which lines go into which batch in an epoch: a list of index arrays of `batch_size` each; the few left over sit this epoch out.

    lengths: (n,) points of each line.   bucketed: put lines of like length together, within random groups of 50 batches.
    The order depends on the arguments alone. Raises HwdiffError when there are fewer lines than make one batch.
    """
    if len(lengths) < batch_size:
        raise HwdiffError(f"batch size {batch_size}: the dataset's split has only {len(lengths)} lines; choose a smaller batch")
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(lengths))
    if bucketed:
        group = BUCKET_BATCHES * batch_size
        groups = [order[start : start + group] for start in range(0, len(order), group)]
        order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in groups])
        # Drop the left-over lines at random, not always the longest.
        left_over = len(order) % batch_size
        order = np.delete(order, generator.choice(len(order), left_over, replace=False))
    batches = [order[start : start + batch_size] for start in range(0, len(order) - batch_size + 1, batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]
