"""Ink corrupted on purpose, in the ways in which a generator fails: what a measure must notice."""

import numpy as np

from hwdiff.evaluation.error_rates import legibility, letters, recognize
from hwdiff.ink.ink import Ink
from hwdiff.utils.errors import HwdiffError


def without_letters(ink, recognition, fraction, seed=0):
    """`ink` with a fraction of its letters (all but blanks) left out and the gap closed. Its text still has them. At least one goes."""
    return _rearranged(ink, recognition, fraction, seed, copies=0)


def with_doubled_letters(ink, recognition, fraction, seed=0):
    """`ink` with a fraction of its letters (all but blanks) written twice. Its text has them once. At least one is doubled."""
    return _rearranged(ink, recognition, fraction, seed, copies=2)


def _rearranged(ink, recognition, fraction, seed, copies):
    bounds = letters(ink, recognition)
    candidates = np.flatnonzero([character != " " for character in recognition.text])
    count = min(len(candidates), max(1, round(fraction * len(candidates))))
    chosen = np.random.default_rng(seed).choice(candidates, count, replace=False)
    pieces = [np.arange(bounds[i], bounds[i + 1]) for i in range(len(recognition.text)) for _ in range(copies if i in chosen else 1)]
    points = np.concatenate([np.zeros(0, dtype=int), *pieces])
    return Ink(ink.offsets[points], ink.pen_up[points], ink.text)


def with_more_ink(ink, other, fraction):
    """`ink` with the first `fraction` of another's points written after its text."""
    more = other.trimmed()
    count = round(fraction * len(more))
    gap = np.array([[2 * np.abs(ink.offsets).max(initial=0), 0]], dtype=np.float32)
    offsets = np.concatenate((ink.offsets, gap, more.offsets[1:count]))
    return Ink(offsets, np.concatenate((ink.pen_up, [True], more.pen_up[1:count])), ink.text)


def with_scaled_end(ink, factor):
    """`ink` whose second half is `factor` times as large as its first."""
    offsets = ink.offsets.copy()
    offsets[len(ink) // 2 :] *= factor
    return Ink(offsets, ink.pen_up, ink.text)


def with_raised_end(ink, rise):
    """`ink` whose second half lies `rise` higher, from a pen-up move on: the nearest to the middle."""
    offsets, moves = ink.offsets.copy(), np.flatnonzero(ink.pen_up)
    if len(moves):
        offsets[moves[np.abs(moves - len(ink) // 2).argmin()], 1] += rise
    return Ink(offsets, ink.pen_up, ink.text)


def with_resting_pen(ink, fraction):
    """`ink` with points at its end at which the pen stays where it is, on the paper: `fraction` as many as it has."""
    count = round(fraction * len(ink))
    return Ink(np.concatenate((ink.offsets, np.zeros((count, 2)))), np.concatenate((ink.pen_up, np.zeros(count, dtype=bool))), ink.text)


def with_jitter(ink, size, seed=0):
    """`ink` with normal noise of standard deviation `size` on each offset."""
    noise = np.random.default_rng(seed).normal(0, size, ink.offsets.shape)
    return Ink(ink.offsets + noise, ink.pen_up, ink.text)


def with_piled_words(ink, recognition):
    """`ink` with each word on top of the first: where a blank was read the pen goes back to where the line began."""
    bounds, offsets = letters(ink, recognition), ink.offsets.copy()
    for number in [place for place, character in enumerate(recognition.text) if character == " "]:
        at = bounds[number]
        offsets[at, 0] = offsets[0, 0] - offsets[:at, 0].sum()
    return Ink(offsets, ink.pen_up, ink.text)


CORRUPTIONS = {  # of an ink, its recognition, another ink and a seed
    "1 letter in 10 missing": lambda ink, recognition, other, seed: without_letters(ink, recognition, 0.1, seed),
    "3 letters in 10 missing": lambda ink, recognition, other, seed: without_letters(ink, recognition, 0.3, seed),
    "1 letter in 10 doubled": lambda ink, recognition, other, seed: with_doubled_letters(ink, recognition, 0.1, seed),
    "3 letters in 10 doubled": lambda ink, recognition, other, seed: with_doubled_letters(ink, recognition, 0.3, seed),
    "a tenth of another line after the text": lambda ink, recognition, other, seed: with_more_ink(ink, other, 0.1),
    "half of another line after the text": lambda ink, recognition, other, seed: with_more_ink(ink, other, 0.5),
    "second half twice as large": lambda ink, recognition, other, seed: with_scaled_end(ink, 2),
    "second half four times as large": lambda ink, recognition, other, seed: with_scaled_end(ink, 4),
    "second half raised by 3 standard deviations": lambda ink, recognition, other, seed: with_raised_end(ink, 3),
    "second half raised by 10 standard deviations": lambda ink, recognition, other, seed: with_raised_end(ink, 10),
    "the pen resting on the paper at the end": lambda ink, recognition, other, seed: with_resting_pen(ink, 1.0),
    "jitter, 0.1 standard deviations": lambda ink, recognition, other, seed: with_jitter(ink, 0.1, seed),
    "jitter, 0.4 standard deviations": lambda ink, recognition, other, seed: with_jitter(ink, 0.4, seed),
    "words on top of one another": lambda ink, recognition, other, seed: with_piled_words(ink, recognition),
}


def corrupted_rates(inks, recognizer, groups=None, seed=0):
    """Yields (what was done to the ink, character error rate as a `Rate`) for each of CORRUPTIONS.

    inks: at least two, trimmed.   groups: see `legibility`.   seed: of what is chosen and jittered, another one for each line.
    Raises HwdiffError when there are fewer than two.
    """
    if len(inks) < 2:
        raise HwdiffError(f"corrupted ink: {len(inks)} lines, but one is corrupted with another's ink; give at least two")
    recognitions = recognize(inks, recognizer)
    for name, corrupt in CORRUPTIONS.items():
        corrupted = [
            corrupt(ink, recognition, inks[number - 1], (seed, number))
            for number, (ink, recognition) in enumerate(zip(inks, recognitions, strict=True))
        ]
        yield name, legibility(corrupted, recognizer, groups=groups).cer
