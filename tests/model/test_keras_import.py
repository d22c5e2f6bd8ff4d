import h5py
import numpy as np
import pytest
import torch

from hwdiff import load_model
from hwdiff.model.config import ModelConfig
from hwdiff.model.keras_import import load_reference
from hwdiff.model.unet import UNet
from hwdiff.utils.errors import HwdiffError
from tests.conftest import GOLDEN, fill
from tests.model.test_unet import inputs


@pytest.mark.parametrize("case", ["a", "b"])
@torch.inference_mode()
def test_the_network_equals_the_authors(reference, case):
    network = load_model(reference.weights, device="cpu")

    def take(name):
        return torch.from_numpy(reference.arrays[f"model.{case}.{name}"])

    text, style, noise_level = take("text").long(), take("style"), take("sigma")
    eps, pen_up, attention = network(take("strokes"), text, noise_level, style)
    close = {"atol": reference.tolerance, "rtol": 0}
    if f"model.{case}.encoder_output" in reference.arrays:
        emb = network.noise_embedding(noise_level)
        torch.testing.assert_close(emb, take("sigma_embedding"), **close)
        torch.testing.assert_close(network.encoder(text, style, emb), take("encoder_output"), **close)
    torch.testing.assert_close(eps, take("score"), **close)
    torch.testing.assert_close(pen_up, take("pen"), **close)
    torch.testing.assert_close(attention, take("attention"), **close)


def save_as_authors(network, path, first_number=0, norm_scale=1.0):
    """Write `network` as the authors' program would, with its layouts and order of groups.

    first_number: of the layers, which are numbered on from it.
    """
    modules = dict(network.named_modules())
    number = iter(range(first_number, 10_000))

    def dense(name):
        weight, bias = modules[name].weight.detach().numpy(), modules[name].bias.detach().numpy()
        if not name.endswith("scale_shift"):
            return [weight.T, bias]
        (scale, shift), (scale_bias, shift_bias) = np.split(weight.T, 2, axis=1), np.split(bias, 2)
        return [scale, scale_bias, shift, shift_bias]

    def conv(name):
        weight, bias = modules[name].weight.detach().numpy(), modules[name].bias.detach().numpy()
        return [weight.T.reshape(3, -1, len(bias)), bias]

    def norm(channels):
        return [np.full(channels, norm_scale), np.zeros(channels)]

    def conv_block(name):
        affines = [array for i in (1, 2, 3) for array in dense(f"{name}.affine{i}.scale_shift")]
        convolutions = [array for part in ("skip", "conv1", "conv2") for array in conv(f"{name}.{part}")]
        return affines + convolutions + dense(f"{name}.dense")

    def heads(name):
        return [array for part in ("query", "key", "value", "out") for array in dense(f"{name}.{part}")]

    def attention_block(name):
        arrays = dense(f"{name}.text_dense")
        arrays += heads(f"{name}.cross_attention") + heads(f"{name}.self_attention")
        arrays += dense(f"{name}.feed_forward.hidden") + dense(f"{name}.feed_forward.out")
        arrays += [
            array
            for affine in ("text_affine", "affine1", "affine2", "affine3")
            for array in dense(f"{name}.{affine}.scale_shift")
        ]
        return arrays + norm(len(modules[f"{name}.feed_forward.out"].bias))

    encoder = [modules["encoder.embedding"].weight.detach().numpy()]
    encoder += dense("encoder.style_feed_forward.hidden") + dense("encoder.style_feed_forward.out")
    encoder += heads("encoder.attention")
    for affine in ("style_affine", "text_affine", "attention_affine", "out_affine"):
        encoder += dense(f"encoder.{affine}.scale_shift")
    encoder += dense("encoder.feed_forward.hidden") + dense("encoder.feed_forward.out")
    encoder += norm(encoder[0].shape[1])
    groups = [
        ("dense", dense("input")),
        ("sequential", dense("noise_embedding.hidden") + dense("noise_embedding.out")),
        *(("conv_sub_layer", conv_block(name)) for name in ("down1", "down2")),
        ("decoder_layer", attention_block("attention2")),
        ("conv_sub_layer", conv_block("down3")),
        ("decoder_layer", attention_block("attention3")),
        ("average_pooling1d", []),
        *(("conv1d", conv(name)) for name in ("skip1", "skip2", "skip3")),
        ("text__style__encoder", encoder),
        ("dense", dense("middle_dense")),
        *(("decoder_layer", attention_block(f"middle.{i}")) for i in range(network.config.num_layers)),
        *(("conv_sub_layer", conv_block(name)) for name in ("up3", "up2", "up1")),
        ("dense", dense("eps_out")),
        ("dense", dense("pen_out")),
    ]
    with h5py.File(path, "w") as file:
        names = []
        for kind, arrays in groups:
            group = file.create_group(f"{kind}_{next(number)}")
            names.append(group.name[1:])
            weights = [f"writer/{kind}/weight_{next(number)}:0" for _ in arrays]
            group.attrs["weight_names"] = weights
            for weight, array in zip(weights, arrays, strict=True):
                group[weight] = np.asarray(array, dtype=np.float32)
        file.attrs["layer_names"] = names


