import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from hwdiff import HwdiffError, load_model
from hwdiff.diffusion.generate import writing_settings
from hwdiff.evaluation.bench import STUDENTS
from hwdiff.evaluation.recognizer import load_recognizer
from hwdiff.model.checkpoint import BUNDLED, find_device, read_metadata, save_model
from hwdiff.model.config import STYLE_SHAPE, ModelConfig
from hwdiff.model.style_encoder import load_style_extractor
from hwdiff.utils.tensors import fingerprint_of
from tests.model.test_unet import inputs


@pytest.fixture
def path(network, tmp_path):
    path = tmp_path / "new" / "model.safetensors"
    save_model(network, path, step=7, style_weights={"name": "made up", "fingerprint": "0" * 64})
    return path


@torch.inference_mode()
def test_a_model_comes_back(network, path):
    opened = load_model(path, device="cpu")
    assert not opened.training
    assert opened.config == network.config
    assert opened.metadata["step"] == 7
    assert read_metadata(path)["style_weights"]["name"] == "made up"
    for expected, found in zip(network(*inputs()), opened(*inputs()), strict=True):
        assert torch.equal(expected, found)
    torch.testing.assert_close(opened.default_style.float(), network.default_style, atol=1e-3, rtol=1e-3)


def test_opening_a_model_moves_no_random_generator_on(path):
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    load_model(path, device="cpu")
    load_recognizer(device="cpu")
    load_style_extractor("bundled", "cpu")
    assert torch.rand(1) == wanted


def test_devices_that_were_never_tried_are_refused():
    assert find_device("cpu").type == "cpu"
    for name in ("meta", "mps", "tpu", "cuda:99"):
        with pytest.raises(HwdiffError, match=f"device '{name}': cannot be used here .*; try cpu"):
            find_device(name)


def test_a_model_is_loaded_without_pytorchs_compiler():
    code = "import sys, hwdiff; hwdiff.load_model('pretrained', 'cpu'); print('torch._dynamo' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "False"


def test_the_bundled_models_have_names():
    """The network of the paper's size, trained without guided attention, its student, and the small one."""
    published, fast, small = (load_model(name, "cpu") for name in ("pretrained", "fast", "small"))
    assert published.config == ModelConfig()
    assert sum(weight.numel() for weight in published.parameters()) == 10_028_451
    assert published.metadata["training"]["guided_attention"] == 0
    assert small.metadata["training"]["guided_attention"] > 0
    assert STUDENTS == {"pretrained": "fast"}
    assert fast.metadata["teacher"] == fingerprint_of(published.state_dict())
    assert torch.equal(fast.default_style, published.default_style)
    assert fast.gallery is None  # its styles are those of its teacher
    assert len(writing_settings(fast)["levels"]) == 12
    assert [writing_settings(network)["guidance"] for network in (published, fast, small)] == [2, 1, 2.5]
    for network in (published, fast, small):
        assert network.default_style.shape == STYLE_SHAPE
        assert network.metadata["style_weights"] == small.metadata["style_weights"]
        assert network.metadata["dataset"] == small.metadata["dataset"]
    assert set(BUNDLED) == {"pretrained", "fast", "small"}


@pytest.mark.parametrize("keep", [0, 6, 500, 0.5, 0.999])
def test_a_checkpoint_cut_short_is_refused(path, keep):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else keep])
    with pytest.raises(HwdiffError, match=r"model\.safetensors: not a whole checkpoint"):
        load_model(path)


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_a_pickle_is_never_run(tmp_path, capsys):
    torch.save(Evil(), tmp_path / "model.safetensors")
    with pytest.raises(HwdiffError, match="a pickle"):
        load_model(tmp_path / "model.safetensors")
    with pytest.raises(HwdiffError, match="not a whole checkpoint"):
        read_metadata(tmp_path / "model.safetensors")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(HwdiffError, match="not a whole checkpoint"):
        load_model(tmp_path / "array.npy")
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("mark", [0x0280, 0x0480, 0x0580, 0x4B50])
def test_a_header_as_long_as_the_mark_of_a_pickle_is_none(network, tmp_path, mark):
    path, padding = tmp_path / "model.safetensors", ""
    for _ in range(2):
        save_model(network, path, note=padding)
        length = int.from_bytes(path.read_bytes()[:8], "little")
        padding = "x" * ((mark - length) % 0x10000)
    assert length % 0x10000 == mark
    assert load_model(path).metadata["note"]


