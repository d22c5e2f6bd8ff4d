"""Every notebook of the suite by papermill, in order, with smaller parameters; and what comes of it."""

import ast
import json
import re
import shutil
from html import unescape

import nbformat
import pytest

from hwdiff import HwdiffError
from hwdiff.data.dataset import Dataset
from hwdiff.suite.page import publish
from hwdiff.suite.runner import find_notebooks
from hwdiff.utils.files import sha256_of
from tests.suite.conftest import SMALL, reproduce

TRAINED = ["checkpoint=trained", *SMALL]
EXPECTED = {
    "figures": """
        00-written 00-film 01-lines 01-merging 01-one-round 01-lengths 01-style-image
        02-schedule 02-forward 02-gradients 02-loss 02-validation-by-noise
        02-samples-step-000002 02-samples-step-000004
        03-lines 03-attention 03-attention-worst 03-every-head 03-characters 03-by-step 03-against-truth
        04-interpolation 04-similarity 04-four-styles 04-strength 04-several-images
        05-corrupted 05-table1 05-differences 05-row-pictures 05-row-features 05-diversity 05-diversity-lines
        06-styles 06-writers 06-eq12-eq9 06-film 06-samplers 06-measured 06-few-evaluations 06-quiz
        06-wrong-level
        07-network 07-conditioning 07-style-attention 08-photo 08-letter
        """,
    "tables": """
        00-one-form 01-splits 01-dropped 01-points 02-loss
        03-characters 03-alignment 03-relations 03-boundaries
        04-interpolation 04-strength 04-several-images
        05-corrupted 05-table1 05-table1-differences 05-diversity 05-canvases 05-geometry-floor
        06-samplers 06-wrong-level 06-quiz-answers 07-parameters 07-receptive-field 08-nearest 08-pieces
        """,
    "timings": "02-training 05-table1 06-samplers",
}


SHOW_LINES = {
    "01-lines",
    "01-merging",
    "01-one-round",
    "01-style-image",
    "02-forward",
    "04-several-images",
    "05-row-pictures",
    "05-diversity-lines",
    "06-writers",
    "06-quiz",
    "08-photo",
}


def test_all_files_come_out(run):
    for folder, names in EXPECTED.items():
        suffixes = (".png", ".svg") if folder == "figures" else (".csv", ".json")
        expected = {name + suffix for name in names.split() for suffix in suffixes}
        expected |= {"03-map.html"} if folder == "figures" else set()
        assert {path.name for path in (run / folder).iterdir()} == expected
    manifest = json.loads((run / "manifest.json").read_text())
    assert [record["status"] for record in manifest["notebooks"].values()] == ["done"] * 9
    for record in manifest["notebooks"].values():
        assert record["environment"]["packages"]["torch"]
        assert set(record["weights"]) == {
            "recognizer.safetensors",
            "style-encoder.safetensors",
            "pretrained-styles.safetensors",
            "small-styles.safetensors",
            "small.safetensors",
            "pretrained.safetensors",
            "fast.safetensors",
        }
    assert set(manifest["notebooks"]["02_training"]["inputs"]) == {"data/lines.npz"}
    table = json.loads((run / "tables" / "05-table1.json").read_text())
    assert "not to be compared with the paper's" in table["title"]
    assert table["paper"] == {}
    assert [row["row"] for row in table["rows"]] == [
        "ground truth",
        "model (Eq. 12), guidance 1",
        "ablation (Eq. 9), guidance 1",
        "Eq. 12, foreign styles, guidance 1",
        "Eq. 12, guidance 2.5",
        "Eq. 9, guidance 2.5",
        "real, corrupted",
    ]
    page = (run / "index.html").read_text()
    assert all(f"figures/{name}.png" in page for name in EXPECTED["figures"].split())
    for path in (run / "notebooks").glob("*.ipynb"):
        assert "http://" not in path.with_suffix(".html").read_text().replace("http://www.w3.org", "")
        notebook = nbformat.read(path, as_version=4)
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        shown = sum("image/png" in output.get("data", {}) for output in outputs)
        listed = manifest["notebooks"][path.stem]["listed"]
        assert shown >= sum(one["kind"] == "figure" and one["file"].endswith(".png") for one in listed) > 0, (
            path.name
        )
        assert not any(output.output_type == "error" for output in outputs)
        # A title can be read in the notebook, not only on the page.
        told = unescape("".join(output.get("data", {}).get("text/html", "") for output in outputs))
        for one in listed:
            if one["kind"] == "table" or (one["kind"] == "figure" and one["file"].endswith(".png")):
                assert f"<b>{one['title']}.</b>" in told, one["title"]


