"""Fields of a configuration that say what they are, and what they may be. Free of torch."""

import operator
from dataclasses import field, fields
from typing import Any, get_args

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.json_values import misfit

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
    """Raises HwdiffError when a field of `config`, a dataclass, is of another type than its `setting`, or
    outside its limits.
    """
    for item in fields(config):
        limits, value = item.metadata, getattr(config, item.name)
        kinds = get_args(item.type) or (item.type,)
        if "help" in limits and misfit(value, tuple(None if kind is type(None) else kind for kind in kinds)):
            raise HwdiffError(f"{item.name} = {value!r:.60}: must be {_words(kinds)}")
        if value is None:
            continue
        if "choices" in limits and value not in limits["choices"]:
            raise HwdiffError(f"{item.name} = {value!r}: choose one of {', '.join(limits['choices'])}")
        for limit, (words, allowed) in _LIMITS.items():
            if limit in limits and not allowed(value, limits[limit]):
                raise HwdiffError(f"{item.name} = {value}: must be {words} {limits[limit]}")


def _words(kinds):
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return " or ".join(words.get(kind, "none") for kind in kinds)
