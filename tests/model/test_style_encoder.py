import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from hwdiff.model import style_encoder
from hwdiff.training.distillation import layer_outputs
from hwdiff.utils.errors import HwdiffError
from tests.conftest import random_mobilenet


@pytest.fixture(scope="session")
def lines():
    pixels = np.random.default_rng(0).integers(0, 255, (2, 96, 1400), dtype=np.uint8)
    return torch.from_numpy(pixels)


def test_features_have_the_published_shape(extractor, lines):
    assert extractor(lines).shape == (2, 14, 1280)
    assert extractor(lines[:, :, :450]).shape == (2, 5, 1280)


def test_torchvisions_weights_give_torchvisions_features(lines, tmp_path):
    network = random_mobilenet(1)
    torch.save(network.state_dict(), tmp_path / "mobilenet_v2.pth")
    extractor = style_encoder.load_style_extractor(tmp_path / "mobilenet_v2.pth")
    with torch.inference_mode():
        expected = F.avg_pool2d(network.features(lines[:, None].expand(-1, 3, -1, -1) / 127.5 - 1), 3, 3)
    torch.testing.assert_close(extractor(lines), expected.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)
    assert extractor.padding == style_encoder.BOTH_SIDES


def test_the_side_of_the_padding_belongs_to_the_weights(extractor, style_weights, lines, tmp_path):
    assert extractor.padding == style_encoder.RIGHT_BOTTOM
    both = tmp_path / "both.safetensors"
    save_file(load_file(style_weights), both)
    other = style_encoder.load_style_extractor(both)
    assert other.padding == style_encoder.BOTH_SIDES
    assert other.fingerprint != extractor.fingerprint
    assert not torch.allclose(other(lines), extractor(lines))


def test_padding_is_tensorflows(lines):
    x = torch.arange(1.0, 7).view(1, 1, 1, 6)
    convolution = torch.nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False)
    torch.nn.init.ones_(convolution.weight)
    style_encoder.set_padding(convolution, style_encoder.RIGHT_BOTTOM)
    # One row of zeros above and below, one column on the right.
    assert convolution(x)[0, 0].tolist() == [[6, 12, 11]]


@pytest.mark.parametrize("size", [(96, 1400), (96, 97), (95, 130)])
def test_turned_kernels_pad_as_tensorflow_does(extractor, style_weights, size):
    state = {name.removeprefix("features."): weight for name, weight in load_file(style_weights).items()}
    padded = mobilenet_v2(weights=None).features.eval()
    padded.load_state_dict(
        {name: weight.to(padded.state_dict()[name].dtype) for name, weight in state.items()}
    )
    style_encoder.set_padding(padded, style_encoder.RIGHT_BOTTOM)
    x = style_encoder.grey_input(
        torch.randint(0, 256, (1, *size), generator=torch.Generator().manual_seed(0))
    )
    with torch.inference_mode():
        maps = layer_outputs(extractor.features, extractor.turned(x))
        for found, expected in zip(maps, layer_outputs(padded, x), strict=True):
            torch.testing.assert_close(extractor.turned(found), expected, atol=1e-4, rtol=1e-4)


def test_the_network_stays_frozen(extractor):
    assert not extractor.train().training
    assert not any(weight.requires_grad for weight in extractor.parameters())


def test_the_wrong_side_turns_the_features(shared, iam, tmp_path):
    """The real weights, padded as in their training and as torchvision pads: the cosine is about 0.6."""
    weights = shared / "weights" / "mobilenet_v2-imagenet.safetensors"
    save_file(load_file(weights), tmp_path / "wrong.safetensors")
    line = iam / "lineImages" / "a02-050-03.tif"
    right = style_encoder.load_style_extractor(weights).of_image(line)
    wrong = style_encoder.load_style_extractor(tmp_path / "wrong.safetensors").of_image(line)
    assert F.cosine_similarity(right.flatten(), wrong.flatten(), dim=0) == pytest.approx(0.6, abs=0.1)


