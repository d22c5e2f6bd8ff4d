"""Table 1 as data: values by row, measure and seed, their spreads, and what rows and measures are called."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

# Rows. Those that a sampler wrote are named by `sampler_row`, but for those of `Bench.table1_rows`.
GROUND_TRUTH, CORRUPTED, REPEATED = "ground_truth", "corrupted", "repeated"
ROW_TITLES = {
    GROUND_TRUTH: "ground truth",
    "eq12": "model (Eq. 12)",
    "eq9": "ablation (Eq. 9)",
    "eq12_guided": "Eq. 12, guided",
    "eq9_guided": "Eq. 9, guided",
    "fast": "fast",
    CORRUPTED: "real, corrupted",
    REPEATED: "real, repeated",
}
PAPER = {GROUND_TRUTH: (2.91, 5.4e-4), "eq12": (7.10, 3.3e-3), "eq9": (8.05, 2.7e-3)}  # FID, Geometry Score
PAPER_LINES = 4500  # of each of both sets
# Of a set for the Geometry Score. Of far fewer it is noise, see `Measures.geometry_of_real`.
GEOMETRY_LINES = 600
TOP = 10  # forms among which `style_top10` looks: about as many as one person wrote


def sampler_row(sampler: str, steps: int, spacing: str = "") -> str:
    """The row of a sampler, a number of steps and a spacing of noise levels, such as "dpm_8_log-snr"."""
    return "_".join([sampler, str(steps), *([spacing] if spacing else [])])


def row_title(row: str) -> str:
    """What a row is called for a person."""
    sampler, *rest = row.split("_")
    if row not in ROW_TITLES and rest and rest[0].isdigit():
        return ", ".join([sampler, f"{rest[0]} steps", *rest[1:]])
    return ROW_TITLES.get(row, row)


@dataclass(frozen=True)
class Column:
    """A measure, as a column of the table.

    key: of the values.
    name: for a person.   title: the same with the unit in which `text` prints it, `factor` times the value.
    fmt: how many digits are printed.
    sign: 1 where less is better, -1 where more is, 0 where neither is.
    """

    key: str
    name: str
    title: str
    factor: float = 1.0
    fmt: str = "{:.2f}"
    sign: int = 1

    def text(self, values: Sequence[float | None]) -> str:
        """Mean and standard deviation of some values, printed."""
        mean, sd = (self.factor * number for number in mean_sd(values))
        if np.isnan(mean):
            return "-"
        return self.fmt.format(mean) + ("" if np.isnan(sd) else " ± " + self.fmt.format(sd))


GEOMETRY_SCORE = Column("geometry_score", "Geometry Score", "Geometry Score x 1000", 1000)
SECONDS = Column("seconds_per_line", "seconds a line", "s a line")


def columns(distance: str) -> tuple[Column, ...]:
    """The columns of a table. distance: what the distance of pictures is called, "FID" or another name."""
    style = f"top-{TOP} writer-style retrieval"
    return (
        Column("kernel_distance", "kernel distance", "kernel distance x 1000", 1000),
        Column("kernel_sd", "kernel distance deviation", "its deviation x 1000", 1000, sign=0),
        Column("distance", distance, distance),
        GEOMETRY_SCORE,
        Column("cer", "CER", "CER, %", 100, "{:.1f}"),
        Column("style_top10", style, f"{style}, %", 100, "{:.1f}", sign=-1),
    )


@dataclass
class Table:
    """Table 1, or a comparison of samplers.

    distance: as of `columns`.
    settings: what all depends on, in JSON types.
    values: {row: {measure: [one value a seed]}}. The measures are the keys of the columns, and:
        beyond_i_max: the fraction of the living times that the Geometry Score leaves out.
        style_top1: top-1 writer-style retrieval.   style_chance: what chance alone gives for `style_top10`.
    seconds: {row: [seconds a line]} of the rows that were written.
    canvases: {canvas: {row: distance}} of the first seed, that of the table first.
    geometry: {row: [one Geometry Score a seed]} of larger sets of real lines.
    paper: {row: (FID, Geometry Score)} of the paper, {} where nothing can be compared with it.
    notes: sentences on how far the numbers can be trusted.
    """

    distance: str
    settings: dict
    values: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    canvases: dict[str, dict[str, float]] = field(default_factory=dict)
    geometry: dict[str, list[float]] = field(default_factory=dict)
    paper: dict[str, tuple[float, float]] = field(default_factory=lambda: PAPER)
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The measures that are shown. In sets of fewer than `GEOMETRY_LINES` the Geometry Score is noise."""
        few = self.settings.get("lines", GEOMETRY_LINES) < GEOMETRY_LINES
        return tuple(one for one in columns(self.distance) if not (few and one is GEOMETRY_SCORE))

    def add(self, row: str, measured: dict[str, float | None], seconds: float | None = None) -> None:
        """Append a seed's values of a row. seconds: that a line took, of a row that was written."""
        for key, value in measured.items():
            self.values.setdefault(row, {}).setdefault(key, []).append(value)
        if seconds is not None:
            self.seconds.setdefault(row, []).append(seconds)

    def add_geometry(self, scores: dict[str, float]) -> None:
        """Append a seed's Geometry Scores of larger sets: {row: score}."""
        for row, score in scores.items():
            self.geometry.setdefault(row, []).append(score)

    def worse(self, row: str, other: str) -> list[Column] | None:
        """The measures in which `row` is worse than `other`; None with fewer than two seeds.

        It is where the mean of its differences, seed by seed, is more than twice its standard error.
        """
        if len(self.settings["seeds"]) < 2:
            return None
        found = []
        for column in self.columns:
            pairs = zip(self.values[row][column.key], self.values[other][column.key], strict=True)
            differences = [
                column.sign * (one - two) for one, two in pairs if one is not None and two is not None
            ]
            mean, spread = mean_sd(differences)
            if mean > 2 * spread / np.sqrt(len(differences)):
                found.append(column)
        return found


def mean_sd(values: Sequence[float | None]) -> tuple[float, float]:
    """Mean and standard deviation of the values that there are; NaN where there are too few."""
    values = np.asarray([value for value in values if value is not None], dtype=float)
    mean = values.mean() if len(values) else np.nan
    return mean, values.std(ddof=1) if len(values) > 1 else np.nan
