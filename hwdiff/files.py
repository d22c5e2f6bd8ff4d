"""Writing files whole or not at all, and fingerprints of files."""

import hashlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from hwdiff.errors import HwdiffError


@contextmanager
def replacing(path):
    """Yield a temporary path beside `path` that takes its place at the end of the block, so that a reader never sees half a file.

    The folders of `path` are made. If the block fails, what stood at `path` stays as it was.
    Raises HwdiffError when the folder cannot be made or written, or when the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        yield Path(temporary)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that only their owner can read
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())  # on the disk before it takes the old file's place, whatever happens to the power
        os.replace(temporary, path)
        temporary = None
    except (OSError, SafetensorError) as error:  # the latter is what safetensors makes of a full disk
        reason = getattr(error, "strerror", None) or error
        raise HwdiffError(f"{path}: cannot be written ({reason}); free some space or choose another path") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def sha256_of(path):
    """The SHA-256 of the file at `path`, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
