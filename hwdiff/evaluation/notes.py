"""Sentences on how far the numbers of Table 1 can be trusted."""

from collections.abc import Iterator

import numpy as np

from hwdiff.data.dataset import Dataset
from hwdiff.evaluation import geometry
from hwdiff.evaluation.recognizer import Recognizer
from hwdiff.evaluation.tables import GROUND_TRUTH, PAPER_LINES, TOP, Table, row_title


def notes_on_sets(
    dataset: Dataset,
    split: str,
    *,
    count: int,
    recognizer: Recognizer,
    landmarks: int,
    is_fid: bool,
) -> Iterator[str]:
    """What is to be said of sets of `count` lines of a split, whatever is measured.

    landmarks: of the Geometry Score.
    is_fid: whether the distance is FID.
    """
    if count < PAPER_LINES:
        yield (
            f"{count} lines a set, not the paper's {PAPER_LINES}: distances of so few lie far above those of "
            f"many (the row {row_title(GROUND_TRUTH)} shows by how much), and so do Geometry Scores; "
            "compare rows of one table only"
        )
    if not dataset.of_people:
        yield (
            "the lines are by built-in writers: nothing here can be compared with the paper's numbers, and "
            "the recognizer, which was trained on people's lines, reads them worse than what a model of "
            "people's handwriting writes"
        )
    elif not is_fid:
        yield "the distance is not FID, and the paper's FID stands beside it for its order of rows only"
    lines = dataset.split(split)
    fraction = 2 * count / len(lines)
    if fraction > 0.5:
        yield (
            f"each seed draws {100 * fraction:.0f} % of the split: the spread is that of drawing sets and of "
            "noise, and tells nothing of other lines"
        )
    if landmarks != geometry.LANDMARKS:
        usual = geometry.LANDMARKS
        yield f"{landmarks} landmarks, not the paper's {usual}: there must be more lines than landmarks"
    trained_on = recognizer.metadata.get("forms", {}).get("train", [])
    seen = np.isin(dataset.forms[lines], trained_on).mean()
    if seen:
        percent = f"{100 * seen:.0f} %"
        yield f"the recognizer was trained on {percent} of these real lines: its CER on them is too low"


def notes_on_values(table: Table) -> Iterator[str]:
    """What is to be said of the values: how lines were written, and what a measure alone does not tell."""
    guided = {
        row: about["guidance"]
        for row, about in table.settings.get("rows", {}).items()
        if about.get("guidance", 1) != 1
    }
    if guided:
        rows = ", ".join(map(row_title, guided))
        yield (
            f"written with guidance {max(guided.values()):g}, which is not in the paper and evaluates the "
            f"network twice a step: {rows}; the others with 1, the paper's method"
        )
    yield "a ± is the standard deviation over the seeds"
    yield (
        "the CER is micro-averaged over the characters; the recognizer also chose guidance, default style "
        "and the sampler fast, on other lines"
    )
    chances = [chance for chance in table.values[GROUND_TRUTH]["style_chance"] if chance]
    if chances:
        percent = f"{100 * np.mean(chances):.1f} %"
        yield f"by chance {percent} of the writer styles would be among the first {TOP} as well"
    beyond = max(max(values["beyond_i_max"]) for values in table.values.values())
    if beyond:
        yield (
            f"up to {100 * beyond:.1f} % of the living times lie at or above i_max = {geometry.I_MAX} holes, "
            "which the Geometry Score leaves out"
        )
