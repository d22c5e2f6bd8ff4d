import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hwdiff import HwdiffError
from hwdiff.cli import app
from hwdiff.model import style_encoder
from hwdiff.model.checkpoint import path_of_model
from hwdiff.suite import runner
from hwdiff.suite.page import publish
from hwdiff.suite.runner import Reproduction, chosen_parameters, find_notebooks, selected
from hwdiff.training.config import preset
from tests.suite.conftest import write_notebook

WRITE_NUMBER = """Path(run, "first.txt").write_text(str(size))
outputs.file(Path(run, "first.txt"), "a number")"""
ADD_ONE = """rows = [{"number": int(Path(run, "first.txt").read_text()) + 1}]
outputs.table(rows, "second", "One more")"""


def test_a_state_depends_on_the_weights_that_trainings_start_from():
    started = path_of_model(preset("tune").init)
    weights = {path.relative_to(runner.PACKAGE).as_posix() for path in (style_encoder.BUNDLED, started)}
    assert weights <= set(runner.STATE_CODE)


def write_suite(folder):
    """Three notebooks: the second reads what the first writes, the third needs neither."""
    write_notebook(folder, "01_first", WRITE_NUMBER)
    write_notebook(folder, "02_second", ADD_ONE, needs=["01_first"], parameters="")
    write_notebook(
        folder,
        "03_third",
        'outputs.table([{"size": size, "seed": seed}], "third", "All by itself")',
        parameters="size = 1\nword = 'a'",
    )
    return folder


@pytest.fixture
def suite(tmp_path):
    return write_suite(tmp_path / "notebooks")


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    bad, run = run_all(write_suite(folder / "notebooks"), folder / "out")
    assert bad == [], run.said
    return folder / "out"


@pytest.fixture
def finished(first_run, tmp_path):
    """The folder of a finished run of `suite`, a copy of one that is made once."""
    return Path(shutil.copytree(first_run, tmp_path / "out"))


def reproduction(suite, out, minutes=5, **given):
    notebooks, said = find_notebooks(suite), []
    parameters = chosen_parameters(notebooks, "smoke", {name: str(value) for name, value in given.items()})
    run = Reproduction(out, "smoke", notebooks, parameters, minutes, say=said.append)
    run.said = said
    return run


def run_all(suite, out, **given):
    run = reproduction(suite, out, **given)
    return run.run(run.notebooks.values()), run


def read(path):
    return json.loads(path.read_text())


def test_a_kernel_talks_over_sockets_of_its_own(tmp_path):
    """Not over ports, which another program may take before the kernel has started."""
    ask = """from ipykernel.connect import get_connection_info
import sys

# PyTorch takes seconds to load: a notebook loads it when it needs it.
about = {"transport": get_connection_info(unpack=True)["transport"], "torch": "torch" in sys.modules}
outputs.table([about], "kernel", "How it talks")"""
    write_notebook(tmp_path / "notebooks", "01_kernel", ask)
    bad, run = run_all(tmp_path / "notebooks", tmp_path / "out")
    assert bad == [], run.said
    assert read(tmp_path / "out" / "tables" / "kernel.json")["rows"] == [{"transport": "ipc", "torch": False}]


def test_a_kernel_starts_where_temporary_files_lie_deep(tmp_path, monkeypatch):
    """A socket's path may have hardly more than a hundred bytes."""
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    write_notebook(tmp_path / "notebooks", "01_kernel", "print('started')")
    bad, run = run_all(tmp_path / "notebooks", tmp_path / "out")
    assert bad == [], run.said


