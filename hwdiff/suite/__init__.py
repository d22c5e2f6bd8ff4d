"""The notebooks as a suite.

The runner with its cache, the outputs of a notebook, the page of a run, inspectors, the release of weights.
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
