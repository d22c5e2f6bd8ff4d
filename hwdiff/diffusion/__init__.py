"""The diffusion method of Luhman & Luhman (2020), sections 2.1, 2.2 and 5.1: from noise to ink.

Noise schedule, forward process, samplers, writing texts, styles by name, and traces of the attention.
"""

from hwdiff.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "process": ["alpha_bars", "add_noise", "loss_terms"],
        "samplers": ["SAMPLERS", "schedule", "find_sampler", "guided"],
        "style_gallery": ["load_styles", "mixed"],
        "tracing": ["Trace"],
        "generate": ["sample"],
    },
)
