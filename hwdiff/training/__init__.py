"""Training (Algorithm 1 of Luhman & Luhman 2020): settings, loss, loop and directory of a run.

The distillations of the style encoder and of sampling steps are here too.
"""

from hwdiff.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "config": ["TrainingConfig", "PRESETS", "preset"],
        "loop": ["train"],
        "objective": ["Objective"],
        "validation": ["validation_loss", "padded_loss"],
    },
)
