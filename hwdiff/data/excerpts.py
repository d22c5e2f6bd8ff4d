"""Some consecutive words of a line as a line of its own: where one word ends and the next begins, told from the ink's gaps alone."""

from functools import cached_property

import numpy as np

# A word's width is expected in proportion to its characters, the space's share of it being these many; the logarithm spreads by WIDTH_SPREAD.
EXTRA_CHARACTERS = 0.3
WIDTH_SPREAD = 0.25
GAP_WORTH = 4.0  # what a gap as wide as a character counts for, set against misfits of width
MAX_GAP = 2.0  # wider ones count no more, in widths of a character
MIN_GAP, MAX_MISFIT = 0.6, 0.9  # of what is trusted: on such lines single words are read about as well as whole lines
SMALL = 0.3  # least width of a word, in standard deviations of the offsets: a dot has hardly any


def word_starts(offsets, pen_up, text):
    """Where the words of a line begin: (W,) numbers of points at which the pen moves to each word, the first 0; None where it is uncertain.

    offsets: (N, 2) of standard deviation 1.   pen_up: (N,) bool.   text: of the line, W words between blanks.
    A cut lies at a pen-up move with all ink before it to the left of all ink after it. Of all ways to cut the line into W pieces the one
    with the widest gaps is taken, and with widths that fit the words' numbers of characters (dynamic programming); it is uncertain if
    there is none, or its smallest gap is below 0.6 characters, or its worst width misfits by more than a factor of exp(0.9).
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
    # misfit[w, i, j]: of word w from bound i to bound j + 1
    width = np.maximum(right[None, :] - left[:, None], SMALL) / unit
    misfit = np.abs(np.log(width / characters[:, None, None]))
    penalty = np.where(np.arange(len(left))[:, None] <= np.arange(len(right)), misfit**2 / (2 * WIDTH_SPREAD**2), np.inf)
    worth = GAP_WORTH * np.minimum(gaps, MAX_GAP)
    cost, choices = penalty[0, 0], []  # (of bound j + 1 as the end of word 0)
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
    """Which part of each line is trained on in an epoch.

    dataset: a `Dataset`. Lines that cannot be cut with certainty stay whole.
    An excerpt is a number of consecutive words, from one to all of them, of which each doubling is equally likely.
    """

    def __init__(self, dataset, seed):
        self.seed, self._dataset = seed, dataset
        self._whole = whole_lines(dataset)

    @cached_property
    def _starts(self):
        """{line: (points, characters) at which its words begin} of the lines that can be cut; of 10 000 lines in some seconds."""
        starts = {index: word_starts(*self._dataset.strokes(index), str(self._dataset.texts[index])) for index in range(len(self._whole))}
        return {index: (points, _character_starts(str(self._dataset.texts[index]))) for index, points in starts.items() if points is not None}

    def __len__(self):
        return len(self._starts)

    def places(self, length):
        """Which character of its line each point belongs to, about: (n, length) float32, NaN where that is uncertain.

        A word's points are spread evenly over its characters.
        """
        places = np.full((len(self._whole), length), np.nan, dtype=np.float32)
        for index, (points, characters) in self._starts.items():
            _, end, _, last = self._whole[index]
            for first, after, start, stop in zip(points, [*points[1:], end], characters, [*(characters[1:] - 1), last], strict=True):
                places[index, first:after] = start + (np.arange(after - first) + 0.5) / (after - first) * (stop - start) - 0.5
        return places

    def of_epoch(self, epoch, fraction):
        """The spans of all lines in this epoch: (n, 4) as `whole_lines`, a function of seed, epoch and fraction alone.

        fraction: of the lines of which only an excerpt is trained on.
        """
        if not fraction:
            return self._whole
        generator, spans = np.random.default_rng((self.seed, epoch)), self._whole.copy()
        draws = generator.random((len(spans), 3))
        for index, (points, characters) in self._starts.items():
            chosen, doublings, place = draws[index]
            if chosen < fraction:
                count = min(int(2 ** (doublings * np.log2(len(points) + 1))), len(points))
                first = int(place * (len(points) - count + 1))
                after = first + count
                spans[index, [0, 2]] = points[first], characters[first]
                if after < len(points):
                    spans[index, [1, 3]] = points[after], characters[after] - 1  # without the blank
        return spans


def whole_lines(dataset):
    """The spans of all lines, whole: (n, 4), each first point, end of points, first character, end of characters."""
    ends = zip(dataset.lengths, dataset.texts, strict=True)
    return np.array([(0, points, 0, len(text)) for points, text in ends], dtype=np.int64).reshape(-1, 4)


def _character_starts(text):
    return np.array([at for at, character in enumerate(text) if character != " " and (at == 0 or text[at - 1] == " ")])
