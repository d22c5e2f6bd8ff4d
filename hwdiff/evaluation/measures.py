"""All measures of a set of lines against another one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from hwdiff.data.dataset import Dataset
from hwdiff.data.lines import MAX_POINTS
from hwdiff.data.style_features import StyleFeatures
from hwdiff.evaluation import geometry
from hwdiff.evaluation.corruption import COPIES, JITTER, jittered, repeated
from hwdiff.evaluation.error_rates import edits_of
from hwdiff.evaluation.frechet import (
    AXES,
    LINES_PER_AXIS,
    PrincipalAxes,
    frechet_at_infinity,
    frechet_distance,
    kernel_by_line,
    kernel_distance,
)
from hwdiff.evaluation.handmade_features import handmade_features
from hwdiff.evaluation.inception import INCEPTION_URL, inception_features, load_inception
from hwdiff.evaluation.mobilenet import mobilenet_features
from hwdiff.evaluation.pictures import Canvas
from hwdiff.evaluation.recognizer import Recognizer
from hwdiff.evaluation.sets import KNOWN_PER_FORM, Sets, real_inks
from hwdiff.evaluation.tables import CORRUPTED, FID, GEOMETRY_LINES, GROUND_TRUTH, REPEATED, TOP
from hwdiff.evaluation.writer_retrieval import WriterStyles, descriptors, line_features, retrieve
from hwdiff.ink import strokes
from hwdiff.ink.ink import Ink

MAX_STYLE_FORMS = 200  # forms of the other splits that writer styles are learnt from
MAX_AXES_LINES = 200  # lines of the other splits that the axes of picture features are learnt from
MAX_REAL_REPETITIONS = 100  # of the Geometry Score of larger sets of real lines
# The paper leaves open whether the pen flag is part of a point: {value: whether it is}.
GEOMETRY_SCORES = {"geometry_score": True, "geometry_score_offsets": False}
RETRIEVALS = ("form_top10", "style_top10")  # by hand-made features, and by style features


@dataclass
class Reference:
    """What the lines of a seed are compared with.

    sets: the lines that are compared, and those among which forms are looked for.
    pictures: (n, d) features of the pictures of `sets.first`.
    holes: {value: of the same lines}, as `GEOMETRY_SCORES` has them; {} where they are too few.
    known: {retrieval: (k, d)} the writer styles of `sets.known`.   known_forms: (k,).
    """

    sets: Sets
    pictures: np.ndarray
    holes: dict[str, geometry.Mean]
    known: dict[str, np.ndarray]
    known_forms: np.ndarray


@dataclass
class Measured:
    """What was measured of a set of lines.

    values: {measure: value}, None where there are too few lines for it; see `Table`.
    by_line: {measure: (n, 2)} of those that are an average over the lines, a numerator and a denominator for
        each; see `paired_difference`. Of the kernel distance (2 n, 2), those of the lines that they are
        compared with before their own.
    """

    values: dict[str, float | None]
    by_line: dict[str, np.ndarray]


class Measures:
    """All measures of a set of lines against another one.

    dataset: of the real lines.   split: whose lines are measured.   features: style features of the dataset.
    inception_weights: a file, "download" to fetch it, or None for distances on MobileNetV2 features.
    repetitions: of the Geometry Score.
    Raises HwdiffError where the weights are not available or the other splits have too few forms.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        *,
        features: StyleFeatures,
        recognizer: Recognizer,
        inception_weights: str | Path | None = None,
        repetitions: int = geometry.REPETITIONS,
    ):
        self.dataset, self.features, self.recognizer = dataset, features, recognizer
        self.repetitions = repetitions
        self.inception = None
        if inception_weights:
            path = None if inception_weights == "download" else inception_weights
            self.inception = load_inception(path, features.device)
        self._others, self._handmade = np.flatnonzero(dataset.splits != split), {}
        self.writer_styles = self._learn_writer_styles()

    @property
    def is_fid(self) -> bool:
        """Whether the distance may be called FID."""
        return self.inception is not None

    @property
    def distance(self) -> str:
        """What the plain distance of pictures is called."""
        return FID if self.is_fid else "Fréchet distance (MobileNetV2)"

    @property
    def weights(self) -> str:
        """Which network's features distances are taken on."""
        if self.is_fid:
            return f"Inception, {INCEPTION_URL.rsplit('/', 1)[1]}"
        return "MobileNetV2 of the style features"

    @cached_property
    def axes(self) -> PrincipalAxes:
        """The axes of the pictures of real lines of the other splits."""
        some = np.linspace(0, len(self._others) - 1, min(len(self._others), MAX_AXES_LINES))
        inks = real_inks(self.dataset, self._others[some.round().astype(int)])
        return PrincipalAxes.learn(self.picture_features(inks, Canvas()))

    def _learn_writer_styles(self):
        others, forms = self._others, np.unique(self.dataset.forms[self._others])
        if len(forms):
            spread = np.linspace(0, len(forms) - 1, min(len(forms), MAX_STYLE_FORMS))
            forms = forms[spread.round().astype(int)]
        others = others[np.isin(self.dataset.forms[others], forms)]
        forms = self.dataset.forms[others]
        return {by: WriterStyles.learn(self._features_of(by, others), forms) for by in RETRIEVALS}

    def _features_of(self, by, indices):
        """Features of real lines for a retrieval: (n, d)."""
        if by == "form_top10":
            # Sets of several seeds have most of their known lines in common.
            missing = [line for line in indices.tolist() if line not in self._handmade]
            found = handmade_features(real_inks(self.dataset, missing))
            self._handmade |= zip(missing, found, strict=True)
            return np.array([self._handmade[line] for line in indices.tolist()])
        return descriptors(self.features.half(indices).numpy())

    def ink_features(self, by: str, inks: Sequence[Ink]) -> np.ndarray:
        """The features (n, d) of inks that one of `RETRIEVALS` looks at."""
        if by == "form_top10":
            return handmade_features(inks)
        return descriptors(line_features(inks, self.features.extractor))

    @property
    def _repetitions_of_larger_sets(self):
        return min(self.repetitions, MAX_REAL_REPETITIONS)

    def settings(self, count: int) -> dict:
        """What the measures of sets of `count` lines depend on besides their arguments, in JSON types."""
        return {
            "canvas": asdict(Canvas()),
            "picture_features": self.weights,
            "axes": AXES,
            "geometry_score": {
                "landmarks": geometry.LANDMARKS,
                "repetitions": self.repetitions,
                "repetitions_of_larger_sets": self._repetitions_of_larger_sets,
                "gamma": geometry.default_gamma(count),
                "i_max": geometry.I_MAX,
                "points_per_line": MAX_POINTS,
                "min_lines": GEOMETRY_LINES,
            },
            "writer_styles": {
                "forms": MAX_STYLE_FORMS,
                "lines_per_form": KNOWN_PER_FORM,
                "found_within": TOP,
            },
            "corrupted_lines": {"jitter": JITTER, "copies": COPIES},
        }

    def reference(self, sets: Sets) -> Reference:
        """What lines written instead of `sets.second` are compared with: the real lines `sets.first`."""
        inks = real_inks(self.dataset, sets.first)
        return Reference(
            sets,
            self.picture_features(inks, Canvas()),
            self._holes(inks, (sets.seed, 0)),
            {by: self.writer_styles[by](self._features_of(by, sets.known)) for by in RETRIEVALS}
            if len(sets.known)
            else {},
            self.dataset.forms[sets.known],
        )

    def __call__(self, inks: Sequence[Ink], reference: Reference) -> Measured:
        """Measure the lines `sets.second`, or what was written instead."""
        seed = reference.sets.seed
        pictures = self.picture_features(inks, Canvas())
        holes = self._holes(inks, (seed, 1))  # other landmarks than the reference's
        edits = edits_of(inks, self.recognizer)
        ranks, forms = self._ranks(inks, reference)
        right, ones = edits[:, 0] == 0, np.ones(len(inks))
        kernel = kernel_by_line(reference.pictures, pictures)
        hits = {by: _within(found, TOP) for by, found in ranks.items()}
        by_line = {
            "kernel_distance": np.stack((kernel, np.ones(len(kernel))), axis=1),
            "cer": edits,
            "right": np.stack((right, ones), axis=1),
            **{by: np.stack((found, ones), axis=1) for by, found in hits.items()},
        }
        values = {
            "kernel_distance": kernel_distance(reference.pictures, pictures),
            "frechet": self._frechet(reference.pictures, pictures, seed),
            "distance": frechet_distance(reference.pictures, pictures),
            **self._geometry_scores(reference.holes, holes),
            "cer": float(edits[:, 0].sum() / edits[:, 1].sum()),
            "right": float(right.mean()),
            **{by: _mean(found) for by, found in hits.items()},
            "style_chance": min(1.0, TOP / forms) if forms else None,
        }
        return Measured(values, by_line)

    def picture_features(self, inks: Iterable[Ink], canvas: Canvas) -> np.ndarray:
        """Features of lines drawn on a canvas: (n, d) float64."""
        pictures = np.stack([canvas.draw(ink) for ink in inks])
        if self.is_fid:
            return inception_features(pictures, self.inception)
        return mobilenet_features(pictures, self.features.extractor)

    def _frechet(self, first, second, seed):
        if len(first) < LINES_PER_AXIS * AXES:  # then the axes need not be learnt
            return None
        return frechet_at_infinity(self.axes(first), self.axes(second), seed=seed)

    def _holes(self, inks, seed):
        """The holes of the clouds of lines; {} where there are too few for the Geometry Score."""
        if len(inks) < GEOMETRY_LINES:
            return {}
        return {
            key: geometry.mrlt(points(inks, with_pen=with_pen), n=self.repetitions, seed=seed)
            for key, with_pen in GEOMETRY_SCORES.items()
        }

    def _geometry_scores(self, first, second):
        beyond = [holes.beyond for cloud in (first, second) for holes in cloud.values()]
        scores = {
            key: geometry.geometry_score(first[key], second[key]) if second else None
            for key in GEOMETRY_SCORES
        }
        return {**scores, "beyond_i_max": max(beyond, default=None)}

    def _ranks(self, inks, reference):
        """{retrieval: (n,) the rank of each line's form, NaN where that is not known}, and how many are."""
        forms = self.dataset.forms[reference.sets.second]
        asked_for = np.flatnonzero(np.isin(forms, reference.known_forms))
        ranks, count = {by: np.full(len(inks), np.nan) for by in RETRIEVALS}, len(set(reference.known_forms))
        if not len(asked_for) or count < 2:
            return ranks, 0
        for by in RETRIEVALS:
            features = self.ink_features(by, [inks[number] for number in asked_for])
            ranks[by][asked_for] = retrieve(
                self.writer_styles[by](features),
                forms[asked_for],
                known=reference.known[by],
                known_forms=reference.known_forms,
            )
        return ranks, count

    def geometry_of_real(
        self,
        sets: Sets,
        corrupted: dict[str, Callable[[list[Ink]], list[Ink]]] | None = None,
    ) -> dict[str, float]:
        """Geometry Scores of two sets of real lines, the second as it is and corrupted: {row: score}.

        It costs no writing, and so shows on many lines what the score tells. In small sets the score is
        noise: gamma, as its authors choose it, is in proportion to the number of lines, and few lines are
        near enough to one another.
        corrupted: {row: function}, by default with jitter and repeated.
        """
        corrupted = corrupted or {
            CORRUPTED: partial(jittered, size=JITTER, seed=sets.seed),
            REPEATED: repeated,
        }
        first, second = real_inks(self.dataset, sets.first), real_inks(self.dataset, sets.second)
        options = {
            "n": self._repetitions_of_larger_sets,
            "landmarks": min(geometry.LANDMARKS, len(first) // 2),
        }
        reference = geometry.mrlt(points(first), seed=(sets.seed, 0), **options)
        scores = {}
        for row, change in {GROUND_TRUTH: list, **corrupted}.items():
            holes = geometry.mrlt(points(change(second)), seed=(sets.seed, 1), **options)
            scores[row] = geometry.geometry_score(reference, holes)
        return scores


def points(inks: Sequence[Ink], *, with_pen: bool = True) -> np.ndarray:
    """Lines as points of one space, for the Geometry Score: offsets and pen flag padded to 488 points.

    Returns (n, 1464) float32; without the pen flag (n, 976).
    """
    cut = [(ink.offsets[:MAX_POINTS], ink.pen_up[:MAX_POINTS]) for ink in inks]
    offsets, pen_up = strokes.pad(*zip(*cut, strict=True), MAX_POINTS)
    parts = (offsets, pen_up[..., None]) if with_pen else (offsets,)
    return np.concatenate(parts, axis=2).reshape(len(inks), -1)


def _mean(values):
    """The mean of those that are not NaN; None without any."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def _within(ranks, count):
    """Which ranks are among the first `count`: 1 or 0, NaN where there is no rank."""
    return np.where(np.isnan(ranks), np.nan, ranks <= count)
