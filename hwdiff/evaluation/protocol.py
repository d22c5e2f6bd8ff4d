"""The protocol of Table 1 of Luhman & Luhman (2020): a loop over seeds and rows.

Two disjoint sets of real lines are drawn. The model writes the texts of the second in the styles of the
second. What it wrote is compared with the first. The paper did it once; here each seed draws other sets and
other noise.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hwdiff.data.dataset import Dataset, style_lines
from hwdiff.evaluation.bootstrap import paired_difference
from hwdiff.evaluation.corruption import JITTER, jittered
from hwdiff.evaluation.frechet import kernel_distance
from hwdiff.evaluation.generation import lines_of_others
from hwdiff.evaluation.measures import Measures
from hwdiff.evaluation.notes import notes_on_sets, notes_on_values
from hwdiff.evaluation.pictures import Canvas
from hwdiff.evaluation.report import save_table
from hwdiff.evaluation.sets import Sets, real_inks
from hwdiff.evaluation.tables import (
    CORRUPTED,
    GEOMETRY_LINES,
    GROUND_TRUTH,
    KERNEL_DISTANCE,
    PAPER,
    Table,
)
from hwdiff.evaluation.written import WRITING_CODE, Generator, write_lines
from hwdiff.ink.ink import Ink
from hwdiff.utils.arrays import save_npz
from hwdiff.utils.files import json_fingerprint, tree_fingerprint

# Between the noise of one seed and the next: line i of one must not be written as line i + 1 of the other.
SEED_STRIDE = 1_000_000
CANVASES = {
    "1200 x 120, pen 2": Canvas(),  # the table's
    "1200 x 120, pen 4": Canvas(pen=4.0),
    "600 x 60, pen 1": Canvas(600, 60, 2.5, 1.0),
    "1200 x 240, pen 2": Canvas(height=240),
}
CANVAS_LINES = 600  # of each set at most: drawing thousands anew takes an hour

PACKAGE = Path(__file__).parents[1]


def table1(
    measures: Measures,
    split: str,
    *,
    count: int,
    seeds: Sequence[int],
    generators: dict[str, Generator],
    compared: Sequence[tuple[str, str]] = (),
    settings: dict | None = None,
    canvases: bool = True,
    folder: Path | None = None,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Table:
    """Measure real lines, corrupted ones and generated ones against real lines.

    measures: of the dataset and split.
    split: of the dataset.   count: lines of each of both sets.   seeds: each draws its own sets and noise.
    generators: {row: generator}.
    compared: pairs of rows whose differences are noted, with intervals.
    settings: what is noted with the table. A row that is written depends on its "dataset", "model" and
        "style_encoder", and on what is in "rows" for it.
    canvases: also measure the first seed's kernel distance on CANVASES, of at most CANVAS_LINES lines a set.
    folder: where the table is saved after each seed, in "lines.npz" what was measured of each line, and in
        "written" the lines as they are written; those of an evaluation that was stopped are read there. None
        for nowhere.
    workers: of `write_lines`.
    progress(count): called when so many more lines, real ones too, are there to be measured.
    Raises HwdiffError when the split is too small.
    """
    dataset = measures.dataset
    progress = progress or (lambda count: None)
    writing = {"folder": folder, "workers": workers, "progress": progress}
    larger = GEOMETRY_LINES if len(dataset.split(split)) >= 2 * GEOMETRY_LINES else 0
    table = _empty_table(measures, split, count, larger, settings or {})
    notes, by_line = table.notes, []
    for seed in seeds:
        sets = Sets.draw(dataset, split, count=count, seed=seed)
        reference = measures.reference(sets)

        # Measure each row.
        inks_of, measured = {}, {}
        for row, inks, seconds in _rows(measures, sets, generators, table.settings, writing):
            measured[row] = measures(inks, reference)
            table.add(row, measured[row].values, seconds)
            inks_of[row] = inks
        by_line.append((sets, {row: found.by_line for row, found in measured.items()}))

        # What is measured besides: the first seed on other canvases, and more real lines.
        if canvases and not table.canvases:
            table.canvases = _distances_by_canvas(measures, sets, inks_of)
        if larger > count:
            many = Sets.draw(dataset, split, count=larger, seed=seed)
            table.add_geometry(measures.geometry_of_real(many))

        table.settings["seeds"].append(seed)
        table.differences = _differences(by_line, dataset.forms, compared)
        table.notes = [*notes, *notes_on_values(table)]
        if folder:
            save_table(table, folder)
            _save_by_line(by_line, dataset.ids, folder)
    return table


def _empty_table(measures, split, count, larger, settings):
    settings = {
        **settings,
        "split": split,
        "lines": count,
        "seeds": [],
        **measures.settings(count),
        "geometry_lines": larger,
        "canvas_lines": min(count, CANVAS_LINES),
    }
    notes = notes_on_sets(
        measures.dataset,
        split,
        count=count,
        recognizer=measures.recognizer,
        is_fid=measures.is_fid,
    )
    paper = PAPER if measures.dataset.of_people else {}
    return Table(measures.distance, settings, paper=paper, notes=list(notes))


def _rows(measures, sets, generators, settings, writing):
    """Yields the lines of each row, and the seconds that writing one took."""
    second = real_inks(measures.dataset, sets.second)
    writing["progress"](len(second))
    yield GROUND_TRUTH, second, None
    # Computed now, so that it is not counted as time of writing.
    give_styles = [sets.second]
    if any(about.get("foreign_styles") for about in settings.get("rows", {}).values()):
        give_styles.append(lines_of_others(measures.dataset, sets.second))
    measures.features.compute(np.unique(style_lines(measures.dataset.forms)[np.concatenate(give_styles)]))
    for row, generate in generators.items():
        inks, seconds = write_row(row, sets, measures.dataset, generate, settings, **writing)
        yield row, inks, seconds / len(inks)
    writing["progress"](len(second))
    yield CORRUPTED, jittered(second, JITTER, sets.seed), None


def write_row(
    row: str,
    sets: Sets,
    dataset: Dataset,
    generate: Generator,
    settings: dict,
    *,
    folder: Path | None = None,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Ink], float]:
    """The lines of a row that is written, and the seconds that it took.

    row, generate: the row's name and generator.
    settings, folder, workers, progress: of `table1`; with its folder these are the lines that it measured.
    """
    about = [settings.get(key) for key in ("dataset", "model", "style_encoder")]
    where = settings.get("environment", {})
    about += [where.get("device"), where.get("packages", {}).get("torch")]
    code = [tree_fingerprint(PACKAGE / package) for package in WRITING_CODE]
    depends_on = json_fingerprint([about, settings.get("rows", {}).get(row), sets.second.tolist(), code])
    return write_lines(
        generate,
        dataset.texts,
        sets.second,
        sets.seed * SEED_STRIDE,
        folder=folder and folder / "written" / f"{row}-{sets.seed}-{depends_on[:8]}",
        workers=workers,
        progress=progress,
    )


def _save_by_line(by_line, ids, folder):
    """Write `Measured.by_line` of each row and seed, and whose lines they are, into lines.npz."""
    found = {}
    for sets, rows in by_line:
        found |= {f"{sets.seed}/first": ids[sets.first], f"{sets.seed}/second": ids[sets.second]}
        for row, measures in rows.items():
            found |= {f"{sets.seed}/{row}/{measure}": values for measure, values in measures.items()}
    save_npz(folder / "lines.npz", found)


def _differences(by_line, forms, compared):
    """{row: {other: {measure: (value, low, high)}}} of pairs of rows, over the lines of all seeds.

    by_line: of each seed its sets, and {row: {measure: (n, 2)}}, as `Measured` has it.
    forms: of all lines of the dataset. The bootstrap draws whole forms, with all their lines of all seeds,
        since lines of one writer are alike.
    """
    differences = {}
    forms_of_second = np.concatenate([forms[sets.second] for sets, _ in by_line])
    forms_of_both = np.concatenate([forms[some] for sets, _ in by_line for some in (sets.first, sets.second)])
    for row, other in compared:
        found = differences.setdefault(row, {}).setdefault(other, {})
        for measure in by_line[0][1][row]:
            groups = forms_of_both if measure == KERNEL_DISTANCE.key else forms_of_second
            values = (np.concatenate([rows[one][measure] for _, rows in by_line]) for one in (row, other))
            difference = paired_difference(*values, groups)
            # Where no line differs, no resample does: an interval of no width would say too much.
            if difference and any(difference):
                found[measure] = difference
    return differences


def _distances_by_canvas(measures, sets, inks_of):
    some = np.linspace(0, len(sets.first) - 1, min(len(sets.first), CANVAS_LINES)).round().astype(int)
    first, distances = real_inks(measures.dataset, sets.first[some]), {}
    for name, canvas in CANVASES.items():
        against = measures.picture_features(first, canvas)
        distances[name] = {
            row: kernel_distance(against, measures.picture_features([inks[line] for line in some], canvas))
            for row, inks in inks_of.items()
        }
    return distances
