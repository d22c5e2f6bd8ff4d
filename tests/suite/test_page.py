import json
import shutil
from pathlib import Path

import nbformat
import pytest

import hwdiff
from hwdiff import HwdiffError
from hwdiff.model.unet import UNet
from hwdiff.suite import page
from hwdiff.suite.page import publish, write_manifest, write_page
from tests.conftest import TINY
from tests.suite.conftest import ENVIRONMENT


@pytest.fixture
def run(tmp_path):
    """The folder of a run with one notebook that was done, and one that failed."""
    (tmp_path / "records").mkdir()
    (tmp_path / "tables").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_one.ipynb").write_text("{}")
    rows = [
        {
            "row": "ground truth",
            "FID, mean": 2.345678,
            "FID, sd": 0.1,
            "score, mean": 1.0,
            "score, sd": None,
            "text": "<i>",
        }
    ]
    table = {
        "title": "A table",
        "rows": rows,
        "paper": {"ground truth": {"FID": 2.91}},
        "notes": ["few lines"],
    }
    (tmp_path / "tables" / "one.json").write_text(json.dumps(table))
    listed = [
        {"kind": "table", "file": f"tables/one.{suffix}", "title": "A table", "of_people": False}
        for suffix in ("csv", "json")
    ]
    listed.append({"kind": "figure", "file": "figures/gone.png", "title": "A picture", "of_people": True})
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "here.png").write_bytes(b"png")
    (tmp_path / "figures" / "map.html").write_text("<b>a map</b>")
    for kind, file in (("figure", "figures/here.png"), ("interactive", "figures/map.html")):
        about = {"title": f"Of {kind} <s>", "of_people": False, "cell": 4, "takeaway": f"A {kind} <u>"}
        listed.append({"kind": kind, "file": file, **about})
    done = {
        "status": "done",
        "seconds": 120.0,
        "parameters": {"seed": 3, "checkpoint": "small", "source": None},
        "environment": ENVIRONMENT,
        "listed": listed,
    }
    (tmp_path / "records" / "01_one.json").write_text(json.dumps(done))
    (tmp_path / "records" / "02_two.json").write_text(
        json.dumps({"status": "failed", "error": "cell 3: ValueError: <b>", "listed": []})
    )
    return tmp_path


def test_the_page_shows_tables_with_the_papers_numbers_and_what_failed(run):
    write_manifest(run, "smoke", ["01_one", "02_two", "03_three"])
    write_page(run)
    page = (run / "index.html").read_text()
    for text in (
        "<td>2.35 ± 0.10</td>",
        '<th scope="col">FID</th>',
        "FID 2.91",
        "few lines",
        "&lt;i&gt;",
        "seed = 3",
        "cell 3: ValueError: &lt;b&gt;",
        "not run",
    ):
        assert text in page, text
    assert "A picture: shows people" in page
    assert "figures/gone" not in page


def test_the_page_says_what_it_is_before_any_number(run):
    write_manifest(run, "smoke", ["01_one"])
    write_page(run)
    page = (run / "index.html").read_text()
    box = page[page.index("What this is") : page.index('<h2 id="01_one"')]
    for text in (
        "smoke",
        "2,593,491 parameters",
        "guided attention of weight 0.1",
        "guidance 2.5",
        "0123456789",
    ):
        assert text in box, text
    assert "not people&#39;s" in box
    assert "<b>can&#39;t tell yet</b>" in box  # the verdicts
    assert page.index("What this is") < page.index("<table")


def test_a_figure_has_its_takeaway_and_its_cell_and_tables_are_folded(run):
    write_manifest(run, "smoke", ["01_one"])
    write_page(run)
    page = (run / "index.html").read_text()
    assert '<span class="takeaway">A figure &lt;u&gt;</span> Of figure &lt;s&gt; (cell 4)' in page
    assert "<b>a map</b>" in page
    assert "hwdiff reproduce --profile smoke --only 01" in page
    assert page.count("<details>") == 1
    assert page.index("<details>") < page.index("2.35 ")


def test_a_page_without_its_network_or_files_is_still_made(run):
    record = run / "records" / "01_one.json"
    record.write_text(record.read_text().replace('"small"', '"/a/place/gone.safetensors"'))
    (run / "figures" / "map.html").unlink()
    write_manifest(run, "smoke", ["01_one"])
    write_page(run)
    page = (run / "index.html").read_text()
    assert "“gone.safetensors”, which is no longer there" in page
    assert "Of interactive &lt;s&gt;: is missing" in page


