"""Arrays in `.npz` files that someone else may have made: nothing is unpacked before its size is known."""

import math
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from hwdiff.utils.files import atomic_write

# What a file may unpack to. Real ones have up to about four times their size, but many zeros take no room.
SMALL, RATIO = 64 * 2**20, 100
# What reading a file that is damaged or something else may raise.
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,  # of a zip file with a password, and where something is nested too deeply
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def most_bytes(path: str | Path) -> int:
    """How many bytes the compressed file `path` may unpack to: 64 MB and a hundred times its own size."""
    return SMALL + RATIO * Path(path).stat().st_size


def require_honest_size(path: str | Path) -> None:
    """Raises ValueError when the zip file `path` would unpack to far more than such files do."""
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
        kinds = {entry.compress_type for entry in archive.infolist()}
    if size > most_bytes(path):
        raise ValueError(f"it would unpack to {size:,} bytes, {most_bytes(path):,} at most are expected")
    if kinds - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("compressed in a way that NumPy does not write")


def save_npz(path: str | Path, arrays: dict[str, np.ndarray | float]) -> None:
    """Write arrays into a compressed `.npz` file, whole or not at all. Raises as `atomic_write` does."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file. No pickle is loaded.

    Raises one of `UNREADABLE`, FileNotFoundError among them, when the file is missing, damaged, far larger
    than it looks, or something else.
    """
    require_honest_size(path)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            with archive.open(entry) as file:
                shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
                if dtype.hasobject:
                    raise ValueError(f"{entry.filename} holds objects, as only a pickle can")
                if math.prod(shape) * dtype.itemsize != entry.file_size - file.tell():
                    raise ValueError(f"{entry.filename} is not as long as its header says")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
