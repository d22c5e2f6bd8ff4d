"""Ink corrupted on purpose, in the ways in which a generator fails: what a measure must notice."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hwdiff.evaluation.error_rates import Rate, Recognition, legibility, letters, recognize
from hwdiff.evaluation.recognizer import Recognizer
from hwdiff.ink.ink import Ink
from hwdiff.utils.errors import HwdiffError

Seed = int | tuple[int, ...]
JITTER = 0.4  # of the corrupted lines of Table 1, in standard deviations of the offsets
COPIES = 10  # of each of the repeated lines of Table 1, which stand for a generator that knows few lines


def without_letters(ink: Ink, recognition: Recognition, fraction: float, *, seed: Seed = 0) -> Ink:
    """`ink` with a fraction of its letters (all but spaces) left out and the gap closed: at least one.

    Its text still has them.
    """
    return _rearranged(ink, recognition, fraction, seed, copies=0)


def with_doubled_letters(ink: Ink, recognition: Recognition, fraction: float, *, seed: Seed = 0) -> Ink:
    """`ink` with a fraction of its letters (all but spaces) written twice: at least one.

    Its text has them once.
    """
    return _rearranged(ink, recognition, fraction, seed, copies=2)


def _rearranged(ink, recognition, fraction, seed, copies):
    bounds = letters(ink, recognition)
    candidates = np.flatnonzero([character != " " for character in recognition.text])
    count = min(len(candidates), max(1, round(fraction * len(candidates))))
    chosen = np.random.default_rng(seed).choice(candidates, count, replace=False)
    pieces = [np.zeros(0, dtype=int)]
    for number in range(len(recognition.text)):
        pieces += [np.arange(bounds[number], bounds[number + 1])] * (copies if number in chosen else 1)
    points = np.concatenate(pieces)
    return Ink(ink.offsets[points], ink.pen_up[points], ink.text)


def with_more_ink(ink: Ink, other: Ink, fraction: float) -> Ink:
    """`ink` with the first `fraction` of another's points written after its text."""
    more = other.trimmed()
    count = round(fraction * len(more))
    gap = np.array([[2 * np.abs(ink.offsets).max(initial=0), 0]], dtype=np.float32)
    offsets = np.concatenate((ink.offsets, gap, more.offsets[1:count]))
    return Ink(offsets, np.concatenate((ink.pen_up, [True], more.pen_up[1:count])), ink.text)


