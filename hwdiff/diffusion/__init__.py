"""The method at work (sections 2.1 and 2.2 of Luhman & Luhman 2020): noise schedule and forward process, samplers,
writing texts, styles by name, and a record of what the network attended to.
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
