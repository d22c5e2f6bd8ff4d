import pytest

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.json_values import is_file_name, misfit, parse_json, require


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "", b"\xff\xfe{", '"\\ud800"', b'{"a": "\\uDFFF"}'])
def test_what_cannot_be_used_is_a_value_error(content):
    with pytest.raises(ValueError):
        parse_json(content)


def test_whole_characters_come_back():
    assert parse_json('"\\ud83d\\ude00 é"') == parse_json('"😀 é"'.encode()) == "😀 é"


@pytest.mark.parametrize(
    ("value", "wanted", "found"),
    [
        (3, int, None),
        (True, int, "the whole = True"),
        (3.0, int, "the whole = 3.0"),
        (2**63, int, f"the whole = {2**63}"),
        (3, float, None),
        (True, float, "the whole = True"),
        (float("nan"), float, "the whole = nan"),
        (float("inf"), float, "the whole = inf"),
        (10**400, float, f"the whole = {10**59}"),
        ("a", (int, str), None),
        (None, (int, None), None),
        ([1], (int, None), "the whole = [1]"),
        ([1, "a"], [int], "[1] = 'a'"),
        ({}, [int], "the whole = {}"),
        ({"a": [{"b": 1}]}, {"a": [{"b": str}]}, "a[0].b = 1"),
        ({}, {"a": int}, "a is missing"),
        ({"b": {}}, {"b": {"a": int}}, "b.a is missing"),
        ({"other": 1}, {"a?": int}, None),
        ({"a": None}, {"a?": int}, "a = None"),
        ({"x": 1, "y": "z"}, {"*": int}, "y = 'z'"),
        ({"x": 1, "y": "z"}, {"y": str, "*": int}, None),
        (4, lambda number: number % 2, "the whole = 4"),
    ],
)
def test_the_first_part_that_does_not_fit_is_named(value, wanted, found):
    assert misfit(value, wanted) == found


def test_an_error_names_the_file_the_part_and_what_to_do():
    about = {"name": "a.json", "what": "a table", "advice": "make it again"}
    require({"rows": []}, {"rows": [int]}, **about)
    with pytest.raises(HwdiffError, match=r"^a\.json: not a table \(rows\[0\] = 'x'\); make it again$"):
        require({"rows": ["x"]}, {"rows": [int]}, **about)


def test_file_names_do_not_climb_out():
    assert is_file_name("figures/one.png")
    for name in (
        "/etc/passwd",
        "../one.png",
        "figures/../../one.png",
        "",
        "a\0b",
        "a\nb",
        "a" * 300,
        3,
        None,
    ):
        assert not is_file_name(name), name
