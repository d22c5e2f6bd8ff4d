import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hwdiff import HwdiffError
from hwdiff.diffusion import generate, style_gallery
from hwdiff.diffusion.generate import sample

NAMES = ("cleo", "ben", "ada")
FOUND = {
    name: torch.rand(14, 1280, generator=torch.Generator().manual_seed(seed))
    for seed, name in enumerate(NAMES)
}


def identity(fingerprint):
    return {"name": "some", "padding": "both", "fingerprint": fingerprint}


@pytest.fixture
def gallery(tmp_path):
    path = tmp_path / "new" / "small-styles.safetensors"
    style_gallery.save_styles(path, FOUND, style_weights=identity("1" * 64))
    return style_gallery.load_styles(path)


def test_styles_come_back_in_their_order(gallery):
    assert list(gallery) == list(FOUND)
    assert gallery.metadata["style_weights"] == identity("1" * 64)
    for name, style in FOUND.items():
        assert torch.equal(gallery[name], style)
    message = "no such style as 'dan'; choose one of cleo, ben, ada, or give an image of a line"
    with pytest.raises(HwdiffError, match=message):
        gallery["dan"]


def test_a_text_is_written_in_a_named_style(gallery, network, monkeypatch):
    monkeypatch.setattr(generate, "load_styles", lambda: gallery)
    few = {"sampler": "dpm", "steps": 3}
    monkeypatch.setattr(network, "metadata", {"style_weights": identity("1" * 64)})
    [ink] = sample(network, ["abc"], style="ben", **few)
    [same] = sample(network, ["abc"], style=FOUND["ben"], **few)
    np.testing.assert_array_equal(ink.offsets, same.offsets)
    with pytest.raises(HwdiffError, match="no such style as 'dan'; choose one of cleo, ben, ada"):
        sample(network, ["abc"], style="dan", **few)
    monkeypatch.setattr(network, "metadata", {"style_weights": identity("2" * 64)})
    message = r"style weights: some \(11111111\), but the model was trained with some \(22222222\)"
    with pytest.raises(HwdiffError, match=message):
        sample(network, ["abc"], style="ben", **few)


def test_what_is_no_file_of_styles_is_refused(tmp_path):
    with pytest.raises(HwdiffError, match="not a whole file of styles"):
        style_gallery.load_styles(tmp_path / "none.safetensors")
    style_gallery.save_styles(tmp_path / "bare.safetensors", FOUND)
    with pytest.raises(HwdiffError, match="not a whole file of styles"):
        style_gallery.load_styles(tmp_path / "bare.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(HwdiffError, match="not a file of styles; copy it again, or make"):
        style_gallery.load_styles(tmp_path / "other.safetensors")


def test_mixing_is_a_weighted_sum():
    first, second = torch.zeros(14, 1280), torch.ones(14, 1280)
    assert (style_gallery.mixed([first, second], [0.25, 0.75]) == 0.75).all()
    with pytest.raises(HwdiffError, match=r"weights \[0.5, 0.6\] for 2 styles"):
        style_gallery.mixed([first, second], [0.5, 0.6])
    with pytest.raises(HwdiffError, match="for 2 styles"):
        style_gallery.mixed([first, second], [1.0])
    with pytest.raises(HwdiffError, match="for 2 styles"):
        style_gallery.mixed([first, second], [float("nan"), 0.5])
    with pytest.raises(HwdiffError, match=r"features of \[14, 5\] columns cannot be mixed"):
        style_gallery.mixed([first, second[:5]], [0.5, 0.5])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, r"not a whole file of styles \(names is missing\)"),
        ({"names": 3}, r"not a whole file of styles \(names = 3\)"),
        ({"names": ["ada", "eve"]}, "its style 'eve' is missing"),
        ({"names": ["flat"]}, r"its style 'flat' is of shape \(1280,\)"),
        ({"names": ["nan"]}, "its style 'nan' is"),
    ],
)
def test_names_without_styles_are_refused(tmp_path, metadata, message):
    tensors = {
        "ada": torch.zeros(14, 1280),
        "flat": torch.zeros(1280),
        "nan": torch.full((14, 1280), torch.nan),
    }
    about = {"format": style_gallery.FORMAT, "style_weights": identity("1" * 64), **metadata}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"hwdiff": json.dumps(about)})
    with pytest.raises(HwdiffError, match=rf"a\.safetensors: {message}"):
        style_gallery.load_styles(tmp_path / "a.safetensors")


def test_the_most_alike_comes_first():
    found = style_gallery.by_likeness(FOUND["ben"], FOUND)
    assert next(iter(found)) == "ben"
    assert found["ben"] == pytest.approx(1)
    assert list(found.values()) == sorted(found.values(), reverse=True)
