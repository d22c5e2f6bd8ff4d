import json

import pytest

from hwdiff import HwdiffError
from hwdiff.suite.page import publish, write_manifest, write_page


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
    done = {"status": "done", "seconds": 1.2, "parameters": {"seed": 3}, "listed": listed}
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
        "<td>2.346 ± 0.1</td>",
        "<th>FID</th>",
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
