import json
import shutil
import zlib

import numpy as np
import pytest

from hwdiff.data import dataset as data
from hwdiff.data import preparation as ds
from hwdiff.data.dataset import style_lines
from hwdiff.data.lines import Limits
from hwdiff.utils.errors import HwdiffError
from tests.conftest import LISTS, TEXTS


def test_what_was_prepared_comes_back(dataset):
    assert len(dataset) == 24
    assert dataset.texts.tolist() == TEXTS * 6
    offsets, pen_up = dataset.strokes(0)
    assert offsets.shape == (dataset.lengths[0], 2)
    assert offsets.std() == pytest.approx(1)
    assert pen_up[0]
    assert dataset.tokens(1)[-1] == 1
    assert dataset.line_image(0).shape[0] == 96
    manifest = dataset.manifest
    assert manifest["counts"]["lines"] == 24
    assert manifest["counts"]["test"] == 4
    assert set(manifest["sources"]) == {"ascii-all.tar.gz", "lineStrokes-all.tar.gz", "split lists"}
    assert {"hwdiff", "numpy"} <= set(manifest["versions"])


def test_strokes_equal_what_they_were_the_day_they_were_checked(dataset):
    """Small golden numbers: the made-up line's merging, order and scale."""
    offsets, pen_up = dataset.strokes(0)
    assert len(offsets) == 97
    np.testing.assert_allclose(offsets[:2], [[1.0729461, 0.3525394], [0.6897511, 0.7970457]], atol=1e-6)
    np.testing.assert_allclose(offsets[-1], [0.613112, -0.1992614], atol=1e-6)
    assert np.flatnonzero(pen_up).tolist() == [0, 30, 62]


def test_preparing_again_changes_nothing(source, tmp_path):
    path = tmp_path / "deep" / "lines.npz"
    first = ds.prepare(source, path, workers=1)
    before = path.read_bytes()
    again = ds.prepare(source, path, workers=1)
    assert (first.existed, again.existed) == (False, True)
    assert again.manifest["fingerprint"] == first.manifest["fingerprint"]
    assert path.read_bytes() == before


def test_other_parameters_are_refused(source, dataset):
    with pytest.raises(HwdiffError, match="prepared with split_scheme = authors, but official"):
        ds.prepare(source, dataset.path, split_scheme="official", workers=1)
    with pytest.raises(HwdiffError, match="prepared with max_points = 488, but 100"):
        ds.prepare(source, dataset.path, limits=Limits(max_points=100), workers=1)
    with pytest.raises(HwdiffError, match="split_scheme = authors, but official"):
        ds.Dataset(dataset.path, split_scheme="official")
    with pytest.raises(HwdiffError, match="no such split scheme"):
        ds.prepare(source, dataset.path, split_scheme="mine")


def test_other_sources_are_refused(source, dataset, tmp_path):
    for path in source.rglob("*.*"):
        shutil.copy(path, tmp_path)
    assert ds.prepare(tmp_path, dataset.path).existed
    with (tmp_path / "trainset.txt").open("a") as file:
        file.write(" x01-000\n")
    with pytest.raises(HwdiffError, match=r"prepared from something else \(split lists differ\)"):
        ds.prepare(tmp_path, dataset.path)


def test_a_failed_preparation_leaves_nothing(tmp_path):
    with pytest.raises(HwdiffError):
        ds.prepare(tmp_path, tmp_path / "lines.npz")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(HwdiffError, match=r"must be named \*\.npz"):
        ds.prepare(tmp_path, tmp_path / "lines.h5")


def test_damaged_and_foreign_files_are_refused(dataset, tmp_path):
    whole = dataset.path.read_bytes()
    short = tmp_path / "short.npz"
    short.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HwdiffError, match=r"short\.npz: not a whole dataset file"):
        ds.Dataset(short)
    flipped = tmp_path / "flipped.npz"
    flipped.write_bytes(whole[:-2000] + bytes(1000) + whole[-1000:])
    with pytest.raises(HwdiffError, match="not a whole dataset file"):
        ds.Dataset(flipped)
    np.savez(tmp_path / "pickled.npz", manifest=np.array([{"a": 1}], dtype=object))
    with pytest.raises(HwdiffError, match="not a whole dataset file"):
        ds.Dataset(tmp_path / "pickled.npz")
    np.savez(tmp_path / "other.npz", manifest=np.array(json.dumps({"format": "hwdiff dataset 0"})))
    with pytest.raises(HwdiffError, match="this version reads 'hwdiff dataset 2'"):
        ds.Dataset(tmp_path / "other.npz")
    with pytest.raises(HwdiffError, match="no such file; make it with hwdiff prepare"):
        ds.Dataset(tmp_path / "none.npz")


