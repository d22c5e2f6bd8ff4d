"""Table 1 as it is shown and saved."""

import csv
import json
from dataclasses import asdict, dataclass, field

import numpy as np

from hwdiff.evaluation import geometry
from hwdiff.utils.files import atomic_write

PAPER = {"ground truth": (2.91, 5.4e-4), "model (Eq. 12)": (7.10, 3.3e-3), "ablation (Eq. 9)": (8.05, 2.7e-3)}  # FID, Geometry Score
GROUND_TRUTH, CORRUPTED, REPEATED = "ground truth", "real, corrupted", "real, repeated"
PAPER_LINES = 4500
TOP = 10  # forms: about as many as one person wrote


@dataclass
class Column:
    """A measure. key: of the values.   title, fmt, factor: how a value is printed, times what.   sign: 1 where less is better, -1 where more is,
    0 where neither is."""

    key: str
    title: str
    fmt: str = "{:.2f}"
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
            Column("error rate", "recognizer's errors, %", "{:.1f}", 100),
            Column("style", f"hand among first {TOP}, %", "{:.1f}", 100, -1),
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
            found.append(f"by chance {100 * np.mean(chances):.1f} % of the hands would be among the first {TOP} as well")
        beyond = max(max(values["fraction beyond i_max"]) for values in self.values.values())
        if beyond:
            found.append(
                f"up to {100 * beyond:.1f} % of the living times lie at or above i_max = {geometry.I_MAX} holes, which the Geometry Score leaves out"
            )
        return found

    def rows(self):
        """Mean and standard deviation over the seeds, a list of dictionaries {"row", "<measure>; mean", "<measure>; sd", ...}; NaN without values."""
        names = {column.key: column.key for column in self.columns} | {"distance": self.distance, "error rate": "recognizer's error rate"}
        names["style"] = f"hand among first {TOP}"
        rows = []
        for row, values in self.values.items():
            numbers = {
                f"{name}; {part}": number for key, name in names.items() for part, number in zip(("mean", "sd"), _mean_sd(values[key]), strict=True)
            }
            rows.append({"row": row, **numbers})
        return rows

    def save(self, folder):
        """Write table1.csv (mean and standard deviation), table1.json (everything but times) and timings.json into `folder`."""
        with atomic_write(folder / "table1.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            for number, row in enumerate(self.rows()):
                if number == 0:
                    writer.writerow(row)
                writer.writerow(value if isinstance(value, str) else f"{value:.6g}" for value in row.values())
        everything = asdict(self)
        times = everything.pop("seconds")
        for name, content in (("table1.json", everything), ("timings.json", {"seconds a line": times})):
            with atomic_write(folder / name) as temporary:
                temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _mean_sd(values):
    values = np.asarray([value for value in values if value is not None], dtype=float)
    return (values.mean() if len(values) else np.nan, values.std(ddof=1) if len(values) > 1 else np.nan)


def _spread(values, column):
    mean, sd = (column.factor * number for number in _mean_sd(values))
    if np.isnan(mean):
        return "-"
    return column.fmt.format(mean) + ("" if np.isnan(sd) else " ± " + column.fmt.format(sd))
