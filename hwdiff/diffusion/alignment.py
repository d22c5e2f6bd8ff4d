"""Which points of an ink were written for which character, told from the attention."""

from dataclasses import dataclass

import numpy as np

from hwdiff.ink.ink import Ink
from hwdiff.utils.errors import HwdiffError

LATE = 0.5  # fraction of the steps, the last ones, whose attention is taken: the first see only noise
SEEN = 0.25  # fraction of a cell's attention to the characters that makes it part of a character
# What columns of `Alignment.table` are called for a person, where that is not their key.
TITLES = {
    "first_point": "first point",
    "last_point": "last point",
    "fraction": "largest fraction of a cell's attention to the characters",
}


@dataclass
class Alignment:
    """The attention of an ink to its text.

    text: what the ink is meant to say, L characters.
    points: how many points of the ink a cell has; the last may have fewer.
    weights: (M, L) fractions of each cell's attention to the characters. A row adds up to 1.
    """

    text: str
    points: int
    weights: np.ndarray

    @property
    def places(self) -> np.ndarray:
        """The character that each cell is about, (M,) float: the mean of their numbers by attention."""
        return self.weights @ np.arange(len(self.text))

    @property
    def monotonicity(self) -> float:
        """The fraction of the way of `places` that goes forward.

        1 for ink written from left to right, about 0.5 for no order at all.
        """
        steps = np.diff(self.places)
        way = np.abs(steps).sum()
        return float(np.clip(steps, 0, None).sum() / way) if way else 0.0

    @property
    def sharpness(self) -> float:
        """The mean over the cells of the largest fraction.

        1 where each cell looks at one character, 1 / L where all look everywhere.
        """
        return float(self.weights.max(axis=1, initial=0).mean()) if len(self.weights) else 0.0

    @property
    def coverage(self) -> float:
        """The fraction of the letters (all but spaces) that some cell belongs to."""
        return float(np.mean(self.runs[letters_of(self.text)] > 0))

    @property
    def runs(self) -> np.ndarray:
        """How many separate pieces of ink belong to each character: 0 if skipped, 2 or more if repeated.

        (L,) int. A cell belongs to the character with the largest fraction, and to any other with a quarter
        or more.
        """
        mine = self._mine()
        starts = mine & ~np.concatenate((np.zeros((1, mine.shape[1]), dtype=bool), mine[:-1]))
        return starts.sum(axis=0)

    def _mine(self):
        mine = self.weights >= SEEN
        mine[np.arange(len(mine)), self.weights.argmax(axis=1)] = True
        return mine

    def owners(self, count: int) -> np.ndarray:
        """The character that each of the first `count` points belongs to, (count,): the largest fraction."""
        return np.repeat(self.weights.argmax(axis=1), self.points)[:count]

    def table(self, count: int) -> list[dict]:
        """A row for each character of an ink of `count` points.

        number, character.
        first_point, last_point: of the ink that belongs to it, None if it was skipped.
        fraction: the largest of a cell.
        skipped, repeated: whether no piece, or more than one piece of ink belongs to it. A space is never
            skipped: it needs no ink.
        """
        rows, mine = [], self._mine()
        for number, (character, runs) in enumerate(zip(self.text, self.runs.tolist(), strict=True)):
            cells = np.flatnonzero(mine[:, number])
            rows.append(
                {
                    "number": number,
                    "character": character,
                    "first_point": int(cells[0]) * self.points if len(cells) else None,
                    "last_point": min((int(cells[-1]) + 1) * self.points, count) - 1 if len(cells) else None,
                    "fraction": float(self.weights[:, number].max(initial=0)),
                    "skipped": runs == 0 and character != " ",
                    "repeated": runs > 1,
                }
            )
        return rows

    @property
    def scores(self) -> dict[str, float]:
        """What a line is summed up in: monotonicity, coverage, sharpness, and:

        skips: the fraction of the letters that `places` leaps over: between two cells, and more than half a
            character from either.
        repeats: the fraction to which more than one piece of ink belongs.
        """
        letters, places, numbers = letters_of(self.text), self.places, np.arange(len(self.text))
        leapt = (numbers > places[:-1, None] + 0.5) & (numbers < places[1:, None] - 0.5)
        return {
            "monotonicity": self.monotonicity,
            "coverage": self.coverage,
            "sharpness": self.sharpness,
            "skips": float(leapt.any(axis=0)[letters].mean()),
            "repeats": float((self.runs > 1)[letters].mean()),
        }


def alignment_of(ink: Ink, weights: np.ndarray, length: int) -> Alignment:
    """The alignment of an ink that was written with some attention.

    ink: trimmed.
    weights: (heads, M, L or more).
    length: how many points were written, those of the padding too.
    Raises HwdiffError when the ink is empty or has no text: nothing belongs to anything then.
    """
    if not len(ink) or not ink.text.strip():
        raise HwdiffError(
            f"alignment: ink of {len(ink)} points with the text {ink.text!r}; some of both is needed"
        )
    weights = np.asarray(weights, dtype=np.float64)
    points = length // weights.shape[1]
    mean = weights.mean(axis=0)[: -(-len(ink) // points), : len(ink.text)]
    return Alignment(ink.text, points, mean / np.maximum(mean.sum(axis=1, keepdims=True), 1e-12))


def is_late(t: int, first: int) -> bool:
    """Whether attention at step t tells which ink belongs to which character.   first: the noisiest step."""
    return t <= max(1, LATE * first)


def letters_of(text: str) -> np.ndarray:
    """The numbers of the characters that are not spaces, (n,) int."""
    return np.array([number for number, character in enumerate(text) if character != " "])


def token_names(text: str, tokens: int) -> list[str]:
    """What the first `tokens` tokens of a text are called in figures: a space can be seen."""
    return ["␣" if character == " " else character for character in text] + ["end"] * (tokens - len(text))


def boundaries_of(aligned: Alignment, count: int) -> np.ndarray:
    """Where each letter but the first begins by the attention: (number of letters - 1,) float, in points.

    A letter begins where the mean attended character first passes the middle between it and the letter
    before, or after all `count` points.
    """
    letters = letters_of(aligned.text)
    places = np.maximum.accumulate(aligned.places)
    middles = aligned.points * (np.arange(len(places)) + 0.5)
    # A point before and one after all others, where no letter and every letter has begun.
    places = np.concatenate(([-1.0], places, [len(aligned.text)]))
    middles = np.concatenate(([0.0], np.minimum(middles, count), [float(count)]))
    first_after = np.searchsorted(places, (letters[1:] + letters[:-1]) / 2)
    low, high = places[first_after - 1], places[first_after]
    way = ((letters[1:] + letters[:-1]) / 2 - low) / np.maximum(high - low, 1e-12)
    return middles[first_after - 1] + way * (middles[first_after] - middles[first_after - 1])