def test_a_dry_run_of_a_finished_run_says_that_all_is_up_to_date(run, small):
    result = reproduce(run, small, "--dry-run")
    assert result.exit_code == 0, result.output
    head, *lines = result.output.splitlines()
    assert head == f"{run}:"
    assert [line.split()[0] for line in lines] == [f"{notebook.name}:" for notebook in find_notebooks()]
    assert all(": up to date, took 0" in line for line in lines)
    changed = reproduce(run, [*small, "quiz=5"], "--dry-run").output
    assert "  06_sampling: runs: other parameters: quiz = 5, took 0" in changed


def test_the_model_of_the_same_run_can_be_taken(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    result = reproduce(tmp_path / "run", TRAINED, "--only", "07")
    assert result.exit_code == 0, result.output
    assert "02_training" not in result.output.replace("02_training: up to date", "")
    changed = (tmp_path / "run" / "figures" / "07-style-attention.png").read_bytes()
    assert changed != (run / "figures" / "07-style-attention.png").read_bytes()


def test_sources_have_no_outputs():
    for notebook in find_notebooks():
        content = nbformat.read(notebook.path, as_version=4)
        nbformat.validate(content)
        for cell in content.cells:
            if cell.cell_type == "code":
                assert cell.outputs == []
                assert cell.execution_count is None
        assert content.cells[0].source.startswith("# ")
        assert "Luhman" in content.cells[0].source
        [parameters] = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
        assert "import" not in parameters.source


def test_all_that_shows_lines_of_a_dataset_says_so():
    """Such outputs are not published where the lines are by people."""
    marked = set()
    for notebook in find_notebooks():
        cells = nbformat.read(notebook.path, as_version=4).cells
        for cell in (cell for cell in cells if cell.cell_type == "code"):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Call) and any(one.arg == "ink_of" for one in node.keywords):
                    names = [one.value for one in node.args if isinstance(one, ast.Constant)]
                    marked |= {name for name in names if re.fullmatch(r"0\d-[a-z-]+", name)}
    assert marked == SHOW_LINES


def test_no_cell_draws_lines_of_the_data_without_saying_so():
    for notebook in find_notebooks():
        for cell in nbformat.read(notebook.path, as_version=4).cells:
            if cell.cell_type == "code" and re.search(
                r"plot_inks|imshow|plot_forward|plot_lines", cell.source
            ):
                of_data = re.search(
                    r"dataset\.(ink|line_image)\(|real_inks\(|plot_lines\(dataset", cell.source
                )
                assert not of_data or "ink_of=" in cell.source, f"{notebook.name}: {cell.source}"


def test_what_is_published_shows_no_peoples_ink(run, tmp_path):
    assert publish(run, tmp_path / "all") == []
    assert (tmp_path / "all" / "figures" / "06-quiz.png").exists()
    # As if the run had been made with people's lines.
    marked = tmp_path / "run"
    shutil.copytree(run, marked)
    change(
        marked,
        "06_sampling",
        lambda record: [one.update({"of_people": "quiz." in one["file"]}) for one in record["listed"]],
    )
    out = tmp_path / "all"
    (out / "fox.gif").write_bytes(b"not of a run")
    (out / "figures" / "mine.png").write_bytes(b"not of a run")
    left_out = publish(marked, out)
    assert (out / "fox.gif").exists() and (out / "figures" / "mine.png").exists()
    assert set(left_out) == {
        "figures/06-quiz.png",
        "figures/06-quiz.svg",
        "notebooks/06_sampling.ipynb",
        "notebooks/06_sampling.html",
    }
    assert not any((out / file).exists() for file in left_out)
    assert (out / "notebooks" / "05_evaluation.ipynb").exists()
    assert not list(out.rglob("*.safetensors"))
    page = (out / "index.html").read_text()
    assert "(Fig. 3 of the paper; answers apart): shows people" in page
    assert "figures/06-quiz" not in page
    assert str(tmp_path) not in page + (out / "manifest.json").read_text()
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["left_out"] == left_out
    for record in manifest["notebooks"].values():
        assert all(sha256_of(out / file) == sha256 for file, sha256 in record["outputs"].items())


def test_no_title_tells_a_text_of_the_data(run):
    """Titles and takeaways are published, also of what shows people's lines."""
    texts = {text for text in Dataset(run / "data" / "lines.npz").texts.tolist() if len(text) > 6}
    for record in json.loads((run / "manifest.json").read_text())["notebooks"].values():
        for output in record["listed"]:
            told = output["title"] + output.get("takeaway", "")
            assert not any(text in told for text in texts), output


