"""What this repository publishes in results/."""

import json
from html import unescape
from pathlib import Path

import nbformat
import numpy as np
import pytest
from typer.testing import CliRunner

from hwdiff.cli import app
from hwdiff.evaluation.diversity import DIVERSITY, Diversity
from hwdiff.evaluation.tables import PAPER, Table
from hwdiff.model.checkpoint import path_of_model
from hwdiff.suite.page import FOLDERS
from hwdiff.suite.verdicts import RULE, verdicts
from hwdiff.utils.files import sha256_of

RESULTS = Path(__file__).parents[1] / "results"
RECORDS = json.loads((RESULTS / "manifest.json").read_text())["notebooks"]


@pytest.mark.parametrize("name", RECORDS)
def test_nothing_published_shows_peoples_ink(name):
    listed = RECORDS[name]["listed"]
    marked = [output["file"] for output in listed if output["of_people"]]
    assert not any((RESULTS / file).exists() for file in marked)
    assert (RESULTS / "notebooks" / f"{name}.ipynb").exists() != bool(marked)
    assert all(
        (RESULTS / output["file"]).exists()
        for output in listed
        if output["kind"] != "file" and output["file"] not in marked
    )


def test_the_published_run_is_of_built_in_writers():
    assert RECORDS["01_preprocessing"]["parameters"]["source"] is None


def test_every_published_file_is_that_of_the_run():
    found = {
        path.relative_to(RESULTS).as_posix() for folder in FOLDERS for path in (RESULTS / folder).iterdir()
    }
    assert found == {file for record in RECORDS.values() for file in record["outputs"]}
    for record in RECORDS.values():
        assert record["status"] == "done"
        assert all(sha256_of(RESULTS / file) == sha256 for file, sha256 in record["outputs"].items())


def test_the_page_has_all_notebooks():
    assert len(RECORDS) == 9
    page = (RESULTS / "index.html").read_text()
    assert all(f'id="{name}"' in page for name in RECORDS)
    for path in RESULTS.glob("notebooks/*.ipynb"):
        outputs = [
            output
            for cell in nbformat.read(path, as_version=4).cells
            if cell.cell_type == "code"
            for output in cell.outputs
        ]
        assert not any(output.output_type == "error" for output in outputs)


def test_the_report_has_the_verdicts_of_the_measurements():
    printed = CliRunner().invoke(app, ["verdicts"]).output
    assert printed.count("\n") == 2 + len(verdicts())
    assert RULE in (RESULTS.parent / "docs" / "report.md").read_text()
    assert f"\n\n{printed}\n" in (RESULTS.parent / "docs" / "report.md").read_text()
    page = unescape((RESULTS / "index.html").read_text())
    assert RULE in page
    assert all(row["claim"] in page and row["here"] in page for row in verdicts())


def test_table_1_as_the_paper_measures_it_is_what_was_measured():
    table = Table(**json.loads((RESULTS / "measurements" / "evaluate-4500" / "table1.json").read_text()))
    settings, network = table.settings, path_of_model("pretrained")
    assert (settings["split"], settings["lines"], settings["seeds"]) == ("train", 4500, [0])
    assert {name: row["guidance"] for name, row in settings["rows"].items()} == {"eq12": 1, "eq9": 1}
    assert settings["model"]["sha256"] == sha256_of(network)
    page = (RESULTS.parent / "docs" / "evaluation.md").read_text()
    first, second = (
        (("distance", 1, 2, ""), ("geometry_score", 1000, 2, ""), ("geometry_score_offsets", 1000, 2, "")),
        (
            ("kernel_distance", 1000, 2, ""),
            ("frechet", 1, 2, ""),
            ("cer", 100, 1, " %"),
            ("right", 100, 1, " %"),
            ("form_top10", 100, 1, " %"),
            ("style_top10", 100, 1, " %"),
        ),
    )
    for row, values in table.values.items():
        fid, score = PAPER.get(row, ("", ""))
        papers = {"distance": f"{fid:.2f}", "geometry_score": f"{1000 * score:.2f}"} if fid else {}
        for columns in (first, second):
            cells = [table.title(row)]
            for key, factor, digits, unit in columns:
                [value] = values[key]
                if columns is first and key != "geometry_score_offsets":
                    cells.append(papers.get(key, ""))
                cells.append(f"{factor * value:.{digits}f}{unit}")
            assert f"| {' | '.join(cells)} |\n".replace("|  |", "| |") in page, row
    for row, others in table.differences.items():
        for other, found in others.items():
            cells = [f"{table.title(row)} less {table.title(other)}"]
            for key, factor in (("kernel_distance", 1000), ("cer", 100), ("form_top10", 100)):
                value, low, high = (factor * number for number in found[key])
                cells.append(f"{value:+.1f} ({low:.1f} to {high:.1f})")
            assert f"| {' | '.join(cells)} |\n" in page, cells

    # What is told of it elsewhere.
    readme, report = ((RESULTS.parent / name).read_text() for name in ("README.md", "docs/report.md"))
    _, low, high = (1000 * number for number in table.differences["eq9"]["eq12"]["kernel_distance"])
    for text in (readme, report):
        assert f"by {-high:.1f} to {-low:.1f}" in text
        assert all(f"{100 * table.values[row]['cer'][0]:.1f} %" in text for row in ("eq12", "eq9"))
    for row in ("eq12", "eq9", "ground_truth"):
        for key in ("geometry_score", "geometry_score_offsets"):
            [value] = table.values[row][key]
            told = f"{1000 * value:.1f}e-3"
            assert told in report and (told in readme or row == "eq9"), (row, key)


