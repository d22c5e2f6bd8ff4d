"""Accents, which the network has never seen: drawn over the letters that it writes, in size and slant."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hwdiff.data.characters import BELOW, THROUGH
from hwdiff.diffusion.alignment import Alignment, boundaries_of, letters_of
from hwdiff.ink.ink import Ink

GAP = 0.25  # between a letter and its accent, in heights of a small letter
SMALL = set("aceimnorsuvwxz")  # letters as high as an x
LOW = set("gjpqy")  # as high, with a descender
DOTTED = set("ij")
DOT_POINTS, DOT_SIZE = 8, 0.5  # at most, of a dot: points, and heights of a small letter


def _arc(start, end, width, height, centre):
    """Points on an ellipse, angles in turns."""
    angles = 2 * np.pi * np.linspace(start, end, 8)
    return np.stack((width * np.cos(angles), height * np.sin(angles)), axis=1) + centre


# Strokes of each mark in heights of a small letter. Those above a letter stand on y = 0, those below hang
# from it, and those through it have their middle there, with the letter 1 high.
_x = np.linspace(-1, 1, 7)
SHAPES: dict[str, list[np.ndarray]] = {
    "\u0300": [np.array([(-0.22, 0.36), (-0.03, 0.18), (0.16, 0.0)])],
    "\u0301": [np.array([(0.22, 0.36), (0.03, 0.18), (-0.16, 0.0)])],
    "\u0302": [np.array([(-0.28, 0.0), (-0.14, 0.16), (0.0, 0.32), (0.14, 0.16), (0.28, 0.0)])],
    "\u0303": [np.stack((0.34 * _x, 0.1 - 0.1 * np.sin(np.pi * _x)), axis=1)],
    "\u0304": [np.array([(-0.3, 0.08), (0.0, 0.08), (0.3, 0.08)])],
    "\u0306": [_arc(0.5, 1.0, 0.28, 0.26, (0, 0.26))],
    "\u0307": [np.array([(0.0, 0.1)])],
    "\u0308": [np.array([(-0.2, 0.1)]), np.array([(0.2, 0.1)])],
    "\u030a": [_arc(0.25, 1.25, 0.16, 0.16, (0, 0.16))],
    "\u030b": [np.array([(x + 0.14, 0.34), (x - 0.06, 0.0)]) for x in (-0.14, 0.2)],
    "\u030c": [np.array([(-0.28, 0.32), (-0.14, 0.16), (0.0, 0.0), (0.14, 0.16), (0.28, 0.32)])],
    "\u0326": [np.array([(0.06, -0.16), (0.02, -0.3), (-0.08, -0.44)])],
    "\u0327": [np.concatenate(([(0.0, 0.0)], _arc(0.25, -0.3, 0.16, 0.15, (0, -0.25))))],
    "\u0328": [_arc(0.25, 0.85, 0.16, 0.18, (0.16, -0.18))],
    "\u0335": [np.array([(-0.5, 0.22), (0.0, 0.22), (0.5, 0.22)])],
    "\u0337": [np.array([(-0.5, -0.12), (0.0, 0.0), (0.5, 0.12)])],
    "\u0338": [np.array([(-0.5, -0.6), (0.0, 0.0), (0.5, 0.6)])],
}


def draw_accents(ink: Ink, aligned: Alignment, accents: Sequence[tuple[int, str]]) -> Ink:
    """The ink with accents over its letters. One over an i or a j takes the place of its dot.

    aligned: of the ink; attention tells where a letter is.
    accents: (number of the letter, combining mark), as of `data.characters.Spelling`. One of a letter that
        was not written is left out.
    """
    strokes, dots = [], set()
    points = np.cumsum(ink.offsets, axis=0, dtype=np.float64)
    letters = list(letters_of(aligned.text))
    bounds = np.round([0, *boundaries_of(aligned, len(ink)), len(ink)]).astype(int)
    parts = {}
    for letter, start, end in zip(letters, bounds[:-1], bounds[1:], strict=True):
        part = slice(start, max(end, start + 1))
        drawn = points[part][~ink.pen_up[part]]
        if start < len(points):  # else it was not written: the ink ends before it
            parts[letter] = drawn if len(drawn) else points[part]
    height, slant = _small_height(aligned.text, parts, points), _slant(ink)
    stacked = {}
    for letter, mark in accents:
        if letter not in parts:
            continue
        character = aligned.text[letter]
        middle, low, high = _box(character, parts[letter], height)
        shapes, size = SHAPES[mark], np.array((height, height))
        if mark in THROUGH:
            y, size[1] = (low + high) / 2, high - low
        elif mark in BELOW:
            y = low
        else:
            y = stacked.get(letter, high + GAP * height)
            stacked[letter] = y + height * (max(shape[:, 1].max() for shape in shapes) + GAP / 2)
            if character in DOTTED:
                dots |= _dot(ink, middle, high, height)
        for shape in shapes:
            at = shape * size + (0, y - (low + high) / 2)
            strokes.append(at + (middle, (low + high) / 2) + slant * at[:, 1:] * (1, 0))
    return replace(ink, accents=strokes, covered=frozenset(dots))


def _small_height(text, parts, points):
    """The height of an x, from the letters that are as high."""
    heights = [np.ptp(part[:, 1]) for letter, part in parts.items() if text[letter] in SMALL]
    return float(np.median(heights)) if heights else np.ptp(points[:, 1]) / 2


def _slant(ink):
    """How far the ink leans to the right on its way up: the mean of its upright strokes."""
    along, up = ink.offsets[~ink.pen_up].T
    upright = np.abs(up) > np.abs(along)
    way = np.abs(up[upright]).sum()
    return float((along * np.sign(up))[upright].sum() / way) if way else 0.0


def _box(character, part, height):
    """The middle, bottom and top of a letter: (x, y, y)."""
    # A bit of a neighbour may be among its points: neither the first and last count, nor the highest.
    quarter = len(part) // 4
    inner = part[quarter : len(part) - quarter, 0]
    x = (inner.min() + inner.max()) / 2
    if character in SMALL | LOW:
        middle = np.median(part[:, 1])
        if character in LOW:
            middle = np.percentile(part[:, 1], 90) - height / 2
        return x, middle - height / 2, middle + height / 2
    return x, part[:, 1].min(), part[:, 1].max()


def _dot(ink, x, y, height):
    """The number of the dot over a letter, in a set; an empty set if none is found."""
    found = {}
    for number, stroke in enumerate(ink.strokes()):
        middle = stroke.mean(axis=0)
        if (
            len(stroke) <= DOT_POINTS
            and np.ptp(stroke, axis=0).max() < DOT_SIZE * height
            and abs(middle[0] - x) < height
            and middle[1] > y
        ):
            found[abs(middle[0] - x)] = number
    return {found[min(found)]} if found else set()
