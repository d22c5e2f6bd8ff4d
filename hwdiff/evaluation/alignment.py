"""Alignment: which piece of the ink was written for which character, told from the attention; and what that has to do with spelling."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from hwdiff.diffusion.tracing import trace
from hwdiff.evaluation.error_rates import legibility
from hwdiff.evaluation.generation import styles_of
from hwdiff.evaluation.recognizer import load_recognizer
from hwdiff.utils.errors import HwdiffError

SEEN = 0.25  # fraction of a cell's attention that makes it part of a character
LATE = 0.5  # the fraction of the steps, the last ones, of which the attention is taken: before, there is only noise to be looked at from


@dataclass
class Alignment:
    """The attention of an ink to its text.

    text: what the ink is meant to say, L characters.   points: how many points of the ink a cell has; the last may have fewer.
    weights: (M, L) fraction of each cell's attention that goes to each character; a row adds up to 1.
    """

    text: str
    points: int
    weights: np.ndarray

    @property
    def places(self):
        """The character that each cell is about, (M,) float: the mean of their numbers by attention."""
        return self.weights @ np.arange(len(self.text))

    @property
    def monotonicity(self):
        """How much of the way that `places` goes is forward: 1 for ink written from left to right, about 0.5 for no order at all."""
        steps = np.diff(self.places)
        way = np.abs(steps).sum()
        return float(np.clip(steps, 0, None).sum() / way) if way else 0.0

    @property
    def sharpness(self):
        """The mean over the cells of the largest fraction: 1 where each cell looks at one character, 1 / L where all look everywhere."""
        return float(self.weights.max(axis=1, initial=0).mean()) if len(self.weights) else 0.0

    @property
    def coverage(self):
        """The fraction of the letters (all but blanks) that some cell belongs to."""
        letters = [runs > 0 for character, runs in zip(self.text, self.runs, strict=True) if character != " "]
        return float(np.mean(letters))

    @property
    def runs(self):
        """How many separate pieces of ink belong to each character, (L,) int: 0 where it was skipped, 2 or more where it was repeated.

        A cell belongs to the character with the largest fraction, and to any other with a quarter or more.
        """
        mine = self._mine()
        starts = mine & ~np.concatenate((np.zeros((1, mine.shape[1]), dtype=bool), mine[:-1]))
        return starts.sum(axis=0)

    def _mine(self):
        mine = self.weights >= SEEN
        mine[np.arange(len(mine)), self.weights.argmax(axis=1)] = True
        return mine

    def owners(self, count):
        """The character that each of the first `count` points belongs to, that with the largest fraction of its cell: (count,) int."""
        return np.repeat(self.weights.argmax(axis=1), self.points)[:count]

    def table(self):
        """A row for each character: a list of dictionaries.

        number, character.   first point, last point: of the ink that belongs to it, None where it was skipped.
        fraction: the largest of a cell.   skipped, repeated: whether no piece, or more than one piece of ink belongs to it.
        """
        rows, mine = [], self._mine()
        for number, (character, runs) in enumerate(zip(self.text, self.runs.tolist(), strict=True)):
            cells = np.flatnonzero(mine[:, number])
            rows.append(
                {
                    "number": number,
                    "character": character,
                    "first point": int(cells[0]) * self.points if len(cells) else None,
                    "last point": (int(cells[-1]) + 1) * self.points - 1 if len(cells) else None,
                    "fraction": float(self.weights[:, number].max(initial=0)),
                    "skipped": runs == 0,
                    "repeated": runs > 1,
                }
            )
        return rows

    @property
    def scores(self):
        """{name: number} of all that one line is summed up in.

        skips: the fraction of the letters that `places` leaps over: between two cells, more than half a character from either.
        repeats: the fraction to which more than one piece of ink belongs.
        """
        letters, places = np.array([character != " " for character in self.text]), self.places
        numbers = np.arange(len(self.text))
        leapt = (numbers > places[:-1, None] + 0.5) & (numbers < places[1:, None] - 0.5)
        return {
            "monotonicity": self.monotonicity,
            "coverage": self.coverage,
            "sharpness": self.sharpness,
            "skips": float(leapt.any(axis=0)[letters].mean()),
            "repeats": float((self.runs > 1)[letters].mean()),
        }


def alignment_of(ink, weights, length):
    """The `Alignment` of an `Ink`, trimmed, that was written with the attention `weights` (heads, M, L or more) over `length` points.

    Raises HwdiffError when the ink is empty or has no text: nothing belongs to anything then.
    """
    if not len(ink) or not ink.text.strip():
        raise HwdiffError(f"alignment: ink of {len(ink)} points with the text {ink.text!r}; some of both is needed")
    weights = np.asarray(weights, dtype=np.float64)
    points = length // weights.shape[1]
    mean = weights.mean(axis=0)[: -(-len(ink) // points), : len(ink.text)]
    return Alignment(ink.text, points, mean / np.maximum(mean.sum(axis=1, keepdims=True), 1e-12))


def align(network, text, block=-1, **options):
    """Write a text and align it.

    block: whose attention is taken, -1 for the last, that of the paper's Fig. 4.   options: of `sample`.
    Returns its `Ink` and `Alignment`, or (ink, None) when nothing was written.
    """
    written = trace(network, text, **options)
    return written.ink, alignment_of_trace(written, block)


def alignment_of_trace(written, block=-1):
    """The `Alignment` of a `Trace` by the attention of a block in the later half of the steps; None when nothing was written.

    Raises HwdiffError when there is no such block.
    """
    late = [t for t in written.steps if t <= max(1, LATE * written.steps[0])]
    seen = sum(written.weights(t, block) for t in late)
    if not len(written.ink):
        return None
    return alignment_of(written.ink, seen / np.maximum(seen.sum(axis=-1, keepdims=True), 1e-12), written.length)


def regenerate_aligned(network, dataset, features, indices, recognizer=None, seed=0, progress=None, **options):
    """The lines `indices` of a dataset written anew and aligned: [(scores, character error rate of the recognizer)], for `relations`.

    As `generation.regenerate_lines`, but a line at a time. A line without ink has None.   options: of `align`.
    progress(count): lines done since the last call.
    """
    recognizer, styles, rows = recognizer or load_recognizer(), styles_of(network, dataset, features, indices), []
    for number, (index, style) in enumerate(zip(indices, styles, strict=True)):
        ink, aligned = align(network, str(dataset.texts[index]), style=style, seed=seed + number, **options)
        rows.append(aligned and (aligned.scores, legibility([ink], recognizer, resamples=0).cer.value))
        if progress:
            progress(1)
    return rows


def relations(rows, groups=None, resamples=1000, seed=0):
    """How the scores of alignments go with the error rates of the same lines.

    rows: a list of (scores, error rate), scores as of `Alignment.scores`.   groups: (n,) what belongs together, such as the form; the bootstrap
    draws whole groups. None: each line for itself.
    Returns {score: (Spearman's rank correlation, low, high)} with 95 % bootstrap intervals; NaN where scores or rates are all the same.
    Raises HwdiffError for fewer than 3 lines.
    """
    if len(rows) < 3:
        raise HwdiffError(f"alignment: {len(rows)} lines; a correlation takes at least 3")
    rates = np.array([rate for _, rate in rows])
    names, member = np.unique(np.arange(len(rows)) if groups is None else np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(member == number) for number in range(len(names))]
    generator = np.random.default_rng(seed)
    drawn = [np.concatenate([members[number] for number in generator.integers(len(names), size=len(names))]) for _ in range(resamples)]
    result = {}
    for name in rows[0][0]:
        scores = np.array([scores[name] for scores, _ in rows])
        resampled = np.array([_correlation(scores[some], rates[some]) for some in drawn])
        resampled = resampled[np.isfinite(resampled)]
        interval = np.percentile(resampled, (2.5, 97.5)) if len(resampled) else (np.nan, np.nan)
        result[name] = (_correlation(scores, rates), *interval)
    return result


def _correlation(scores, rates):
    return float(spearmanr(scores, rates).statistic) if np.ptp(scores) and np.ptp(rates) else np.nan