def test_splits_assign_whole_forms_exactly():
    forms = [form for members in LISTS.values() for form in members]
    authors = ds.assign_splits([*forms, "b02-00", "a01-000"], "authors", LISTS)
    assert authors.keys() == set(forms)  # not b02-00 and a01-000, which only begin like forms of the lists
    assert {form for form, split in authors.items() if split == "test"} == set(LISTS["testset_v"])
    official = ds.assign_splits(forms, "official", LISTS)
    found = [official[form] for form in ("a01-001", "b02-005", "c03-000", "c03-001a")]
    assert found == ["train", "test", "validation", "validation"]
    with pytest.raises(HwdiffError, match="form x is in two splits"):
        ds.assign_splits(["x"], "authors", {**LISTS, "trainset": ["x"], "testset_v": ["x"]})


def test_validation_forms_are_a_twentieth_chosen_by_hash():
    lists = {"trainset": [f"f{i:04}" for i in range(4000)], "testset_f": [], "testset_t": [], "testset_v": []}
    split_of = ds.assign_splits(lists["trainset"], "authors", lists)
    assert sum(split == "validation" for split in split_of.values()) == 215
    validation = [form for form, split in split_of.items() if split == "validation"]
    assert validation[:3] == ["f0005", "f0027", "f0046"]


def test_without_lists_the_split_is_by_hash(source, tmp_path):
    for archive in source.glob("*.tar.gz"):
        shutil.copy(archive, tmp_path)
    manifest = ds.prepare(tmp_path, tmp_path / "lines.npz", workers=1).manifest
    assert manifest["parameters"]["split_scheme"] == "hash"
    with pytest.raises(HwdiffError, match="prepared with split_scheme = hash, but authors"):
        ds.Dataset(tmp_path / "lines.npz", split_scheme="authors")
    (tmp_path / "trainset.txt").write_text(" a01-000u\n")
    with pytest.raises(HwdiffError, match="split lists trainset without testset_f, testset_t, testset_v"):
        ds.prepare(tmp_path, tmp_path / "other.npz", workers=1)
    split_of = ds.assign_splits([f"f{i:04}" for i in range(4000)], "hash", None)
    fractions = [np.mean([split == name for split in split_of.values()]) for name in ds.SPLITS]
    assert fractions == pytest.approx([0.85, 0.05, 0.10], abs=0.01)


def test_a_style_line_is_another_of_the_form():
    forms = ["a"] * 5 + ["b"] + ["c"] * 2
    styles = style_lines(forms)
    assert sorted(styles.tolist()) == list(range(8))
    assert [forms[style] for style in styles] == forms
    assert np.flatnonzero(styles == np.arange(8)).tolist() == [5]  # the form with only one line
    many = [f"f{i // 6}" for i in range(600)]
    own = style_lines(many, own_style=True)
    assert sorted(own.tolist()) == list(range(600))
    assert 50 < np.sum(own == np.arange(600)) < 160  # one in six by chance


def test_no_form_is_in_two_splits_of_the_real_database(iam_dataset):
    splits = {split: set(iam_dataset.forms[iam_dataset.split(split)]) for split in ds.SPLITS}
    assert all(splits.values())
    assert not splits["train"] & splits["test"]
    assert not splits["train"] & splits["validation"]
    assert not splits["validation"] & splits["test"]
    # The authors' program, which matches forms by their beginning, trains on lines of these test forms.
    mixed_up = [form for form in iam_dataset.forms if form.startswith(("c02-059", "e02-117"))]
    mixed_up = [form for form in mixed_up if form in splits["test"]]
    assert len(mixed_up) > 10
    assert not splits["train"] & set(mixed_up)
    assert iam_dataset.path.stat().st_size < 25e6


def test_peoples_lines_have_no_characters(dataset):
    assert dataset.characters(0) is None


def _shortened(name):
    return lambda arrays: {**arrays, name: arrays[name][:-1]}


def _set(name, place, value):
    def change(arrays):
        arrays[name][place] = value
        return arrays

    return change


def _without(name):
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


