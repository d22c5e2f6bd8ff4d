"""Table 1 as data: values by row, measure and seed, their spreads, and what rows and measures are called."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hwdiff.diffusion.process import STEPS
from hwdiff.diffusion.samplers import network_evaluations
from hwdiff.evaluation.frechet import AXES
from hwdiff.evaluation.spread import mean_sd

# Rows. Those that a sampler wrote are named by `sampler_row`, but for those of `Bench.table1_rows`.
GROUND_TRUTH, CORRUPTED, REPEATED = "ground_truth", "corrupted", "repeated"
ROW_TITLES = {
    GROUND_TRUTH: "ground truth",
    "eq12": "Eq. 12",
    "eq9": "Eq. 9",
    "eq12_guided": "Eq. 12",
    "eq9_guided": "Eq. 9",
    "eq12_foreign": "Eq. 12, foreign styles",
    "student": "student",
    CORRUPTED: "real, corrupted",
    REPEATED: "real, repeated",
}
PAPERS_TITLES = {"eq12": "model (Eq. 12)", "eq9": "ablation (Eq. 9)"}  # with guidance 1
PAPER = {GROUND_TRUTH: (2.91, 5.4e-4), "eq12": (7.10, 3.3e-3), "eq9": (8.05, 2.7e-3)}  # FID, Geometry Score
PAPER_LINES = 4500  # of each of both sets
# Of a set for the Geometry Score: with far fewer it is noise, see `Measures.geometry_of_real`.
GEOMETRY_LINES = 600
TOP = 10  # forms among which form retrieval looks: about as many as one person wrote
FID = "FID"


def sampler_row(sampler: str, steps: int, spacing: str = "") -> str:
    """The row of a sampler, a number of steps and a spacing of noise levels, such as "dpm_8_log-snr"."""
    return "_".join([sampler, str(steps), *([spacing] if spacing else [])])


def spacing_of_row(row: str) -> str:
    """The spacing in the name of a `sampler_row`, "" where it has none."""
    return "_".join(row.split("_")[2:])


def row_title(row: str, guidance: float | None = None, steps: int = STEPS) -> str:
    """What a row is called for a person.

    guidance: that it was written with, to be named too, but for a student. Only with guidance 1 and 60 steps
        are Eq. 12 and Eq. 9 called what the paper calls them.
    steps: that it was written in. A student's are named, and for Eq. 12 and Eq. 9 others than 60.
    """
    sampler, *rest = row.split("_")
    title = ROW_TITLES.get(row, row)
    if row not in ROW_TITLES and rest and rest[0].isdigit():
        title = ", ".join([sampler, f"{rest[0]} steps", *rest[1:]])
    elif row == "student":  # its guidance is that of its teacher
        return f"{title}, {steps} steps"
    elif sampler in PAPERS_TITLES and steps != STEPS:
        title += f", {steps} steps"
    elif guidance == 1:
        title = PAPERS_TITLES.get(row, title)
    return title if guidance is None else f"{title}, guidance {guidance:g}"


@dataclass(frozen=True)
class Column:
    """A measure, as a column of the table.

    key: of the values.
    name: for a person.   title: the same with the unit in which `text` prints it, `factor` times the value.
    fmt: how many digits are printed.
    sign: 1 where less is better, -1 where more is.
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

    def difference_text(self, difference: Sequence[float]) -> str:
        """A difference with its interval, (value, low, high), printed."""
        value, low, high = (self.fmt.format(self.factor * number) for number in difference)
        return f"{'' if value.startswith('-') else '+'}{value} ({low} to {high})"


KERNEL_DISTANCE = Column("kernel_distance", "kernel distance", "kernel distance x 1000", 1000)
GEOMETRY_SCORE = Column("geometry_score", "Geometry Score", "Geometry Score x 1000", 1000)
OFFSETS_SCORE = Column(
    "geometry_score_offsets", "Geometry Score, no pen flag", "Geometry Score x 1000, no pen flag", 1000
)
SECONDS = Column("seconds_per_line", "seconds a line", "s a line")


