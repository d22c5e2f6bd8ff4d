"""The notebooks as a suite: the runner with its cache, what a notebook leaves behind, the page of a run, the inspectors,
and the release of weights.
"""

from hwdiff.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "runner": ["Reproduction", "find_notebooks"],
        "outputs": ["Outputs"],
        "page": ["publish"],
    },
)
