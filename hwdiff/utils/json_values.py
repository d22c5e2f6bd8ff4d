"""JSON that someone else may have written: read without surprises, and compared with what is wanted."""

import json
import math
import re
from pathlib import Path, PurePath

from hwdiff.utils.errors import HwdiffError

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
MAX_WHOLE = 2**63
MAX_NAME = 200


def parse_json(content: str | bytes) -> object:
    """The value of a JSON text. Raises ValueError for anything else, also where it is nested too deeply or
    holds half a character (a lone surrogate), which could not be written again.
    """
    try:
        text = content.decode(json.detect_encoding(content)) if isinstance(content, bytes) else content
        found = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return found


def number_or_none(value: object) -> object:
    """A value as it is, but None for NaN and infinities, for which JSON has no number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def misfit(value: object, wanted: object, name: str = "") -> str | None:
    """The first part of a JSON value that is not as it should be, such as "rows[2].file = 3"; None if all is.

    wanted: a type (float allows whole numbers, and only finite ones); a function that says whether a value
        is allowed; None; a tuple of alternatives; [what each item of a list is]; or {key: what its value is},
        where "key?" may be missing and "*" stands for all other keys, which are else allowed.
    name: what the value is called.
    """
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            return _named(name, value)
        keys = {key.removesuffix("?"): key for key in wanted}
        if missing := [key for key, given in keys.items() if key == given != "*" and key not in value]:
            return f"{name}.{missing[0]} is missing".lstrip(".")
        parts = ((key, wanted[keys.get(key, "*")]) for key in value if key in keys or "*" in keys)
        found = (misfit(value[key], part, f"{name}.{key}".lstrip(".")) for key, part in parts)
    elif isinstance(wanted, list):
        if not isinstance(value, list):
            return _named(name, value)
        found = (misfit(item, wanted[0], f"{name}[{place}]") for place, item in enumerate(value))
    elif isinstance(wanted, tuple):
        fits = any(misfit(value, one, name) is None for one in wanted)
        return None if fits else _named(name, value)
    else:
        return None if _fits(value, wanted) else _named(name, value)
    return next((one for one in found if one), None)


def _fits(value, wanted):
    if wanted is None:
        return value is None
    if not isinstance(wanted, type):
        return wanted(value)
    if wanted is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and abs(value) < 1e300 and math.isfinite(value)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_WHOLE
    return isinstance(value, wanted)


def _named(name, value):
    return f"{name or 'the whole'} = {repr(value)[:60]}"


def require(value: object, wanted: object, *, name: str | Path, what: str, advice: str) -> None:
    """Raises HwdiffError where `value` is not as `wanted`, see `misfit`.

    name: of the file.   what: it should be.   advice: what to do.
    """
    if found := misfit(value, wanted):
        raise HwdiffError(f"{name}: not {what} ({found}); {advice}")


def is_file_name(value: object) -> bool:
    """Whether a value is the path of a file below a folder, from which it does not climb out."""
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= MAX_NAME:
        return False
    path = PurePath(value)
    return not path.is_absolute() and ".." not in path.parts