def test_scans_of_any_size_give_features(extractor):
    for shape in ((30, 100), (400, 1200), (96, 97)):
        picture = np.full(shape, 255, dtype=np.uint8)
        picture[shape[0] // 4 : -shape[0] // 4, 10:-10:7] = 0
        assert extractor.of_image(picture).shape == (14, 1280)
    assert extractor.of_image(Image.fromarray(picture), padded=False).shape == (1, 1280)
    with pytest.raises(HwdiffError, match="no ink"):
        extractor.of_image(np.full((50, 50), 255, dtype=np.uint8))
    wide = np.full((30, 2000), 255, dtype=np.uint8)
    wide[10:20, 5:-5:3] = 0
    with pytest.warns(UserWarning, match="pixels wide at height 96; only the first 1400"):
        assert extractor.of_image(wide).shape == (14, 1280)


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_what_is_no_weights_file_is_refused(style_weights, tmp_path, capsys):
    with pytest.raises(HwdiffError, match="cannot be read"):
        style_encoder.load_style_extractor(tmp_path / "none.safetensors")
    (tmp_path / "short.safetensors").write_bytes(style_weights.read_bytes()[:5000])
    with pytest.raises(HwdiffError, match=r"short\.safetensors: not a whole"):
        style_encoder.load_style_extractor(tmp_path / "short.safetensors")
    torch.save(Evil(), tmp_path / "evil.pth")
    with pytest.raises(HwdiffError, match=r"evil\.pth: neither safetensors nor"):
        style_encoder.load_style_extractor(tmp_path / "evil.pth")
    assert "run" not in capsys.readouterr().out
    for name, content in (("empty", b""), ("cut", (tmp_path / "evil.pth").read_bytes()[:100])):
        (tmp_path / f"{name}.pth").write_bytes(content)
        with pytest.raises(
            HwdiffError, match=rf"{name}\.pth: neither safetensors nor .*; download it again$"
        ):
            style_encoder.load_style_extractor(tmp_path / f"{name}.pth")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(HwdiffError, match=r"other\.safetensors: not MobileNetV2"):
        style_encoder.load_style_extractor(tmp_path / "other.safetensors")


def test_a_download_that_fails_says_what_to_do(monkeypatch):
    def fail(weights, **options):
        assert options["weights_only"]
        raise OSError("network unreachable")

    monkeypatch.setattr(MobileNet_V2_Weights.IMAGENET1K_V1.__class__, "get_state_dict", fail)
    with pytest.raises(HwdiffError, match=r"cannot be downloaded .* --style-encoder FILE"):
        style_encoder.load_style_extractor("imagenet")


def test_the_bundled_encoder_needs_nothing_else():
    """Golden numbers of the package's own encoder on a made-up picture."""
    extractor = style_encoder.load_style_extractor()
    assert style_encoder.BUNDLED.stat().st_size < 4.7e6
    assert extractor.name == "hwdiff, distilled"
    pixels = np.full((96, 1400), 255, dtype=np.uint8)
    pixels[20:70, 30:900:12] = 0
    features = extractor(torch.from_numpy(pixels)[None])[0]
    assert features.shape == (14, 1280)
    expected = [0.8488, 0.5368, 0.2569, 4.5896]
    assert features[:, :1280:320].mean(dim=0).tolist() == pytest.approx(expected, rel=0.02, abs=0.005)


def test_the_bundled_encoder_agrees_with_imagenets(shared, iam):
    teacher = style_encoder.load_style_extractor(shared / "weights" / "mobilenet_v2-imagenet.safetensors")
    extractor = style_encoder.load_style_extractor("bundled")
    for line in sorted((iam / "lineImages").glob("*.tif")):
        ours, theirs = (network.of_image(line).flatten() for network in (extractor, teacher))
        assert F.cosine_similarity(ours, theirs, dim=0) > 0.9


@pytest.mark.parametrize("state", [{"features.0.0.weight": 3}, {3: torch.zeros(1)}, [torch.zeros(1)]])
def test_a_weights_file_of_something_else_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(HwdiffError, match=r"other\.pth: holds a (dict|list), not named weights"):
        style_encoder.load_style_extractor(tmp_path / "other.pth")


def test_metadata_of_another_kind_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"hwdiff": '{"padding": 3}'})
    with pytest.raises(HwdiffError, match=r"not weights with metadata in texts \(padding = 3\)"):
        style_encoder.load_style_extractor(tmp_path / "a.safetensors")
