"""Weights on disk: safetensors with everything about them, as JSON, in the metadata. No pickle is ever loaded."""

import json
import os
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hwdiff.model.config import ModelConfig
from hwdiff.model.unet import UNet
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write

FORMAT = "hwdiff checkpoint 1"
PRETRAINED = Path(__file__).parents[1] / "weights" / "small.safetensors"
_DEFAULT_STYLE = "default_style"
_HDF5 = b"\x89HDF"


def find_device(name=None):
    """The torch.device called `name`; by default CUDA where there is one, else the CPU. Raises HwdiffError when it cannot be used.

    Of several processes that torchrun started, each gets a GPU of its own.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device == torch.device("cuda"):
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise HwdiffError(f"device {name!r}: cannot be used here ({str(error).splitlines()[0]}); try cpu") from error
    return device


def save_model(network, path, half=False, **metadata):
    """Write the weights of `network` and its default style to the safetensors file `path`, whole or not at all.

    half: the weights in half precision instead of fp32; the default style is always.
    metadata: what else belongs there, in JSON types: `step`, `style_weights` (a `StyleExtractor.identity`), `training`, `dataset`.
    """
    stored = {
        "format": FORMAT,
        "model": network.settings,
        **metadata,
        "versions": {name: version(name) for name in ("hwdiff", "torch")},
    }
    precision = torch.half if half else torch.float
    state = {name: tensor.detach().to(precision).cpu().contiguous() for name, tensor in network.state_dict().items()}
    if network.default_style is not None:
        state[_DEFAULT_STYLE] = network.default_style.half().cpu().contiguous()
    with atomic_write(path) as temporary:
        save_file(state, temporary, metadata={"hwdiff": json.dumps(stored)})


def read_metadata(path):
    """The metadata of the checkpoint `path`, without its weights: a dictionary. Raises HwdiffError when it is not a checkpoint."""
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {}).get("hwdiff", "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise HwdiffError(f"{path}: not a whole checkpoint ({error}); give a .safetensors file that hwdiff train wrote") from error
    if not isinstance(metadata, dict):
        raise HwdiffError(f"{path}: a safetensors file, but not of hwdiff (its metadata does not say so); give one that hwdiff train wrote")
    if metadata.get("format") != FORMAT:
        raise HwdiffError(f"{path}: format {metadata.get('format')!r}, but this version reads {FORMAT!r}; use the version that wrote it")
    return metadata


def path_of_model(name):
    """The file of the model called `name`: "pretrained", or a path."""
    return PRETRAINED if name == "pretrained" else Path(name)


def load_model(path="pretrained", device=None):
    """Open a model: "pretrained", the one that comes with the package (`weights/README.md` tells what it is); a checkpoint of `hwdiff train`;
    or a weights file (`.h5`) of the authors' program. Files are told apart by content.

    device: "cpu", "cuda", ...; by default CUDA where there is one.
    Returns a UNet in eval mode; its `metadata` is the checkpoint's metadata ({} for `.h5`).
    Raises HwdiffError when the file is missing, damaged, or something else; a pickle is refused, never run.
    """
    path, device = path_of_model(path), find_device(device)
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise HwdiffError(f"{path}: cannot be read ({error.strerror}); train one with hwdiff train, or give the path of another") from error
    if start == _HDF5:
        from hwdiff.model.keras_import import load_reference  # h5py takes a while to load, and no other model needs it

        network = load_reference(path)
    elif start[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise HwdiffError(f"{path}: a pickle (as torch.save writes), which could run code and is not opened; give a .safetensors or .h5 file")
    else:
        network = _read_network(path, read_metadata(path))
    return network.to(device).eval()


def _read_network(path, metadata):
    try:
        # Earlier checkpoints have another name for one of the settings.
        network = UNet(ModelConfig(**{key.replace("position_form", "position_variant"): value for key, value in metadata["model"].items()}))
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        network.default_style = state.pop(_DEFAULT_STYLE, None)
        network.load_state_dict(state)
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise HwdiffError(f"{path}: its weights do not fit its metadata ({str(error).splitlines()[0]}); copy the file again") from error
    network.metadata = metadata
    return network
