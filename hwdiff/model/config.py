"""The size of the network."""

from dataclasses import dataclass

from hwdiff.utils.errors import HwdiffError

POSITION_VARIANTS = ("strokes", "text")


@dataclass(frozen=True)
class ModelConfig:
    """Widths and depth; the defaults are the published size. position_variant: see `blocks.AttentionBlock`."""

    c1: int = 128
    c2: int = 192
    c3: int = 256
    num_layers: int = 2
    position_variant: str = "strokes"

    def __post_init__(self):
        for name, unit in (("c1", 4), ("c2", 12), ("c3", 8)):  # divisible by the heads; channels of a head and of emb even
            if getattr(self, name) <= 0 or getattr(self, name) % unit:
                raise HwdiffError(f"{name} = {getattr(self, name)}: must be a positive multiple of {unit}")
        if self.num_layers < 1:
            raise HwdiffError(f"num_layers = {self.num_layers}: must be at least 1")
        if self.position_variant not in POSITION_VARIANTS:
            raise HwdiffError(f"position_variant = {self.position_variant!r}: choose one of {', '.join(POSITION_VARIANTS)}")