@pytest.mark.parametrize(
    "config", [ModelConfig(c1=32, c2=48, c3=64, num_layers=1), ModelConfig(c1=16, c2=36, c3=40, num_layers=4)]
)
@torch.inference_mode()
def test_any_width_depth_and_numbering_is_read(tmp_path, config):
    network = fill(UNet(config), seed=3)
    save_as_authors(network, tmp_path / "weights.h5", first_number=137)
    opened = load_model(tmp_path / "weights.h5", device="cpu")
    assert opened.config == config
    for expected, found in zip(network(*inputs()), opened(*inputs()), strict=True):
        assert torch.equal(expected, found)


def test_damaged_and_foreign_files_are_refused(network, tmp_path):
    path = tmp_path / "weights.h5"
    save_as_authors(network, path)
    whole = path.read_bytes()
    (tmp_path / "short.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HwdiffError, match=r"short\.h5: not a whole Keras weights file"):
        load_reference(tmp_path / "short.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(HwdiffError, match=r"other\.h5: not a whole Keras weights file"):
        load_reference(tmp_path / "other.h5")
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = list(file.attrs["layer_names"])[:-1]
    with pytest.raises(HwdiffError, match="not the network of Luhman & Luhman"):
        load_reference(path)
    save_as_authors(network, path, norm_scale=2.0)
    with pytest.raises(HwdiffError, match="a layer norm with a scale or shift of its own"):
        load_reference(path)


def _first_weight(file):
    for name in file.attrs["layer_names"]:
        for weight in file[name].attrs["weight_names"]:
            return file[name], weight
    return None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.float32(3), "not the network of Luhman & Luhman"),
        (np.zeros((3, 5), dtype=np.float32), "not the network of Luhman & Luhman"),
        (np.array([b"a", b"b"]), "holds no numbers"),
        (None, "1,000,000,000 numbers; 50,000,000 at most|1,000,[0-9,]+ numbers; 50,000,000 at most"),
    ],
)
def test_weights_of_another_shape_are_refused(network, tmp_path, content, message):
    path = tmp_path / "weights.h5"
    save_as_authors(network, path)
    with h5py.File(path, "a") as file:
        group, name = _first_weight(file)
        del group[name]
        if content is None:  # zeros that are nowhere written
            group.create_dataset(name, (10**9,), "f4", chunks=(10**6,), compression="gzip")
        else:
            group[name] = content
    with pytest.raises(HwdiffError, match=rf"weights\.h5: .*({message})"):
        load_reference(path)


@pytest.mark.parametrize("size", [0, 2**64 - 16, 10**6])
def test_a_damaged_heap_is_refused_before_the_library_reads_it(tmp_path, size):
    """An object without a size makes HDF5's library go round for ever."""
    content = (GOLDEN / "reference-micro.h5").read_bytes()
    at = content.index(b"GCOL")
    number = bytes(8) if size == 0 else b"\x01" + bytes(7)
    content = content[: at + 16] + number + size.to_bytes(8, "little") + content[at + 32 :]
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(
        HwdiffError, match=rf"a\.h5: not a whole Keras weights file \(a damaged heap at byte {at}\)"
    ):
        load_reference(tmp_path / "a.h5")
