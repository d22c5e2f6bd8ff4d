"""Pen points to the offsets that the model sees: section 5.1 of Luhman & Luhman 2020, as in their program.

Everything here stays in whole tablet units. Dividing by the standard deviation changes neither which offsets
are merged nor their order, so a line is kept as integers and one scale, and is normalised when it is read.
"""

from collections.abc import Sequence

import numpy as np

MERGE_ROUNDS = 3
MERGE_FRACTION = 0.2


def stroke_starts(lengths: Sequence[int]) -> np.ndarray:
    """Which points begin a stroke, (sum of lengths,) bool, of strokes with `lengths` points."""
    starts = np.zeros(sum(lengths), dtype=bool)
    starts[np.cumsum([0, *lengths])[:-1]] = True
    return starts


def to_offsets(points: np.ndarray, pen_up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets between successive points, y upwards.

    points: (N + 1, 2) integers in tablet units, y downwards.
    pen_up: (N + 1,) bool, True at the first point of each stroke.
    Returns offsets (N, 2) int64 and pen_up (N,) bool, True where the pen was up on the way to the point.
    """
    return np.diff(np.asarray(points, dtype=np.int64), axis=0) * (1, -1), np.array(pen_up[1:], dtype=bool)


def merge_collinear(
    offsets: np.ndarray, rounds: int = MERGE_ROUNDS, fraction: float = MERGE_FRACTION
) -> np.ndarray:
    """Which points are left when the successive offsets that lie most nearly on one line are merged.

    In each round the offsets are paired up, (0, 1), (2, 3), ..., pairs are ranked by |a| + |b| - |a + b|, and
    the best `fraction` of the current length is merged.

    offsets: (N, 2) integers.
    Returns (N,) bool, True where the path still has a point at the end of that offset: about 0.51 N of them.
    """
    ends = np.arange(len(offsets))
    for _ in range(rounds):
        pairs = len(offsets) // 2
        first, second = offsets[0 : 2 * pairs : 2], offsets[1 : 2 * pairs : 2]
        detour = _norm(first) + _norm(second) - _norm(first + second)
        merged = 2 * np.argsort(detour, kind="stable")[: int(len(offsets) * fraction)]
        left = np.ones(len(offsets), dtype=bool)
        left[merged] = False
        offsets = offsets.copy()
        offsets[merged + 1] += offsets[merged]
        offsets, ends = offsets[left], ends[left]
    kept = np.zeros(ends[-1] + 1 if len(ends) else 0, dtype=bool)
    kept[ends] = True
    return kept


def _norm(vectors):
    return np.sqrt(np.einsum("ij,ij->i", vectors, vectors))


def merge(offsets: np.ndarray, pen_up: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The offsets between the points that are kept. A merged offset is a pen-up move if any of its parts was.

    offsets: (N, 2).
    pen_up: (N,) bool.
    kept: (N,) bool, True at the end.
    Returns offsets (M, 2) and pen_up (M,) bool.
    """
    starts = np.concatenate(([0], np.flatnonzero(kept)[:-1] + 1)).astype(int)
    return np.add.reduceat(offsets, starts, axis=0), np.logical_or.reduceat(pen_up, starts)


def scale_of(offsets: np.ndarray) -> float:
    """What offsets (N, 2) are divided by: the standard deviation of all x and y. 0 if nothing moves."""
    return float(offsets.std()) if len(offsets) else 0.0


def split_strokes(offsets: np.ndarray, pen_up: np.ndarray) -> list[np.ndarray]:
    """The strokes of the pen's path: (n, 2) positions of each. A pen-up move begins a new one.

    offsets: (N, 2).
    pen_up: (N,) bool.
    """
    positions = np.cumsum(np.asarray(offsets, dtype=np.float64), axis=0)
    starts = np.flatnonzero(pen_up)
    return [stroke for stroke in np.split(positions, starts) if len(stroke)]


def pad(
    offsets: Sequence[np.ndarray], pen_up: Sequence[np.ndarray], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Stack lines, padded with offset (0, 0) and the pen up.

    offsets: (N, 2) of each line, no N above `length`.
    pen_up: (N,) of each line.
    Returns offsets (B, length, 2) float32 and pen_up (B, length) float32.
    """
    padded_offsets = np.zeros((len(offsets), length, 2), dtype=np.float32)
    padded_pen_up = np.ones((len(offsets), length), dtype=np.float32)
    for row, (line_offsets, line_pen_up) in enumerate(zip(offsets, pen_up, strict=True)):
        padded_offsets[row, : len(line_offsets)] = line_offsets
        padded_pen_up[row, : len(line_pen_up)] = line_pen_up
    return padded_offsets, padded_pen_up
