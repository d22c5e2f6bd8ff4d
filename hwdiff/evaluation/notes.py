"""Sentences on how far the numbers of Table 1 can be trusted."""

from collections.abc import Iterator

import numpy as np

from hwdiff.data.dataset import Dataset
from hwdiff.evaluation import geometry
from hwdiff.evaluation.frechet import AXES, LINES_PER_AXIS
from hwdiff.evaluation.recognizer import Recognizer
from hwdiff.evaluation.tables import GEOMETRY_LINES, GROUND_TRUTH, PAPER_LINES, TOP, Table

ON_SPREAD = "a ± in these tables is the standard deviation over the seeds"
ON_RATES = (
    "the CER is micro-averaged: all edits over all characters. The bundled recognizer did more than measure: "
    "it chose the guidance of the bundled models and the training of students, on validation lines, and "
    "the styles, by five short texts. It was trained on the training forms of IAM, as the bundled models "
    "were. That the network of the paper's size became the default was decided with test lines in view"
)
ON_INTERVALS = (
    "an interval is one of 95 %, of a paired bootstrap over forms: what is compared has the same sets, texts "
    "and, where both were written, noise. A difference is of the lines of all seeds together; in the CER it "
    "may be a little other than that of the rows, which are means over the seeds. The forms of one person, "
    "whom the archives do not name, count as independent, so that it is somewhat narrow"
)
ON_RETRIEVAL = (
    "forms are looked for, since the archives name no writers. By style features this is circular: the "
    "network was conditioned on them. In the hand-made ones no network had a part"
)


def notes_on_sets(
    dataset: Dataset,
    split: str,
    *,
    count: int,
    recognizer: Recognizer,
    is_fid: bool,
) -> Iterator[str]:
    """What is to be said of sets of `count` lines of a split, whatever is measured.

    is_fid: whether the distance is FID.
    """
    if not dataset.of_people:
        yield (
            "the lines are by built-in writers: nothing here can be compared with the paper's numbers, and "
            "the recognizer, which was trained on people's lines, may read them worse than what a model of "
            "people's handwriting writes"
        )
    elif not is_fid:
        yield "no distance here is FID, and the paper's FID stands beside them for its order of rows only"
    if is_fid and count < PAPER_LINES:
        yield (
            f"{count} lines a set, not the paper's {PAPER_LINES}: FID of small sets is biased, by an amount "
            "that depends on who wrote: it can be compared with nothing"
        )
    lines = dataset.split(split)
    fraction = 2 * count / len(lines)
    if fraction > 0.5:
        yield (
            f"each seed draws {100 * fraction:.0f} % of the split: the spread is that of drawing sets and of "
            "noise, and tells nothing of other lines"
        )
    if count < LINES_PER_AXIS * AXES:
        yield f"no Fréchet distance: it needs {LINES_PER_AXIS * AXES} lines a set"
    if dataset.of_people and GEOMETRY_LINES <= count < PAPER_LINES:
        yield (
            f"{count} lines a set, not the paper's {PAPER_LINES}: gamma is in proportion to their number, so "
            "that their Geometry Scores cannot be compared with the paper's"
        )
    if count < GEOMETRY_LINES:
        yield f"no Geometry Score of sets of {count} lines: with fewer than {GEOMETRY_LINES} it is noise"
    trained_on = recognizer.metadata.get("forms", {}).get("train", [])
    seen = np.isin(dataset.forms[lines], trained_on).mean()
    if seen:
        percent = f"{100 * seen:.0f} %"
        yield f"the recognizer was trained on {percent} of these real lines: its CER on them is too low"
    yield from (ON_SPREAD, ON_INTERVALS, ON_RATES, ON_RETRIEVAL)


def notes_on_values(table: Table) -> Iterator[str]:
    """What is to be said of the values: how lines were written, and what a measure alone does not tell."""
    guidances = sorted({table.guidance(row) for row in table.settings.get("rows", {})} - {1.0})
    if guidances:
        yield (
            f"guidance {', '.join(f'{guidance:g}' for guidance in guidances)} is not in the paper, and "
            "evaluates the network twice a step; guidance 1 is the paper's method"
        )
    chances = [chance for chance in table.values[GROUND_TRUTH]["style_chance"] if chance]
    if chances:
        percent = f"{100 * np.mean(chances):.1f} %"
        yield (
            f"of forms drawn at random the one asked for would be among the first {TOP} in {percent} of the "
            "lines"
        )
    if "eq12_foreign" in table.values:
        yield (
            "the text alone may find its form more often than that, since the features tell a little of its "
            "length: what is written in foreign styles, those of other forms, shows how often"
        )
    beyond = [value for values in table.values.values() for value in values["beyond_i_max"] if value]
    if beyond:
        yield (
            f"up to {100 * max(beyond):.1f} % of the living times lie at or above i_max = {geometry.I_MAX} "
            "holes, which the Geometry Score leaves out"
        )
    if table.geometry:
        yield from _note_on_geometry(table)


def _note_on_geometry(table):
    """Whether the score of larger sets of real lines is lower for them as they are, as it should be."""
    real = np.array(table.geometry[GROUND_TRUTH])
    for row, scores in table.geometry.items():
        if row == GROUND_TRUTH:
            continue
        dips = int(np.sum(np.array(scores) <= real))
        if dips:
            yield (
                f"in {dips} of {len(real)} seeds the Geometry Score of larger sets is no lower for real "
                f"lines as they are than for those called “{table.title(row)}”: even there it is partly noise"
            )
