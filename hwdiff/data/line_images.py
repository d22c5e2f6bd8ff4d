"""The images of all lines of a dataset in one file beside it, drawn once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hwdiff.data.dataset import Dataset
from hwdiff.ink import images
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write

LINES_PER_TASK = 64


class LineImages:
    """Images of lines, images[i] of line i: (96, W) uint8.

    They are drawn when the file is not there yet (0.1 MB a line). Its name carries the fingerprint of the
    lines and the version of the drawing.

    folder: of the file; by default that of the dataset.
    workers: threads that draw, -1 for one a core.
    progress(n): called with the number of lines drawn since the last call.
    Raises HwdiffError when the file is damaged.
    """

    def __init__(
        self,
        dataset: Dataset,
        folder: str | Path | None = None,
        *,
        workers: int = -1,
        progress: Callable[[int], None] | None = None,
    ):
        self.fingerprint = dataset.fingerprint
        name = f"{dataset.path.stem}.images-{dataset.fingerprint[:8]}-{images.DRAWING}.safetensors"
        self.path = Path(folder or dataset.path.parent) / name
        if not self.path.exists():
            self._draw(dataset, workers, progress)
        try:
            self._file = safe_open(self.path, "np")
            widths, self._pixels = self._file.get_tensor("widths"), self._file.get_slice("pixels")
            if widths.shape != (len(dataset),) or widths.dtype != np.int64 or not (widths > 0).all():
                raise ValueError(f"it has not the widths of {len(dataset)} lines")
            self._starts = np.concatenate(([0], np.cumsum(widths * images.HEIGHT)))
            if self._pixels.get_shape() != [self._starts[-1]] or self._pixels.get_dtype() != "U8":
                raise ValueError(f"{self._pixels.get_shape()} pixels, not {self._starts[-1]}")
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            raise HwdiffError(f"{self.path}: damaged file of line images ({error}); delete it") from error

    def _draw(self, dataset, workers, progress):
        def draw(indices):
            return [dataset.line_image(index) for index in indices]

        # Small tasks, so that progress shows; threads, since a process would need a copy of the dataset.
        starts = range(0, len(dataset), LINES_PER_TASK)
        tasks = [range(start, min(start + LINES_PER_TASK, len(dataset))) for start in starts]
        parallel = Parallel(n_jobs=workers, prefer="threads", return_as="generator")
        drawn = []
        for some in parallel(delayed(draw)(task) for task in tasks):
            drawn += some
            if progress:
                progress(len(some))
        widths = np.array([image.shape[1] for image in drawn], dtype=np.int64)
        pixels = torch.from_numpy(np.concatenate([image.ravel() for image in drawn]))
        with atomic_write(self.path) as temporary:
            save_file({"widths": torch.from_numpy(widths), "pixels": pixels}, temporary)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        start, end = self._starts[index : index + 2]
        return self._pixels[start:end].reshape(images.HEIGHT, -1)