def test_the_page_calls_a_network_by_its_files_name(run, tmp_path):
    shutil.copy(Path(hwdiff.__file__).parent / "weights" / "small.safetensors", tmp_path / "mine.safetensors")
    record = run / "records" / "01_one.json"
    record.write_text(record.read_text().replace('"small"', json.dumps(str(tmp_path / "mine.safetensors"))))
    write_manifest(run, "smoke", ["01_one"])
    write_page(run)
    assert "“mine.safetensors”: 2,593,491 parameters" in (run / "index.html").read_text()


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        (
            {"step": 400, "teacher": "a hash", "writing": {"levels": [60, 1]}},
            "a student that writes in 2 steps, 400 batches of distillation",
        ),
        ({"step": 7, "training": {"init": "small"}}, "7 steps of training from earlier weights, no guided"),
        ({"step": 7, "teacher": "a hash", "training": {}}, "7 steps of training, no guided attention"),
        ({}, "a checkpoint of the authors&#39; program, no guided attention"),
    ],
)
def test_the_page_says_how_a_network_was_trained(run, monkeypatch, metadata, told):
    network = UNet(TINY)
    network.metadata = metadata
    monkeypatch.setattr(page, "load_model", lambda path, device: network)
    write_manifest(run, "smoke", ["01_one"])
    write_page(run)
    assert told in (run / "index.html").read_text()


def test_without_a_manifest_there_is_no_page(tmp_path):
    with pytest.raises(HwdiffError, match=r"no folder of a run \(it has no manifest\.json\)"):
        write_page(tmp_path)


def test_a_run_of_an_older_version_is_not_published(tmp_path):
    run = tmp_path / "run"
    (run / "stages").mkdir(parents=True)
    (run / "stages" / "01_one.json").write_text(json.dumps({"status": "done"}))
    (run / "manifest.json").write_text(json.dumps({"profile": "paper", "stages": {"01_one": {}}}))
    with pytest.raises(HwdiffError) as raised:
        publish(run, tmp_path / "out")
    assert str(raised.value) == (
        f"{run}/manifest.json: has ['profile', 'stages'] but no 'notebooks', so an older version of hwdiff "
        f"made it; run the suite again with hwdiff reproduce --profile paper --out {run}"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notebooks": 3}, r"damaged \(notebooks = 3\)"),
        ({"notebooks": {"01_one": {"status": 3}}}, r"damaged \(notebooks.01_one.status = 3\)"),
        ({"notebooks": {"../01_one": {"status": "done"}}}, r"damaged \('../01_one' is not in the folder\)"),
        (
            {"notebooks": {"01_one": {"status": "done", "outputs": {"../a": ""}}}},
            "'../a' is not in the folder",
        ),
    ],
)
def test_a_damaged_manifest_is_named(run, change, message):
    write_manifest(run, "smoke", ["01_one"])
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(HwdiffError, match=rf"manifest\.json: .*{message}"):
        write_page(run)


@pytest.mark.parametrize(
    "change",
    [
        {"listed": [{"kind": "figure", "file": "../outside.png", "title": "A", "of_people": False}]},
        {"listed": [{"kind": "figure"}]},
        {"outputs": {"/etc/passwd": "0"}},
        {"outputs": 3},
        {"seconds": "long"},
        {"parameters": []},
        {"environment": {"device": "cpu"}},
    ],
)
def test_a_damaged_record_counts_as_none(run, change):
    """It is run again. Before, a file of the record could be written beside the published ones."""
    record = run / "records" / "01_one.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **change}))
    write_manifest(run, "smoke", ["01_one"])
    assert json.loads((run / "manifest.json").read_text())["notebooks"]["01_one"] == {"status": "not run"}
    write_page(run)
    with pytest.raises(HwdiffError, match="01_one is not done"):
        publish(run, run.parent / "out")


@pytest.mark.parametrize(
    "content", ['{"rows": 3}', '{"rows": []}', '{"rows": [{"a": 1}], "paper": []}', "[" * 100_000]
)
def test_a_damaged_table_is_left_out(run, content):
    (run / "tables" / "one.json").write_text(content)
    write_manifest(run, "smoke", ["01_one"])
    write_page(run)
    assert "<details>" not in (run / "index.html").read_text()


