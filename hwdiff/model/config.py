"""The size of the network, and where style weights come from. Free of torch."""

from dataclasses import dataclass

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.settings import check_settings, setting

# Of style weights: where their convolutions of stride 2 pad, and the source that a distilled encoder names.
BOTH_SIDES, RIGHT_BOTTOM = "both", "right-bottom"
DISTILLED = "hwdiff, distilled"
STYLE_FEATURES = 1280  # of each column of a style image
STYLE_SHAPE = (14, STYLE_FEATURES)  # where the image is padded


@dataclass(frozen=True)
class ModelConfig:
    """Widths and depth of the network. The defaults are those of Fig. 9 of Luhman & Luhman (2020)."""

    c1: int = setting(128, "Channels at the points' rate; emb has a quarter of them.", high=4096)
    c2: int = setting(192, "Channels at half the rate; the text has twice as many.", high=4096)
    c3: int = setting(256, "Channels at a quarter of the rate.", high=4096)
    num_layers: int = setting(2, "Attention blocks in the middle, at an eighth of the rate.", low=1, high=64)
    position_variant: str = setting(
        "strokes",
        "Which positions are multiplied in attention above the deepest level: strokes (released) or text "
        "(paper).",
        choices=("strokes", "text"),
    )

    def __post_init__(self):
        check_settings(self)
        # Channels must be divisible by the heads; those of a head and of emb must be even.
        for name, unit in (("c1", 4), ("c2", 12), ("c3", 8)):
            if getattr(self, name) <= 0 or getattr(self, name) % unit:
                raise HwdiffError(f"{name} = {getattr(self, name)}: must be a positive multiple of {unit}")
