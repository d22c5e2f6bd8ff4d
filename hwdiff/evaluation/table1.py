"""Table 1 of Luhman & Luhman (2020): how far generated lines are from real ones, by several measures, each with its spread.

The paper's protocol: two disjoint sets of real lines are drawn; the model writes the texts of the second in the hands of the second; what it
wrote is compared with the first. The paper did it once; here each seed draws other sets and other noise.
"""

import time

from hwdiff.data.dataset import style_lines
from hwdiff.evaluation.frechet import Canvas, frechet_distance
from hwdiff.evaluation.measures import JITTER, Sets, jittered
from hwdiff.evaluation.tables import CORRUPTED, GROUND_TRUTH, PAPER, Table

GEOMETRY_LINES = 600  # of a set: with far fewer lines the Geometry Score tells nothing, see `Measures.geometry_of_real`
SEED_STRIDE = 1_000_000
CANVASES = {
    "1200 x 120, pen 2": Canvas(),
    "1200 x 120, pen 4": Canvas(pen=4.0),
    "600 x 60, pen 1": Canvas(600, 60, 2.5, 1.0),
    "1200 x 240, pen 2": Canvas(height=240),
}


def table1(measures, split, count, seeds, generators, settings=None, canvases=True, folder=None, progress=None):
    """Measure real lines, corrupted ones and written ones against real lines.

    measures: `Measures`.   split: of the dataset.   count: lines of each of both sets.   seeds: a list; each draws its own sets and noise.
    generators: {row: function(indices, seed) that returns a list of `Ink`}, line i written with seed + i.   settings: what is noted with the table.
    canvases: also measure the first seed's distance on other CANVASES.   folder: where the table is saved after each seed, None for nowhere.
    progress(row): what was done since the last call.
    Returns a `Table`. Raises HwdiffError when the split is too small.
    """
    dataset = measures.dataset
    larger = min(GEOMETRY_LINES, len(dataset.split(split)) // 2)
    chosen = {"split": split, "lines": count, "seeds": [], **measures.settings(count), "lines of a larger set": larger}
    notes = measures.notes(split, count)
    table = Table(measures.distance, {**(settings or {}), **chosen}, notes=notes, paper=PAPER if dataset.of_people else {})
    for number, seed in enumerate(seeds):
        sets = Sets.draw(dataset, split, count, seed)
        first, second = ([dataset.ink(index).trimmed() for index in some] for some in (sets.first, sets.second))
        reference = measures.reference(first, sets, seed)
        measures.features.compute(style_lines(dataset.forms)[sets.second])  # not to be counted as time of the first row
        rows = {}
        for row in (GROUND_TRUTH, *generators, CORRUPTED):
            if row == GROUND_TRUTH:
                inks = second
            elif row == CORRUPTED:
                inks = jittered(second, JITTER, seed)
            else:
                start = time.perf_counter()
                # Line i of one seed must not be written as line i + 1 of the one before.
                inks = generators[row](sets.second, seed * SEED_STRIDE)
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
            for row, value in measures.geometry_of_real(split, larger, seed).items():
                table.geometry.setdefault(row, []).append(value)
        table.settings["seeds"].append(seed)
        table.notes = [*notes, *table.found_notes()]
        if folder:
            table.save(folder)
    return table
