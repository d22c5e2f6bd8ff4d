"""Fields of a configuration that say what they are, and what they may be. Free of torch."""

import operator
from dataclasses import field, fields
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
