"""The protocol of Table 1 of Luhman & Luhman (2020): a loop over seeds and rows.

Two disjoint sets of real lines are drawn. The model writes the texts of the second in the styles of the
second. What it wrote is compared with the first. The paper did it once; here each seed draws other sets and
other noise.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hwdiff.data.dataset import style_lines
from hwdiff.evaluation.bootstrap import paired_difference
from hwdiff.evaluation.corruption import JITTER, jittered
from hwdiff.evaluation.frechet import kernel_distance
from hwdiff.evaluation.measures import Measures
from hwdiff.evaluation.notes import notes_on_sets, notes_on_values
from hwdiff.evaluation.pictures import Canvas
from hwdiff.evaluation.report import save_table
from hwdiff.evaluation.sets import Sets, real_inks
from hwdiff.evaluation.tables import CORRUPTED, GEOMETRY_LINES, GROUND_TRUTH, PAPER, Table
from hwdiff.ink.ink import Ink

# Between the noise of one seed and the next: line i of one must not be written as line i + 1 of the other.
SEED_STRIDE = 1_000_000
TABLES_CANVAS = "1200 x 120, pen 2"
OTHER_CANVASES = {
    "1200 x 120, pen 4": Canvas(pen=4.0),
    "600 x 60, pen 1": Canvas(600, 60, 2.5, 1.0),
    "1200 x 240, pen 2": Canvas(height=240),
}

Generator = Callable[[np.ndarray, int], list[Ink]]
"""generator(indices, seed): lines of the dataset written again, the i-th of them with seed + i."""


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
    progress: Callable[[str], None] | None = None,
) -> Table:
    """Measure real lines, corrupted ones and generated ones against real lines.

    measures: of the dataset and split.
    split: of the dataset.   count: lines of each of both sets.   seeds: each draws its own sets and noise.
    generators: {row: generator}.
    compared: pairs of rows whose differences are noted, with intervals.
    settings: what is noted with the table.
    canvases: also measure the first seed's kernel distance on OTHER_CANVASES.
    folder: where the table is saved after each seed, None for nowhere.
    progress(row): called after each row of each seed.
    Raises HwdiffError when the split is too small.
    """
    dataset = measures.dataset
    larger = GEOMETRY_LINES if len(dataset.split(split)) >= 2 * GEOMETRY_LINES else 0
    table = _empty_table(measures, split, count, larger, settings or {})
    notes, by_line = table.notes, []
    for seed in seeds:
        sets = Sets.draw(dataset, split, count=count, seed=seed)
        reference = measures.reference(sets)

        # Measure each row.
        inks_of, measured = {}, {}
        for row, inks, seconds in _rows(measures, sets, generators):
            measured[row] = measures(inks, reference)
            table.add(row, measured[row].values, seconds)
            inks_of[row] = inks
            if progress:
                progress(row)
        by_line.append((dataset.forms[sets.second], {row: found.by_line for row, found in measured.items()}))

        # What is measured besides: the first seed on other canvases, and more real lines.
        if canvases and not table.canvases:
            distances = {row: found.values["kernel_distance"] for row, found in measured.items()}
            table.canvases = {TABLES_CANVAS: distances, **_distances_by_canvas(measures, sets, inks_of)}
        if larger > count:
            many = Sets.draw(dataset, split, count=larger, seed=seed)
            table.add_geometry(measures.geometry_of_real(many))

        table.settings["seeds"].append(seed)
        table.differences = _differences(by_line, compared)
        table.notes = [*notes, *notes_on_values(table)]
        if folder:
            save_table(table, folder)
    return table


def _empty_table(measures, split, count, larger, settings):
    settings = {
        **settings,
        "split": split,
        "lines": count,
        "seeds": [],
        **measures.settings(count),
        "geometry_lines": larger,
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


def _rows(measures, sets, generators) -> Iterator[tuple[str, list[Ink], float | None]]:
    """The lines of each row, and the seconds that writing one took."""
    second = real_inks(measures.dataset, sets.second)
    yield GROUND_TRUTH, second, None
    # Computed now, so that it is not counted as time of the first row.
    measures.features.compute(style_lines(measures.dataset.forms)[sets.second])
    for row, generate in generators.items():
        start = time.perf_counter()
        inks = generate(sets.second, sets.seed * SEED_STRIDE)
        yield row, inks, (time.perf_counter() - start) / len(inks)
    yield CORRUPTED, jittered(second, JITTER, sets.seed), None


def _differences(by_line, compared):
    """{row: {other: {measure: (value, low, high)}}} of pairs of rows, over the lines of all seeds.

    by_line: of each seed the forms of its lines, and {row: {measure: (n, 2)}}. The bootstrap draws whole
        forms, with all their lines of all seeds, since lines of one writer are alike.
    """
    differences, forms = {}, np.concatenate([forms for forms, _ in by_line])
    for row, other in compared:
        found = differences.setdefault(row, {}).setdefault(other, {})
        for measure in by_line[0][1][row]:
            values = (np.concatenate([rows[one][measure] for _, rows in by_line]) for one in (row, other))
            if difference := paired_difference(*values, forms):
                found[measure] = difference
    return differences


def _distances_by_canvas(measures, sets, inks_of):
    first, distances = real_inks(measures.dataset, sets.first), {}
    for name, canvas in OTHER_CANVASES.items():
        against = measures.picture_features(first, canvas)
        distances[name] = {
            row: kernel_distance(against, measures.picture_features(inks, canvas))
            for row, inks in inks_of.items()
        }
    return distances
