"""All measures of a set of lines against another one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hwdiff.data.batches import FULL_LENGTH
from hwdiff.data.dataset import Dataset
from hwdiff.data.style_features import StyleFeatures
from hwdiff.evaluation import geometry
from hwdiff.evaluation.corruption import COPIES, JITTER, jittered, repeated
from hwdiff.evaluation.error_rates import legibility
from hwdiff.evaluation.frechet import frechet_distance, kernel_distance
from hwdiff.evaluation.inception import INCEPTION_URL, inception_features, load_inception
from hwdiff.evaluation.mobilenet import mobilenet_features
from hwdiff.evaluation.pictures import Canvas
from hwdiff.evaluation.recognizer import Recognizer
from hwdiff.evaluation.sets import KNOWN_PER_FORM, Sets, real_inks
from hwdiff.evaluation.tables import CORRUPTED, GROUND_TRUTH, REPEATED, TOP
from hwdiff.evaluation.writer_retrieval import Retrieval, WriterStyles, line_features, retrieve
from hwdiff.ink import strokes
from hwdiff.ink.ink import Ink

MAX_STYLE_FORMS = 200  # forms of the other splits that writer styles are learnt from
MAX_REAL_REPETITIONS = 100  # of the Geometry Score of larger sets of real lines


@dataclass
class Reference:
    """What the lines of a seed are compared with.

    sets: the lines that are compared, and those among which styles are looked for.
    pictures: (n, d) features of the pictures of `sets.first`.   holes: of the same lines.
    known: (k, d) the writer styles of `sets.known`.   known_forms: (k,).
    """

    sets: Sets
    pictures: np.ndarray
    holes: geometry.Mean
    known: np.ndarray
    known_forms: np.ndarray


class Measures:
    """All measures of a set of lines against another one.

    dataset: of the real lines.   split: whose lines are measured.   features: style features of the dataset.
    inception_weights: a file, "download" to fetch it, or None for the distance on MobileNetV2 features.
    landmarks, repetitions: of the Geometry Score.
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
        landmarks: int = geometry.LANDMARKS,
        repetitions: int = geometry.REPETITIONS,
    ):
        self.dataset, self.features, self.recognizer = dataset, features, recognizer
        self.landmarks, self.repetitions = landmarks, repetitions
        self.inception = None
        if inception_weights:
            path = None if inception_weights == "download" else inception_weights
            self.inception = load_inception(path, features.device)
        self.writer_styles = self._learn_writer_styles(split)

    @property
    def is_fid(self) -> bool:
        """Whether the distance may be called FID."""
        return self.inception is not None

    @property
    def distance(self) -> str:
        """What the distance of pictures is called."""
        return "FID" if self.is_fid else "Fréchet distance (MobileNetV2)"

    @property
    def weights(self) -> str:
        """Which network's features distances are taken on."""
        if self.is_fid:
            return f"Inception, {INCEPTION_URL.rsplit('/', 1)[1]}"
        return "MobileNetV2 of the style features"

    def _learn_writer_styles(self, split):
        others = np.flatnonzero(self.dataset.splits != split)
        forms = np.unique(self.dataset.forms[others])
        if len(forms):
            spread = np.linspace(0, len(forms) - 1, min(len(forms), MAX_STYLE_FORMS))
            forms = forms[spread.round().astype(int)]
        others = others[np.isin(self.dataset.forms[others], forms)]
        return WriterStyles.learn(self.features.half(others).numpy(), self.dataset.forms[others])

    def settings(self, count: int) -> dict:
        """What the measures of sets of `count` lines depend on besides their arguments, in JSON types."""
        return {
            "canvas": asdict(Canvas()),
            "picture_features": self.weights,
            "geometry_score": {
                "landmarks": self.landmarks,
                "repetitions": self.repetitions,
                "gamma": geometry.default_gamma(count),
                "i_max": geometry.I_MAX,
                "points_per_line": FULL_LENGTH,
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
            self.writer_styles(self.features.half(sets.known).numpy()),
            self.dataset.forms[sets.known],
        )

    def __call__(self, inks: Sequence[Ink], reference: Reference) -> dict[str, float | None]:
        """{measure: value} of the lines `sets.second`, or of what was written instead; None without one."""
        seed = reference.sets.seed
        pictures = self.picture_features(inks, Canvas())
        kernel, deviation = kernel_distance(reference.pictures, pictures, seed=seed)
        holes = self._holes(inks, (seed, 1))  # other landmarks than the reference's
        found = self._retrieve(inks, reference)
        return {
            "distance": frechet_distance(reference.pictures, pictures),
            "kernel_distance": kernel,
            "kernel_sd": deviation,
            "geometry_score": geometry.geometry_score(reference.holes, holes),
            "beyond_i_max": max(reference.holes.beyond, holes.beyond),
            "cer": legibility(inks, self.recognizer, resamples=0).cer.value,
            "style_top10": found and found.within(TOP),
            "style_top1": found and found.within(1),
            "style_chance": found and found.chance(TOP),
        }

    def picture_features(self, inks: Iterable[Ink], canvas: Canvas) -> np.ndarray:
        """Features of lines drawn on a canvas: (n, d) float64."""
        pictures = np.stack([canvas.draw(ink) for ink in inks])
        if self.is_fid:
            return inception_features(pictures, self.inception)
        return mobilenet_features(pictures, self.features.extractor)

    def _holes(self, inks, seed):
        return geometry.mrlt(points(inks), n=self.repetitions, seed=seed, landmarks=self.landmarks)

    def _retrieve(self, inks, reference) -> Retrieval | None:
        forms = self.dataset.forms[reference.sets.second]
        asked_for = np.flatnonzero(np.isin(forms, reference.known_forms))
        if not len(asked_for) or len(np.unique(reference.known_forms)) < 2:
            return None
        features = line_features([inks[number] for number in asked_for], self.features.extractor)
        queries = self.writer_styles(features)
        return retrieve(queries, forms[asked_for], known=reference.known, known_forms=reference.known_forms)

    def geometry_of_real(
        self,
        sets: Sets,
        corrupted: dict[str, Callable[[list[Ink]], list[Ink]]] | None = None,
    ) -> dict[str, float]:
        """Geometry Scores of two sets of real lines, the second as it is and corrupted: {row: score}.

        It costs no writing, and so shows on many lines what the score tells. In small sets the score is
        noise: gamma, as its authors choose it, shrinks with the number of lines, and few lines are near
        enough to one another.
        corrupted: {row: function}, by default with jitter and repeated.
        """
        corrupted = corrupted or {
            CORRUPTED: partial(jittered, size=JITTER, seed=sets.seed),
            REPEATED: repeated,
        }
        first, second = real_inks(self.dataset, sets.first), real_inks(self.dataset, sets.second)
        options = {
            "n": min(self.repetitions, MAX_REAL_REPETITIONS),
            "landmarks": min(geometry.LANDMARKS, len(first) // 2),
        }
        reference = geometry.mrlt(points(first), seed=(sets.seed, 0), **options)
        scores = {}
        for row, change in {GROUND_TRUTH: list, **corrupted}.items():
            holes = geometry.mrlt(points(change(second)), seed=(sets.seed, 1), **options)
            scores[row] = geometry.geometry_score(reference, holes)
        return scores


def points(inks: Sequence[Ink]) -> np.ndarray:
    """Lines as points of one space, for the Geometry Score: offsets and pen flag padded to 488 points.

    Returns (n, 1464) float32.
    """
    cut = [(ink.offsets[:FULL_LENGTH], ink.pen_up[:FULL_LENGTH]) for ink in inks]
    offsets, pen_up = strokes.pad(*zip(*cut, strict=True), FULL_LENGTH)
    return np.concatenate((offsets, pen_up[..., None]), axis=2).reshape(len(inks), -1)
