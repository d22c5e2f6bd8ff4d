"""From the dataset on disk to batches of tensors: style features, the order of the lines, padding."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hwdiff.data import images, strokes, tokenizer
from hwdiff.errors import HwdiffError

FULL_LENGTH = 488  # the authors pad every line to this
LENGTH_UNIT = 8  # the network halves the length three times
BUCKET_BATCHES = 50  # lines are sorted by length within this many batches


@dataclass
class Batch:
    """B lines. strokes (B, N, 2) float32, pen_up (B, N, 1) float32, text (B, L) int64, style (B, 14, 1280) float32, lengths (B,) int64."""

    strokes: torch.Tensor
    pen_up: torch.Tensor
    text: torch.Tensor
    style: torch.Tensor
    lengths: torch.Tensor

    def to(self, device):
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))


class StyleFeatures:
    """Style features of the lines of a dataset, computed when they are first needed and kept in half precision in a file beside it.

    dataset: a `Dataset`.   extractor: a `StyleExtractor`.   folder: where the cache lies, by default that of the dataset (36 kB a line).
    The cache's name carries the fingerprints of lines and weights, so that neither can be mistaken for another.
    """

    def __init__(self, dataset, extractor, folder=None):
        self.dataset, self.extractor = dataset, extractor
        self.device = next(extractor.parameters()).device
        name = f"{dataset.path.stem}.style-{dataset.content[:8]}-{images.DRAWING}-{extractor.fingerprint[:8]}.npy"
        self.path = path = Path(folder or dataset.path.parent) / name
        record = np.dtype([("computed", "?"), ("features", "f2", (14, 1280))])
        try:
            if not path.exists():
                # Sparse at first: a line takes room on the disk when its features are written.
                np.lib.format.open_memmap(path, mode="w+", dtype=record, shape=(len(dataset),)).flush()
            self._cache = np.lib.format.open_memmap(path, mode="r+")
        except (OSError, ValueError) as error:
            raise HwdiffError(f"{path}: cannot be used as the cache of style features ({error}); delete it or free some space") from error
        if self._cache.dtype != record or self._cache.shape != (len(dataset),):
            raise HwdiffError(f"{path}: not the cache of style features of {dataset.path}; delete it")

    def missing(self, indices):
        """Those of `indices` (n,) whose features are not in the cache yet, each once."""
        indices = np.unique(indices)
        return indices[~self._cache["computed"][indices]]

    def compute(self, indices, progress=None):
        """Compute what is missing of `indices` (n,); progress(n) is called with the number of lines done since the last call."""
        at_once = 64 if self.device.type == "cuda" else 2  # on a CPU larger batches fall out of its cache
        missing = self.missing(indices)
        for start in range(0, len(missing), at_once):
            chunk = missing[start : start + at_once]
            pixels = np.stack([images.pad_to_width(self.dataset.line_image(index), name=self.dataset.ids[index]) for index in chunk])
            self._cache["features"][chunk] = self.extractor(torch.from_numpy(pixels).to(self.device)).half().cpu().numpy()
            self._cache["computed"][chunk] = True
            if progress:
                progress(len(chunk))
        self._cache.flush()

    def __getitem__(self, indices):
        """Features of the lines `indices` (n,): (n, 14, 1280) float32, in half precision whether computed now or before."""
        if len(self.missing(indices)):
            self.compute(indices)
        return torch.from_numpy(self._cache["features"][indices].astype(np.float32))


def make_batch(dataset, style_features, indices, style_lines, length=None):
    """The lines `indices` as a `Batch`, padded to `length` points, or to that of the longest rounded up to a multiple of 8.

    Padding is offset (0, 0) with the pen up, and token 0.   style_lines: for each line of the dataset the one that gives its style.
    """
    offsets, pen_up = zip(*(dataset.strokes(index) for index in indices), strict=True)
    lengths = dataset.lengths[indices]
    length = length or -(-int(lengths.max()) // LENGTH_UNIT) * LENGTH_UNIT
    padded_offsets, padded_pen_up = strokes.pad(offsets, pen_up, length)
    return Batch(
        torch.from_numpy(padded_offsets),
        torch.from_numpy(padded_pen_up)[..., None],
        torch.from_numpy(tokenizer.pad([dataset.tokens(index) for index in indices])),
        style_features[style_lines[indices]],
        torch.from_numpy(lengths.astype(np.int64)),
    )


def batch_order(lengths, batch_size, seed, epoch, bucketed=True):
    """Which lines go into which batch in an epoch: a list of index arrays of `batch_size` each; the few left over sit this epoch out.

    lengths: (n,) points of each line.   bucketed: put lines of like length together, within random groups of 50 batches.
    The order depends on the arguments alone. Raises HwdiffError when there are fewer lines than make one batch.
    """
    if len(lengths) < batch_size:
        raise HwdiffError(f"batch size {batch_size}: the dataset's part has only {len(lengths)} lines; choose a smaller batch")
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