def test_notebooks_run_in_order_and_only_what_has_changed_again(suite, first_run, finished):
    out = finished
    assert read(out / "tables" / "second.json")["rows"] == [{"number": 2}]
    manifest = read(out / "manifest.json")
    assert list(manifest["notebooks"]) == ["01_first", "02_second", "03_third"]
    assert {record["status"] for record in manifest["notebooks"].values()} == {"done"}
    assert manifest["notebooks"]["01_first"]["parameters"] == {"seed": 0, "size": 1}
    assert set(manifest["notebooks"]["02_second"]["outputs"]) == {
        "tables/second.csv",
        "tables/second.json",
        "notebooks/02_second.ipynb",
        "notebooks/02_second.html",
    }
    page = (out / "index.html").read_text()
    assert "The first &lt;one&gt;" in page
    assert "What it reproduces." in page
    assert "More of it." not in page
    assert "One more" in page
    assert "All by itself" in page
    assert (
        str(first_run.parent)
        not in (out / "notebooks" / "01_first.ipynb").read_text().split('"papermill"')[0]
    )
    # Nothing has changed.
    bad, run = run_all(suite, out)
    assert bad == []
    assert run.said == [
        f"[{number}/3] {name}: up to date" for number, name in enumerate(run.notebooks, start=1)
    ]
    # A parameter that two have; and what is read by another.
    _, run = run_all(suite, out, size=5)
    assert [" up to date" in line for line in run.said if line.startswith("[")] == [False, False, False]
    assert read(out / "tables" / "second.json")["rows"] == [{"number": 6}]
    _, run = run_all(suite, out, size=5, word="b")
    assert [name for name in run.notebooks if f"{name}: up to date" not in " ".join(run.said)] == ["03_third"]
    # A file that is gone, or was changed.
    (out / "tables" / "third.csv").write_text("forged")
    _, run = run_all(suite, out, size=5, word="b")
    assert (out / "tables" / "third.csv").read_text().startswith("size")
    assert "01_first: up to date" in run.said[0]


def test_a_plan_says_what_would_run_and_why(suite, tmp_path, first_run):
    out = tmp_path / "out"

    def plan(**given):
        made = reproduction(suite, out, **given)
        return {one["name"]: one for one in made.plan(made.notebooks.values())}

    assert {one["why"] for one in plan().values()} == {"never run"}
    assert not out.exists()
    shutil.copytree(first_run, out)
    done = plan()
    assert {one["why"] for one in done.values()} == {""}
    assert all(one["took"] for one in done.values())
    changed = plan(size=2)
    assert changed["01_first"]["why"] == "other parameters: size = 2"
    assert changed["02_second"]["why"] == "01_first will run again"
    (out / "tables" / "third.csv").write_text("better numbers")
    assert plan()["03_third"]["why"] == "tables/third.csv is missing or was changed"


def test_one_notebook_runs_with_what_it_needs(suite, tmp_path):
    run = reproduction(suite, tmp_path / "out")
    assert run.run(selected(find_notebooks(suite), only="02")) == []
    assert [line for line in run.said if line.startswith("[")] == ["[1/2] 01_first", "[2/2] 02_second"]
    records = read(tmp_path / "out" / "manifest.json")["notebooks"]
    assert records["02_second"]["inputs"].keys() == {"first.txt"}
    assert records["03_third"] == {"status": "not run"}


def test_a_failed_notebook_is_kept_and_what_does_not_need_it_runs(suite, tmp_path):
    out = tmp_path / "out"
    write_notebook(suite, "01_first", "1 / 0")
    bad, run = run_all(suite, out)
    assert bad == ["01_first", "02_second"]
    assert "ZeroDivisionError: division by zero" in " ".join(run.said)
    assert "ZeroDivisionError" in (out / "notebooks" / "01_first.ipynb").read_text()
    assert (out / "tables" / "third.json").exists()
    page = (out / "index.html").read_text()
    assert "failed: cell" in page
    assert "skipped: needs 01_first" in page
    write_notebook(suite, "01_first", WRITE_NUMBER)
    bad, run = run_all(suite, out)
    assert bad == []
    assert "03_third: up to date" in run.said[-1]


def test_a_notebook_has_a_limit_and_a_kernel_may_die(suite, tmp_path):
    write_notebook(suite, "01_first", 'import time; time.sleep(60); Path(run, "ended").touch()')
    run = reproduction(suite, tmp_path / "out", minutes=0.03)
    assert run.run(selected(find_notebooks(suite), only="01")) == ["01_first"]
    assert not (tmp_path / "out" / "ended").exists()
    assert "ran past the limit of 0.03 minutes" in " ".join(run.said)
    write_notebook(suite, "01_first", "import os; os._exit(1)")
    run = reproduction(suite, tmp_path / "out")
    assert run.run(selected(find_notebooks(suite), only="01")) == ["01_first"]
    assert "its kernel died" in " ".join(run.said)