def test_a_deviation_without_its_mean_is_shown(run):
    (run / "tables" / "one.json").write_text('{"rows": [{"row": "a", "FID, sd": 0.5}]}')
    write_manifest(run, "smoke", ["01_one"])
    write_page(run)
    assert "± 0.5" in (run / "index.html").read_text()


def test_a_record_that_lacks_what_is_published_is_named(run):
    with pytest.raises(HwdiffError, match=r"a damaged record \(records/01_one\.json\.outputs is missing\)"):
        record = json.loads((run / "records" / "01_one.json").read_text())
        record["listed"] = []
        (run / "records" / "01_one.json").write_text(json.dumps(record))
        write_manifest(run, "smoke", ["01_one"])
        publish(run, run.parent / "out")


def test_what_a_notebook_printed_names_no_folder(tmp_path):
    """A warning names the kernel's file and the run's photo: by its folder, or as seen from the notebook."""
    run = tmp_path / "my run"
    printed = [
        f"/tmp/ipykernel_29723/1020527125.py:1: UserWarning: ../../results/{run.name}/letter/a.jpg: narrow\n",
        f"wrote {run}/letter.pdf, and kept 2/3 of it\n",
        "written\n/opt/my env/lib/hwdiff/written.py:12: UserWarning: narrow\n",
    ]
    outputs = [nbformat.v4.new_output("stream", text=text) for text in printed]
    cell = nbformat.v4.new_code_cell("", outputs=outputs)
    page._without_places(nbformat.v4.new_notebook(cells=[cell]), run)
    told = [output.text for output in cell.outputs]
    assert told == [
        "UserWarning: letter/a.jpg: narrow\n",
        "wrote letter.pdf, and kept 2/3 of it\n",
        "written\nUserWarning: narrow\n",
    ]


def test_a_place_on_this_machine_is_a_whole_path(tmp_path):
    (tmp_path / "page.html").write_text("<code>1</code> src='AB/code/Cd'")
    page._check_places(tmp_path, ["/code", "/"])
    for told in ("read /code/iam.npz", '"/code"', "at /code.", "file:///code/x", "[/code]"):
        (tmp_path / "page.html").write_text(told)
        with pytest.raises(HwdiffError, match=r"page\.html: names /code, a place on this machine"):
            page._check_places(tmp_path, ["/code", "/"])


def test_a_text_with_a_slash_stays_as_it_is(tmp_path):
    source = (
        'text = "and/or"\nletter = "Dear A/B"\nrun = "../results/x"\ncheckpoint = "/home/me/a.safetensors"'
    )
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]})
    page._without_places(nbformat.v4.new_notebook(cells=[cell]), tmp_path)
    assert cell.source == 'text = "and/or"\nletter = "Dear A/B"\nrun = "x"\ncheckpoint = "a.safetensors"'


def test_a_page_says_of_a_published_run_what_the_run_said(run):
    write_manifest(run, "smoke", ["01_one"])
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(
        json.dumps({**manifest, "about": {"network": "ours", "data": "theirs"}})
    )
    write_page(run)
    assert "ours" in (run / "index.html").read_text()
    (run / "manifest.json").write_text(json.dumps({**manifest, "about": "ours"}))
    with pytest.raises(HwdiffError, match=r"damaged \(about = 'ours'\)"):
        write_page(run)


def test_a_folder_that_cannot_be_written_is_named(run):
    (run / "records" / "01_one.json").unlink()
    (run / "records" / "02_two.json").unlink()
    write_manifest(run, "smoke", [])
    with pytest.raises(HwdiffError, match="/dev/null/x/y: cannot be written"):
        publish(run, Path("/dev/null/x/y"))


def test_the_name_of_a_photo_is_not_published(tmp_path):
    photo = "/home/me/xanthippe.jpg"
    assert page._published_inputs({"parameters": {"photo": photo}, "inputs": {photo: "0"}}).keys() == {
        "photo"
    }
    cell = nbformat.v4.new_code_cell(f'photo = "{photo}"', metadata={"tags": ["injected-parameters"]})
    page._without_places(nbformat.v4.new_notebook(cells=[cell]), tmp_path)
    assert cell.source == 'photo = "not published"'


def test_the_page_says_that_lines_are_peoples(run):
    record = run / "records" / "01_one.json"
    record.write_text(record.read_text().replace('"source": null', '"source": "/archives"'))
    write_manifest(run, "smoke", ["01_one"])
    write_page(run)
    told = (run / "index.html").read_text()
    assert "people&#39;s lines" in told and "by built-in writers, made up" not in told
