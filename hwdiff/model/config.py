"""The size of the network. Free of torch."""

import operator
from dataclasses import dataclass, field, fields
from typing import Any

from hwdiff.utils.errors import HwdiffError

_LIMITS = {
    "low": ("at least", operator.ge),
    "high": ("at most", operator.le),
    "above": ("above", operator.gt),
    "below": ("below", operator.lt),
}


def setting(default: Any, about: str, **limits: Any) -> Any:
    """A field of a configuration: its default, what it is, and what it may be.

    limits: `low` and `high`, which are allowed, `above` and `below`, which are not; or `choices`.
    """
    return field(default=default, metadata={"help": about, **limits})


def check_settings(config: Any) -> None:
    """Raises HwdiffError when a field of `config` is not what `setting` says that it may be."""
    for item in fields(config):
        limits, value = item.metadata, getattr(config, item.name)
        if value is None:
            continue
        if "choices" in limits and value not in limits["choices"]:
            raise HwdiffError(f"{item.name} = {value!r}: choose one of {', '.join(limits['choices'])}")
        for limit, (words, allowed) in _LIMITS.items():
            if limit in limits and not allowed(value, limits[limit]):
                raise HwdiffError(f"{item.name} = {value}: must be {words} {limits[limit]}")


@dataclass(frozen=True)
class ModelConfig:
    """Widths and depth of the network. The defaults are the published size, Fig. 9 of Luhman & Luhman (2020)."""

    c1: int = setting(128, "Channels at the points' rate; emb has a quarter of them.")
    c2: int = setting(192, "Channels at half the rate, half those of the text.")
    c3: int = setting(256, "Channels at a quarter of the rate.")
    num_layers: int = setting(2, "Attention blocks in the middle, at an eighth of the rate.", low=1)
    position_variant: str = setting(
        "strokes",
        "Which positions are multiplied where strokes are shorter than text: strokes (released) or text (paper).",
        choices=("strokes", "text"),
    )

    def __post_init__(self):
        check_settings(self)
        for name, unit in (
            ("c1", 4),
            ("c2", 12),
            ("c3", 8),
        ):  # divisible by the heads; channels of a head and of emb even
            if getattr(self, name) <= 0 or getattr(self, name) % unit:
                raise HwdiffError(f"{name} = {getattr(self, name)}: must be a positive multiple of {unit}")