def test_the_geometry_scores_of_real_lines_are_what_was_measured():
    floor = json.loads((RESULTS / "measurements" / "geometry-floor.json").read_text())["rows"]
    page = (RESULTS.parent / "docs" / "evaluation.md").read_text()
    for points in ("offsets and pen flag", "offsets alone"):
        cells = [points]
        for count in (100, 300, 1000):
            rows = [row for row in floor if (row["points"], row["repetitions"]) == (points, count)]
            scores = [row["score"] for row in rows]
            cells.append(_spread(scores, 1000, 2))
        cells[-1] += f" ({1000 * min(scores):.2f} to {1000 * max(scores):.2f})"
        cells.append(f"{1000 * np.mean([row['by_landmarks'] for row in rows]):.2f}")
        assert f"| {' | '.join(cells)} |\n" in page


@pytest.mark.parametrize("model", ["pretrained", "small"])
def test_table_1_on_lines_never_seen_is_what_was_measured(model):
    folder = RESULTS / "measurements" / f"evaluate-test{'-small' if model == 'small' else ''}"
    table = Table(**json.loads((folder / "table1.json").read_text()))
    times = json.loads((folder / "timings.json").read_text())["seconds_per_line"]
    assert table.settings["split"] == "test"
    page = (RESULTS.parent / "docs" / "evaluation.md").read_text()
    start, end = (
        page.index(f"### {title}") for title in ("On lines never seen\n", "On lines never seen, by the small")
    )
    page = page[end:] if model == "small" else page[start:end]
    if model == "pretrained":
        assert table.settings["model"]["sha256"] == sha256_of(path_of_model(model))
        seeds = len(table.settings["seeds"])
        assert f"--lines {table.settings['lines']} --seeds {seeds} --student fast" in page
        for name, rows, keys in (
            ("README.md", ("eq12", "ground_truth", "eq12_guided"), ("cer",)),
            ("README.md", ("eq12", "ground_truth", "eq12_foreign"), ("form_top10",)),
            ("docs/report.md", ("eq12", "ground_truth", "eq12_guided"), ("cer",)),
            ("docs/report.md", ("eq12", "ground_truth", "eq12_foreign"), ("form_top10",)),
            ("hwdiff/weights/README.md", ("student", "eq12_guided", "ground_truth"), ("cer",)),
        ):
            told = (RESULTS.parent / name).read_text()
            assert all(_spread(table.values[row][key], 100, 1, " %") in told for row in rows for key in keys)
        for row in ("ground_truth", "eq12", "eq9", "student"):
            found = [_spread(table.values[row][f"geometry_score{end}"], 1000, 0) for end in ("", "_offsets")]
            assert " and ".join(found) in page, row
        low, high = (
            f"{100 * number:.1f}" for number in table.differences["student"]["eq12_guided"]["cer"][1:]
        )
        assert f"({low} to {high})" in (RESULTS.parent / "docs" / "samplers.md").read_text()
    for row, values in table.values.items():
        cells = [str(table.evaluations(row))] if row in table.settings["rows"] else []
        for key, factor, digits, unit in (
            ("kernel_distance", 1000, 2, ""),
            ("frechet", 1, 2, ""),
            ("cer", 100, 1, " %"),
            ("right", 100, 1, " %"),
            ("form_top10", 100, 1, " %"),
            ("style_top10", 100, 1, " %"),
        ):
            cells += [_spread(values[key], factor, digits, unit)] if key in values else []
        cells += [f"{np.mean(times[row]):.2f}"] if model == "small" and row in times else []
        assert _has_row(page, _title_in_docs(table, row), cells), row
    for row, others in table.differences.items():
        for other, found in others.items():
            cells = []
            for key, factor in (("kernel_distance", 1000), ("cer", 100), ("form_top10", 100)):
                if key in found and (model == "pretrained" or key != "form_top10"):
                    value, low, high = (factor * number for number in found[key])
                    cells.append(f"{value:+.1f} ({low:.1f} to {high:.1f})")
            assert _has_row(page, f"{_title_in_docs(table, row)} less {_title_in_docs(table, other)}", cells)


