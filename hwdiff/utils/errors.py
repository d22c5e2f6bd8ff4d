"""The one exception that hwdiff raises for anything a user can put right."""

from collections.abc import Iterable


class HwdiffError(Exception):
    """Bad input. The message names the file or argument, what was found and what to do.

    The CLI prints it as one line.
    """


def require_choice(what: str, value: object, choices: Iterable[str]) -> None:
    """Raises HwdiffError when `value` is not among `choices`.   what: it is, such as "sampler"."""
    choices = list(choices)
    if value not in choices:
        raise HwdiffError(f"{what}: no such {what} as {value!r}; choose one of {', '.join(choices)}")
