"""Tensors on disk: safetensors files with metadata in JSON. No pickle is ever loaded."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write
from hwdiff.utils.json_values import parse_json

_KEY = "hwdiff"  # of the file's metadata, which can hold texts only


def save_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict) -> None:
    """Write tensors, and metadata in JSON types, to the safetensors file `path`, whole or not at all.

    Raises HwdiffError when it cannot be written; what was at `path` stays as it was.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: json.dumps(metadata)})


def fingerprint_of(tensors: dict[str, Tensor], about: str = "") -> str:
    """The SHA-256 of some tensors and their names.   about: what else it is to depend on."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_metadata(path: str | Path, *formats: str, what: str, advice: str) -> dict:
    """The metadata of the file `path`, without its tensors.

    formats: those that can be read, the present one first; none for a file without a format.
    what: what the file should be, for errors.
    advice: what to do, for errors.
    Returns a dictionary in JSON types; of a file that hwdiff did not write, its plain texts.
    Raises HwdiffError when the file is missing, cut short, or of another format.
    """
    try:
        with safe_open(path, "pt") as file:
            found = file.metadata() or {}
        if _KEY in found:
            found = parse_json(found[_KEY])
    except (SafetensorError, OSError, ValueError) as error:
        raise HwdiffError(f"{path}: not a whole {what} ({error}); {advice}") from error
    if not isinstance(found, dict):
        raise HwdiffError(f"{path}: not a {what}: its metadata is no dictionary; {advice}")
    if formats and "format" not in found:
        raise HwdiffError(f"{path}: not a {what}; {advice}")
    if formats and found["format"] not in formats:
        reason = f"its format is {found['format']!r}, not {formats[0]!r}"
        kinds = [str(one).rpartition(" ")[0] for one in (found["format"], *formats)]
        if kinds[0] not in kinds[1:]:
            raise HwdiffError(f"{path}: not a {what}: {reason}; {advice}")
        raise HwdiffError(f"{path}: not a {what} of this version: {reason}; use the version that wrote it")
    return found


def load_tensors(path: str | Path, *formats: str, what: str, advice: str) -> tuple[dict, dict[str, Tensor]]:
    """The metadata of the file `path`, and its tensors by name, on the CPU.

    Arguments and errors as of `load_metadata`.
    """
    metadata = load_metadata(path, *formats, what=what, advice=advice)
    try:
        with safe_open(path, "pt") as file:
            return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise HwdiffError(f"{path}: not a whole {what} ({error}); {advice}") from error


class NoInitialWeights(TorchFunctionMode):
    """Modules made in this context have no initial weights; they are loaded afterwards.

    So no random generator moves on. And where weights have no memory PyTorch would load its compiler to draw
    them, which takes a second.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        # Not all functions of nn.init come by here themselves.
        draws = function in (Tensor.normal_, Tensor.uniform_)
        if draws or getattr(function, "__module__", None) == nn.init.__name__:
            return None
        return function(*args, **(kwargs or {}))


def require_weights(make: Callable[[], nn.Module], state: dict[str, Tensor]) -> None:
    """Raises RuntimeError when `state` is not that of the module that `make` makes.

    The module is made without memory for its weights: one that is far too large is found out before it is
    allocated.
    """
    with torch.device("meta"), NoInitialWeights():
        wanted = {name: tensor.shape for name, tensor in make().state_dict().items()}
    if missing := wanted.keys() - state.keys():
        raise RuntimeError(f"{min(missing)} is missing")
    for name, tensor in state.items():
        if tensor.shape != wanted.get(name):
            wants = tuple(wanted[name]) if name in wanted else "no such tensor"
            raise RuntimeError(f"{name} is {tuple(tensor.shape)}, its metadata says {wants}")
