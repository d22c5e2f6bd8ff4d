"""What a notebook leaves in the folder of its run: figures, tables and times, listed for the run's page."""

import ast
import csv
import os
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

import numpy as np
from IPython import get_ipython
from IPython.display import HTML, Image, display
from matplotlib.figure import Figure

from hwdiff.data.dataset import Dataset
from hwdiff.evaluation.spread import MEAN, SD
from hwdiff.ink.plot import save_figure
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write, write_json, write_text
from hwdiff.utils.json_values import number_or_none

SHOWN_WIDTH = 900  # of figures in a notebook, in pixels
RUNS = Path(__file__).parents[2] / "results" / "runs"
LAB = RUNS / "lab"  # of notebooks that no run was named to
HEADLESS = "HWDIFF_HEADLESS"  # set in the environment of kernels that no person looks at


class Outputs:
    """A notebook's outputs. Listed is what it wrote since it was last started.

    run: the folder of the run; None for `LAB`, wherever the notebook is run.
    name: the notebook's, such as "03_attention".
    entries: what it wrote: {"kind", "file", "title", "of_people"}, in a notebook the number of the "cell" as
        in its prompt, and the "takeaway" where there is one.

    ink_of, in its methods: the dataset whose ink or texts can be seen in the output, None for none. People's
    (IAM's) are for non-commercial research: what shows them is marked, and not published.
    In a notebook an HwdiffError is one line from here on. It is raised when papermill was given a parameter
    that the notebook does not have, of which papermill only warns.
    """

    def __init__(self, run: str | Path | None, name: str):
        self.run, self.name = LAB if run is None else Path(run), name
        self.entries = []
        if shell := get_ipython():
            shell.set_custom_exc((HwdiffError,), _tell)
            _check_parameters(shell.user_ns.get("In", []))
        self._list()

    def figure(
        self, figure: Figure, name: str, title: str, *, takeaway: str = "", ink_of: Dataset | None = None
    ) -> Image:
        """Save a figure as figures/NAME.png and .svg. Returns the picture, which a notebook shows.

        A notebook shows title and takeaway above it.
        takeaway: what is to be seen in it, in one sentence.
        """
        for suffix in (".svg", ".png"):
            path = self._add("figure", f"figures/{name}{suffix}", title, ink_of, takeaway)
            save_figure(figure, path)
        self._list()
        _show_caption(title, takeaway)
        return Image(path.read_bytes(), width=SHOWN_WIDTH, alt=title)

    def picture(self, path: str | Path, name: str, title: str, *, takeaway: str = "") -> Image:
        """Copy a saved figure, which must not show people's ink, to figures/NAME.png and .svg.

        path: the PNG, with an SVG beside it.
        takeaway: as of `figure`.
        Returns the picture, which a notebook shows.
        """
        for suffix in (".svg", ".png"):
            content = Path(path).with_suffix(suffix).read_bytes()
            with atomic_write(self._add("figure", f"figures/{name}{suffix}", title, None, takeaway)) as copy:
                copy.write_bytes(content)
        self._list()
        _show_caption(title, takeaway)
        return Image(content, width=SHOWN_WIDTH, alt=title)

    def html(self, fragment: str, name: str, title: str, *, takeaway: str = "") -> HTML:
        """Save HTML that a reader can use, such as `attention_map`, as figures/NAME.html.

        fragment: with its own style and script, loading nothing, all texts escaped. It must not show people's
            ink.
        takeaway: as of `figure`.
        Returns what a notebook shows.
        """
        write_text(self._add("interactive", f"figures/{name}.html", title, None, takeaway), fragment)
        self._list()
        return HTML(fragment)

    def table(
        self,
        rows: Sequence[dict],
        name: str,
        title: str,
        *,
        ink_of: Dataset | None = None,
        paper: dict[str, dict] | None = None,
        notes: Sequence[str] = (),
    ) -> "Shown":
        """Save a table as tables/NAME.csv and .json.

        rows: in JSON or NumPy types, all with the same keys.
        paper: the paper's numbers to show beside them, {a row's first value: {what: number}}.
        notes: sentences to show below it.
        Returns what a notebook shows as a table.
        Raises HwdiffError when there are no rows, or their keys differ.
        """
        return self._save_table("table", "tables", rows, name, title, ink_of, paper or {}, notes)

    def timings(self, rows: Sequence[dict], name: str, title: str) -> "Shown":
        """As `table`, for times, which differ from run to run: timings/NAME.csv and .json."""
        return self._save_table("timings", "timings", rows, name, title)

    def file(self, path: str | Path, title: str, *, ink_of: Dataset | None = None) -> Path:
        """List a file that the notebook wrote below the run's folder, such as a checkpoint.

        Returns its path. Raises HwdiffError when there is no such file.
        """
        path = Path(path)
        if not path.exists():
            raise HwdiffError(f"{path}: no such file; write it before it is listed")
        self._add(
            "file",
            Path(os.path.abspath(path)).relative_to(os.path.abspath(self.run)).as_posix(),
            title,
            ink_of,
        )
        self._list()
        return path

    def _save_table(self, kind, folder, rows, name, title, ink_of=None, paper=None, notes=()):
        if not rows or any(row.keys() != rows[0].keys() for row in rows):
            raise HwdiffError(
                f"table {name}: {len(rows)} rows; at least one is needed, all with the same columns"
            )
        rows = [{key: _plain(value) for key, value in row.items()} for row in rows]
        with (
            atomic_write(self._add(kind, f"{folder}/{name}.csv", title, ink_of)) as path,
            path.open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.writer(file)
            table.writerow(rows[0])
            table.writerows(row.values() for row in rows)
        content = {"title": title, "rows": rows, "paper": paper or {}, "notes": list(notes)}
        path = self._add(kind, f"{folder}/{name}.json", title, ink_of)
        write_json(path, content)
        self._list()
        return Shown(rows, title, notes)

    def _add(self, kind, file, title, ink_of, takeaway=""):
        entry = {"kind": kind, "file": file, "title": title, "of_people": shows_people(ink_of)}
        shell = get_ipython()
        # The number in the prompt: of the cells run so far, before which there is an empty one.
        cell = {"cell": len(shell.user_ns["In"]) - 1} if shell else {}
        self.entries.append(entry | cell | ({"takeaway": takeaway} if takeaway else {}))
        return self.run / file

    def _list(self):
        path = self.run / "records" / f"{self.name}.outputs.json"
        write_json(path, self.entries)


def _tell(shell, kind, error, traceback, tb_offset=None):
    """Show an error as one line, without a traceback."""
    lines = [f"error: {error}"]
    shell._showtraceback(kind, error, lines)
    return lines


def _check_parameters(inputs):
    """Raise HwdiffError when papermill's cell sets what the one before it does not.

    inputs: the cells that were run, in order.
    """
    for before, cell in pairwise(inputs):
        if cell.startswith("# Parameters\n"):
            known, given = _assigned(before), _assigned(cell)
            if unknown := [name for name in given if name not in known]:
                choice = f"the notebook has {', '.join(known)}"
                raise HwdiffError(f"parameter {', '.join(unknown)}: no such parameter; {choice}")


def _assigned(cell):
    statements = [one for one in ast.parse(cell).body if isinstance(one, ast.Assign | ast.AnnAssign)]
    return [
        target.id for one in statements for target in getattr(one, "targets", [getattr(one, "target", None)])
    ]


def _show_caption(title, takeaway):
    """In a notebook, show a figure's title and takeaway above it."""
    if get_ipython():
        display(HTML(f"<p><b>{escape(title)}.</b> {escape(takeaway)}</p>"))


class Shown(list):
    """The rows of a table, which a notebook shows as one, with its title and notes."""

    def __init__(self, rows: Sequence[dict], title: str, notes: Sequence[str]):
        super().__init__(rows)
        self.title, self.notes = title, notes

    def _repr_html_(self):
        from jinja2 import Template

        return Template(
            "<p><b>{{ title|e }}.</b></p>"
            "<table><tr>{% for key in rows[0] %}<th scope='col'>{{ key|e }}</th>{% endfor %}</tr>"
            "{% for row in rows %}<tr>{% for value in row.values() %}"
            "{% if loop.first %}<th scope='row'>{{ value|e }}</th>{% else %}<td>{{ value|e }}</td>{% endif %}"
            "{% endfor %}"
            "</tr>{% endfor %}</table>{% for note in notes %}<p>{{ note|e }}</p>{% endfor %}"
        ).render(rows=list(map(with_spreads, self)), title=self.title, notes=self.notes)


def shown(value: object) -> str:
    """A table's value for a person: numbers to four digits, None as nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (isinstance(value, float) and abs(value) >= 1e4):
        return f"{value:,.0f}".replace("-", "−")
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−")
    return "" if value is None else str(value)


def _shown_spread(mean, sd):
    """A mean with its standard deviation, to two digits of the latter and at least three of the former."""
    if not (mean and sd and np.isfinite((mean, sd)).all()):
        return f"{shown(mean)} ± {shown(sd)}"
    digits = max(0, min(1 - np.floor(np.log10(sd)), 3 - np.floor(np.log10(abs(mean)))))
    return f"{mean:,.{int(digits)}f} ± {sd:,.{int(digits)}f}".replace("-", "−")


def with_spreads(row: dict) -> dict[str, str]:
    """A table's row for a person: a mean and its standard deviation share a cell."""
    merged = {}
    for key, number in row.items():
        if key.endswith(SD):
            key = key.removesuffix(SD)
            if number is not None:
                merged[key] = _shown_spread(row.get(key + MEAN), number)
        else:
            merged[key.removesuffix(MEAN)] = shown(number)
    return merged


def shows_people(dataset: Dataset | None) -> bool:
    """Whether a dataset holds people's ink: all do but those of the built-in writers. None holds none."""
    return dataset is not None and dataset.of_people


def _plain(value):
    """NumPy's numbers as Python's, as `number_or_none`."""
    return number_or_none(value.item() if isinstance(value, np.generic) else value)
