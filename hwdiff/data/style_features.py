"""Style features of a dataset's lines, kept in a file beside it."""

import os
from pathlib import Path

import numpy as np
import torch

from hwdiff.ink import images
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write


class StyleFeatures:
    """Style features of the lines of a dataset, computed when they are first needed and kept in half precision in a file beside it.

    dataset: a `Dataset`.   extractor: a `StyleExtractor`.   folder: where the cache lies, by default that of the dataset (36 kB a line).
    line_images: `LineImages` of the dataset, where they are drawn already.
    The cache's name carries the fingerprints of lines and weights, so that neither can be mistaken for another.
    """

    def __init__(self, dataset, extractor, folder=None, line_images=None):
        self.dataset, self.extractor = dataset, extractor
        self.line_image = dataset.line_image if line_images is None else line_images.__getitem__
        self.device = extractor.device
        name = f"{dataset.path.stem}.style-{dataset.fingerprint[:8]}-{images.DRAWING}-{extractor.fingerprint[:8]}.npy"
        self.path = path = Path(folder or dataset.path.parent) / name
        record = np.dtype([("computed", "?"), ("features", "f2", (14, 1280))])
        try:
            if not path.exists():
                with atomic_write(path) as temporary:
                    np.lib.format.open_memmap(temporary, mode="w+", dtype=record, shape=(len(dataset),)).flush()
                    if hasattr(os, "posix_fallocate"):  # a disk that fills up later would end the process without a word; macOS has no such call
                        with open(temporary, "r+b") as file:
                            os.posix_fallocate(file.fileno(), 0, os.path.getsize(temporary))
            self._cache = np.lib.format.open_memmap(path, mode="r+")
        except (OSError, ValueError) as error:
            raise HwdiffError(f"{path}: cannot be used as the cache of style features ({error}); delete it or free some space") from error
        if self._cache.dtype != record or self._cache.shape != (len(dataset),):
            raise HwdiffError(f"{path}: not the cache of style features of {dataset.path}; delete it")

    def missing(self, indices):
        """Those of `indices` (n,) whose features are not in the cache yet, each once."""
        indices = np.unique(indices)
        return indices[~self._cache["computed"][indices]]

    def compute(self, indices, progress=None, stop=None):
        """Compute what is missing of `indices` (n,); progress(n) is called with the number of lines done since the last call.

        stop: a `Stop`; what is done by then is kept.
        """
        missing, batch_size = self.missing(indices), self.extractor.batch_size
        for start in range(0, len(missing), batch_size):
            if stop and stop.reason:
                break
            chunk = missing[start : start + batch_size]
            pixels = np.stack([images.pad_to_width(self.line_image(index), name=self.dataset.ids[index]) for index in chunk])
            self._cache["features"][chunk] = self.extractor(torch.from_numpy(pixels).to(self.device)).half().cpu().numpy()
            self._cache["computed"][chunk] = True
            if progress:
                progress(len(chunk))
        self._cache.flush()

    def half(self, indices):
        """Features of the lines `indices` (n,): (n, 14, 1280) float16, computed now or before."""
        if len(self.missing(indices)):
            self.compute(indices)
        return torch.from_numpy(self._cache["features"][indices])

    def __getitem__(self, indices):
        """Features of the lines `indices` (n,): (n, 14, 1280) float32, in half precision whether computed now or before."""
        return self.half(indices).float()
