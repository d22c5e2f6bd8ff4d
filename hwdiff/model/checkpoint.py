"""Checkpoints: the weights of a network in a safetensors file, with everything about them in its metadata."""

from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist

from hwdiff.model.config import STYLE_FEATURES, ModelConfig
from hwdiff.model.unet import UNet
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.json_values import misfit, require
from hwdiff.utils.tensors import NoInitialWeights, load_metadata, load_tensors, require_weights, save_tensors

FORMAT = "hwdiff checkpoint 1"
_WEIGHTS = Path(__file__).parents[1] / "weights"
BUNDLED = {name: _WEIGHTS / f"{name}.safetensors" for name in ("pretrained", "fast", "small")}
"""The models that come with the package, by name."""
_DEFAULT_STYLE = "default_style"
_HDF5 = b"\x89HDF"
_PICKLES = (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")
_ABOUT = {"what": "checkpoint", "advice": "give a .safetensors file that hwdiff train wrote"}


def _falls(levels):
    """Whether these are t of noise levels that writing may visit: 60 or less, ever lower, to 1 or more."""
    if misfit(levels, [lambda t: type(t) is int and 1 <= t <= 60]) or not levels:
        return False
    return all(later < earlier for earlier, later in pairwise(levels))


# Of the metadata, what is used later.
_METADATA = {
    "model": {"*": object},
    "step?": (int, None),
    "dataset?": (str, None),
    "style_weights?": ({"name": str, "fingerprint": str}, None),
    "training?": {
        **dict.fromkeys(("guided_attention?", "drop_text?", "drop_style?"), float),
        "init?": (str, None),
    },
    "writing?": {
        "guidance?": float,
        "points_per_character?": lambda points: misfit(points, float) is None and points > 0,
        "levels?": _falls,
    },
}


def find_device(name: str | torch.device | None = None) -> torch.device:
    """The torch.device called `name`, cpu or cuda; by default CUDA if available, else the CPU.

    For "cuda", each of several processes that train together gets a GPU of its own.
    Raises HwdiffError when the device cannot be used.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("only cpu and cuda are known to work")
        if device == torch.device("cuda"):
            together = dist.is_available() and dist.is_initialized()
            device = torch.device("cuda", dist.get_rank() if together else 0)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise HwdiffError(f"device {name!r}: cannot be used here ({reason}); try cpu") from error
    return device


def save_model(network: UNet, path: str | Path, *, half: bool = False, **metadata) -> None:
    """Write `network` with its default style to the safetensors file `path`, whole or not at all.

    half: write the weights in half precision instead of fp32. The default style always is.
    metadata: what else the file should say, in JSON types: `step`, `style_weights` (a
        `StyleExtractor.identity`), `training`, `dataset`.
    """
    precision = torch.half if half else torch.float
    state = {name: tensor.detach().to(precision) for name, tensor in network.state_dict().items()}
    if network.default_style is not None:
        state[_DEFAULT_STYLE] = network.default_style.half()
    versions = {name: version(name) for name in ("hwdiff", "torch")}
    save_tensors(path, state, {"format": FORMAT, "model": network.settings, **metadata, "versions": versions})


def read_metadata(path: str | Path) -> dict:
    """The metadata of the checkpoint `path`, without its weights.

    Raises HwdiffError when it is not a checkpoint.
    """
    return load_metadata(path, FORMAT, **_ABOUT)


def path_of_model(name: str | Path) -> Path:
    """The file of the model called `name`: one of `BUNDLED`, or a path."""
    return BUNDLED.get(str(name), Path(name))


def path_of_gallery(path: Path) -> Path:
    """Where the styles drawn by the network in the file `path` lie, if it has any of its own."""
    return path.with_name(f"{path.stem}-styles.safetensors")


def load_model(path: str | Path = "pretrained", device: str | torch.device | None = None) -> UNet:
    """Load a model, in eval mode.

    path: "pretrained", of the paper's size, "fast", its student, or "small", a quarter of that, which come
        with the package (described in `weights/README.md`); a checkpoint of `hwdiff train`; or a weights file
        (`.h5`) of the authors' program. Files are told apart by their content.
    device: "cpu", "cuda", ...; by default CUDA if available.
    Returns the network; its `metadata` is the checkpoint's, {} for `.h5`.
    Raises HwdiffError when the file is missing, damaged, or something else. A pickle is refused, never run.
    """
    path, device = path_of_model(path), find_device(device)
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        advice = f"choose {', '.join(BUNDLED)}, or the path of one that hwdiff train wrote"
        raise HwdiffError(f"{path}: cannot be read ({error.strerror}); {advice}") from error
    if start.startswith(_HDF5):
        # h5py takes a while to load, and no other model needs it.
        from hwdiff.model.keras_import import load_reference

        network = load_reference(path)
    # A safetensors file begins with the length of its header, which may look like a pickle's mark.
    elif start.startswith(_PICKLES) and start[8:] != b"{":
        raise HwdiffError(
            f"{path}: a pickle (as torch.save writes), which could run code and is not opened; "
            "give a .safetensors or .h5 file"
        )
    else:
        network = _load_network(path)
    return network.to(device).eval()


def _load_network(path):
    metadata, state = load_tensors(path, FORMAT, **_ABOUT)
    require(metadata, _METADATA, name=path, what="a whole checkpoint", advice="copy the file again")
    style = state.pop(_DEFAULT_STYLE, None)
    try:
        # Earlier checkpoints have another name for one of the settings.
        renamed = {"position_form": "position_variant"}
        settings = {renamed.get(key, key): value for key, value in metadata["model"].items()}
        config = ModelConfig(**settings)
        require_weights(lambda: UNet(config), state)
        if style is not None and not (style.ndim == 2 and style.shape[1] == STYLE_FEATURES):
            raise RuntimeError(f"its default style is {tuple(style.shape)}, not (14, 1280)")
        with NoInitialWeights():
            network = UNet(config)
        network.default_style = style
        network.load_state_dict(state)
    except (RuntimeError, KeyError, TypeError, HwdiffError) as error:
        found = f"its weights do not fit its metadata ({str(error).splitlines()[0]})"
        raise HwdiffError(f"{path}: {found}; copy the file again") from error
    network.metadata = metadata
    gallery = path_of_gallery(path)
    network.gallery = gallery if gallery.is_file() else None
    return network
