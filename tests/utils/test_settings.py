from dataclasses import dataclass

import pytest

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.settings import check_settings, setting


@dataclass
class Settings:
    count: int = setting(3, "A count.", low=1)
    rate: float = setting(0.5, "A rate.", below=1)
    name: str = setting("a", "A name.")
    own: bool = setting(False, "A switch.")
    perhaps: float | None = setting(None, "A number, or none.", above=0)

    def __post_init__(self):
        check_settings(self)


def test_numbers_and_none_are_allowed_where_they_are_meant():
    Settings(count=7, rate=0, own=True, perhaps=2)
    Settings(perhaps=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 1.5}, "count = 1.5: must be a whole number"),
        ({"count": "3"}, "count = '3': must be a whole number"),
        ({"count": True}, "count = True: must be a whole number"),
        ({"rate": float("nan")}, "rate = nan: must be a number"),
        ({"rate": None}, "rate = None: must be a number"),
        ({"name": 3}, "name = 3: must be a text"),
        ({"own": "yes"}, "own = 'yes': must be true or false"),
        ({"perhaps": []}, r"perhaps = \[\]: must be a number or none"),
        ({"rate": 1}, "rate = 1: must be below 1"),
    ],
)
def test_values_of_another_type_are_refused(changes, message):
    with pytest.raises(HwdiffError, match=f"^{message}$"):
        Settings(**changes)
