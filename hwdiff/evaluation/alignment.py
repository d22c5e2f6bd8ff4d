"""Which ink was written for which character, told from the attention, and how that goes with spelling."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr
from torch import Tensor

from hwdiff.data.dataset import Dataset
from hwdiff.data.style_features import StyleFeatures
from hwdiff.diffusion.process import STEPS
from hwdiff.diffusion.tracing import Trace, trace
from hwdiff.evaluation.bootstrap import bootstrap_counts
from hwdiff.evaluation.error_rates import legibility
from hwdiff.evaluation.generation import styles_of
from hwdiff.evaluation.recognizer import Recognizer, load_recognizer
from hwdiff.ink.ink import Ink
from hwdiff.model.unet import UNet
from hwdiff.utils.errors import HwdiffError

SEEN = 0.25  # fraction of a cell's attention that makes it part of a character
LATE = 0.5  # fraction of the steps, the last ones, whose attention is taken: the first see only noise
WATCHED = ("the quick brown fox jumps", "Samples from a diffusion model", "here in the same words in")
FIG_4 = (55, 30, 5)  # the steps that the paper shows
# What columns of `Alignment.table` are called for a person, where that is not their key.
TITLES = {"first_point": "first point", "last_point": "last point"}


@dataclass
class Alignment:
    """The attention of an ink to its text.

    text: what the ink is meant to say, L characters.
    points: how many points of the ink a cell has; the last may have fewer.
    weights: (M, L) fraction of each cell's attention that goes to each character. A row adds up to 1.
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
        return float(np.mean(self.runs[self._letters()] > 0))

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

    def _letters(self):
        return np.array([character != " " for character in self.text], dtype=bool)

    def owners(self, count: int) -> np.ndarray:
        """The character that each of the first `count` points belongs to, (count,): the largest fraction."""
        return np.repeat(self.weights.argmax(axis=1), self.points)[:count]

    def table(self) -> list[dict]:
        """A row for each character.

        number, character.
        first_point, last_point: of the ink that belongs to it, None if it was skipped.
        fraction: the largest of a cell.
        skipped, repeated: whether no piece, or more than one piece of ink belongs to it. A space is never
            skipped: it needs no ink.
        """
        rows, mine, letters = [], self._mine(), self._letters()
        for number, (character, runs) in enumerate(zip(self.text, self.runs.tolist(), strict=True)):
            cells = np.flatnonzero(mine[:, number])
            rows.append(
                {
                    "number": number,
                    "character": character,
                    "first_point": int(cells[0]) * self.points if len(cells) else None,
                    "last_point": (int(cells[-1]) + 1) * self.points - 1 if len(cells) else None,
                    "fraction": float(self.weights[:, number].max(initial=0)),
                    "skipped": bool(runs == 0 and letters[number]),
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
        letters, places, numbers = self._letters(), self.places, np.arange(len(self.text))
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


def align(network: UNet, text: str, block: int = -1, **options) -> tuple[Ink, Alignment | None]:
    """Write a text and align it.

    block: whose attention is taken, -1 for the last, that of the paper's Fig. 4.
    options: of `sample`.
    Returns its ink and alignment, or (ink, None) when nothing was written.
    """
    written = trace(network, text, **options)
    return written.ink, alignment_of_trace(written, block)


def alignment_of_trace(written: Trace, block: int = -1) -> Alignment | None:
    """The alignment of a trace by the attention of a block in the later half of the steps.

    None when nothing was written. Raises HwdiffError when there is no such block.
    """
    late = [t for t in written.steps if t <= max(1, LATE * written.steps[0])]
    seen = sum(written.weights(t, block) for t in late)
    if not len(written.ink):
        return None
    weights = seen / np.maximum(seen.sum(axis=-1, keepdims=True), 1e-12)
    return alignment_of(written.ink, weights, written.length)


def alignment_by_step(written: Trace, block: int = -1) -> list[dict[str, float]]:
    """How the alignment of a trace forms: scores of the attention at each step alone, the noisiest first.

    Returns {"t", "monotonicity", "sharpness", "agreement"} for each step, [] when nothing was written.
    agreement: the fraction of the cells that belong to the same character as at the last step.
    Raises HwdiffError when there is no such block.
    """
    if not len(written.ink):
        return []
    aligned = {t: alignment_of(written.ink, written.weights(t, block), written.length) for t in written.steps}
    last = aligned[written.steps[-1]].weights.argmax(axis=1)
    return [
        {
            "t": t,
            "monotonicity": one.monotonicity,
            "sharpness": one.sharpness,
            "agreement": float((one.weights.argmax(axis=1) == last).mean()),
        }
        for t, one in aligned.items()
    ]


def watch_attention(network: UNet, style: str | Tensor = "ada") -> tuple[dict[str, np.ndarray], dict]:
    """How the attention of three fixed lines stands, by which a training is watched (Fig. 4).

    The lines are `WATCHED`, in one style, with seeds 0, 1 and 2 and the paper's guidance of 1.

    style: as of `sample`.
    Returns {"LINE.tT": (M, L) float16, the mean over the last block's heads at step T}, and what is measured
    of them, in JSON types: `suite.verdicts` reads it. Raises HwdiffError when the network writes nothing.
    """
    maps, scores, forward = {}, {}, {}
    for seed, text in enumerate(WATCHED):
        written = trace(network, text, style=style, seed=seed, guidance=1, steps=STEPS)
        aligned = alignment_of_trace(written)
        if aligned is None:
            raise HwdiffError(f"attention: the network writes nothing for {text!r}; train it for longer")
        maps |= {f"{seed}.t{t}": written.weights(t).mean(axis=0).astype(np.float16) for t in FIG_4}
        scores[text] = aligned.scores
        forward[text] = {
            str(row["t"]): row["monotonicity"] for row in alignment_by_step(written) if row["t"] in FIG_4
        }
    training = network.metadata.get("training", {})
    return maps, {
        "step": network.metadata.get("step"),
        "planned": training.get("steps"),
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "guided_attention": training.get("guided_attention", 0),
        "distilled": "teacher" in network.metadata,
        "seeds": list(range(len(WATCHED))),
        "guidance": 1,
        "scores": scores,
        "monotonicity_at": forward,
    }


@dataclass(frozen=True)
class AlignedLine:
    """A line of a dataset that was written again.

    text: of the line.
    scores: of its attention, see `Alignment.scores`.
    by_step: how they formed, see `alignment_by_step`.
    cer: of what was written, by the recognizer.
    real_cer: of the real line with this text: how hard the text is to read.
    """

    text: str
    scores: dict[str, float]
    by_step: list[dict[str, float]]
    cer: float
    real_cer: float


def regenerate_aligned(
    network: UNet,
    dataset: Dataset,
    features: StyleFeatures,
    indices: np.ndarray,
    recognizer: Recognizer | None = None,
    *,
    seed: int = 0,
    block: int = -1,
    progress: Callable[[int], None] | None = None,
    **options,
) -> list[AlignedLine | None]:
    """Lines of a dataset written again and aligned, for `relations`.

    As `generation.regenerate_lines`, but a line at a time.
    block: whose attention is taken, -1 for the last.
    progress(count): lines done since the last call.
    options: of `sample`.
    Returns None for a line without ink.
    """
    recognizer = recognizer or load_recognizer()

    def cer(ink):
        return legibility([ink], recognizer, resamples=0).cer.value

    styles, lines = styles_of(network, dataset, features, indices), []
    for number, (index, style) in enumerate(zip(indices, styles, strict=True)):
        text = str(dataset.texts[index])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="text .*")  # as of `regenerate_lines`
            written = trace(network, text, style=style, seed=seed + number, **options)
        aligned, steps = alignment_of_trace(written, block), alignment_by_step(written, block)
        real_cer = cer(dataset.ink(int(index)))
        lines.append(aligned and AlignedLine(text, aligned.scores, steps, cer(written.ink), real_cer))
        if progress:
            progress(1)
    return lines


@dataclass(frozen=True)
class Relation:
    """How a score goes with the error rate, over lines.

    correlation: Spearman's. NaN where all scores or all rates are the same.
    low, high: its 95 % bootstrap interval, NaN with it.
    given_text, given_low, given_high: the same with the error rates of the real lines of the same texts held
        fixed (partial rank correlation), so that hard texts alone make no relation.
    differing: lines whose score is not the commonest one. A correlation that rests on few of them is weak.
    """

    correlation: float
    low: float
    high: float
    given_text: float
    given_low: float
    given_high: float
    differing: int


def relations(lines: Sequence[AlignedLine], *, resamples: int = 1000, seed: int = 0) -> dict[str, Relation]:
    """How the scores of alignments go with the error rates of the same lines.

    The bootstrap draws texts, with all their lines. A resample in which a score or the rate is constant
    counts as no correlation, 0.
    Returns {score: `Relation`}. Raises HwdiffError for fewer than 3 lines.
    """
    if len(lines) < 3:
        raise HwdiffError(f"alignment: {len(lines)} lines; a correlation takes at least 3")
    rates = np.array([line.cer for line in lines])
    real = np.array([line.real_cer for line in lines])
    counts = bootstrap_counts([line.text for line in lines], resamples, seed)
    drawn = [np.repeat(np.arange(len(lines)), count) for count in counts]
    result = {}
    for name in lines[0].scores:
        scores = np.array([line.scores[name] for line in lines])
        resampled = np.nan_to_num([_correlations(scores[some], rates[some], real[some]) for some in drawn])
        low, high = np.percentile(resampled, (2.5, 97.5), axis=0) if resamples else np.full((2, 2), np.nan)
        plain, given = _correlations(scores, rates, real)
        if np.isnan(plain):
            low = high = np.full(2, np.nan)
        differing = len(scores) - int(np.unique(scores, return_counts=True)[1].max())
        result[name] = Relation(plain, low[0], high[0], given, low[1], high[1], differing)
    return result


def _correlations(scores, rates, real):
    """Spearman's correlation of scores and rates, and that with `real` held fixed."""
    plain = _correlation(scores, rates)
    with_scores, with_rates = np.nan_to_num((_correlation(scores, real), _correlation(rates, real)))
    left = np.sqrt((1 - with_scores**2) * (1 - with_rates**2))
    # Where the real lines tell all of the score or of the rate, nothing is left to go with the other.
    return plain, (plain - with_scores * with_rates) / left if left > 1e-9 else np.nan


def _correlation(scores, rates):
    return float(spearmanr(scores, rates).statistic) if np.ptp(scores) and np.ptp(rates) else np.nan
