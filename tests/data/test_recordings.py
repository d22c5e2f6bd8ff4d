import json

import numpy as np
import pytest

from hwdiff import HwdiffError, Ink
from hwdiff.data.dataset import Dataset
from hwdiff.data.lines import drawable_strokes
from hwdiff.data.preparation import prepare
from hwdiff.data.recordings import split_of_form
from hwdiff.data.synthetic import write_form
from hwdiff.ink import strokes
from hwdiff.ink.ink import TABLET_UNITS


@pytest.fixture(scope="module")
def lines():
    return [line for form in range(2) for line in write_form(3, 1, form)]


def as_ink(line, scale=1.0):
    """A line as it was recorded, in another unit."""
    parts = drawable_strokes(line.offsets, line.pen_up)
    points, up = np.concatenate(parts) * (scale, -scale), np.zeros(sum(map(len, parts)), dtype=bool)
    up[np.cumsum([0, *map(len, parts[:-1])])] = True
    return Ink(np.diff(points, axis=0, prepend=points[:1]), up, line.text)


def test_own_lines_become_a_dataset_in_which_some_are_held_back(lines, tmp_path):
    folder, told = tmp_path / "mine", []
    for number, line in enumerate(lines):
        suffix = "inkml" if number % 2 else "json"
        as_ink(line, scale=0.01).save(folder / "ann" / f"{number:02d}.{suffix}")
    for number, line in enumerate(lines[:3]):
        as_ink(line, scale=300.0).save(folder / f"{number}.json")
    prepared = prepare(folder, tmp_path / "mine.npz", progress=told.append)
    assert sum(told) == len(lines) + 3
    assert prepared.manifest["parameters"]["split_scheme"] == "form"
    dataset = Dataset(tmp_path / "mine.npz")
    assert dataset.of_people
    assert len(dataset) == len(lines) + 3
    assert {len(dataset.split(name)) for name in ("validation", "test")} == {3}
    assert list(dataset.texts[dataset.forms == "ann-000"]) == [line.text for line in lines[:3]]
    assert dataset.forms[dataset.index_of("0.json")] == "./lines-000"
    # At the size of IAM's lines, which the pen of its line image goes by.
    offsets, pen_up, kept = dataset.recorded(0)
    assert strokes.scale_of(strokes.merge(offsets, pen_up, kept)[0]) == pytest.approx(TABLET_UNITS, rel=0.03)
    # In whatever unit a line was recorded, it is the same.
    small, large = (dataset.ink(dataset.index_of(name)) for name in ("ann/00.json", "0.json"))
    np.testing.assert_allclose(small.offsets, large.offsets, atol=0.05)
    np.testing.assert_array_equal(small.pen_up, large.pen_up)
    assert prepare(folder, tmp_path / "mine.npz").existed
    as_ink(lines[5]).save(folder / "another.json")
    with pytest.raises(HwdiffError, match=r"prepared from something else \(another\.json differ\)"):
        prepare(folder, tmp_path / "mine.npz")


def test_fast_recordings_are_thinned_out(lines, tmp_path):
    slow = as_ink(lines[0])
    parts = [stroke * (1, -1) for stroke in slow.strokes()]
    fine = [
        np.stack([np.interp(np.arange(0, len(part) - 0.9, 0.1), range(len(part)), axis) for axis in part.T])
        for part in parts
    ]
    (tmp_path / "mine").mkdir()
    content = {"text": lines[0].text, "strokes": [part.T.tolist() for part in fine]}
    (tmp_path / "mine" / "fast.json").write_text(json.dumps(content))
    slow.save(tmp_path / "mine" / "slow.json")
    prepare(tmp_path / "mine", tmp_path / "mine.npz")
    dataset = Dataset(tmp_path / "mine.npz")
    fast, slow = (dataset.lengths[dataset.index_of(f"{name}.json")] for name in ("fast", "slow"))
    assert 8 * len(lines[0].text) < fast < 13 * len(lines[0].text)
    assert slow <= fast


def test_forms_are_split_in_turn():
    splits = [split_of_form(f"ann-{number:03d}") for number in range(7)]
    assert splits == ["train", "train", "train", "validation", "test", "train", "train"]


