"""Features of handwriting made by hand: slant, size, curvature, spacing. No network has a part in them.

So they can tell what the style features cannot: whether a network follows the style that it was conditioned
on. All are free of the line's scale and of the pen's speed: ink is measured in heights of the line, and its
points are set anew at even distances.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from hwdiff.ink.ink import Ink

STEP = 0.05  # between the points that are set anew, in heights of the line
MANY = 2000  # points that the height is taken of
TURN_STEPS = 6  # between the two directions of a wide turn: about a quarter of a small letter
CORNER = np.pi / 3  # a turn within one step that counts as a corner
DOT = 0.1  # what is shorter, in heights of the line, is a dot
DIRECTIONS, TURNS = 16, 8  # bins of the directions of the ink, and of its wide turns
# What the numbers of a line are, in groups.
GROUPS = {
    "slant": ("mean", "sd"),
    "curvature": ("size", "to the left", "corners"),
    "size of strokes": ("height", "sd", "width", "sd", "length", "sd"),
    "zones": ("ascenders", "descenders", "body", "middle", "slope of the line"),
    "spacing": ("gap", "sd", "word gap", "sd", "rise", "sd"),
    "letters": ("strokes", "dots", "width", "ink"),
    "directions": tuple(map(str, range(DIRECTIONS))),
    "turns": tuple(map(str, range(TURNS))),
}
COUNT = sum(map(len, GROUPS.values()))


def handmade_features(inks: Sequence[Ink]) -> np.ndarray:
    """Hand-made features of inks, in the order of `GROUPS`.

    slant: of what is drawn downwards, against the vertical, in radians.
    curvature: of the turns from step to step; corners are the fraction of sharp ones.
    size of strokes: of the logarithms, in heights of the line.
    zones: how the ink is spread over the height, from quantiles; the height is that of eight tenths of it.
    spacing: of the moves with the pen up. The widest to the right, as many as the text has spaces, are gaps
        between words.
    letters: what a letter of the text has, as logarithms.
    directions, turns: roots of the fractions of the ink in each bin, the first about 0, then to the left.
    Returns (n, 50) float64, 0 for an ink without extent.
    """
    return np.array([_features(ink) for ink in inks]).reshape(len(inks), COUNT)


def _features(ink):
    strokes = ink.strokes()
    lengths = [np.hypot(*np.diff(stroke, axis=0).T) for stroke in strokes]
    total = sum(some.sum() for some in lengths)
    if not total:
        return np.zeros(COUNT)
    pairs = list(zip(strokes, lengths, strict=True))
    height, zones = _zones(np.concatenate([_even_points(*one, total / MANY) for one in pairs]))
    points = [_even_points(*one, STEP * height) for one in pairs]
    strokes, lengths = [stroke / height for stroke in strokes], [some / height for some in lengths]
    paths = [_directions(some) for some in points]
    directions = np.concatenate(paths)
    down = _wrapped(directions + np.pi / 2)
    down = down[np.abs(down) < np.pi / 4]
    turns = _turns(paths, 1)
    return np.concatenate(
        (
            _mean_sd(down),
            (np.abs(turns).mean(), turns.mean(), (np.abs(turns) > CORNER).mean()),
            _sizes(strokes, lengths),
            zones,
            _spacing(strokes, ink.text),
            _letters(strokes, lengths, ink.text),
            _fractions(directions, DIRECTIONS),
            _fractions(_turns(paths, TURN_STEPS), TURNS),
        )
    )


def _even_points(stroke, lengths, step):
    """A stroke's points at even distances, of about `step`: (n, 2), at least its ends."""
    way = np.concatenate(([0], np.cumsum(lengths)))
    places = np.linspace(0, way[-1], max(2, round(way[-1] / step) + 1))
    return np.stack([np.interp(places, way, values) for values in stroke.T], axis=1)


def _zones(points):
    """The height of the line, and where its ink lies in it."""
    x, y = (points - points.mean(axis=0)).T
    slope = x @ y / max(x @ x, 1e-9)
    levels = np.quantile(y - slope * x, (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98))
    height = max(levels[5] - levels[1], 1e-2 * np.ptp(points, axis=0).max())
    ascenders, descenders = levels[6] - levels[5], levels[1] - levels[0]
    body, middle = levels[4] - levels[2], levels[3] - levels[1]
    return height, (*(np.array([ascenders, descenders, body, middle]) / height), slope)


def _directions(points):
    moves = np.diff(points, axis=0)
    x, y = moves[moves.any(axis=1)].T  # a dot has none
    return np.arctan2(y, x)


def _turns(paths, steps):
    """The turns between directions so many steps apart, of all strokes; one of 0 where none is so long."""
    turns = [_wrapped(path[steps:] - path[:-steps]) for path in paths]
    return np.concatenate(turns) if any(map(len, turns)) else np.zeros(1)


def _sizes(strokes, lengths):
    sizes = [(*np.ptp(one, axis=0)[::-1], some.sum()) for one, some in zip(strokes, lengths, strict=True)]
    return np.concatenate([_mean_sd(np.log(size + DOT)) for size in np.transpose(sizes)])


def _spacing(strokes, text):
    moves = np.array([after[0] - before[-1] for before, after in pairwise(strokes)])
    gaps, rises = moves.reshape(-1, 2).T
    words = np.sort(gaps)[-max(1, text.count(" ")) :]
    return np.concatenate([_mean_sd(some) for some in (gaps, words, rises)])


def _letters(strokes, lengths, text):
    totals = np.array([some.sum() for some in lengths])
    width = np.ptp(np.concatenate(strokes)[:, 0])
    dots = np.sum(totals < DOT) + 1
    letters = max(1, len(text.replace(" ", "")))
    return np.log(np.array([len(strokes), dots, width + DOT, totals.sum() + DOT]) / letters)


def _fractions(angles, bins):
    # Straight on, up, down and to the sides lie in the middle of a bin: no rounding moves them to another.
    numbers = np.rint(angles * bins / (2 * np.pi)).astype(int) % bins
    return np.sqrt(np.bincount(numbers, minlength=bins) / max(1, len(angles)))


def _mean_sd(values):
    return (values.mean(), values.std()) if len(values) else (0.0, 0.0)


def _wrapped(angles):
    return (angles + np.pi) % (2 * np.pi) - np.pi
