"""All measures of a set of lines against another one."""

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from hwdiff.data.batches import FULL_LENGTH
from hwdiff.data.dataset import style_lines
from hwdiff.evaluation import geometry
from hwdiff.evaluation.corruption import with_jitter
from hwdiff.evaluation.error_rates import legibility
from hwdiff.evaluation.frechet import INCEPTION_URL, Canvas, frechet_distance, inception_features, kernel_distance, load_inception, mobilenet_features
from hwdiff.evaluation.tables import CORRUPTED, GROUND_TRUTH, PAPER_LINES, REPEATED, TOP
from hwdiff.evaluation.writer_retrieval import WriterStyles, line_features, retrieve
from hwdiff.ink import strokes
from hwdiff.utils.errors import HwdiffError

JITTER = 0.4  # of the corrupted row, in standard deviations of the offsets
COPIES = 10  # of each line in the repeated row: a generator that knows few lines
KNOWN_A_FORM = 4
STYLE_FORMS = 200  # forms of the other splits that hands are learnt from


@dataclass
class Sets:
    """The two disjoint sets of lines of a seed, and what the style is looked for in: indices into the dataset each."""

    first: np.ndarray
    second: np.ndarray
    known: np.ndarray

    @classmethod
    def draw(cls, dataset, split, count, seed):
        """Raises HwdiffError when the split has fewer than 2 count lines, or count is below 2."""
        lines = dataset.split(split)
        if count < 2 or 2 * count > len(lines):
            raise HwdiffError(
                f"{dataset.path}: two sets of {count} lines of the split {split} are asked for, which has {len(lines)}; sets of 2 or more"
            )
        order = np.random.default_rng((seed, 1)).permutation(lines)
        first, second = np.sort(order[:count]), np.sort(order[count : 2 * count])
        # Neither what is to be found nor what gave it its style.
        left = np.setdiff1d(lines, np.concatenate((second, style_lines(dataset.forms)[second])))
        _, member = np.unique(dataset.forms[left], return_inverse=True)
        order = np.argsort(member, kind="stable")
        starts = np.searchsorted(member[order], member[order])
        return cls(first, second, np.sort(left[order][np.arange(len(left)) - starts < KNOWN_A_FORM]))