def _typed(name, kind):
    return lambda arrays: {**arrays, name: arrays[name].astype(kind)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("texts"), "texts is missing"),
        (_shortened("texts"), "texts is <U"),
        (_shortened("pen_up"), "pen_up is uint8"),
        (_typed("forms", "S9"), "forms is "),
        (_typed("starts", "f8"), "starts is float64"),
        (_set("starts", 1, 10**9), "starts does not part"),
        (_set("starts", 1, 0), "starts does not part"),
        (_set("image_starts", -1, 5), "image_starts does not fit images"),
        (_set("parts", 0, 3), "parts has 3, which is no split"),
        (_set("kept", slice(None), 0), "a line whose last point is not kept"),
        (_set("offsets", slice(None), 0), "line a01-000u-01 has no extent"),
        (_set("offsets", slice(None), 100), "pixels"),
        (_set("texts", 2, "a" * 99), "has a text of"),
        (lambda arrays: {**arrays, "offsets": arrays["offsets"][:, :, :1]}, "offsets is uint8"),
        (lambda arrays: {**arrays, "characters": np.zeros(3, dtype=np.int16)}, "characters is int16"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_on_opening(dataset, tmp_path, change, message):
    with np.load(dataset.path) as file:
        arrays = {name: file[name].copy() for name in file.files}
    arrays["texts"] = arrays["texts"].astype("U99")
    np.savez(tmp_path / "whole.npz", **arrays)
    assert len(ds.Dataset(tmp_path / "whole.npz")) == 24
    np.savez(tmp_path / "changed.npz", **change(arrays))
    with pytest.raises(HwdiffError, match=r"changed\.npz: not a whole dataset file \(.*" + message):
        ds.Dataset(tmp_path / "changed.npz")


def test_lines_are_checked_some_at_a_time(dataset, tmp_path, monkeypatch):
    with np.load(dataset.path) as file:
        arrays = {name: file[name].copy() for name in file.files}
    monkeypatch.setattr(data, "BATCH_SIZE", 7)
    again = ds.Dataset(dataset.path)
    assert again.lengths.tolist() == [len(again.strokes(index)[1]) for index in range(24)]
    arrays["offsets"][:, arrays["starts"][22] : arrays["starts"][23]] = 0
    np.savez(tmp_path / "flat.npz", **arrays)
    with pytest.raises(HwdiffError, match=f"line {dataset.ids[22]} has no extent"):
        ds.Dataset(tmp_path / "flat.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": {"lines": 24}}, "manifest.counts.forms is missing"),
        ({"counts": {"lines": 23, "forms": 6}}, r"ids is <U\d+ \(24,\), not U \(23,\)"),
        ({"sources": None}, "manifest.sources = None"),
        ({"fingerprint": 3}, "manifest.fingerprint = 3"),
        ({"parameters": {"split_scheme": "authors"}}, "manifest.parameters.max_points is missing"),
    ],
)
def test_a_manifest_that_lacks_something_is_refused(dataset, tmp_path, change, message):
    with np.load(dataset.path) as file:
        arrays = {name: file[name] for name in file.files}
    manifest = json.dumps({**dataset.manifest, **change})
    np.savez(tmp_path / "changed.npz", **{**arrays, "manifest": np.array(manifest)})
    with pytest.raises(HwdiffError, match=r"changed\.npz: not a whole dataset file \(" + message):
        ds.Dataset(tmp_path / "changed.npz")


@pytest.mark.parametrize(
    "content", [b"\0", b"no zlib", zlib.compress(bytes(100)), zlib.compress(bytes(96 * 1401))]
)
def test_a_damaged_official_image_is_named(dataset, tmp_path, content):
    with np.load(dataset.path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["images"] = np.frombuffer(content, dtype=np.uint8)
    arrays["image_starts"] = np.full(25, len(content))
    arrays["image_starts"][0] = 0
    np.savez(tmp_path / "lines.npz", **arrays)
    with pytest.raises(HwdiffError, match="the image of a01-000u-01 is damaged"):
        ds.Dataset(tmp_path / "lines.npz").line_image(0)


def test_a_file_with_a_form_in_two_splits_is_refused(dataset, tmp_path):
    with np.load(dataset.path) as file:
        arrays = {name: file[name].copy() for name in file.files}
    arrays["parts"][0] = (arrays["parts"][1] + 1) % 3
    np.savez(tmp_path / "mixed.npz", **arrays)
    with pytest.raises(HwdiffError, match="form a01-000u is in two splits"):
        data.Dataset(tmp_path / "mixed.npz")
