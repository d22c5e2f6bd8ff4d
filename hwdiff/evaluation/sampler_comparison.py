"""Comparing samplers, numbers of steps and noise levels by all measures of Table 1."""

from collections.abc import Sequence

from hwdiff.diffusion.process import STEPS
from hwdiff.diffusion.samplers import schedule
from hwdiff.evaluation.bench import Rows, Written
from hwdiff.evaluation.tables import Column, Table, row_title, sampler_row

BASE = sampler_row("eq12", STEPS)


def sampler_rows(samplers: Sequence[str], counts: Sequence[int], spacings: Sequence[str]) -> Rows:
    """Rows for `Bench.table`, of each sampler with each number of steps at each spacing of the noise levels.

    60 steps have the published levels whatever the spacing. The first row is BASE, Eq. 12 with 60 steps.
    """
    rows = {BASE: Written("eq12", schedule())}
    for sampler in samplers:
        for count in counts:
            for spacing in ("",) if count == STEPS else spacings:
                levels = schedule(count, spacing or "log-snr")
                rows[sampler_row(sampler, count, spacing)] = Written(sampler, levels)
    return rows


def worse_than_base(table: Table) -> dict[str, list[Column] | None]:
    """The measures in which each row of a comparison is worse than BASE; None where one seed cannot tell."""
    return {row: table.worse(row, BASE) for row in table.settings["rows"] if row != BASE}


def fewest_steps(table: Table) -> list[str]:
    """The rows of a comparison that are not worse than BASE in any measure, those with the fewest steps."""
    as_good = [row for row, worse in worse_than_base(table).items() if worse == []]
    steps = {row: len(table.settings["rows"][row]["levels"]) for row in as_good}
    return [row for row, count in steps.items() if count == min(steps.values())]


def comparison_text(table: Table) -> str:
    """Which rows of a comparison are worse than BASE, and the fewest steps that are not, for a person."""
    lines = [f"worse than {row_title(BASE)}, by twice the standard error of the difference:"]
    for row, worse in worse_than_base(table).items():
        if worse is None:
            found = "cannot be told from one seed"
        else:
            found = ", ".join(column.title for column in worse) or "not worse in any measure"
        lines.append(f"  {row_title(row):28}  {found}")
    if fewest := fewest_steps(table):
        titles = "; ".join(map(row_title, fewest))
        lines.append(f"fewest steps that are not worse in any measure: {titles}")
    return "\n".join(lines)
