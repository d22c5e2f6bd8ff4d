"""What a notebook leaves in the folder of its run: figures, tables and times, each with a title, listed for the run's page."""

import csv
import json
from pathlib import Path

import numpy as np
from IPython.display import Image

from hwdiff.ink.plot import save_figure
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write

SHOWN_WIDTH = 900  # of figures in a notebook, in pixels
HEADLESS = "HWDIFF_HEADLESS"  # set in the environment of kernels that no person looks at


class Outputs:
    """A notebook's outputs. What is listed is what this notebook wrote since it was begun.

    run: the folder of the run.   name: the notebook's, such as "03_attention".
    ink_of, in all that follows: the `Dataset` whose ink or texts can be seen in the output, None for none. People's (IAM's) are for
    non-commercial research: what shows them is marked, and not published.
    """

    def __init__(self, run, name):
        self.run, self.name = Path(run), name
        self.entries = []
        self._list()

    def figure(self, figure, name, title, ink_of=None):
        """Save a matplotlib figure as figures/NAME.png and .svg. Returns the picture, which a notebook shows."""
        for suffix in (".svg", ".png"):
            path = self._add("figure", f"figures/{name}{suffix}", title, ink_of)
            save_figure(figure, path)
        self._list()
        return Image(path.read_bytes(), width=SHOWN_WIDTH)

    def picture(self, path, name, title):
        """Take a figure that was saved before as `path`, a PNG, with an SVG beside it. Returns the picture, which a notebook shows."""
        for suffix in (".svg", ".png"):
            content = Path(path).with_suffix(suffix).read_bytes()
            with atomic_write(self._add("figure", f"figures/{name}{suffix}", title, None)) as copy:
                copy.write_bytes(content)
        self._list()
        return Image(content, width=SHOWN_WIDTH)

    def table(self, rows, name, title, ink_of=None, paper=None, notes=()):
        """Save rows, a list of dictionaries in JSON types with the same keys, as tables/NAME.csv and .json.

        paper: the paper's numbers to be set beside them, {a row's first value: {what: number}}.   notes: sentences to stand below it.
        Returns something that a notebook shows as a table.
        """
        return self._save_table("table", "tables", rows, name, title, ink_of, paper or {}, notes)

    def timings(self, rows, name, title):
        """As `table`, for what depends on the machine and its mood: timings/NAME.csv and .json."""
        return self._save_table("timings", "timings", rows, name, title)

    def file(self, path, title, ink_of=None):
        """List a file that the notebook wrote below the run's folder, such as a checkpoint. Returns its path."""
        path = Path(path)
        if not path.exists():
            raise HwdiffError(f"{path}: no such file; write it before it is listed")
        self._add("file", path.resolve().relative_to(self.run.resolve()).as_posix(), title, ink_of)
        self._list()
        return path

    def _save_table(self, kind, folder, rows, name, title, ink_of=None, paper=None, notes=()):
        if not rows or any(row.keys() != rows[0].keys() for row in rows):
            raise HwdiffError(f"table {name}: {len(rows)} rows; at least one is needed, all with the same columns")
        rows = [{key: _plain(value) for key, value in row.items()} for row in rows]
        with atomic_write(self._add(kind, f"{folder}/{name}.csv", title, ink_of)) as path, path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(rows[0])
            table.writerows(row.values() for row in rows)
        with atomic_write(self._add(kind, f"{folder}/{name}.json", title, ink_of)) as path:
            content = {"title": title, "rows": rows, "paper": paper or {}, "notes": list(notes)}
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        self._list()
        return Shown(rows)

    def _add(self, kind, file, title, ink_of):
        self.entries.append({"kind": kind, "file": file, "title": title, "people's ink": shows_people(ink_of)})
        return self.run / file

    def _list(self):
        with atomic_write(self.run / "records" / f"{self.name}.outputs.json") as path:
            path.write_text(json.dumps(self.entries, indent=1, ensure_ascii=False), encoding="utf-8")


class Shown(list):
    """Rows of a table that a notebook shows as one."""

    def _repr_html_(self):
        from jinja2 import Template

        return Template(
            "<table><tr>{% for key in rows[0] %}<th>{{ key|e }}</th>{% endfor %}</tr>"
            "{% for row in rows %}<tr>{% for value in row.values() %}<td>{{ shown(value)|e }}</td>{% endfor %}</tr>{% endfor %}</table>"
        ).render(rows=self, shown=shown)


def shown(value):
    """A table's value for a person: numbers to four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def shows_people(dataset):
    """Whether a `Dataset` holds the ink of people: all but the built-in writers do. None holds none."""
    return dataset is not None and dataset.of_people


def _plain(value):
    """NumPy's numbers as Python's, NaN as None: what JSON has no number for."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
