"""What becomes of the memory that arrays leave."""

import ctypes
import os
from contextlib import suppress

# glibc's settings: names in the environment, and numbers for mallopt(3).
_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": (-3, 32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": (-1, 256 * 2**20),
    "MALLOC_TOP_PAD_": (-2, 16 * 2**20),
}


def keep_freed_memory() -> None:
    """Let this process, and those that it starts, use memory again that arrays leave.

    By default glibc gives arrays of some megabytes back to the system at once, and asks for them again, page
    by page, at the next layer of a network: a fifth to a third of the time of writing on a CPU. What the
    environment says already stays; without glibc nothing changes.
    """
    for name, (parameter, size) in _SETTINGS.items():
        if name not in os.environ:
            os.environ[name] = str(size)
            with suppress(AttributeError):
                ctypes.CDLL(None).mallopt(parameter, size)