def test_a_full_disk_is_told_in_one_line(suite, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    first = selected(find_notebooks(suite), only="01")
    table = 'outputs.table([{"word": "x" * 1_000_000}], "first", "Too much")'
    executed_notebook = 'from IPython.display import HTML\nHTML("x" * 1_000_000)'
    for cell, reason in (
        (table, "first.csv: cannot be written (File too large); free some space"),
        (executed_notebook, "File too large"),
    ):
        write_notebook(suite, "01_first", cell)
        run = reproduction(suite, tmp_path / "out")
        # A full disk fails in the same way, with another reason.
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            assert run.run(first) == ["01_first"]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert reason in run.said[-1]
        assert "\n" not in run.said[-1]
        assert not list((tmp_path / "out").rglob(".*"))
    write_notebook(suite, "01_first", "pass")
    assert reproduction(suite, tmp_path / "out").run(first) == []


def test_the_state_of_a_notebook_is_set_aside_for_other_parameters(suite, tmp_path):
    out = tmp_path / "out"
    count = """folder = Path(run, "state")
folder.mkdir(exist_ok=True)
(folder / "count").open("a").write("x")
assert size != 2 or 1 / 0"""
    write_notebook(suite, "03_third", count, keeps=["state"])
    third = selected(find_notebooks(suite), only="03")
    for size, count in ((2, "x"), (2, "xx"), (3, "x")):  # what failed resumes from its state
        run = reproduction(suite, out, size=size)
        run.run(third)
        assert (out / "state" / "count").read_text() == count, run.said
    [aside] = out.glob("state.*")
    assert (aside / "count").read_text() == "xx"
    run = reproduction(suite, out, size=2)  # what fits again is resumed
    run.run(third)
    assert (out / "state" / "count").read_text() == "xxx", run.said


def test_what_was_damaged_is_made_again(suite, tmp_path):
    out = tmp_path / "out"
    write = """file = Path(run, "state", "file")
file.parent.mkdir(exist_ok=True)
if not file.exists():
    file.write_text("whole")"""
    table = 'outputs.table([{"size": size}], "third", "A size")'
    write_notebook(suite, "03_third", write, 'outputs.file(file, "kept")', table, keeps=["state"])
    third = selected(find_notebooks(suite), only="03")
    assert reproduction(suite, out).run(third) == []
    (out / "state" / "file").write_text("half")
    assert reproduction(suite, out).run(third) == []
    assert (out / "state" / "file").read_text() == "whole"
    assert (out / "state.damaged" / "file").read_text() == "half"
    # A table that is lost says nothing against the state.
    (out / "tables" / "third.csv").unlink()
    made = (out / "state" / "file").stat().st_ino
    assert reproduction(suite, out).run(third) == []
    assert (out / "tables" / "third.csv").exists()
    assert (out / "state" / "file").stat().st_ino == made
    assert [path.name for path in out.glob("state.*")] == ["state.damaged"]
    (out / "state" / "file").write_text("other half")
    assert reproduction(suite, out).run(third) == []
    assert (out / "state.damaged" / "file").read_text() == "half"
    assert (out / "state.damaged-2" / "file").read_text() == "other half"


def test_what_is_run_again_with_the_same_files_makes_nothing_else_stale(suite, finished):
    out = finished
    (out / "notebooks" / "01_first.ipynb").unlink()
    _, run = run_all(suite, out)
    assert [line for line in run.said if line.startswith("[")] == [
        "[1/3] 01_first",
        "[2/3] 02_second: up to date",
        "[3/3] 03_third: up to date",
    ]


def test_a_run_of_an_older_version_runs_again(suite, finished):
    """Its manifest has "stages", its records lie in stages/."""
    out = finished
    write_notebook(suite, "03_third", 'Path(run, "state").mkdir()', keeps=["state"])
    run_all(suite, out)
    old = read(out / "manifest.json")
    (out / "manifest.json").write_text(json.dumps({"profile": "smoke", "stages": old["notebooks"]}))
    (out / "records").rename(out / "stages")
    bad, run = run_all(suite, out)
    assert bad == [], run.said
    assert not [line for line in run.said if "up to date" in line]
    assert "    state is of other parameters, data or code: it is kept as state.unknown" in run.said
    assert {record["status"] for record in read(out / "manifest.json")["notebooks"].values()} == {"done"}


def test_one_notebook_sees_that_what_it_needs_has_changed(suite, finished):
    run = reproduction(suite, finished, size=7)
    run.run(selected(find_notebooks(suite), only="02"))
    assert read(finished / "tables" / "second.json")["rows"] == [{"number": 8}]


def test_a_run_that_is_interrupted_leaves_no_half_notebook_and_is_resumed(suite, tmp_path):
    out, told = tmp_path / "out", tmp_path / "told"
    write_notebook(
        suite,
        "02_second",
        f'Path({str(told)!r}).write_text("here")\nimport time; time.sleep(60)',
        needs=["01_first"],
    )
    program = (
        "import signal, sys; from hwdiff.suite import runner as r; from pathlib import Path;"
        "n = r.find_notebooks(Path(sys.argv[1]));"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # a background job comes with it ignored
        "r.Reproduction(Path(sys.argv[2]), 'smoke', n, r.chosen_parameters(n, 'smoke', {})).run(n)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, suite, out], stderr=subprocess.PIPE, text=True)
    while not told.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert not list(out.rglob(".*.ipynb"))
    assert not (out / "notebooks" / "02_second.ipynb").exists()
    write_notebook(suite, "02_second", "pass", needs=["01_first"])
    bad, run = run_all(suite, out)
    assert bad == []
    assert "01_first: up to date" in run.said[0]


def test_parameters_are_checked_before_anything_runs(suite):
    notebooks = find_notebooks(suite)
    with pytest.raises(
        HwdiffError, match="--param sise: no notebook has such a parameter; they have seed, size, word"
    ):
        chosen_parameters(notebooks, "smoke", {"sise": "2"})
    with pytest.raises(HwdiffError, match="--param size=two: int is needed, as in size = 1"):
        chosen_parameters(notebooks, "smoke", {"size": "two"})
    with pytest.raises(HwdiffError, match="no notebook has such a parameter"):
        chosen_parameters(notebooks, "smoke", {"run": "elsewhere"})
    assert chosen_parameters(notebooks, "smoke", {"word": "1984"})["03_third"]["word"] == "1984"
    with pytest.raises(HwdiffError, match="no such profile as 'huge'; choose one of smoke, paper"):
        chosen_parameters(notebooks, "huge", {})
    with pytest.raises(HwdiffError, match="no such notebook as '09'; choose one of 01_first"):
        selected(notebooks, only="09")
    assert [notebook.name for notebook in selected(notebooks, start="02")] == ["02_second", "03_third"]
    with pytest.raises(HwdiffError, match="no notebooks; run this in a clone"):
        find_notebooks(suite / "none")


def test_a_folder_of_other_things_is_left_alone(suite, tmp_path):
    (tmp_path / "thesis" / "notebooks").mkdir(parents=True)
    with pytest.raises(HwdiffError, match=r"thesis: no folder of a run \(it holds notebooks\); choose"):
        run_all(suite, tmp_path / "thesis")
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "manifest.json").write_text('{"profile": "smoke", "left_out": []}')
    with pytest.raises(HwdiffError, match=r"published: no folder of a run \(it holds manifest\.json\)"):
        run_all(suite, tmp_path / "published")
    with pytest.raises(HwdiffError, match="--minutes inf: must be a finite number"):
        reproduction(suite, tmp_path / "out", minutes=float("inf"))


def test_a_state_may_be_a_link_to_another_disk(suite, tmp_path):
    (tmp_path / "out" / "records").mkdir(parents=True)
    (tmp_path / "disk").mkdir()
    (tmp_path / "out" / "data").symlink_to(tmp_path / "disk")
    write = 'path = Path(run, "data", "lines.txt")\npath.write_text("a")\noutputs.file(path, "lines")'
    write_notebook(tmp_path / "one", "01_first", write)
    bad, run = run_all(tmp_path / "one", tmp_path / "out")
    assert not bad, run.said
    assert read(tmp_path / "out" / "records" / "01_first.json")["outputs"].keys() >= {"data/lines.txt"}


def test_hidden_files_beside_the_archives_make_nothing_stale(suite, tmp_path):
    archives = tmp_path / "iam"
    archives.mkdir()
    (archives / "lines.tar.gz").write_bytes(b"1")
    write_notebook(suite, "01_first", "pass", parameters=f"source = {str(archives)!r}")
    [first] = selected(find_notebooks(suite), only="01")

    def inputs():
        return reproduction(suite, tmp_path / "out").inputs(first.name)

    before = inputs()
    assert list(before) == [str(archives / "lines.tar.gz")]
    (archives / ".DS_Store").write_bytes(b"2")
    assert inputs() == before
    (archives / "lines.tar.gz").write_bytes(b"3")
    assert inputs() != before


def test_the_newest_run_of_a_profile_is_resumed(tmp_path):
    new = runner.newest_run("smoke", tmp_path)
    assert new.name.endswith("-smoke")
    for name in ("20200101-000000-smoke", "20210101-000000-smoke", "20220101-000000-paper"):
        (tmp_path / name).mkdir()
    assert runner.newest_run("smoke", tmp_path).name == "20210101-000000-smoke"


def test_the_profile_paper_says_what_is_missing(iam, tmp_path, monkeypatch):
    def run(*arguments):
        result = CliRunner().invoke(app, ["reproduce", "--profile", "paper", *map(str, arguments)])
        assert result.exit_code == 1
        return result.output

    assert "the IAM archives; give their folder" in run()
    assert "neither lineStrokes-all.tar.gz" in run("--param", f"source={Path(__file__).parent}")
    unsplit = shutil.copytree(
        iam, tmp_path / "unsplit", ignore=shutil.ignore_patterns("trainset*", "testset*")
    )
    assert "has no split lists" in run("--param", f"source={unsplit}")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "a GPU, and PyTorch finds none" in run("--param", f"source={iam}")
    assert "profile paper-on-cpu: requires the IAM archives" in run("--profile", "paper-on-cpu")
    assert "--only and --from" in run("--only", "01", "--from", "02")
    assert "NAME=VALUE" in run("--param", "source")


@pytest.mark.parametrize(("checkpoint", "students"), [("small", 0), ("pretrained", 12)])
def test_many_hours_are_told_before_they_begin(source, tmp_path, monkeypatch, checkpoint, students):
    monkeypatch.setattr(runner.Reproduction, "run", lambda self, wanted: [])
    given = {"source": source, "checkpoint": checkpoint, "lines": 10, "unseen_lines": 5, "unseen_seeds": 2}
    options = [text for name, value in given.items() for text in ("--param", f"{name}={value}")]
    command = ["reproduce", "--profile", "paper-on-cpu", "--out", str(tmp_path / "run"), *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    # Without guidance 60 for Eq. 12, also in foreign styles, as many for Eq. 9; twice as many with guidance.
    # The student is in the second table.
    evaluations = 10 * 3 * 120 + 5 * 2 * (420 + students)
    assert f"evaluates its networks {evaluations:,} times for the lines of its tables: " in result.output


def test_profiles_name_notebooks_and_parameters_that_exist():
    known = {notebook.name: notebook.parameters for notebook in find_notebooks()}
    for changes in runner.PROFILES.values():
        for name, values in changes.items():
            assert values.keys() <= known[name].keys()
    assert all(values["seed"] == 0 for values in known.values())
    assert os.path.basename(runner.NOTEBOOKS) == "notebooks"


@pytest.mark.parametrize(
    "change",
    [
        lambda notebook: notebook["metadata"]["hwdiff"].pop("needs"),
        lambda notebook: notebook["metadata"]["hwdiff"].update(keeps=3),
        lambda notebook: notebook["cells"][0].pop("source"),
        lambda notebook: notebook["cells"][1].update(metadata=3),
        lambda notebook: notebook["cells"][1]["metadata"].update(tags=0.5),
        lambda notebook: notebook["metadata"]["hwdiff"].update(needs=["03_third"]),
    ],
)
def test_a_damaged_notebook_is_named(suite, change):
    path = suite / "02_second.ipynb"
    notebook = read(path)
    change(notebook)
    path.write_text(json.dumps(notebook))
    with pytest.raises(HwdiffError, match=r"02_second\.ipynb: .*; restore it"):
        find_notebooks(suite)


def test_values_that_no_parameter_can_have_are_refused(suite):
    notebooks = find_notebooks(suite)
    for text in ("[" * 100_000, "1.5"):
        with pytest.raises(HwdiffError, match="int is needed, as in size = 1") as raised:
            chosen_parameters(notebooks, "smoke", {"size": text})
        assert len(str(raised.value)) < 300


def test_parameters_that_are_files_are_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "notebooks"
    parameters = 'photo: str = None\nsource: str = None\ncheckpoint = "small"'
    write_notebook(folder, "01_first", "size", parameters=parameters)
    (tmp_path / "hand.png").write_bytes(b"one")
    (tmp_path / "small").mkdir()
    given = {"photo": "hand.png", "source": "small", "checkpoint": "small"}
    keys = []
    for content in (b"one", b"two"):
        (tmp_path / "hand.png").write_bytes(content)
        run = reproduction(folder, tmp_path / "out", **given)
        keys.append(run.key("01_first"))
    assert run.parameters["01_first"] == {
        "photo": str(tmp_path / "hand.png"),
        "source": str(tmp_path / "small"),
        "checkpoint": "small",  # the bundled model, whatever lies in the folder
        "seed": 0,
    }
    assert keys[0] != keys[1]


def test_measurements_that_are_shown_are_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "MEASUREMENTS", tmp_path / "measurements")
    (tmp_path / "measurements" / "samplers").mkdir(parents=True)
    table, folder = tmp_path / "measurements" / "samplers" / "table1.json", tmp_path / "notebooks"
    write_notebook(folder, "01_first", "size")
    path = folder / "01_first.ipynb"
    content = json.loads(path.read_text())
    content["metadata"]["hwdiff"]["measured"] = ["samplers"]
    path.write_text(json.dumps(content))
    keys = []
    for text in ("one", "two", None):
        table.unlink(missing_ok=True)
        if text:
            table.write_text(text)
        run = reproduction(folder, tmp_path / "out")
        keys.append(run.key("01_first"))
        assert list(run.inputs("01_first")) == ([str(table)] if text else [])
    assert len(set(keys)) == 3


def test_a_record_without_files_is_no_record_of_files(suite, tmp_path):
    run = reproduction(suite, tmp_path / "out")
    (tmp_path / "out" / "records").mkdir(parents=True)
    record = {"status": "done", "key": run.key("01_first")}
    (tmp_path / "out" / "records" / "01_first.json").write_text(json.dumps(record))
    assert run.plan(selected(list(run.notebooks.values()), only="01"))[0]["name"] == "01_first"


def test_what_names_a_folder_of_this_machine_is_not_published(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    table = 'outputs.table([{"place": str(Path.home())}], "place", "Where")'
    write_notebook(tmp_path / "notebooks", "01_place", table)
    bad, run = run_all(tmp_path / "notebooks", tmp_path / "out")
    assert bad == [], run.said
    with pytest.raises(HwdiffError, match="a place on this machine; it must not be published"):
        publish(tmp_path / "out", tmp_path / "published")
    assert not (tmp_path / "published").exists()


def test_what_names_a_file_that_was_given_is_not_published(tmp_path):
    given = tmp_path / "elsewhere" / "lines.npz"
    table = 'outputs.table([{"place": source}], "place", "Where")'
    write_notebook(tmp_path / "notebooks", "01_place", table, parameters=f"source = {str(given)!r}")
    bad, run = run_all(tmp_path / "notebooks", tmp_path / "out")
    assert bad == [], run.said
    with pytest.raises(HwdiffError, match=f"names {given}, a place on this machine"):
        publish(tmp_path / "out", tmp_path / "published")


def test_a_change_of_the_package_makes_a_run_stale(suite, tmp_path, monkeypatch):
    files = [tmp_path / "hwdiff" / room / "a.py" for room in ("evaluation", "training")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("1")
    monkeypatch.setattr(runner, "PACKAGE", tmp_path / "hwdiff")
    keys = []
    for file in (None, *files):
        if file:
            file.write_text("2")
        run = reproduction(suite, tmp_path / "out")
        keys.append((run.key("01_first"), run.state_key("01_first")))
    before, measured, trained = keys
    assert measured[0] != before[0] and measured[1] == before[1] != trained[1]
