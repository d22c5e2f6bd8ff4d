"""hwdiff: Diffusion models for Handwriting Generation (Luhman & Luhman 2020), reproduced.

network = hwdiff.load_model("model.safetensors")
[ink] = hwdiff.sample(network, ["the quick brown fox jumps"], style="a-line-of-my-hand.png")
ink.save("fox.svg")
"""

from importlib import import_module

_HOME = {"load_model": "checkpoint", "sample": "writing", "Ink": "ink", "HwdiffError": "errors"}

__all__ = ["HwdiffError", "Ink", "load_model", "sample"]


def __getattr__(name):
    # Loaded when first asked for, so that `import hwdiff` and `hwdiff --help` do not wait for torch.
    if name in _HOME:
        return getattr(import_module(f"hwdiff.{_HOME[name]}"), name)
    raise AttributeError(f"module 'hwdiff' has no attribute {name!r}")