def test_foreign_safetensors_are_refused(path, network, tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(HwdiffError, match="not a checkpoint; give"):
        load_model(tmp_path / "other.safetensors")

    def with_metadata(name, tensors, **changes):
        metadata = {"hwdiff": json.dumps({**read_metadata(path), **changes})}
        save_file(tensors, tmp_path / name, metadata=metadata)

    with_metadata("newer.safetensors", {"a": torch.zeros(2)}, format="hwdiff checkpoint 9")
    with pytest.raises(HwdiffError, match="its format is 'hwdiff checkpoint 9', not 'hwdiff checkpoint 1'"):
        load_model(tmp_path / "newer.safetensors")
    with_metadata("wide.safetensors", dict(network.state_dict()), model={"c1": 64})
    with pytest.raises(HwdiffError, match="do not fit its metadata"):
        load_model(tmp_path / "wide.safetensors")
    with pytest.raises(HwdiffError, match="cannot be read"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(HwdiffError, match="cannot be read"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("Error while serializing: No space left on device"),
    ],
)
def test_a_failed_save_keeps_what_was_there(network, path, monkeypatch, error):
    before = path.read_bytes()

    def full_disk(tensors, filename, metadata):
        filename.write_bytes(b"half")
        raise error

    monkeypatch.setattr("hwdiff.utils.tensors.save_file", full_disk)
    with pytest.raises(HwdiffError, match="No space left on device"):
        save_model(network, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@torch.inference_mode()
def test_a_model_in_half_precision_is_half_as_large_and_nearly_the_same(network, path, tmp_path):
    save_model(network, tmp_path / "half.safetensors", half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * path.stat().st_size
    opened = load_model(tmp_path / "half.safetensors", device="cpu")
    assert {weight.dtype for weight in opened.parameters()} == {torch.float}
    for expected, found in zip(network(*inputs()), opened(*inputs()), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"c1": 4096, "c2": 4092, "c3": 4096, "num_layers": 64}}, "do not fit its metadata"),
        ({"model": {"num_layers": 10**9}}, "do not fit its metadata"),
        ({"model": {"c1": 32.0}}, "do not fit its metadata"),
        ({"model": []}, r"not a whole checkpoint \(model = \[\]\)"),
        ({"step": "7"}, r"not a whole checkpoint \(step = '7'\)"),
        ({"writing": {"guidance": "2"}}, r"not a whole checkpoint \(writing.guidance = '2'\)"),
        ({"writing": {"levels": [99, 60]}}, r"not a whole checkpoint \(writing.levels = \[99, 60\]\)"),
        ({"writing": {"levels": [30, 60]}}, r"not a whole checkpoint \(writing.levels = \[30, 60\]\)"),
        ({"writing": {"levels": []}}, r"not a whole checkpoint \(writing.levels = \[\]\)"),
        ({"writing": {"points_per_character": 0}}, "writing.points_per_character = 0"),
        ({"style_weights": {}}, r"not a whole checkpoint \(style_weights = \{\}\)"),
        ({"training": None}, r"not a whole checkpoint \(training = None\)"),
    ],
)
def test_metadata_of_another_kind_is_refused(path, network, change, message):
    metadata = {"hwdiff": json.dumps({**read_metadata(path), **change})}
    save_file(dict(network.state_dict()), path, metadata=metadata)
    with pytest.raises(HwdiffError, match=rf"model\.safetensors: .*{message}"):
        load_model(path)


def test_metadata_nested_too_deeply_is_refused(path, network):
    save_file(dict(network.state_dict()), path, metadata={"hwdiff": "[" * 100_000})
    with pytest.raises(HwdiffError, match=r"not a whole checkpoint \(nested too deeply\)"):
        load_model(path)


def test_a_default_style_of_another_shape_is_refused(path, network):
    state = {**network.state_dict(), "default_style": torch.zeros(14, 3)}
    save_file(state, path, metadata={"hwdiff": json.dumps(read_metadata(path))})
    with pytest.raises(HwdiffError, match=r"its default style is \(14, 3\)"):
        load_model(path)
