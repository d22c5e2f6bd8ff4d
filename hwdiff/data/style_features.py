"""Style features of a dataset's lines, kept in a file beside it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hwdiff.data.dataset import Dataset
from hwdiff.data.line_images import LineImages
from hwdiff.ink import images
from hwdiff.utils.arrays import UNREADABLE
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write
from hwdiff.utils.interrupt import Stop

_MOVE = "copy the dataset to a folder that can be written"


class Extractor(Protocol):
    """What gives style features; see `model.style_encoder.StyleExtractor`."""

    fingerprint: str
    device: torch.device
    batch_size: int

    def __call__(self, pixels: Tensor) -> Tensor: ...


class StyleFeatures:
    """Style features of the lines of a dataset, computed when they are first needed and kept in a file.

    They are kept in half precision (36 kB a line). The file's name carries the fingerprints of lines and
    weights, so that neither can be mistaken for another.

    folder: of the file; by default that of the dataset.
    line_images: of the dataset, if they are drawn already.
    Raises HwdiffError when the file cannot be used.
    """

    def __init__(
        self,
        dataset: Dataset,
        extractor: Extractor,
        folder: str | Path | None = None,
        *,
        line_images: LineImages | None = None,
    ):
        self.dataset, self.extractor = dataset, extractor
        self.line_image = dataset.line_image if line_images is None else line_images.__getitem__
        self.device = extractor.device
        name = f"{dataset.path.stem}.style-{dataset.fingerprint[:8]}-{images.DRAWING}"
        self.path = path = Path(folder or dataset.path.parent) / f"{name}-{extractor.fingerprint[:8]}.npy"
        record = np.dtype([("computed", "?"), ("features", "f2", (14, 1280))])
        try:
            if not path.exists():
                if path.parent.is_dir() and not os.access(path.parent, os.W_OK):
                    raise HwdiffError(f"{path}: cannot be written, and keeps the style features; {_MOVE}")
                with atomic_write(path, replace=False) as temporary:  # processes that train together share it
                    shape = (len(dataset),)
                    np.lib.format.open_memmap(temporary, mode="w+", dtype=record, shape=shape).flush()
                    # Otherwise a disk that fills up later would kill the process without a message.
                    if hasattr(os, "posix_fallocate"):  # macOS lacks it
                        with open(temporary, "r+b") as file:
                            os.posix_fallocate(file.fileno(), 0, os.path.getsize(temporary))
            self._writable = os.access(path, os.W_OK)
            self._cache = np.lib.format.open_memmap(path, mode="r+" if self._writable else "r")
        except UNREADABLE as error:
            found = f"cannot be used as the cache of style features ({error})"
            raise HwdiffError(f"{path}: {found}; delete it or free some space") from error
        if self._cache.dtype != record or self._cache.shape != (len(dataset),):
            raise HwdiffError(f"{path}: not the cache of style features of {dataset.path}; delete it")

    def missing(self, indices: np.ndarray) -> np.ndarray:
        """Those of `indices` (n,) whose features are not in the cache yet, each once."""
        indices = np.unique(indices)
        return indices[~self._cache["computed"][indices]]

    def compute(
        self,
        indices: np.ndarray,
        progress: Callable[[int], None] | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Compute what is missing of the lines `indices` (n,).

        progress(n): called with the number of lines done since the last call.
        stop: ends the computation early; what is done by then is kept.
        Raises HwdiffError when something is missing and the file cannot be written.
        """
        missing, batch_size = self.missing(indices), self.extractor.batch_size
        if not len(missing):
            return
        if not self._writable:
            raise HwdiffError(f"{self.path}: lacks {len(missing)} lines, and cannot be written; {_MOVE}")
        for start in range(0, len(missing), batch_size):
            if stop and stop.reason:
                break
            chunk = missing[start : start + batch_size]
            lines = [(self.line_image(index), self.dataset.ids[index]) for index in chunk]
            pixels = np.stack([images.pad_to_width(line, name=name) for line, name in lines])
            features = self.extractor(torch.from_numpy(pixels).to(self.device))
            self._cache["features"][chunk] = features.half().cpu().numpy()
            self._cache["computed"][chunk] = True
            if progress:
                progress(len(chunk))
        self._cache.flush()

    def half(self, indices: np.ndarray) -> Tensor:
        """Features of the lines `indices` (n,): (n, 14, 1280) float16, computed if they are missing."""
        self.compute(indices)
        return torch.from_numpy(self._cache["features"][indices])

    def __getitem__(self, indices: np.ndarray) -> Tensor:
        """Features of the lines `indices` (n,): (n, 14, 1280) float32, rounded to half precision."""
        return self.half(indices).float()
