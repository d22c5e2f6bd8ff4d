"""Comparing samplers, numbers of steps and noise levels by all measures of Table 1."""

from collections.abc import Sequence

from hwdiff.diffusion.process import STEPS
from hwdiff.diffusion.samplers import SPACINGS, schedule
from hwdiff.evaluation.bench import STUDENT, Rows, RowSettings
from hwdiff.evaluation.tables import KERNEL_DISTANCE, Table, sampler_row

BASE = sampler_row("eq12", STEPS)
# By how much a row may exceed BASE: a point of CER; of kernel distance a hundredth of what `corrupted` adds.
CER_MARGIN, KERNEL_MARGIN = 0.01, 0.5e-3


def sampler_rows(
    samplers: Sequence[str], counts: Sequence[int], spacings: Sequence[str], student: bool = False
) -> Rows:
    """Rows for `Bench.table`, of each sampler with each number of steps at each spacing of the noise levels.

    60 steps have the published levels whatever the spacing. The first row is BASE, Eq. 12 with 60 steps.

    student: the model's student, too.
    """
    rows = {BASE: RowSettings("eq12", schedule())}
    for sampler in samplers:
        for count in counts:
            for spacing in ("",) if count == STEPS else spacings:
                levels = schedule(count, spacing or SPACINGS[0])
                rows[sampler_row(sampler, count, spacing)] = RowSettings(sampler, levels)
    return rows | ({"student": STUDENT} if student else {})


def not_worse(table: Table, row: str, cer: float = CER_MARGIN) -> bool:
    """Whether a row of a comparison is no worse than BASE: in CER by a margin, in kernel distance by another.

    That is, whether the intervals of its differences end below the margins. A wide interval is no success.
    """
    found = table.differences.get(row, {}).get(BASE, {})
    limits = {"cer": cer, KERNEL_DISTANCE.key: KERNEL_MARGIN}
    return all(measure in found and found[measure][2] < limit for measure, limit in limits.items())


def fewest_evaluations(table: Table, cer: float = CER_MARGIN) -> list[str]:
    """The rows of a comparison that are not worse than BASE, those with the fewest network evaluations."""
    as_good = [row for row in table.settings["rows"] if row != BASE and not_worse(table, row, cer)]
    evaluations = {row: table.evaluations(row) for row in as_good}
    return [row for row, count in evaluations.items() if count == min(evaluations.values())]


def comparison_text(table: Table, cer: float = CER_MARGIN) -> str:
    """Which rows of a comparison are not worse than BASE, and the cheapest of them, for a person."""
    factor, title = KERNEL_DISTANCE.factor, KERNEL_DISTANCE.title
    lines = [
        f"not worse than {table.title(BASE)}: the intervals of the differences end below "
        f"{100 * cer:g} points of CER and {factor * KERNEL_MARGIN:g} of {title}"
    ]
    for row in table.settings["rows"]:
        if row != BASE:
            verdict = "not worse" if not_worse(table, row, cer) else "not shown to be no worse"
            lines.append(f"  {table.title(row):40}  {verdict}")
    if fewest := fewest_evaluations(table, cer):
        lines.append(f"fewest network evaluations that are not worse: {'; '.join(map(table.title, fewest))}")
    return "\n".join(lines)
