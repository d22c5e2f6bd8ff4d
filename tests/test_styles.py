import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hwdiff import HwdiffError, styles
from hwdiff.writing import sample

NAMES = ["ada", "ben", "cleo"]


@pytest.fixture(scope="module")
def made(network, extractor):
    hands = torch.from_numpy(np.random.default_rng(0).random((3, 14, 1280), dtype=np.float32))
    return styles.make_styles(network, hands, NAMES, extractor, "a line of text", sampler="dpm", steps=4)


def test_styles_are_those_of_what_was_written(made, extractor):
    inks, found = made
    assert list(found) == NAMES
    for ink, style in zip(inks, found.values(), strict=True):
        assert (style.shape, style.dtype) == ((14, 1280), torch.half)
        picture = np.pad(ink.line_image(), ((0, 0), (0, 1400)), constant_values=255)[:, :1400]
        assert torch.equal(style, extractor.of_line(picture).half())
    assert (found["ada"] - found["ben"]).abs().max() > 0.01


def test_styles_come_back_in_their_order(made, tmp_path, network):
    _, found = made
    styles.save_styles(tmp_path / "new" / "styles.safetensors", dict(reversed(found.items())), encoder="some")
    again = styles.load_styles(tmp_path / "new" / "styles.safetensors")
    assert list(again) == NAMES[::-1]
    for name in NAMES:
        torch.testing.assert_close(again[name], found[name].float())
    [ink] = sample(network, ["abc"], style=styles.named_style(again, "ben"), sampler="dpm", steps=3)
    [same] = sample(network, ["abc"], style=found["ben"].float(), sampler="dpm", steps=3)
    np.testing.assert_array_equal(ink.offsets, same.offsets)
    with pytest.raises(HwdiffError, match="no such style as 'dan'; choose one of cleo, ben, ada, or give a picture"):
        styles.named_style(again, "dan")


def test_what_is_no_file_of_styles_is_refused(tmp_path):
    with pytest.raises(HwdiffError, match="not a whole file of styles"):
        styles.load_styles(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(HwdiffError, match="not a file of styles of this version"):
        styles.load_styles(tmp_path / "other.safetensors")


def test_a_style_in_which_nothing_is_written_is_named(network, extractor):
    def silent(network, y, *arguments, **options):
        return torch.zeros_like(y), torch.ones_like(y[..., :1])

    with pytest.raises(HwdiffError, match="style ada: nothing was written"):
        styles.make_styles(network, network.default_style.expand(1, -1, -1), ["ada"], extractor, "abc", sampler=silent)
