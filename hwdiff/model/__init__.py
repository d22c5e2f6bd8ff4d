"""The networks and their files: the U-Net with attention (Fig. 6 to 10 of Luhman & Luhman 2020) and the
MobileNetV2 that gives style features.
"""

from hwdiff.utils.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "config": ["ModelConfig"],
        "unet": ["UNet"],
        "checkpoint": ["load_model", "save_model"],
        "style_encoder": ["load_style_extractor"],
    },
)
