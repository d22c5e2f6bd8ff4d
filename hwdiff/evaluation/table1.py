"""Table 1 of Luhman & Luhman (2020): how far generated lines are from real ones, by several measures, each with its spread.

The paper's protocol: two disjoint sets of real lines are drawn; the model writes the texts of the second in the hands of the second; what it
wrote is compared with the first. The paper did it once; here each seed draws other sets and other noise.
"""

import csv
import json
import time
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np

from hwdiff.data import strokes
from hwdiff.data.batches import FULL_LENGTH
from hwdiff.data.dataset import style_lines
from hwdiff.errors import HwdiffError
from hwdiff.evaluation import geometry
from hwdiff.evaluation.corruption import with_jitter
from hwdiff.evaluation.frechet import INCEPTION_URL, Canvas, frechet_distance, inception_features, kernel_distance, load_inception, mobilenet_features
from hwdiff.evaluation.legibility import legibility
from hwdiff.evaluation.style import Hands, line_features, retrieve
from hwdiff.files import replacing

PAPER = {"ground truth": (2.91, 5.4e-4), "model (Eq. 12)": (7.10, 3.3e-3), "ablation (Eq. 9)": (8.05, 2.7e-3)}  # FID, Geometry Score
GROUND_TRUTH, SPOILT, REPEATED = "ground truth", "real, spoilt", "real, repeated"
JITTER = 0.4  # of the spoilt row, in standard deviations of the offsets
COPIES = 10  # of each line in the repeated row: a generator that knows few lines
GEOMETRY_LINES = 600  # of a set: with far fewer lines the Geometry Score tells nothing, see `Measures.geometry_of_real`
PAPER_LINES = 4500
SEED_STRIDE = 1_000_000
FOUND_WITHIN = 10  # forms: about as many as one person wrote
KNOWN_A_FORM = 4
HANDS_FORMS = 200  # forms of the other parts that hands are learnt from
CANVASES = {
    "1200 x 120, pen 2": Canvas(),
    "1200 x 120, pen 4": Canvas(pen=4.0),
    "600 x 60, pen 1": Canvas(600, 60, 2.5, 1.0),
    "1200 x 240, pen 2": Canvas(height=240),
}


@dataclass
class Column:
    """A measure. key: of the values.   title, form, factor: how a value is printed, times what.   sign: 1 where less is better, -1 where more is,
    0 where neither is."""

    key: str
    title: str
    form: str = "{:.2f}"
    factor: float = 1.0
    sign: int = 1


