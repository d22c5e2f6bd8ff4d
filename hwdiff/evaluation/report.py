"""Table 1 for people and as files."""

import csv
from dataclasses import asdict
from pathlib import Path

from hwdiff.diffusion.process import STEPS
from hwdiff.evaluation.spread import mean_sd, spread
from hwdiff.evaluation.tables import GEOMETRY_SCORE, KERNEL_DISTANCE, SECONDS, Table
from hwdiff.utils.files import atomic_write, write_json

NFE = "NFE"  # network evaluations a line, a guided step being two


def table_text(table: Table) -> str:
    """The table for a person: mean and standard deviation over the seeds, the paper's numbers, differences
    and notes.
    """
    heads = ["", NFE, *(column.title for column in table.columns), SECONDS.title]
    lines = [heads + _papers_heads(table)]
    for row, values in table.values.items():
        cells = [str(table.evaluations(row) or "")]
        cells += [column.text(values[column.key]) for column in table.columns]
        cells.append(SECONDS.text(table.seconds[row]) if row in table.seconds else "")
        lines.append([table.title(row), *cells, *_papers_numbers(table, row)])
    rows = [*_aligned(lines), *_difference_lines(table), *_canvas_lines(table), *_geometry_lines(table)]
    if table.notes:
        rows += ["", *(f"note: {note}" for note in table.notes)]
    return "\n".join(rows)


def _papers_heads(table):
    if not table.paper:
        return []
    return ["paper: FID", *(["GS x 1000"] if GEOMETRY_SCORE in table.columns else [])]


def _papers_numbers(table, row):
    heads = _papers_heads(table)
    is_papers = table.guidance(row) in (None, 1) and table.steps(row) in (None, STEPS)
    if row not in table.paper or not is_papers:
        return [""] * len(heads)
    fid, score = table.paper[row]
    return [f"{fid:.2f}", f"{1000 * score:.2f}"][: len(heads)]


def _aligned(lines):
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    for head, *cells in lines:
        padded = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        yield "  ".join([head.ljust(widths[0]), *padded])


def _difference_lines(table):
    if not table.differences:
        return
    yield from ("", "differences, with intervals of 95 % (paired, over forms):")
    for row, others in table.differences.items():
        for other, found in others.items():
            told = (
                f"{column.title} {column.difference_text(found[column.key])}"
                for column in table.columns
                if column.key in found
            )
            yield f"  {table.title(row)} less {table.title(other)}: " + "; ".join(told)


def _canvas_lines(table):
    if not table.canvases:
        return
    lines = table.settings.get("canvas_lines", table.settings.get("lines"))
    yield from ("", f"{KERNEL_DISTANCE.title} on this and other canvases, first seed, {lines} lines a set:")
    wide = max(map(len, table.canvases))
    for name, distances in table.canvases.items():
        yield f"  {name:{wide}}  " + ", ".join(
            f"{table.title(row)} {KERNEL_DISTANCE.text([value])}" for row, value in distances.items()
        )


def _geometry_lines(table):
    if not table.geometry:
        return
    spreads = ", ".join(
        f"{table.title(row)} {GEOMETRY_SCORE.text(values)}" for row, values in table.geometry.items()
    )
    lines = table.settings["geometry_lines"]
    yield from ("", f"{GEOMETRY_SCORE.title} of sets of {lines} real lines: {spreads}")


def named_rows(table: Table) -> list[dict]:
    """Means and standard deviations for a person: {"row", and of each measure its `spread`} of each row."""
    rows = []
    for row, values in table.values.items():
        rows.append({"row": table.title(row), NFE: table.evaluations(row)})
        for column in table.columns:
            rows[-1] |= _in_units(column, values[column.key])
    return rows


def named_differences(table: Table) -> list[dict]:
    """The differences for a person: a row for each pair of rows and measure, with its interval."""
    return [
        {
            "difference": f"{table.title(row)} less {table.title(other)}",
            "measure": column.title.replace("%", "points"),
            **{
                name: column.factor * number
                for name, number in zip(("value", "2.5 %", "97.5 %"), found[column.key], strict=True)
            },
        }
        for row, others in table.differences.items()
        for other, found in others.items()
        for column in table.columns
        if column.key in found
    ]


def named_geometry(table: Table) -> list[dict]:
    """As `named_rows`, of the Geometry Scores of larger sets of real lines."""
    return [
        {"row": table.title(row), **_in_units(GEOMETRY_SCORE, values)}
        for row, values in table.geometry.items()
    ]


def _in_units(column, values):
    """The `spread` of a measure in the unit that its title names."""
    return spread(column.title, [None if value is None else column.factor * value for value in values])


def save_table(table: Table, folder: Path) -> None:
    """Write a table into a folder.

    table1.csv has mean and standard deviation over the seeds, table1.json everything but times, timings.json
    the times.
    """
    with atomic_write(folder / "table1.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for number, (row, values) in enumerate(table.values.items()):
            if number == 0:
                statistics = [f"{column.key}_{what}" for column in table.columns for what in ("mean", "sd")]
                writer.writerow(["row", NFE, *statistics])
            found = [value for column in table.columns for value in mean_sd(values[column.key])]
            writer.writerow([row, table.evaluations(row), *(f"{value:.6g}" for value in found)])
    everything = asdict(table)
    times = {SECONDS.key: everything.pop("seconds")}
    for name, content in (("table1.json", everything), ("timings.json", times)):
        write_json(folder / name, content)
