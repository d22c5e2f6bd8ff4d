"""A line of handwriting, and which lines are used: the same for every source of them."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from hwdiff.ink import images, strokes

NOTHING_TO_WRITE = "text in which nothing can be written"  # why a line is left out
MAX_POINTS, MAX_TOKENS = 488, 50  # of a line, to which the authors pad every one


@dataclass
class Line:
    """One line of handwriting, as recorded.

    offsets: (N, 2) int16 between successive points in tablet units, y upwards.
    pen_up: (N,) bool, True where the pen was up on the way to the point.
    kept: (N,) bool, the points left after merging.
    image: (96, W) uint8, the official line image, or None.
    characters: (N,) int16, the number in the text of the character that each point was written for, or None.
    """

    id: str
    form: str
    text: str
    offsets: np.ndarray
    pen_up: np.ndarray
    kept: np.ndarray
    image: np.ndarray | None = None
    characters: np.ndarray | None = None


@dataclass
class Report:
    """What was left out and why: a count for each reason, with the first few names."""

    left_out: Counter = field(default_factory=Counter)
    examples: dict = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Count `name` among what was left out for `reason`."""
        name = name.encode("utf-8", "backslashreplace").decode()  # of a file, it may be anything
        self.left_out[reason] += 1
        names = self.examples.setdefault(reason, [])
        if len(names) < 3:
            names.append(name)


@dataclass
class Limits:
    """Which lines are dropped: those beyond these.

    max_offset: in standard deviations of a line's offsets.
    long_offsets: where it is measured from, their mean ("paper") or 0 ("released").
    """

    max_points: int = MAX_POINTS
    max_offset: float = 15.0
    long_offsets: str = "paper"
    max_tokens: int = MAX_TOKENS
    max_image_width: int = images.MAX_WIDTH


def within_limits(
    points: np.ndarray,
    first: np.ndarray,
    text: str,
    *,
    limits: Limits,
    image: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of a pen and their text to the arrays of a `Line`.

    points: (N + 1, 2) integers in tablet units, y downwards.
    first: (N + 1,) bool, True at the first point of each stroke.
    image: (96, W) uint8, the official line image if there is one.
    Returns offsets, pen_up and kept, which `Line` describes.
    Raises ValueError with the reason when the line is beyond the limits.
    """
    offsets, pen_up = strokes.to_offsets(points, first)
    kept = strokes.merge_collinear(offsets)
    merged, _ = strokes.merge(offsets, pen_up, kept)
    if len(merged) > limits.max_points:
        raise ValueError(f"more than {limits.max_points} points")
    if strokes.scale_of(merged) == 0:
        raise ValueError("strokes without extent")
    centre = merged.mean() if limits.long_offsets == "paper" else 0
    if np.abs(merged - centre).max() > limits.max_offset * strokes.scale_of(merged):
        raise ValueError(f"an offset above {limits.max_offset:g} standard deviations")
    if len(text) + 1 >= limits.max_tokens:
        raise ValueError(f"{limits.max_tokens} or more tokens")
    canvas = images.canvas_size(np.ptp(points, axis=0))
    if canvas[0] * canvas[1] > images.MAX_PIXELS:
        raise ValueError("strokes that cover far more than a line")
    if image is not None:
        width = image.shape[1]
    else:
        width = images.estimated_width(np.ptp(points, axis=0))
        if abs(width / limits.max_image_width - 1) < 0.05:  # so near to the limit that only drawing tells
            drawn = images.draw_line(drawable_strokes(offsets, pen_up))
            width = images.scaled_width(images.trim(drawn).shape)
    if width >= limits.max_image_width:
        raise ValueError(f"a line image of {limits.max_image_width} pixels or more in width")
    return offsets.astype(np.int16), pen_up, kept


def drawable_strokes(offsets: np.ndarray, pen_up: np.ndarray) -> list[np.ndarray]:
    """The strokes as the tablet recorded them: (n, 2) positions of each in tablet units, y downwards.

    offsets: (N, 2), as in a `Line`.
    pen_up: (N,) bool.
    The first point is at (0, 0).
    """
    with_first = np.concatenate((np.zeros((1, 2), dtype=np.int64), offsets * np.array((1, -1))))
    return strokes.split_strokes(with_first, np.concatenate(([True], pen_up)))