@dataclass
class Table:
    """values: {row: {measure: [one value a seed]}}.   seconds: {row: [seconds a line]}, of the rows that were written.

    canvases: {canvas: {row: distance}} of the first seed, that of the table first.   geometry: {row: [one Geometry Score a seed]} of larger sets
    of real lines.   paper: {row: (FID, Geometry Score)} of the paper, {} where nothing can be compared with it.
    distance: what the distance of images is to be called.
    settings: what all depends on, in JSON types.   notes: sentences on how far the numbers can be trusted.
    """

    distance: str
    settings: dict
    values: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)
    canvases: dict = field(default_factory=dict)
    geometry: dict = field(default_factory=dict)
    paper: dict = field(default_factory=lambda: PAPER)
    notes: list = field(default_factory=list)

    @property
    def columns(self):
        return (
            Column("distance", self.distance),
            Column("kernel distance", "kernel distance x 1000", factor=1000),
            Column("kernel distance deviation", "its deviation x 1000", factor=1000, sign=0),
            Column("Geometry Score", "Geometry Score x 1000", factor=1000),
            Column("error rate", "reader's errors, %", "{:.1f}", 100),
            Column("style", f"hand among first {FOUND_WITHIN}, %", "{:.1f}", 100, -1),
        )

    def worse(self, row, other):
        """The titles of the measures in which `row` is worse than `other`; None with fewer than two seeds, when it cannot be told.

        It is where the mean of its differences, seed by seed, is more than twice its standard error.
        """
        if len(self.settings["seeds"]) < 2:
            return None
        found = []
        for column in self.columns:
            pairs = zip(self.values[row][column.key], self.values[other][column.key], strict=True)
            differences = [column.sign * (one - two) for one, two in pairs if one is not None and two is not None]
            mean, spread = _mean_sd(differences)
            if mean > 2 * spread / np.sqrt(len(differences)):
                found.append(column.title)
        return found

    def text(self):
        """The table for a person: mean and standard deviation over the seeds, the paper's numbers beside them."""
        heads = ["", *(column.title for column in self.columns), "s a line", *(("paper: FID", "GS x 1000") if self.paper else ())]
        lines = [heads]
        for row, values in self.values.items():
            cells = [_spread(values[column.key], column) for column in self.columns]
            cells.append(_spread(self.seconds[row], Column("", "")) if row in self.seconds else "")
            fid, score = self.paper.get(row, (None, None))
            beside = ["" if fid is None else f"{fid:.2f}", "" if score is None else f"{1000 * score:.2f}"]
            lines.append([row, *cells, *(beside if self.paper else ())])
        widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
        rows = [
            "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]) for line in lines
        ]
        if self.canvases:
            rows += ["", f"{self.distance} on this and other canvases, first seed:"]
            wide = max(map(len, self.canvases))
            rows += [f"  {name:{wide}}  " + ", ".join(f"{row} {value:.2f}" for row, value in some.items()) for name, some in self.canvases.items()]
        if self.geometry:
            score = next(column for column in self.columns if column.key == "Geometry Score")
            spreads = ", ".join(f"{row} {_spread(values, score)}" for row, values in self.geometry.items())
            rows += ["", f"Geometry Score x 1000 of sets of {self.settings['lines of a larger set']} real lines: {spreads}"]
        rows += ["", *(f"note: {note}" for note in self.notes)] if self.notes else []
        return "\n".join(rows)

    def found_notes(self):
        """What is to be said of the values: by what chance a hand is found, how the lines were written, what the Geometry Score leaves out."""
        found, guidance = [], self.settings.get("writing", {}).get("guidance", 1)
        if guidance != 1:
            found.append(
                f"written with guidance {guidance:g}, which is not in the paper, by Eq. 12 and Eq. 9 alike: the network is run twice at each call; "
                "with guidance 1 it is the paper's method"
            )
        chances = [chance for chance in self.values[GROUND_TRUTH]["style, by chance"] if chance]
        if chances:
            found.append(f"by chance {100 * np.mean(chances):.1f} % of the hands would be among the first {FOUND_WITHIN} as well")
        beyond = max(max(values["share beyond i_max"]) for values in self.values.values())
        if beyond:
            found.append(
                f"up to {100 * beyond:.1f} % of the living times lie at or above i_max = {geometry.I_MAX} holes, which the Geometry Score leaves out"
            )
        return found

    def rows(self):
        """Mean and standard deviation over the seeds, a list of dictionaries {"row", "<measure>; mean", "<measure>; sd", ...}; NaN without values."""
        names = {column.key: column.key for column in self.columns} | {"distance": self.distance, "error rate": "reader's error rate"}
        names["style"] = f"hand among first {FOUND_WITHIN}"
        rows = []
        for row, values in self.values.items():
            numbers = {
                f"{name}; {part}": number for key, name in names.items() for part, number in zip(("mean", "sd"), _mean_sd(values[key]), strict=True)
            }
            rows.append({"row": row, **numbers})
        return rows

    def save(self, folder):
        """Write table1.csv (mean and standard deviation), table1.json (everything but times) and timings.json into `folder`."""
        with replacing(folder / "table1.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            for number, row in enumerate(self.rows()):
                if number == 0:
                    writer.writerow(row)
                writer.writerow(value if isinstance(value, str) else f"{value:.6g}" for value in row.values())
        everything = asdict(self)
        times = everything.pop("seconds")
        for name, content in (("table1.json", everything), ("timings.json", {"seconds a line": times})):
            with replacing(folder / name) as temporary:
                temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _mean_sd(values):
    values = np.asarray([value for value in values if value is not None], dtype=float)
    return (values.mean() if len(values) else np.nan, values.std(ddof=1) if len(values) > 1 else np.nan)


def _spread(values, column):
    mean, sd = (column.factor * number for number in _mean_sd(values))
    if np.isnan(mean):
        return "-"
    return column.form.format(mean) + ("" if np.isnan(sd) else " ± " + column.form.format(sd))


@dataclass
class Sets:
    """The two disjoint sets of lines of a seed, and what the style is looked for in: indices into the dataset each."""

    first: np.ndarray
    second: np.ndarray
    known: np.ndarray

    @classmethod
    def draw(cls, dataset, part, count, seed):
        """Raises HwdiffError when the part has fewer than 2 count lines, or count is below 2."""
        lines = dataset.part(part)
        if count < 2 or 2 * count > len(lines):
            raise HwdiffError(
                f"{dataset.path}: two sets of {count} lines of the part {part} are asked for, which has {len(lines)}; sets of 2 or more"
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

    dataset: a `Dataset`.   part: whose lines are measured.   features: `StyleFeatures` of it.   reader: a `Reader`.
    weights: a file of Inception weights, "download" to let pytorch-fid fetch them, or None for the distance on MobileNetV2 features.
    landmarks, repetitions: of the Geometry Score. Raises HwdiffError where the weights cannot be had or the other parts have too few forms.
    """

    def __init__(self, dataset, part, features, reader, weights=None, landmarks=geometry.LANDMARKS, repetitions=geometry.REPETITIONS):
        self.dataset, self.features, self.reader = dataset, features, reader
        self.inception = load_inception(None if weights == "download" else weights, features.device) if weights else None
        self.landmarks, self.repetitions = landmarks, repetitions
        self.distance = "FID" if weights else "Fréchet distance (MobileNetV2)"
        self.weights = "Inception, " + INCEPTION_URL.rsplit("/", 1)[1] if weights else "MobileNetV2 of the style features"
        self.hands = self._learn_hands(part)

    def _learn_hands(self, part):
        others = np.flatnonzero(self.dataset.parts != part)
        forms = np.unique(self.dataset.forms[others])
        forms = forms[np.linspace(0, len(forms) - 1, min(len(forms), HANDS_FORMS)).round().astype(int)] if len(forms) else forms
        others = others[np.isin(self.dataset.forms[others], forms)]
        return Hands.learn(self.features.half(others).numpy(), self.dataset.forms[others])

    def notes(self, part, count):
        """What is to be said of numbers that these measures give for sets of `count` lines of a part."""
        notes = []
        if count < PAPER_LINES:
            notes.append(
                f"{count} lines a set, not the paper's {PAPER_LINES}: distances of so few lie far above those of many (the row {GROUND_TRUTH} "
                "shows by how much), and so do Geometry Scores; compare rows of one table only"
            )
        if not self.dataset.of_people:
            notes.append(
                "the lines are by built-in writers: nothing here can be compared with the paper's numbers, and the reader, which was trained on "
                "people's lines, reads them worse than it reads what a model of people's hands writes"
            )
        elif self.inception is None:
            notes.append("the distance is not FID, and the paper's FID stands beside it for its order of rows only")
        share = 2 * count / len(self.dataset.part(part))
        if share > 0.5:
            notes.append(f"each seed draws {100 * share:.0f} % of the part: the spread tells of the drawing of sets and of noise, not of other lines")
        if self.landmarks != geometry.LANDMARKS:
            notes.append(f"{self.landmarks} landmarks, not the paper's {geometry.LANDMARKS}: there must be more lines than landmarks")
        seen = np.isin(self.dataset.forms[self.dataset.part(part)], self.reader.info.get("forms", {}).get("train", [])).mean()
        if seen:
            notes.append(f"the reader was trained on {100 * seen:.0f} % of these real lines: its errors on them are too few")
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
            "hands": {"forms": HANDS_FORMS, "lines a form": KNOWN_A_FORM, "found within": FOUND_WITHIN},
            "spoilt lines": {"jitter": JITTER, "copies of a repeated line": COPIES},
        }

    def picture_features(self, inks, canvas):
        pictures = np.stack([canvas.draw(ink) for ink in inks])
        if self.inception:
            return inception_features(pictures, self.inception)
        return mobilenet_features(pictures, self.features.extractor)

    def reference(self, inks, sets, seed):
        """What the lines of a seed are compared with: a `Reference` of inks, the lines `sets.first`."""
        known = self.hands(self.features.half(sets.known).numpy())
        return Reference(self.picture_features(inks, Canvas()), self._holes(inks, (seed, 0)), known, self.dataset.forms[sets.known])

    def _holes(self, inks, seed):
        return geometry.mrlt(points(inks), n=self.repetitions, seed=seed, landmarks=self.landmarks)

    def geometry_of_real(self, part, count, seed, spoilt=None):
        """{row: Geometry Score} of two sets of `count` real lines of a part, the second as it is and spoilt.

        It costs no writing, and shows on many lines what the score tells: gamma, as its authors choose it, shrinks with the number of lines, and so
        few are near enough to one another in a small set that the score is noise.   spoilt: {row: function(list of inks) -> list of inks}.
        """
        spoilt = spoilt or {SPOILT: partial(shaken, size=JITTER, seed=seed), REPEATED: repeated}
        sets = Sets.draw(self.dataset, part, count, seed)
        first, second = ([self.dataset.ink(index).trimmed() for index in some] for some in (sets.first, sets.second))
        landmarks = min(geometry.LANDMARKS, count // 2)

        def holes(inks, of):
            return geometry.mrlt(points(inks), n=min(self.repetitions, 100), seed=(seed, of), landmarks=landmarks)

        reference = holes(first, 0)
        return {row: geometry.geometry_score(reference, holes(change(second), 1)) for row, change in {GROUND_TRUTH: list, **spoilt}.items()}

    def __call__(self, inks, reference, sets, seed):
        """{measure: value} of inks, the lines `sets.second` or what was written instead of them, against a `Reference`; None without a value."""
        own, forms = self.picture_features(inks, Canvas()), self.dataset.forms[sets.second]
        kernel, deviation = kernel_distance(reference.pictures, own, seed=seed)
        holes = self._holes(inks, (seed, 1))  # other landmarks than the reference's
        found = np.flatnonzero(np.isin(forms, reference.known_forms))
        style = None
        if len(found) and len(np.unique(reference.known_forms)) > 1:
            queries = self.hands(line_features([inks[number] for number in found], self.features.extractor))
            style = retrieve(queries, forms[found], reference.known, reference.known_forms)
        return {
            "distance": frechet_distance(reference.pictures, own),
            "kernel distance": kernel,
            "kernel distance deviation": deviation,
            "Geometry Score": geometry.geometry_score(reference.holes, holes),
            "share beyond i_max": max(reference.holes.beyond, holes.beyond),
            "error rate": legibility(inks, self.reader, resamples=0).cer.value,
            "style": style and style.within(FOUND_WITHIN),
            "style, first": style and style.within(1),
            "style, by chance": style and min(1.0, FOUND_WITHIN / style.forms),
        }


@dataclass
class Reference:
    """pictures: (n, d) features of a set's pictures.   holes: its `geometry.Mean`.   known, known_forms: where hands are looked for, (m, k), (m,)."""

    pictures: np.ndarray
    holes: geometry.Mean
    known: np.ndarray
    known_forms: np.ndarray


def shaken(inks, size, seed):
    """Lines spoilt by jitter, the same noise for the same seed."""
    return [with_jitter(ink, size, seed=(seed, place)) for place, ink in enumerate(inks)] if size else inks


def repeated(inks):
    """As many lines, but each of a tenth of them ten times."""
    return [inks[place % max(1, len(inks) // COPIES)] for place in range(len(inks))]


def points(inks):
    """Lines as points of one space, for the Geometry Score: offsets and pen flag padded to 488 points, (n, 1464) float32."""
    cut = [(ink.offsets[:FULL_LENGTH], ink.pen_up[:FULL_LENGTH]) for ink in inks]
    offsets, pen_up = strokes.pad(*zip(*cut, strict=True), FULL_LENGTH)
    return np.concatenate((offsets, pen_up[..., None]), axis=2).reshape(len(inks), -1)


def table1(measures, part, count, seeds, writers, settings=None, canvases=True, folder=None, progress=None):
    """Measure real lines, spoilt ones and written ones against real lines.

    measures: `Measures`.   part: of the dataset.   count: lines of each of both sets.   seeds: a list; each draws its own sets and noise.
    writers: {row: function(indices, seed) that returns a list of `Ink`}, line i written with seed + i.   settings: what is noted with the table.
    canvases: also measure the first seed's distance on other CANVASES.   folder: where the table is saved after each seed, None for nowhere.
    progress(row): what was done since the last call.
    Returns a `Table`. Raises HwdiffError when the part is too small.
    """
    dataset = measures.dataset
    larger = min(GEOMETRY_LINES, len(dataset.part(part)) // 2)
    chosen = {"part": part, "lines": count, "seeds": [], **measures.settings(count), "lines of a larger set": larger}
    notes = measures.notes(part, count)
    table = Table(measures.distance, {**(settings or {}), **chosen}, notes=notes, paper=PAPER if dataset.of_people else {})
    for number, seed in enumerate(seeds):
        sets = Sets.draw(dataset, part, count, seed)
        first, second = ([dataset.ink(index).trimmed() for index in some] for some in (sets.first, sets.second))
        reference = measures.reference(first, sets, seed)
        measures.features.compute(style_lines(dataset.forms)[sets.second])  # not to be counted as time of the first row
        rows = {}
        for row in (GROUND_TRUTH, *writers, SPOILT):
            if row == GROUND_TRUTH:
                inks = second
            elif row == SPOILT:
                inks = shaken(second, JITTER, seed)
            else:
                start = time.perf_counter()
                # Line i of one seed must not be written as line i + 1 of the one before.
                inks = writers[row](sets.second, seed * SEED_STRIDE)
                table.seconds.setdefault(row, []).append((time.perf_counter() - start) / count)
            for key, value in measures(inks, reference, sets, seed).items():
                table.values.setdefault(row, {}).setdefault(key, []).append(value)
            rows[row] = inks
            if progress:
                progress(row)
        if canvases and number == 0:
            for name, canvas in CANVASES.items():
                against = measures.picture_features(first, canvas)
                table.canvases[name] = {row: frechet_distance(against, measures.picture_features(inks, canvas)) for row, inks in rows.items()}
        if larger > count:
            for row, value in measures.geometry_of_real(part, larger, seed).items():
                table.geometry.setdefault(row, []).append(value)
        table.settings["seeds"].append(seed)
        table.notes = [*notes, *table.found_notes()]
        if folder:
            table.save(folder)
    return table
