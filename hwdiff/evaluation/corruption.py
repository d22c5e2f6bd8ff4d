"""Ink spoilt on purpose, in the ways in which a generator fails: what a measure must notice."""

import numpy as np

from hwdiff.ink import Ink


def letters(ink, reading):
    """Which points each character of a reading was read from: (len(text) + 1,) bounds; character i has the points bounds[i] to bounds[i + 1].

    ink: an `Ink`, trimmed.   reading: its `Reading`. A blank has the widest pen-up move to the right between its neighbours. Other bounds lie
    at the pen-up move nearest to the middle between the places at which two characters were told, or without one in the middle.
    """
    places, bounds = reading.points, np.zeros(len(reading.text) + 1, dtype=int)
    for number in range(1, len(reading.text)):
        before, after = places[number - 1], places[number]
        bounds[number] = (before + after + 1) // 2
        moves = np.flatnonzero(ink.pen_up[before + 1 : after + 1]) + before + 1
        if len(moves):
            bounds[number] = moves[np.abs(moves - bounds[number]).argmin()]
    for number in [place for place, character in enumerate(reading.text) if character == " "]:  # neither the first nor the last is one
        before, after = places[number - 1], places[number + 1]
        moves = np.flatnonzero(ink.pen_up[before + 1 : after + 1]) + before + 1
        if len(moves):
            widest = moves[ink.offsets[moves, 0].argmax()]
            bounds[number : number + 2] = widest, widest + 1
    bounds[-1] = len(ink)
    return np.maximum.accumulate(bounds)


def without_letters(ink, reading, share, seed=0):
    """`ink` with a share of its letters left out and the gap closed. Its text still has them. At least one goes."""
    return _rearranged(ink, reading, share, seed, copies=0)


def with_doubled_letters(ink, reading, share, seed=0):
    """`ink` with a share of its letters written twice. Its text has them once. At least one is doubled."""
    return _rearranged(ink, reading, share, seed, copies=2)


def _rearranged(ink, reading, share, seed, copies):
    bounds = letters(ink, reading)
    candidates = np.flatnonzero([character != " " for character in reading.text])
    count = min(len(candidates), max(1, round(share * len(candidates))))
    chosen = np.random.default_rng(seed).choice(candidates, count, replace=False)
    pieces = [np.arange(bounds[i], bounds[i + 1]) for i in range(len(reading.text)) for _ in range(copies if i in chosen else 1)]
    points = np.concatenate([np.zeros(0, dtype=int), *pieces])
    return Ink(ink.offsets[points], ink.pen_up[points], ink.text)


def with_more_ink(ink, other, share):
    """`ink` with the first `share` of another's points written after its text."""
    more = other.trimmed()
    count = round(share * len(more))
    gap = np.array([[2 * np.abs(ink.offsets).max(), 0]], dtype=np.float32)
    offsets = np.concatenate((ink.offsets, gap, more.offsets[1:count]))
    return Ink(offsets, np.concatenate((ink.pen_up, [True], more.pen_up[1:count])), ink.text)


def with_scaled_end(ink, factor):
    """`ink` whose second half is `factor` times as large as its first."""
    offsets = ink.offsets.copy()
    offsets[len(ink) // 2 :] *= factor
    return Ink(offsets, ink.pen_up, ink.text)


def with_jitter(ink, size, seed=0):
    """`ink` with normal noise of standard deviation `size` on each offset."""
    noise = np.random.default_rng(seed).normal(0, size, ink.offsets.shape)
    return Ink(ink.offsets + noise, ink.pen_up, ink.text)


def with_piled_words(ink, reading):
    """`ink` with each word on top of the first: where a blank was read the pen goes back to where the line began."""
    bounds, offsets = letters(ink, reading), ink.offsets.copy()
    for number in [place for place, character in enumerate(reading.text) if character == " "]:
        at = bounds[number]
        offsets[at, 0] = offsets[0, 0] - offsets[:at, 0].sum()
    return Ink(offsets, ink.pen_up, ink.text)
