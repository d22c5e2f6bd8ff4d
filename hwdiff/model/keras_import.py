"""The weights files of the authors' TensorFlow program (`.h5`, Keras `save_weights`) as a UNet.

The numbers in the names of layers and weights depend on what else that program had built before. So a group
is recognised by the shapes of its weights, and its place in the network by its order among those of its kind.
"""

from pathlib import Path

import h5py
import numpy as np
import torch

from hwdiff.data.tokenizer import VOCABULARY_SIZE
from hwdiff.model.blocks import NOISE_HIDDEN
from hwdiff.model.config import ModelConfig
from hwdiff.model.unet import UNet
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.tensors import NoInitialWeights, require_weights

MAX_WEIGHTS = 50_000_000  # the network of the paper's size has 10 million

# The order in which the authors' program stores the weights of each kind of group, by the names here.
_CONV_BLOCK = (
    "affine1.scale_shift",
    "affine2.scale_shift",
    "affine3.scale_shift",
    "skip",
    "conv1",
    "conv2",
    "dense",
)
_ATTENTION = ("query", "key", "value", "out")
_ATTENTION_BLOCK = (
    "text_dense",
    *(f"cross_attention.{name}" for name in _ATTENTION),
    *(f"self_attention.{name}" for name in _ATTENTION),
    "feed_forward.hidden",
    "feed_forward.out",
    *(f"{affine}.scale_shift" for affine in ("text_affine", "affine1", "affine2", "affine3")),
    "norm",
)
_ENCODER = (
    "embedding",
    "style_feed_forward.hidden",
    "style_feed_forward.out",
    *(f"attention.{name}" for name in _ATTENTION),
    *(
        f"{affine}.scale_shift"
        for affine in ("style_affine", "text_affine", "attention_affine", "out_affine")
    ),
    "feed_forward.hidden",
    "feed_forward.out",
    "norm",
)


def load_reference(path: str | Path) -> UNet:
    """Open the authors' `.h5` file as a UNet in eval mode. Widths and depth are read from the file.

    Raises HwdiffError when the file is damaged or holds another network.
    """
    try:
        _require_whole_heaps(Path(path).read_bytes())
        with h5py.File(path, "r") as file:
            groups = _read_groups(file)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise HwdiffError(f"{path}: not a whole Keras weights file ({error}); copy it again") from error
    groups = [arrays for arrays in groups if arrays and all(array.ndim for array in arrays)]
    kinds = {kind: [arrays for arrays in groups if _kind(arrays) == kind] for kind in set(map(_kind, groups))}
    counts = {kind: len(members) for kind, members in kinds.items()}
    layers = counts.get("attention block", 0) - 2
    expected = {
        "dense": 4,
        "noise embedding": 1,
        "conv block": 6,
        "conv": 3,
        "encoder": 1,
        "attention block": layers + 2,
    }
    if counts != expected or layers < 1:
        found = f"not the network of Luhman & Luhman (found {counts})"
        raise HwdiffError(f"{path}: {found}; give a file that their program saved")
    c1, c2, c3 = (kinds["conv block"][i][-1].shape[0] for i in range(3))
    try:
        config = ModelConfig(c1=int(c1), c2=int(c2), c3=int(c3), num_layers=layers)
    except HwdiffError as error:
        raise HwdiffError(f"{path}: not the network of Luhman & Luhman ({error})") from error
    places = {
        "dense": [("input",), ("middle_dense",), ("eps_out",), ("pen_out",)],
        "noise embedding": [("noise_embedding.hidden", "noise_embedding.out")],
        "conv block": [
            [f"{block}.{name}" for name in _CONV_BLOCK]
            for block in ("down1", "down2", "down3", "up3", "up2", "up1")
        ],
        "conv": [("skip1",), ("skip2",), ("skip3",)],
        "encoder": [[f"encoder.{name}" for name in _ENCODER]],
        "attention block": [
            [f"{block}.{name}" for name in _ATTENTION_BLOCK]
            for block in ("attention2", "attention3", *(f"middle.{i}" for i in range(layers)))
        ],
    }
    state = {}
    for kind, members in kinds.items():
        for arrays, names in zip(members, places[kind], strict=True):
            state.update(_name_arrays(arrays, names, path))
    try:
        require_weights(lambda: UNet(config), state)
    except RuntimeError as error:
        raise HwdiffError(f"{path}: not the network of Luhman & Luhman ({error})") from error
    with NoInitialWeights():
        network = UNet(config)
    network.load_state_dict(state)
    return network.eval()


