"""Names that a package offers before the modules that define them are loaded: importing it costs nothing."""

from collections.abc import Callable
from importlib import import_module


def lazy_names(
    package: str, homes: dict[str, list[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package that offers names of its modules.

    package: its `__name__`.
    homes: {module, relative to the package: names that it defines}.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def get(name):
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{home_of[name]}"), name)

    return get, lambda: sorted(home_of), sorted(home_of)
