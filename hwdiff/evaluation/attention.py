"""The attention of many lines: how it goes with spelling, and how it forms while a network is trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr
from torch import Tensor

from hwdiff.data.dataset import Dataset
from hwdiff.data.style_features import StyleFeatures
from hwdiff.diffusion.generate import no_text_warnings
from hwdiff.diffusion.process import STEPS
from hwdiff.diffusion.tracing import alignment_by_step, alignment_of_trace, trace
from hwdiff.evaluation.bootstrap import Bootstrap
from hwdiff.evaluation.error_rates import edits_of
from hwdiff.evaluation.generation import styles_of, training_of
from hwdiff.evaluation.recognizer import Recognizer, load_recognizer
from hwdiff.model.unet import UNet
from hwdiff.utils.errors import HwdiffError

WATCHED = ("the quick brown fox jumps", "Samples from a diffusion model", "here in the same words in")
FIG_4 = (55, 30, 5)  # the steps that the paper shows


def watch_attention(
    network: UNet, style: str | Tensor = "ada", style_extractor: str = "bundled"
) -> tuple[dict[str, np.ndarray], dict]:
    """How the attention of three fixed lines stands, by which a training is watched (Fig. 4).

    The lines are `WATCHED`, in one style, with seeds 0, 1 and 2 and the paper's guidance of 1.

    style, style_extractor: as of `sample`.
    Returns {"LINE.tT": (M, L) float16, the mean over the last block's heads at step T}, and what is measured
    of them, in JSON types: `suite.verdicts` reads it. Raises HwdiffError when the network writes nothing.
    """
    maps, scores, forward = {}, {}, {}
    for seed, text in enumerate(WATCHED):
        options = {"style": style, "style_extractor": style_extractor, "guidance": 1, "steps": STEPS}
        written = trace(network, text, seed=seed, **options)
        aligned = alignment_of_trace(written)
        if aligned is None:
            raise HwdiffError(f"attention: the network writes nothing for {text!r}; train it for longer")
        maps |= {f"{seed}.t{t}": written.weights(t).mean(axis=0).astype(np.float16) for t in FIG_4}
        scores[text] = aligned.scores
        forward[text] = {
            str(row["t"]): row["monotonicity"] for row in alignment_by_step(written) if row["t"] in FIG_4
        }
    return maps, {
        **training_of(network),
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
        [(edits, characters)] = edits_of([ink], recognizer)
        return float(edits / characters)

    styles, lines = styles_of(network, dataset, features, indices), []
    for number, (index, style) in enumerate(zip(indices, styles, strict=True)):
        text = str(dataset.texts[index])
        with no_text_warnings():  # as in `regenerate_lines`
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
    bootstrap = Bootstrap([line.text for line in lines], resamples, seed)
    drawn = [np.repeat(np.arange(len(lines)), count) for count in bootstrap.counts]
    with_real = [_correlation(rates[some], real[some]) for some in drawn]
    result = {}
    for name in lines[0].scores:
        scores = np.array([line.scores[name] for line in lines])
        resampled = [
            _correlations(scores[some], rates[some], real[some], known)
            for some, known in zip(drawn, with_real, strict=True)
        ]
        low, high = bootstrap.interval(np.nan_to_num(np.array(resampled).reshape(-1, 2)))
        plain, given = _correlations(scores, rates, real, _correlation(rates, real))
        low, high = (np.where(np.isnan((plain, given)), np.nan, ends) for ends in (low, high))
        differing = len(scores) - int(np.unique(scores, return_counts=True)[1].max())
        result[name] = Relation(plain, low[0], high[0], given, low[1], high[1], differing)
    return result


def _correlations(scores, rates, real, rates_with_real):
    """Spearman's correlation of scores and rates, and that with `real` held fixed."""
    plain = _correlation(scores, rates)
    with_scores, with_rates = np.nan_to_num((_correlation(scores, real), rates_with_real))
    left = np.sqrt((1 - with_scores**2) * (1 - with_rates**2))
    # Where the real lines tell all of the score or of the rate, nothing is left to go with the other.
    return plain, (plain - with_scores * with_rates) / left if left > 1e-9 else np.nan


def _correlation(scores, rates):
    return float(spearmanr(scores, rates).statistic) if np.ptp(scores) and np.ptp(rates) else np.nan