def _require_whole_heaps(content):
    """Raises ValueError when an object in a heap of an HDF5 file, where its texts are, has a wrong size.

    One without makes HDF5's library go round for ever. (HDF5 file format, section III.E.)
    """
    at = content.find(b"GCOL\x01\0\0\0")
    while at >= 0:
        end = min(at + int.from_bytes(content[at + 8 : at + 16], "little"), len(content))
        place = at + 16
        while place + 16 <= end:
            number = int.from_bytes(content[place : place + 2], "little")
            size = int.from_bytes(content[place + 8 : place + 16], "little")
            # That of object 0, the free space, includes its head of 16 bytes.
            taken = size if number == 0 else 16 + -(-size // 8) * 8
            if taken < 16 or place + taken > end:
                raise ValueError(f"a damaged heap at byte {at}")
            place += taken
        at = content.find(b"GCOL\x01\0\0\0", at + 8)


def _read_groups(file):
    """The weights of each group. Their number is looked at first: packed zeros take hardly any room."""
    groups = [file[name] for name in file.attrs["layer_names"]]
    groups = [[group[name] for name in group.attrs["weight_names"]] for group in groups]
    for weights in (weights for group in groups for weights in group):
        if not isinstance(weights, h5py.Dataset) or weights.dtype.kind not in "fiu":
            raise ValueError(f"{weights.name} holds no numbers")
    if (count := sum(weights.size for group in groups for weights in group)) > MAX_WEIGHTS:
        raise ValueError(f"{count:,} numbers; {MAX_WEIGHTS:,} at most are expected")
    return [[np.asarray(weights, dtype=np.float32) for weights in group] for group in groups]


def _kind(arrays):
    convolutions = sum(array.ndim == 3 for array in arrays)
    if convolutions:
        return "conv block" if convolutions == 3 else "conv"
    if arrays[0].shape[0] == VOCABULARY_SIZE and len(arrays) > 2:
        return "encoder"
    if len(arrays) == 2:
        return "dense"
    return "noise embedding" if arrays[0].shape == (1, NOISE_HIDDEN) else "attention block"


def _name_arrays(arrays, names, path):
    """Pairs of (kernel, bias) under torch's names and in its layout, from `arrays` in the order of `names`.

    Kernels of dense layers, (in, out), and of convolutions, (width, in, out), are flattened and transposed.
    """
    arrays, state = iter(arrays), {}
    try:
        for name in names:
            first = next(arrays)
            if name.endswith("embedding"):
                state[f"{name}.weight"] = torch.from_numpy(first)
                continue
            second = next(arrays)
            if name.endswith("norm"):
                if not (np.allclose(first, 1) and np.allclose(second, 0)):
                    found = "a layer norm with a scale or shift of its own"
                    raise HwdiffError(f"{path}: {found}, which the paper's network does not have")
                continue
            if name.endswith("scale_shift"):
                first = np.concatenate((first, next(arrays)), axis=1)
                second = np.concatenate((second, next(arrays)))
            weight = np.ascontiguousarray(first.reshape(-1, first.shape[-1]).T)
            state[f"{name}.weight"] = torch.from_numpy(weight)
            state[f"{name}.bias"] = torch.from_numpy(second)
    except (StopIteration, ValueError, IndexError) as error:
        raise HwdiffError(f"{path}: a layer lacks some of its weights; copy the file again") from error
    if next(arrays, None) is not None:
        found = "a layer has more weights than that of Luhman & Luhman"
        raise HwdiffError(f"{path}: {found}; give a file that their program saved")
    return state
