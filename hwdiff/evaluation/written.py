"""Lines that a generator writes, kept as they come, so that a stopped evaluation can be resumed."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from joblib import delayed

from hwdiff.ink.ink import Ink
from hwdiff.utils.arrays import UNREADABLE, load_npz, save_npz
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.parallel import in_parallel

BATCH_SIZE = 64  # lines that are written, and kept, at once
# The packages and modules on which a line depends that is written.
WRITING_CODE = (
    "utils",
    "ink",
    "data",
    "model",
    "diffusion",
    "evaluation/generation.py",
    "evaluation/written.py",
)

Generator = Callable[[np.ndarray, np.ndarray], list[Ink]]
"""generator(indices, seeds): lines of the dataset written again, each from noise of its own seed."""


def write_lines(
    generate: Generator,
    texts: Sequence[str],
    indices: np.ndarray,
    seed: int,
    *,
    folder: Path | None = None,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Ink], float]:
    """Write lines of a dataset again. Those of about the same length are written together, 64 at most.

    texts: of all lines of the dataset.
    indices: (n,) the lines.   seed: line i of them is written with seed + i.
    folder: where they are kept, and read if they are there. It must be another one for whatever else the
        lines depend on.
    workers: processes that write, of one thread each; with 1 it is this one, with its threads.
    progress(count): called when so many more lines are there.
    Returns the lines, and the seconds that writing them took, those of all workers together.
    """
    order = np.argsort([len(texts[index]) for index in indices], kind="stable")
    parts = [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
    paths = [folder and folder / f"{number:05}.npz" for number in range(len(parts))]
    found = [_read(path, len(part)) if path else None for path, part in zip(paths, parts, strict=True)]

    missing = [part for part, known in zip(parts, found, strict=True) if known is None]
    workers = min(workers, len(missing))
    tasks = (delayed(_timed)(generate, indices[part], seed + part, workers > 1) for part in missing)
    new = in_parallel(tasks, workers) if missing else iter(())

    inks, total = [None] * len(indices), 0.0
    for path, part, known in zip(paths, parts, found, strict=True):
        written, seconds = known or next(new)
        if path and not known:
            _save(path, written, seconds)
        for place, ink in zip(part, written, strict=True):
            inks[place] = ink
        total += seconds
        if progress:
            progress(len(part))
    return inks, total


def _timed(generate, indices, seeds, in_worker):
    if in_worker:  # threads of several workers would wait for one another
        torch.set_num_threads(1)
    began = time.perf_counter()
    return generate(indices, seeds), time.perf_counter() - began


def _save(path, inks, seconds):
    arrays = {"seconds": seconds}
    for number, ink in enumerate(inks):
        arrays |= {
            f"{number}/offsets": ink.offsets,
            f"{number}/pen_up": ink.pen_up,
            f"{number}/text": np.array(ink.text),
            f"{number}/covered": np.array(sorted(ink.covered), dtype=np.int64),
            **{f"{number}/accents/{place}": points for place, points in enumerate(ink.accents)},
        }
    save_npz(path, arrays)


def _read(path, count):
    """The lines of a file, and their seconds; None where there is no such file, or it is not whole."""
    try:
        arrays = load_npz(path)
        seconds = float(arrays["seconds"])
        if not 0 <= seconds < np.inf:
            raise ValueError(f"{seconds} seconds")
        if f"{count}/text" in arrays:
            raise ValueError(f"more than {count} lines")
        return [_ink(arrays, number) for number in range(count)], seconds
    except (*UNREADABLE, HwdiffError):
        return None


def _ink(arrays, number):
    accents = [name for name in arrays if name.startswith(f"{number}/accents/")]
    return Ink(
        arrays[f"{number}/offsets"],
        arrays[f"{number}/pen_up"],
        str(arrays[f"{number}/text"]),
        [arrays[name] for name in accents],
        frozenset(arrays[f"{number}/covered"].tolist()),
    )
