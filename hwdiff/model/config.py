"""The size of the network, and what a setting may be. Needs no torch."""

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
    """A field of a configuration.

    about: what it is, the help of its command-line option.
    limits: what it may be: `low` and `high`, which are allowed themselves; `above` and `below`, which are
        not; or `choices`.
    """
    return field(default=default, metadata={"help": about, **limits})


def check_settings(config: Any) -> None:
    """Raises HwdiffError when a field of `config`, a dataclass, is outside the limits of its `setting`."""
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
    """Widths and depth of the network. The defaults are those of Fig. 9 of Luhman & Luhman (2020)."""

    c1: int = setting(128, "Channels at the points' rate; emb has a quarter of them.")
    c2: int = setting(192, "Channels at half the rate; the text has twice as many.")
    c3: int = setting(256, "Channels at a quarter of the rate.")
    num_layers: int = setting(2, "Attention blocks in the middle, at an eighth of the rate.", low=1)
    position_variant: str = setting(
        "strokes",
        "Which positions are multiplied where strokes are shorter than text: strokes (released) or text "
        "(paper).",
        choices=("strokes", "text"),
    )

    def __post_init__(self):
        check_settings(self)
        # Channels must be divisible by the heads; those of a head and of emb must be even.
        for name, unit in (("c1", 4), ("c2", 12), ("c3", 8)):
            if getattr(self, name) <= 0 or getattr(self, name) % unit:
                raise HwdiffError(f"{name} = {getattr(self, name)}: must be a positive multiple of {unit}")
