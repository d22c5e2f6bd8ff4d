import csv
import json
import sys

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure

from hwdiff import HwdiffError
from hwdiff.suite import outputs as module
from hwdiff.suite.outputs import Outputs, Shown, shown, shows_people, with_spreads
from tests.conftest import write_dataset


def a_figure():
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1], [0, 1])
    return figure


def listed(run):
    return json.loads((run / "records" / "01_notebook.outputs.json").read_text())


def test_figures_are_saved_twice_over_and_listed(tmp_path):
    outputs = Outputs(tmp_path, "01_notebook")
    assert listed(tmp_path) == []
    picture = outputs.figure(a_figure(), "line", "A line")
    assert picture.data == (tmp_path / "figures" / "line.png").read_bytes()
    assert [output["file"] for output in listed(tmp_path)] == ["figures/line.svg", "figures/line.png"]
    first = [(tmp_path / output["file"]).read_bytes() for output in listed(tmp_path)]
    Outputs(tmp_path, "01_notebook").figure(a_figure(), "line", "A line")
    assert [(tmp_path / output["file"]).read_bytes() for output in listed(tmp_path)] == first


def test_html_is_saved_and_shown(tmp_path):
    outputs = Outputs(tmp_path, "01_notebook")
    shown = outputs.html("<p>map</p>", "map", "A map", takeaway="Look.")
    assert shown.data == (tmp_path / "figures" / "map.html").read_text() == "<p>map</p>"
    [entry] = listed(tmp_path)
    assert (entry["kind"], entry["file"], entry["takeaway"]) == ("interactive", "figures/map.html", "Look.")


def test_without_a_run_the_folder_is_the_projects(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LAB", tmp_path / "lab")
    monkeypatch.chdir(tmp_path)
    assert Outputs(None, "01_notebook").run == tmp_path / "lab"
    assert (tmp_path / "lab" / "records" / "01_notebook.outputs.json").exists()


def test_a_notebook_knows_its_cells_parameters_and_errors(tmp_path, monkeypatch):
    """As papermill runs it: the parameters cell, papermill's own, and the first that uses them."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # the shell puts its own there
    shell = InteractiveShell.instance()
    try:
        shell.showtraceback, shown = (lambda *arguments, **options: None), []
        shell._showtraceback = lambda kind, error, lines: shown.extend(lines)
        shell.user_ns.update(tmp_path=tmp_path, a_figure=a_figure)
        shell.run_cell("run: str = None\nseed = 0", store_history=True)
        shell.run_cell("# Parameters\nseed = 3\nsead = 3", store_history=True)
        start = "from hwdiff.suite.outputs import Outputs\noutputs = Outputs(tmp_path, '01_notebook')"
        shell.run_cell(start, store_history=True)
        assert shown == ["error: parameter sead: no such parameter; the notebook has run, seed"]
        shell.reset()
        shell.user_ns.update(tmp_path=tmp_path, a_figure=a_figure)
        shell.run_cell("run: str = None\nseed = 0", store_history=True)
        shell.run_cell("# Parameters\nseed = 3", store_history=True)
        shell.run_cell(start, store_history=True)
        shell.run_cell(
            "outputs.figure(a_figure(), 'line', 'A line', takeaway='It rises.')", store_history=True
        )
        assert [(one["cell"], one["takeaway"]) for one in listed(tmp_path)] == [(4, "It rises.")] * 2
    finally:
        InteractiveShell.clear_instance()


def test_tables_are_csv_and_json(tmp_path):
    rows = [
        {"row": "a", "value": np.float64(0.123456789), "count": np.int64(3)},
        {"row": "b", "value": float("nan"), "count": 4},
    ]
    shown = Outputs(tmp_path, "01_notebook").table(
        rows, "numbers", "Some numbers", paper={"a": {"value": 0.2}}
    )
    saved = json.loads((tmp_path / "tables" / "numbers.json").read_text())
    assert saved["rows"] == [
        {"row": "a", "value": 0.123456789, "count": 3},
        {"row": "b", "value": None, "count": 4},
    ]
    assert saved["paper"] == {"a": {"value": 0.2}}
    with (tmp_path / "tables" / "numbers.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["row", "value", "count"],
            ["a", "0.123456789", "3"],
            ["b", "", "4"],
        ]
    assert "<td>0.1235</td>" in shown._repr_html_()
    spread = [{"x, mean": 2.0, "x, sd": 0.5}]
    noted = Outputs(tmp_path, "01_notebook").table(spread, "noted", "Noted", notes=["few lines"])
    assert "<p>few lines</p>" in noted._repr_html_() and ">2.00 ± 0.50</th>" in noted._repr_html_()
    html = Shown([{"row": "<b>"}], "A <title>", ["a <note>"])._repr_html_()
    assert "&lt;b&gt;" in html
    assert html.index("A &lt;title&gt;") < html.index("<table>") < html.index("a &lt;note&gt;")
    with pytest.raises(HwdiffError, match="2 rows; at least one is needed, all with the same columns"):
        Outputs(tmp_path, "01_notebook").table([{"a": 1}, {"b": 1}], "other", "Others")


def test_times_lie_apart(tmp_path):
    Outputs(tmp_path, "01_notebook").timings([{"seconds": 1.5}], "speed", "Speed")
    assert (tmp_path / "timings" / "speed.csv").exists()
    assert {output["kind"] for output in listed(tmp_path)} == {"timings"}


def test_what_shows_peoples_ink_is_marked(tmp_path, dataset):
    written = write_dataset(tmp_path / "writers.npz", 1)
    assert shows_people(dataset)
    assert not shows_people(written)
    assert not shows_people(None)
    outputs = Outputs(tmp_path, "01_notebook")
    outputs.figure(a_figure(), "theirs", "People's", ink_of=dataset)
    outputs.table([{"text": "a transcript"}], "theirs", "People's", ink_of=dataset)
    outputs.figure(a_figure(), "made-up", "Made up", ink_of=written)
    assert {output["file"]: output["of_people"] for output in listed(tmp_path)} == {
        "figures/theirs.svg": True,
        "figures/theirs.png": True,
        "tables/theirs.csv": True,
        "tables/theirs.json": True,
        "figures/made-up.svg": False,
        "figures/made-up.png": False,
    }


def test_only_files_that_exist_are_listed(tmp_path):
    outputs = Outputs(tmp_path, "01_notebook")
    (tmp_path / "model.bin").write_bytes(b"weights")
    outputs.file(tmp_path / "model.bin", "weights")
    assert listed(tmp_path)[0]["file"] == "model.bin"
    with pytest.raises(HwdiffError, match=r"none\.bin: no such file"):
        outputs.file(tmp_path / "none.bin", "nothing")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (-0.5, "−0.5"),
        (172800.0, "172,800"),
        (10028451, "10,028,451"),
        (True, "yes"),
        (None, ""),
        ("a-b", "a-b"),
    ],
)
def test_a_value_is_shown_in_few_digits(value, text):
    assert shown(value) == text


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [
        (8.36512, 0.04498, "8.365 ± 0.045"),
        (25.0, 35.36, "25 ± 35"),
        (-0.06045, 0.3412, "−0.06 ± 0.34"),
        (120.54, 0.0012, "120.5 ± 0.0"),
        (0.0, 0.0, "0 ± 0"),
    ],
)
def test_a_spread_has_the_digits_that_it_bears(mean, sd, text):
    assert with_spreads({"a, mean": mean, "a, sd": sd}) == {"a": text}
    assert with_spreads({"a, mean": mean, "a, sd": None}) == {"a": shown(mean)}
