"""Measuring what was written: whether it can be read, how far it is from real ink, whether its style is the
one asked for, where the attention looked, and Table 1 of Luhman & Luhman (2020).
"""

from hwdiff.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "error_rates": ["legibility", "recognize"],
        "recognizer": ["load_recognizer"],
        "frechet": ["frechet_distance", "kernel_distance"],
        "geometry": ["mrlt", "geometry_score"],
    },
)
