"""Some consecutive words of a line as a line of its own, cut at gaps in the ink."""

from functools import cached_property

import numpy as np

from hwdiff.data.dataset import Dataset

# A word of n characters is expected to be as wide as n + EXTRA_CHARACTERS; the logarithm spreads by
# WIDTH_SPREAD.
EXTRA_CHARACTERS = 0.3
WIDTH_SPREAD = 0.25
GAP_WORTH = 4.0  # of a gap as wide as a character, against misfits of width
_STREAM = 1  # of random numbers: the order of the lines has that of the same seed and epoch
MAX_GAP = 2.0  # in widths of a character; wider ones count no more
# Of a cut that is trusted: words cut so are recognised about as well as whole lines.
MIN_GAP, MAX_MISFIT = 0.6, 0.9
SMALL = 0.3  # least width of a word, in standard deviations of the offsets: a dot has hardly any


def word_starts(offsets: np.ndarray, pen_up: np.ndarray, text: str) -> np.ndarray | None:
    """Where the words of a line begin, from the gaps in its ink.

    A cut is at a pen-up move with all ink before it to the left of all ink after it. Of all ways to cut the
    line into as many pieces as there are words, dynamic programming finds the one with wide gaps and with
    widths that fit the words' numbers of characters. It is uncertain if there is none, if its smallest gap is
    below 0.6 characters, or if a width misfits by more than a factor of exp(0.9).

    offsets: (N, 2) of standard deviation 1.
    pen_up: (N,) bool.
    text: of the line, W words between spaces.
    Returns (W,) numbers of the points at which the pen moves to each word, the first 0; None where it is
    uncertain.
    """
    words = text.split()
    if len(words) < 2 or not len(offsets):
        return np.zeros(len(words), dtype=int) if len(words) == 1 and len(offsets) else None
    x = np.cumsum(offsets[:, 0], dtype=np.float64)
    until, rest = np.maximum.accumulate(x), np.minimum.accumulate(x[::-1])[::-1]
    moves = np.flatnonzero(pen_up[1:]) + 1
    moves = moves[rest[moves] > until[moves - 1]]
    characters = np.array([len(word) + EXTRA_CHARACTERS for word in words])
    unit = np.ptp(x) / (characters.sum() + len(words) - 1)
    if len(moves) < len(words) - 1 or not unit > 0:
        return None
    bounds = np.array([0, *moves, len(x)])
    gaps = (rest[moves] - until[moves - 1]) / unit
    left, right = np.array([rest[0], *rest[moves]]), np.array([*until[moves - 1], until[-1]])
    # misfit[w, i, j]: of word w from bound i to bound j + 1.
    width = np.maximum(right[None, :] - left[:, None], SMALL) / unit
    misfit = np.abs(np.log(width / characters[:, None, None]))
    possible = np.arange(len(left))[:, None] <= np.arange(len(right))
    penalty = np.where(possible, misfit**2 / (2 * WIDTH_SPREAD**2), np.inf)
    worth = GAP_WORTH * np.minimum(gaps, MAX_GAP)
    cost, choices = penalty[0, 0], []  # cost[j]: of bound j + 1 as the end of word 0
    for number in range(1, len(words)):
        # From the end of the last word, less what the gap there is worth.
        onwards = np.concatenate(([np.inf], cost[:-1] - worth))[:, None] + penalty[number]
        choices.append(onwards.argmin(axis=0))
        cost = onwards.min(axis=0)
    end, cuts = len(right) - 1, []
    if not np.isfinite(cost[end]):
        return None
    for number, choice in zip(range(len(words) - 1, 0, -1), reversed(choices), strict=True):
        start = choice[end]
        cuts.append((start, misfit[number, start, end]))
        end = start - 1
    worst = max(misfit[0, 0, end], *(found for _, found in cuts))
    starts = np.array([start for start, _ in reversed(cuts)])
    if gaps[starts - 1].min() < MIN_GAP or worst > MAX_MISFIT:
        return None
    return np.concatenate(([0], bounds[starts]))


class Excerpts:
    """Which words of each line are trained on in an epoch.

    An excerpt is a number of consecutive words, from one to all of them; each doubling of that number is
    equally likely. Lines that cannot be cut with certainty stay whole.
    """

    def __init__(self, dataset: Dataset, seed: int):
        self.seed, self._dataset = seed, dataset
        self._whole = whole_lines(dataset)

    @cached_property
    def _starts(self):
        """{line: (points, characters) at which its words begin} of the lines that can be cut.

        Of 10 000 lines it takes some seconds.
        """
        found = {}
        for index in range(len(self._whole)):
            text = str(self._dataset.texts[index])
            points = word_starts(*self._dataset.strokes(index), text)
            if points is not None:
                found[index] = points, _character_starts(text)
        return found

    def __len__(self) -> int:
        return len(self._starts)

    def places(self, length: int) -> np.ndarray:
        """About which character of its line each point belongs to.

        The points of a word are spread evenly over its characters.

        length: points to pad to.
        Returns (n, length) float32, NaN where it is uncertain.
        """
        places = np.full((len(self._whole), length), np.nan, dtype=np.float32)
        for index, (points, characters) in self._starts.items():
            _, end, _, last = self._whole[index]
            ends, stops = [*points[1:], end], [*(characters[1:] - 1), last]
            for first, after, start, stop in zip(points, ends, characters, stops, strict=True):
                along = (np.arange(after - first) + 0.5) / (after - first)
                places[index, first:after] = start + along * (stop - start) - 0.5
        return places

    def of_epoch(self, epoch: int, fraction: float) -> np.ndarray:
        """The spans of all lines in an epoch. They depend on seed, epoch and fraction alone.

        fraction: of the lines that can be cut, those of which only an excerpt is trained on.
        Returns (n, 4) as `whole_lines`.
        """
        if not fraction:
            return self._whole
        generator, spans = np.random.default_rng((self.seed, epoch, _STREAM)), self._whole.copy()
        draws = generator.random((len(spans), 3))
        for index, (points, characters) in self._starts.items():
            chosen, doublings, place = draws[index]
            if chosen < fraction:
                count = min(int(2 ** (doublings * np.log2(len(points) + 1))), len(points))
                first = int(place * (len(points) - count + 1))
                after = first + count
                spans[index, [0, 2]] = points[first], characters[first]
                if after < len(points):
                    spans[index, [1, 3]] = points[after], characters[after] - 1  # without the space
        return spans


def whole_lines(dataset: Dataset) -> np.ndarray:
    """The spans of whole lines: (n, 4), first point, end of points, first character, end of characters."""
    ends = zip(dataset.lengths, dataset.texts, strict=True)
    return np.array([(0, points, 0, len(text)) for points, text in ends], dtype=np.int64).reshape(-1, 4)


def _character_starts(text):
    spaces = [True, *(character.isspace() for character in text)]  # as `word_starts` divides it
    return np.array([at for at in range(len(text)) if spaces[at] and not spaces[at + 1]])
