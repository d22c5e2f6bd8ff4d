"""hwdiff: Diffusion models for Handwriting Generation (Luhman & Luhman 2020), reimplemented.

network = hwdiff.load_model("model.safetensors")
[ink] = hwdiff.sample(network, ["the quick brown fox jumps"], style="my-handwriting.png")
ink.save("fox.svg")
"""

from importlib.metadata import version

from hwdiff.utils.lazy import lazy_names

__version__ = version("hwdiff")

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "model.checkpoint": ["load_model"],
        "diffusion.generate": ["sample"],
        "ink.ink": ["Ink"],
        "utils.errors": ["HwdiffError"],
    },
)