def test_the_table_of_few_evaluations_is_what_was_measured():
    table = Table(**json.loads((RESULTS / "measurements" / "few-evaluations" / "table1.json").read_text()))
    page = (RESULTS.parent / "docs" / "samplers.md").read_text()
    titles = {
        "ground_truth": ("real lines", ""),
        "eq12_60": ("`pretrained`: Eq. 12, 60 steps, guidance 2", ""),
        "eq12_12_time": ("the same in 12 steps evenly in t", "the same in 12 steps"),
        "student": ("`fast`", "`fast`"),
    }
    for row, (title, less) in titles.items():
        cells = [] if row == "ground_truth" else [str(table.evaluations(row))]
        for key, factor, digits, unit in (
            ("cer", 100, 1, " %"),
            ("right", 100, 1, " %"),
            ("kernel_distance", 1000, 2, ""),
            ("form_top10", 100, 1, " %"),
        ):
            cells.append(_spread(table.values[row][key], factor, digits, unit))
        assert _has_row(page, title, cells), row
        if less:
            found = table.differences[row]["eq12_60"]
            kernel, cer = (
                np.array(found[key]) * factor for key, factor in (("kernel_distance", 1000), ("cer", 100))
            )
            cells = [
                f"{kernel[0]:+.2f} ({kernel[1]:.2f} to {kernel[2]:.2f})",
                f"{cer[0]:+.1f} ({cer[1]:.1f} to {cer[2]:.1f})",
            ]
            assert _has_row(page, less, cells), row


def test_the_card_of_the_student_has_what_was_measured():
    table = Table(**json.loads((RESULTS / "measurements" / "few-evaluations" / "table1.json").read_text()))
    card = (RESULTS.parent / "hwdiff" / "weights" / "README.md").read_text().split("## fast.safetensors")[1]
    [told] = [line for line in card.split("## ")[0].splitlines() if line.startswith("- **How good**")]
    for key, factor, digits, unit, before in (
        ("cer", 100, 1, " %", "CER "),
        ("kernel_distance", 1000, 2, "", "kernel distance x 1000 "),
        ("form_top10", 100, 1, " %", "by hand-made features "),
    ):
        of = {}
        for row in ("student", "eq12_60", "ground_truth"):
            of[row] = _spread(table.values[row][key], factor, digits, unit)
        assert f"{before}{of['student']}, its teacher {of['eq12_60']}" in told
        assert f"real lines {of['ground_truth']}" in told or key == "form_top10"
    cer = {row: 100 * np.mean(table.values[row]["cer"]) for row in ("student", "eq12_60")}
    readme = " ".join((RESULTS.parent / "README.md").read_text().split())
    assert f"validation lines CER {cer['student']:.1f} ± " in readme
    assert f"instead of {cer['eq12_60']:.1f} %)" in readme


def test_the_table_of_diversity_is_what_was_measured():
    kept = json.loads((RESULTS / "measurements" / "diversity.json").read_text())
    found = Diversity(**kept, inks={})
    page = (RESULTS.parent / "docs" / "evaluation.md").read_text()
    for row, values in found.values.items():
        cells = [f"{np.mean(values[column.key]):.2f}" for column in DIVERSITY]
        assert _has_row(page, found.title(row), [*cells, f"{100 * found.cer[row]:.1f} %"])
    for row, others in found.differences.items():
        for other, of in others.items():
            numbers = [[f"{number:.2f}" for number in of[column.key]] for column in DIVERSITY]
            cells = [f"+{value} ({low} to {high})" for value, low, high in numbers]
            guidance = found.settings["rows"][row]["guidance"]
            assert _has_row(page, f"Eq. 9 less Eq. 12, guidance {guidance:g}", cells), other


def test_the_table_of_attention_against_spelling_is_what_was_measured():
    found = json.loads((RESULTS / "measurements" / "alignment.json").read_text())
    page = (RESULTS.parent / "docs" / "evaluation.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for name, of in found["relations"].items():
        [row] = [line for line in rows if line.startswith(f"| {name}: ")]
        plain, held = (
            [f"{of[key]:.2f}" for key in keys]
            for keys in (("correlation", "low", "high"), ("given_text", "given_low", "given_high"))
        )
        texts = [f"{value} ({low} to {high})" for value, low, high in (plain, held)]
        assert row.endswith(f" | {' | '.join(texts)} | {of['differing']} |")


def _spread(values, factor, digits, unit=""):
    values = factor * np.array(values)
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}{unit}"


def _title_in_docs(table, row):
    """The sampler `fast` of an earlier version is not the model of that name."""
    own = {"fast": "Eq. 12, 40 steps, guidance 2.5", "student": "`fast`"}
    return own.get(row) or table.title(row)


def _has_row(page, title, cells):
    lines = [line for line in page.splitlines() if line.startswith(f"| {title} |")]
    return any(all(f"| {cell} " in line for cell in cells) for line in lines)