class Measures:
    """All measures of a set of lines against another one.

    dataset: a `Dataset`.   split: whose lines are measured.   features: `StyleFeatures` of it.   recognizer: a `Recognizer`.
    weights: a file of Inception weights, "download" to let pytorch-fid fetch them, or None for the distance on MobileNetV2 features.
    landmarks, repetitions: of the Geometry Score. Raises HwdiffError where the weights cannot be had or the other splits have too few forms.
    """

    def __init__(self, dataset, split, features, recognizer, weights=None, landmarks=geometry.LANDMARKS, repetitions=geometry.REPETITIONS):
        self.dataset, self.features, self.recognizer = dataset, features, recognizer
        self.inception = load_inception(None if weights == "download" else weights, features.device) if weights else None
        self.landmarks, self.repetitions = landmarks, repetitions
        self.distance = "FID" if weights else "Fréchet distance (MobileNetV2)"
        self.weights = "Inception, " + INCEPTION_URL.rsplit("/", 1)[1] if weights else "MobileNetV2 of the style features"
        self.writer_styles = self._learn_writer_styles(split)

    def _learn_writer_styles(self, split):
        others = np.flatnonzero(self.dataset.splits != split)
        forms = np.unique(self.dataset.forms[others])
        forms = forms[np.linspace(0, len(forms) - 1, min(len(forms), STYLE_FORMS)).round().astype(int)] if len(forms) else forms
        others = others[np.isin(self.dataset.forms[others], forms)]
        return WriterStyles.learn(self.features.half(others).numpy(), self.dataset.forms[others])

    def notes(self, split, count):
        """What is to be said of numbers that these measures give for sets of `count` lines of a split."""
        notes = []
        if count < PAPER_LINES:
            notes.append(
                f"{count} lines a set, not the paper's {PAPER_LINES}: distances of so few lie far above those of many (the row {GROUND_TRUTH} "
                "shows by how much), and so do Geometry Scores; compare rows of one table only"
            )
        if not self.dataset.of_people:
            notes.append(
                "the lines are by built-in writers: nothing here can be compared with the paper's numbers, and the recognizer, which was trained on "
                "people's lines, reads them worse than it reads what a model of people's hands writes"
            )
        elif self.inception is None:
            notes.append("the distance is not FID, and the paper's FID stands beside it for its order of rows only")
        fraction = 2 * count / len(self.dataset.split(split))
        if fraction > 0.5:
            notes.append(
                f"each seed draws {100 * fraction:.0f} % of the split: the spread tells of the drawing of sets and of noise, not of other lines"
            )
        if self.landmarks != geometry.LANDMARKS:
            notes.append(f"{self.landmarks} landmarks, not the paper's {geometry.LANDMARKS}: there must be more lines than landmarks")
        seen = np.isin(self.dataset.forms[self.dataset.split(split)], self.recognizer.metadata.get("forms", {}).get("train", [])).mean()
        if seen:
            notes.append(f"the recognizer was trained on {100 * seen:.0f} % of these real lines: its errors on them are too few")
        return notes

    def settings(self, count):
        """What the measures of sets of `count` lines depend on besides their arguments, in JSON types."""
        return {
            "canvas": asdict(Canvas()),
            "picture features": self.weights,
            "Geometry Score": {
                "landmarks": self.landmarks,
                "repetitions": self.repetitions,
                "gamma": geometry.default_gamma(count),
                "i_max": geometry.I_MAX,
                "points a line": FULL_LENGTH,
            },
            "writer styles": {"forms": STYLE_FORMS, "lines a form": KNOWN_A_FORM, "found within": TOP},
            "corrupted lines": {"jitter": JITTER, "copies of a repeated line": COPIES},
        }

    def picture_features(self, inks, canvas):
        pictures = np.stack([canvas.draw(ink) for ink in inks])
        if self.inception:
            return inception_features(pictures, self.inception)
        return mobilenet_features(pictures, self.features.extractor)

    def reference(self, inks, sets, seed):
        """What the lines of a seed are compared with: a `Reference` of inks, the lines `sets.first`."""
        known = self.writer_styles(self.features.half(sets.known).numpy())
        return Reference(self.picture_features(inks, Canvas()), self._holes(inks, (seed, 0)), known, self.dataset.forms[sets.known])

    def _holes(self, inks, seed):
        return geometry.mrlt(points(inks), n=self.repetitions, seed=seed, landmarks=self.landmarks)

    def geometry_of_real(self, split, count, seed, corrupted=None):
        """{row: Geometry Score} of two sets of `count` real lines of a split, the second as it is and corrupted.

        It costs no writing, and shows on many lines what the score tells: gamma, as its authors choose it, shrinks with the number of lines, and so
        few are near enough to one another in a small set that the score is noise.   corrupted: {row: function(list of inks) -> list of inks}.
        """
        corrupted = corrupted or {CORRUPTED: partial(jittered, size=JITTER, seed=seed), REPEATED: repeated}
        sets = Sets.draw(self.dataset, split, count, seed)
        first, second = ([self.dataset.ink(index).trimmed() for index in some] for some in (sets.first, sets.second))
        landmarks = min(geometry.LANDMARKS, count // 2)

        def holes(inks, of):
            return geometry.mrlt(points(inks), n=min(self.repetitions, 100), seed=(seed, of), landmarks=landmarks)

        reference = holes(first, 0)
        return {row: geometry.geometry_score(reference, holes(change(second), 1)) for row, change in {GROUND_TRUTH: list, **corrupted}.items()}

    def __call__(self, inks, reference, sets, seed):
        """{measure: value} of inks, the lines `sets.second` or what was written instead of them, against a `Reference`; None without a value."""
        own, forms = self.picture_features(inks, Canvas()), self.dataset.forms[sets.second]
        kernel, deviation = kernel_distance(reference.pictures, own, seed=seed)
        holes = self._holes(inks, (seed, 1))  # other landmarks than the reference's
        found = np.flatnonzero(np.isin(forms, reference.known_forms))
        style = None
        if len(found) and len(np.unique(reference.known_forms)) > 1:
            queries = self.writer_styles(line_features([inks[number] for number in found], self.features.extractor))
            style = retrieve(queries, forms[found], reference.known, reference.known_forms)
        return {
            "distance": frechet_distance(reference.pictures, own),
            "kernel distance": kernel,
            "kernel distance deviation": deviation,
            "Geometry Score": geometry.geometry_score(reference.holes, holes),
            "fraction beyond i_max": max(reference.holes.beyond, holes.beyond),
            "error rate": legibility(inks, self.recognizer, resamples=0).cer.value,
            "style": style and style.within(TOP),
            "style, first": style and style.within(1),
            "style, by chance": style and min(1.0, TOP / style.forms),
        }


@dataclass
class Reference:
    """pictures: (n, d) features of a set's pictures.   holes: its `geometry.Mean`.   known, known_forms: where hands are looked for, (m, k), (m,)."""

    pictures: np.ndarray
    holes: geometry.Mean
    known: np.ndarray
    known_forms: np.ndarray


def jittered(inks, size, seed):
    """Lines corrupted by jitter, the same noise for the same seed."""
    return [with_jitter(ink, size, seed=(seed, place)) for place, ink in enumerate(inks)] if size else inks


def repeated(inks):
    """As many lines, but each of a tenth of them ten times."""
    return [inks[place % max(1, len(inks) // COPIES)] for place in range(len(inks))]


def points(inks):
    """Lines as points of one space, for the Geometry Score: offsets and pen flag padded to 488 points, (n, 1464) float32."""
    cut = [(ink.offsets[:FULL_LENGTH], ink.pen_up[:FULL_LENGTH]) for ink in inks]
    offsets, pen_up = strokes.pad(*zip(*cut, strict=True), FULL_LENGTH)
    return np.concatenate((offsets, pen_up[..., None]), axis=2).reshape(len(inks), -1)