def columns(distance: str) -> tuple[Column, ...]:
    """The columns of a table, those that can be trusted most first.

    distance: what the plain distance of pictures is called, "FID" or another name. Only FID is shown, to be
        set beside the paper's: with few lines it is mostly bias.
    """
    network = "Inception" if distance == FID else "MobileNetV2"
    unbiased = f"Fréchet distance, N → ∞ ({AXES} axes of {network})"
    own, circular = (f"top-{TOP} form retrieval, {by}" for by in ("hand-made features", "style features"))
    return (
        KERNEL_DISTANCE,
        Column("frechet", unbiased, unbiased),
        *([Column("distance", FID, FID)] if distance == FID else []),
        GEOMETRY_SCORE,
        OFFSETS_SCORE,
        Column("cer", "CER", "CER, %", 100, "{:.1f}"),
        Column("right", "lines without an error", "lines without an error, %", 100, "{:.1f}", sign=-1),
        Column("form_top10", own, f"{own}, %", 100, "{:.1f}", sign=-1),
        Column("style_top10", f"{circular} (circular)", f"{circular} (circular), %", 100, "{:.1f}", sign=-1),
    )


@dataclass
class Table:
    """Table 1, or a comparison of samplers.

    distance: as of `columns`.
    settings: what all depends on, in JSON types.
    values: {row: {measure: [one value a seed]}}, None where a set is too small. The measures are the keys of
        the columns, and:
        distance: the plain Fréchet distance, with its bias.
        beyond_i_max: the fraction of the living times that the Geometry Score leaves out.
        style_chance: what forms drawn at random give for `form_top10` and `style_top10`.
    seconds: {row: [seconds a line]} of the rows that were written.
    differences: {row: {other: {measure: (value, low, high)}}}, the row less the other with its 95 % interval,
        of the measures by which some line differs.
    canvases: {canvas: {row: kernel distance}} of some lines of the first seed, that of the table first.
    geometry: {row: [one Geometry Score a seed]} of larger sets of real lines.
    paper: {row: (FID, Geometry Score)} of the paper, {} where nothing can be compared with it.
    notes: sentences on how far the numbers can be trusted.
    """

    distance: str
    settings: dict
    values: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    differences: dict[str, dict[str, dict[str, tuple[float, float, float]]]] = field(default_factory=dict)
    canvases: dict[str, dict[str, float]] = field(default_factory=dict)
    geometry: dict[str, list[float]] = field(default_factory=dict)
    paper: dict[str, tuple[float, float]] = field(default_factory=lambda: PAPER)
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The measures that are shown: those of which there is any value."""

        def has_values(key):
            found = (value for values in self.values.values() for value in values.get(key, []))
            return any(value is not None for value in found)

        # Older files have Geometry Scores of few lines, too.
        few = self.settings.get("lines", GEOMETRY_LINES) < GEOMETRY_LINES
        return tuple(
            column
            for column in columns(self.distance)
            if has_values(column.key) and not (few and column is GEOMETRY_SCORE)
        )

    def guidance(self, row: str) -> float | None:
        """What a row was written with, None for one of real lines. In older files it is the same for all."""
        rows = self.settings.get("rows", {})
        if row not in rows:
            return None
        return rows[row].get("guidance", self.settings.get("writing", {}).get("guidance", 1.0))

    def steps(self, row: str) -> int | None:
        """In how many steps a row was written.

        None for one of real lines, and where an older file does not say.
        """
        levels = self.settings.get("rows", {}).get(row, {}).get("levels")
        return levels and len(levels) - 1  # the last level is that of clean ink

    def evaluations(self, row: str) -> int | None:
        """How often the network was evaluated for a line of a row (NFE). None where its steps are."""
        steps = self.steps(row)
        return steps and network_evaluations(steps, self.guidance(row))

    def title(self, row: str) -> str:
        """What a row is called for a person, with its guidance."""
        return row_title(row, self.guidance(row), self.steps(row) or STEPS)

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
