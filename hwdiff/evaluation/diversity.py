"""Diversity: how much lines of one text in one style differ, when only the noise does.

Luhman & Luhman (2020) say that Eq. 12 costs diversity, and do not measure it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist

from hwdiff.evaluation.bootstrap import paired_difference
from hwdiff.evaluation.error_rates import edits_of
from hwdiff.evaluation.measures import RETRIEVALS, Measures
from hwdiff.evaluation.tables import Column, row_title
from hwdiff.evaluation.written import Generator
from hwdiff.ink.ink import Ink
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import write_json

DIVERSITY = (
    Column("dtw", "DTW distance of the ink", "DTW distance of the ink"),
    Column("form_top10", "distance of hand-made features", "distance of hand-made features"),
    Column("style_top10", "distance of style features", "distance of style features"),
)
COMPARED = (("eq9", "eq12"), ("eq9_guided", "eq12_guided"))


@dataclass
class Diversity:
    """What was measured of lines of one text in one style.

    settings: what all depends on, in JSON types.
    values: {row: {measure: [of each text, the mean over its pairs of lines]}}. The measures are the keys of
        `DIVERSITY`.
    cer: {row: the micro-averaged CER of the lines}: what cannot be read differs, too.
    differences: {row: {other: {measure: (value, low, high)}}}, the row less the other with the 95 % interval
        of a paired bootstrap over the texts.
    inks: {row: [of each text its lines]}.
    """

    settings: dict
    values: dict[str, dict[str, list[float]]]
    cer: dict[str, float]
    differences: dict[str, dict[str, dict[str, tuple[float, float, float]]]]
    inks: dict[str, list[list[Ink]]]

    def title(self, row: str) -> str:
        """What a row is called for a person, with its guidance."""
        about = self.settings["rows"][row]
        return row_title(row, about["guidance"], len(about["levels"]) - 1)

    def rows(self) -> list[dict]:
        """The means over the texts, as rows of a table for a person."""
        return [
            {
                "row": self.title(row),
                **{column.name: float(np.mean(values[column.key])) for column in DIVERSITY},
                "CER, %": 100 * self.cer[row],
            }
            for row, values in self.values.items()
        ]

    def text(self) -> str:
        """All of it for a person, several lines."""
        lines = [
            f"{row.pop('row')}: " + ", ".join(f"{name} {value:.3f}" for name, value in row.items())
            for row in self.rows()
        ]
        for row, others in self.differences.items():
            for other, found in others.items():
                told = (f"{column.name} {column.difference_text(found[column.key])}" for column in DIVERSITY)
                lines.append(f"{self.title(row)} less {self.title(other)}: " + ", ".join(told))
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write everything but the inks into a JSON file."""
        content = {key: value for key, value in vars(self).items() if key != "inks"}
        write_json(path, content)


def measure_diversity(
    measures: Measures,
    indices: np.ndarray,
    repeats: int,
    seed: int = 0,
    *,
    generators: dict[str, Generator],
    settings: dict,
    progress: Callable[[str], None] | None = None,
) -> Diversity:
    """Write texts several times each, and measure how much the lines of one text differ.

    measures: of the dataset.
    indices: (n,) lines of the dataset, whose texts and styles are taken; two or more.
    repeats: how often each is written, two or more.
    seed: of the first line. All rows are written from the same noise.
    generators: {row: generator}.   settings: what is noted with the values.
    progress(row): called after each row.
    Raises HwdiffError when there are too few texts or repeats.
    """
    if len(indices) < 2 or repeats < 2:
        found = f"{len(indices)} texts, each written {repeats} times"
        raise HwdiffError(f"diversity: {found}; give at least two texts, each written at least twice")
    values, cer, written = {}, {}, {}
    for row, generate in generators.items():
        several = np.repeat(indices, repeats)
        inks = generate(several, seed + np.arange(len(several)))
        written[row] = [inks[start : start + repeats] for start in range(0, len(inks), repeats)]
        values[row] = {
            "dtw": [_mean_over_pairs(lines) for lines in written[row]],
            **{by: _feature_distances(measures, by, inks, repeats) for by in RETRIEVALS},
        }
        edits, characters = edits_of(inks, measures.recognizer).sum(axis=0)
        cer[row] = float(edits / characters)
        if progress:
            progress(row)
    settings = {
        **settings,
        "lines": [int(index) for index in indices],
        "repeats": repeats,
        "seed": seed,
    }
    return Diversity(settings, values, cer, _differences(values), written)


def _mean_over_pairs(inks):
    return float(np.mean([dtw_distance(*pair) for pair in combinations(map(positions, inks), 2)]))


def _feature_distances(measures, by, inks, repeats):
    features = measures.ink_features(by, inks).reshape(-1, repeats, measures.writer_styles[by].centre.size)
    return [float(measures.writer_styles[by].distances(lines).mean()) for lines in features]


def _differences(values):
    differences = {}
    for row, other in COMPARED:
        if row in values and other in values:
            found = {}
            for column in DIVERSITY:
                pair = (np.array([(value, 1) for value in values[one][column.key]]) for one in (row, other))
                texts = np.arange(len(values[row][column.key]))
                found[column.key] = paired_difference(*pair, texts)
            differences[row] = {other: found}
    return differences


def positions(ink: Ink) -> np.ndarray:
    """Where the points of an ink lie, about their mean: (N, 2), in standard deviations of its offsets.

    An ink without points has one.
    """
    places = np.cumsum(ink.offsets, axis=0, dtype=np.float64) if len(ink) else np.zeros((1, 2))
    return places - places.mean(axis=0)


def dtw_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The dynamic time warping distance, exact, divided by the length of the path (Sakoe & Chiba 1978).

    A path goes through both from end to end. A step in one alone counts its distance once, a step in both
    twice, so that all paths have the same length N + M.

    first, second: (N, k) and (M, k) points.
    """
    distances = cdist(first, second)
    n, m = distances.shape
    # Cell (i, k - i) of anti-diagonal k needs only the two before it. They are kept by i + 1.
    last, before = np.full(n + 1, np.inf), np.full(n + 1, np.inf)
    before[0] = 0.0  # where all paths come from
    for k in range(n + m - 1):
        i = np.arange(max(0, k - m + 1), min(n, k + 1))
        here = distances[i, k - i]
        costs = np.full(n + 1, np.inf)
        costs[i + 1] = np.minimum(np.minimum(last[i], last[i + 1]) + here, before[i] + 2 * here)
        before, last = last, costs
    return float(last[n] / (n + m))