def with_scaled_end(ink: Ink, factor: float) -> Ink:
    """`ink` whose second half is `factor` times as large as its first."""
    offsets = ink.offsets.copy()
    offsets[len(ink) // 2 :] *= factor
    return Ink(offsets, ink.pen_up, ink.text)


def with_raised_end(ink: Ink, rise: float) -> Ink:
    """`ink` whose second half lies `rise` higher, from the pen-up move nearest to the middle on."""
    offsets, moves = ink.offsets.copy(), np.flatnonzero(ink.pen_up)
    if len(moves):
        offsets[moves[np.abs(moves - len(ink) // 2).argmin()], 1] += rise
    return Ink(offsets, ink.pen_up, ink.text)


def with_resting_pen(ink: Ink, fraction: float) -> Ink:
    """`ink` followed by `fraction` times as many points, at which the pen rests on the paper."""
    count = round(fraction * len(ink))
    offsets = np.concatenate((ink.offsets, np.zeros((count, 2))))
    return Ink(offsets, np.concatenate((ink.pen_up, np.zeros(count, dtype=bool))), ink.text)


def with_jitter(ink: Ink, size: float, seed: Seed = 0) -> Ink:
    """`ink` with normal noise of standard deviation `size` on each offset."""
    noise = np.random.default_rng(seed).normal(0, size, ink.offsets.shape)
    return Ink(ink.offsets + noise, ink.pen_up, ink.text)


def with_piled_words(ink: Ink, recognition: Recognition) -> Ink:
    """`ink` with each word on top of the first: at a space the pen goes back to where the line began."""
    bounds, offsets = letters(ink, recognition), ink.offsets.copy()
    for number in [place for place, character in enumerate(recognition.text) if character == " "]:
        at = bounds[number]
        offsets[at, 0] = offsets[0, 0] - offsets[:at, 0].sum()
    return Ink(offsets, ink.pen_up, ink.text)


def jittered(inks: Sequence[Ink], size: float, seed: int) -> list[Ink]:
    """All lines with jitter, the same noise for the same seed."""
    if not size:
        return list(inks)
    return [with_jitter(ink, size, seed=(seed, place)) for place, ink in enumerate(inks)]


def repeated(inks: Sequence[Ink]) -> list[Ink]:
    """As many lines, but only a tenth of them, each ten times."""
    return [inks[place % max(1, len(inks) // COPIES)] for place in range(len(inks))]


@dataclass(frozen=True)
class Corruption:
    """A way to corrupt ink.

    title: for a person.
    apply(ink, recognition, other, seed): the corrupted ink. other: another line's ink.
    """

    title: str
    apply: Callable[[Ink, Recognition, Ink, Seed], Ink]


def _missing(fraction):
    return lambda ink, recognition, other, seed: without_letters(ink, recognition, fraction, seed=seed)


def _doubled(fraction):
    return lambda ink, recognition, other, seed: with_doubled_letters(ink, recognition, fraction, seed=seed)


def _more(fraction):
    return lambda ink, recognition, other, seed: with_more_ink(ink, other, fraction)


def _scaled(factor):
    return lambda ink, recognition, other, seed: with_scaled_end(ink, factor)


def _raised(rise):
    return lambda ink, recognition, other, seed: with_raised_end(ink, rise)


def _resting(fraction):
    return lambda ink, recognition, other, seed: with_resting_pen(ink, fraction)


def _jitter(size):
    return lambda ink, recognition, other, seed: with_jitter(ink, size, seed)


def _piled(ink, recognition, other, seed):
    return with_piled_words(ink, recognition)


CORRUPTIONS = {
    "missing_1_in_10": Corruption("1 letter in 10 missing", _missing(0.1)),
    "missing_3_in_10": Corruption("3 letters in 10 missing", _missing(0.3)),
    "doubled_1_in_10": Corruption("1 letter in 10 doubled", _doubled(0.1)),
    "doubled_3_in_10": Corruption("3 letters in 10 doubled", _doubled(0.3)),
    "tenth_of_another": Corruption("a tenth of another line after the text", _more(0.1)),
    "half_of_another": Corruption("half of another line after the text", _more(0.5)),
    "end_scaled_2": Corruption("second half twice as large", _scaled(2)),
    "end_scaled_4": Corruption("second half four times as large", _scaled(4)),
    "end_raised_3": Corruption("second half raised by 3 standard deviations", _raised(3)),
    "end_raised_10": Corruption("second half raised by 10 standard deviations", _raised(10)),
    "resting_pen": Corruption("the pen resting on the paper at the end", _resting(1.0)),
    "jitter_0_1": Corruption("jitter, 0.1 standard deviations", _jitter(0.1)),
    "jitter_0_4": Corruption("jitter, 0.4 standard deviations", _jitter(0.4)),
    "piled_words": Corruption("words on top of one another", _piled),
}


def corrupted_rates(
    inks: Sequence[Ink],
    recognizer: Recognizer,
    groups: Sequence | np.ndarray | None = None,
    *,
    seed: int = 0,
) -> Iterator[tuple[str, Rate]]:
    """Yields (key of CORRUPTIONS, character error rate of the lines so corrupted) for each of them.

    inks: at least two, trimmed.
    groups: as of `legibility`.
    seed: of what is chosen and jittered. Each line is another draw.
    Raises HwdiffError when there are fewer than two.
    """
    if len(inks) < 2:
        raise HwdiffError(
            f"corrupted ink: {len(inks)} lines, but one is corrupted with another's ink; give at least two"
        )
    recognitions = recognize(inks, recognizer)
    for key, corruption in CORRUPTIONS.items():
        corrupted = [
            corruption.apply(ink, recognition, inks[number - 1], (seed, number))
            for number, (ink, recognition) in enumerate(zip(inks, recognitions, strict=True))
        ]
        yield key, legibility(corrupted, recognizer, groups=groups).cer
