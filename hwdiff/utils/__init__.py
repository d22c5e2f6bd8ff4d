"""What every package needs: the one exception, files written whole, progress, interruption, and what a result
depends on (versions, hardware, commit).
"""

from hwdiff.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "errors": ["HwdiffError"],
        "files": ["atomic_write", "sha256_of"],
        "progress": ["Progress"],
        "interrupt": ["Stop"],
    },
)