def test_only_whole_runs_are_published(run, tmp_path):
    with pytest.raises(HwdiffError, match="no folder of a run"):
        publish(tmp_path, tmp_path / "out")
    shutil.copytree(run, tmp_path / "run")
    # Started again, and stopped: the manifest and the files are those of before.
    change(tmp_path / "run", "03_attention", lambda record: record.update(status="started"))
    with pytest.raises(HwdiffError, match=r"03_attention is not done \(started\)"):
        publish(tmp_path / "run", tmp_path / "out")
    change(tmp_path / "run", "03_attention", lambda record: record.update(status="done"))
    (tmp_path / "run" / "tables" / "05-table1.csv").write_text("better numbers")
    with pytest.raises(HwdiffError, match="is not what 05_evaluation wrote"):
        publish(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_of_two_datasets_is_not_published(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    change(
        tmp_path / "run",
        "05_evaluation",
        lambda record: record["inputs"].update({"data/lines.npz": 64 * "0"}),
    )
    with pytest.raises(
        HwdiffError, match=r"01_preprocessing has written another data/lines\.npz since 05_eval"
    ):
        publish(tmp_path / "run", tmp_path / "out")


def test_names_of_peoples_files_are_not_published(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    source = tmp_path / "letters of xanthippe"

    def as_if_from(record):
        record["parameters"]["source"] = str(source)
        record["inputs"] = {str(source / "dear-doctor.json"): 64 * "0"}

    change(tmp_path / "run", "01_preprocessing", as_if_from)
    executed = tmp_path / "run" / "notebooks" / "01_preprocessing.ipynb"
    given = nbformat.read(executed, as_version=4)
    [injected] = [cell for cell in given.cells if "injected-parameters" in cell.metadata.get("tags", ())]
    injected.source += f'\nsource = "{source}"'
    nbformat.write(given, executed)
    sha256 = sha256_of(executed)
    change(
        tmp_path / "run",
        "01_preprocessing",
        lambda record: record["outputs"].update({"notebooks/01_preprocessing.ipynb": sha256}),
    )
    publish(tmp_path / "run", tmp_path / "out")
    told = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any(name in path.read_bytes() for path in told for name in (b"xanthippe", b"dear-doctor"))
    record = json.loads((tmp_path / "out" / "manifest.json").read_text())["notebooks"]["01_preprocessing"]
    assert record["inputs"].keys() == {"source"} and record["parameters"]["source"] == "not published"


def test_nothing_else_is_replaced_by_publishing(run, tmp_path):
    (tmp_path / "clone" / "notebooks").mkdir(parents=True)
    (tmp_path / "other" / "figures").mkdir(parents=True)
    shutil.copyfile(run / "manifest.json", tmp_path / "other" / "manifest.json")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("of someone else")
    for out in (tmp_path / "clone", tmp_path / "other", tmp_path / "site", run, run / "figures"):
        with pytest.raises(HwdiffError, match="choose a folder of its own"):
            publish(run, out)
    assert (run / "figures" / "03-attention.png").exists()


def change(run, name, how):
    path = run / "records" / f"{name}.json"
    record = json.loads(path.read_text())
    how(record)
    path.write_text(json.dumps(record))


def test_what_is_told_is_what_the_tables_hold(run):
    def rows(name):
        return json.loads((run / "tables" / f"{name}.json").read_text())["rows"]

    records = json.loads((run / "manifest.json").read_text())["notebooks"].values()
    listed = [one for record in records for one in record["listed"] if one["file"].endswith(".png")]
    told = {one["file"].split("/")[1][:-4]: one.get("takeaway") for one in listed}
    errors = {(row["network"], row["t"]): row["median error, points"] for row in rows("03-boundaries")}
    name, _ = next(iter(errors))
    ends = (errors[name, 55], errors[name, 5], errors["letters spread evenly", None])
    assert (
        "{:.0f} points at t = 55, {:.0f} at t = 5, and {:.0f} with".format(*ends) in told["03-against-truth"]
    )
    assert all(row["NFE"] == row["steps"] * (1 + (row["guidance"] != 1)) for row in rows("06-samplers"))
    recorded, merged, left = (row["median"] for row in rows("01-points"))
    assert merged < recorded and 0.51 < left < 0.52
    pen, weighted = map(float, re.findall(r"([\d.]+) times", told["02-gradients"]))
    assert pen > weighted