def test_what_cannot_be_used_is_left_out_with_its_reason(lines, tmp_path):
    folder = tmp_path / "mine"
    as_ink(lines[0]).save(folder / "good.inkml")
    ink = as_ink(lines[0])
    ink.text = " \n"
    ink.save(folder / "silent.json")
    (folder / "damaged.inkml").write_text((folder / "good.inkml").read_text()[:90])
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "other.json").write_text('{"name": 3}')
    (folder / "nan.json").write_text('{"text": "a", "strokes": [[[0, NaN], [1, 1]]]}')
    (folder / "none.json").write_text('{"text": "a", "strokes": []}')
    (folder / "still.json").write_text('{"text": "a", "strokes": [[[2, 2], [2, 2], [2, 2]]]}')
    (folder / "huge.json").write_text('{"text": "a", "strokes": [[[0, 0], [1e300, 1], [1e308, 0]]]}')
    far = [[[9000 * k, 0], [9000 * k + 1, 1], [9000 * k + 2, 0]] for k in range(9)]
    (folder / "far.json").write_text(json.dumps({"text": "a b", "strokes": far}))
    (folder / "long.json").write_text(json.dumps({"text": "a" * 60, "strokes": [[[0, 0], [1, 3], [4, 0]]]}))
    manifest = prepare(folder, tmp_path / "mine.npz").manifest
    assert manifest["counts"]["lines"] == 1
    assert manifest["left_out"].pop("file that is no InkML or JSON of ink") == 4
    assert manifest["left_out"].pop("ink without a text (InkML: an annotation of the type truth)") == 1
    assert manifest["left_out"].pop("strokes without extent") >= 2
    assert manifest["left_out"].pop("50 or more tokens") == 1
    assert sum(manifest["left_out"].values()) <= 2, manifest["left_out"]
    (folder / "good.inkml").unlink()
    with pytest.raises(HwdiffError, match="mine: no line that can be used; left out: "):
        prepare(folder, tmp_path / "none.npz")


def test_numbers_and_texts_that_cannot_be_kept_are_left_out(lines, tmp_path):
    folder = tmp_path / "mine"
    as_ink(lines[0]).save(folder / "good.json")
    (folder / "large.json").write_text(f'{{"text": "a", "strokes": [[[0, 0], [1{"0" * 400}, 1]]]}}')
    (folder / "half.json").write_text('{"text": "\\ud800", "strokes": [[[0, 0], [1, 1]]]}')
    manifest = prepare(folder, tmp_path / "mine.npz").manifest
    assert manifest["left_out"] == {"file that is no InkML or JSON of ink": 2}


def test_words_in_several_lines_stay_apart(lines, tmp_path):
    folder = tmp_path / "mine"
    as_ink(lines[0]).save(folder / "good.json")
    strokes = json.loads((folder / "good.json").read_text())["strokes"]
    (folder / "tabs.json").write_text(json.dumps({"text": "one\ntwo\tthree\u0007", "strokes": strokes}))
    prepare(folder, tmp_path / "mine.npz", workers=1)
    dataset = Dataset(tmp_path / "mine.npz")
    assert dataset.texts[dataset.index_of("tabs.json")] == "one two three"


def test_a_file_name_that_is_no_text_is_kept_readable(lines, tmp_path):
    folder = tmp_path / "mine"
    as_ink(lines[0]).save(folder / "a\udcff.json")
    prepare(folder, tmp_path / "mine.npz")
    dataset = Dataset(tmp_path / "mine.npz")
    assert list(dataset.ids) == list(dataset.manifest["sources"]) == ["a\\udcff.json"]


def test_files_in_no_folder_are_of_a_writer_of_their_own(lines, tmp_path):
    for number, line in enumerate(lines[:12]):
        as_ink(line).save(tmp_path / "mine" / ("lines" if number % 2 else "") / f"{number}.json")
    prepare(tmp_path / "mine", tmp_path / "mine.npz")
    dataset = Dataset(tmp_path / "mine.npz")
    writers = {str(form).rpartition("-")[0] for form in dataset.forms}
    assert writers == {"lines", "./lines"}


def test_a_text_is_kept_as_it_will_be_written(lines, tmp_path):
    folder = tmp_path / "mine"
    as_ink(lines[0]).save(folder / "good.json")
    strokes = json.loads((folder / "good.json").read_text())["strokes"]
    for name, text in (("quotes", "don’t – “café”"), ("russian", "Привет")):
        (folder / f"{name}.json").write_text(json.dumps({"text": text, "strokes": strokes}))
    manifest = prepare(folder, tmp_path / "mine.npz", workers=1).manifest
    dataset = Dataset(tmp_path / "mine.npz")
    assert dataset.texts[dataset.index_of("quotes.json")] == 'don\'t - "café"'
    assert manifest["left_out"] == {"text in which nothing can be written": 1}


def test_a_text_of_nothing_that_can_be_seen_is_none(lines, tmp_path):
    folder = tmp_path / "mine"
    as_ink(lines[0]).save(folder / "good.json")
    (folder / "nul.json").write_text('{"text": "\\u0000", "strokes": [[[0, 0], [1, 1]]]}')
    manifest = prepare(folder, tmp_path / "mine.npz").manifest
    assert manifest["left_out"] == {"ink without a text (InkML: an annotation of the type truth)": 1}
