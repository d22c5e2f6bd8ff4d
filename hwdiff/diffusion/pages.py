"""Pages of text: longer than a line, wrapped at words, in one handwriting."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwdiff.data.characters import spell
from hwdiff.diffusion.generate import (
    check_text,
    default_length,
    no_text_warnings,
    sample,
    style_features,
    writing_settings,
)
from hwdiff.ink.ink import Ink
from hwdiff.ink.page import SPACE, Layout, Page, place_lines
from hwdiff.model.unet import LENGTH_UNIT, UNet
from hwdiff.utils.errors import HwdiffError

PIECE = 30  # characters that are written at a time: what lines of the training have
CHARACTER_WIDTH = 3.1  # in the unit of offsets, spaces included: a little more than most styles need
MORE_ROOM = 1.3  # times as many points for a piece that used all of its own
SEED_STRIDE = 1_000_003  # between the seeds of two tries of a piece
BATCH_SIZE = 16  # pieces, between two calls of `progress`

IsRight = Callable[[Sequence[Ink]], Sequence[bool]]
"""is_right(inks): whether each says what it is meant to say."""


@dataclass
class Written:
    """A text on pages.

    pages: at least one.
    pieces: how many pieces of lines were written.
    wrong: how many of them were found wrong at first, and how many in the end; None if nobody looked.
    """

    pages: list[Page]
    pieces: int
    wrong: tuple[int, int] | None = None


def wrap(text: str, layout: Layout) -> list[list[str]]:
    """The lines of a text on paper, each as the pieces that are written one by one.

    Line breaks of the text are kept, other white space becomes one space; an empty line has no pieces. A word
    is broken only where it alone is too long. A piece in which nothing can be written is left out.
    """
    room = int((layout.text_width / layout.scale + SPACE) / CHARACTER_WIDTH)
    lines = []
    for paragraph in text.splitlines():
        # Lines of the training have single spaces, and a line on paper begins at the margin in any case.
        for line in _wrap(" ".join(paragraph.split()), room) or [""]:
            # As few pieces as there must be, of about one length.
            count = -(-len(line) // PIECE)
            longest = max(map(len, line.split()), default=0)
            pieces = _wrap(line, max(-(-len(line) // count), min(longest, PIECE))) if count else []
            pieces = pieces if len(pieces) <= count else _wrap(line, PIECE)
            lines.append([piece for piece in pieces if not spell(piece).is_empty])
    return lines


def _wrap(text, width):
    return textwrap.wrap(text, width, break_on_hyphens=False)


def count_pieces(text: str, layout: Layout) -> int:
    """In how many pieces `write_pages` writes a text."""
    return sum(map(len, wrap(text, layout)))


def write_pages(
    network: UNet,
    text: str,
    style: Any = None,
    *,
    layout: Layout | None = None,
    seed: int = 0,
    tries: int = 0,
    is_right: IsRight | None = None,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> Written:
    """Write a text of any length on pages.

    network, style: as of `sample`.
    text: line breaks are kept.
    seed: piece i is written with seed + i.
    tries: how often a piece that `is_right` finds wrong is written again, with other seeds.
    progress: called with the number of pieces written since the last call.
    options: of `sample`, but for length, which each piece has its own.
    Raises HwdiffError as `sample` does.
    """
    if "length" in options:
        raise HwdiffError("length: each piece of a page has its own; leave it out")
    layout = layout or Layout()
    check_text(text, spell(text))
    lines = wrap(text, layout)
    pieces = [piece for line in lines for piece in line]
    how = {"style_extractor": options.pop("style_extractor", "bundled")}
    how["padded"] = options.pop("padded_style", True)
    [features] = style_features(network, style, 1, **how)
    points = writing_settings(network)["points_per_character"]

    # Write all pieces, those of like length together, and again those that needed all the points that they
    # were given.
    inks = [None] * len(pieces)
    by_length = sorted(range(len(pieces)), key=lambda number: len(spell(pieces[number]).text))
    for start in range(0, len(pieces), BATCH_SIZE):
        some = by_length[start : start + BATCH_SIZE]
        seeds = [seed + number for number in some]
        written = _sample(network, [pieces[number] for number in some], features, seed=seeds, **options)
        for number, ink in zip(some, written, strict=True):
            inks[number] = ink
        if progress:
            progress(len(some))

    def whole(ink, number, own):
        """The ink of a piece from the seed `own`, or if it took all its points, another that has more."""
        length = default_length(spell(pieces[number]).text, points)
        if len(ink) < length:
            return ink
        more = int(np.ceil(MORE_ROOM * length / LENGTH_UNIT)) * LENGTH_UNIT
        return _sample(network, pieces[number], features, seed=own, length=more, **options)[0]

    inks = [whole(ink, number, seed + number) for number, ink in enumerate(inks)]

    # Write those again that are read wrong.
    wrong = None
    if is_right:
        left = first = _misread(is_right, inks, range(len(inks)))
        for number_of_try in range(1, tries + 1):
            others = list(inks)
            for number in left:
                own = seed + number + number_of_try * SEED_STRIDE
                [ink] = _sample(network, pieces[number], features, seed=own, **options)
                others[number] = whole(ink, number, own)
            still = _misread(is_right, others, left)
            for number in set(left) - set(still):
                inks[number] = others[number]
            left = still
        wrong = (len(first), len(left))
    written = iter(inks)
    pages = place_lines([[next(written) for _ in line] for line in lines], layout)
    return Written(pages, len(pieces), wrong)


def _sample(*arguments, **options):
    """`sample` without its warnings of the text, which `write_pages` gives for all of it."""
    with no_text_warnings():
        return sample(*arguments, **options)


def _misread(is_right, inks, numbers):
    numbers = list(numbers)
    right = is_right([inks[number] for number in numbers]) if numbers else []
    return [number for number, well in zip(numbers, right, strict=True) if not well]
