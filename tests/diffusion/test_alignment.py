import numpy as np
import pytest

from hwdiff import HwdiffError
from hwdiff.diffusion.alignment import Alignment, alignment_of, boundaries_of
from hwdiff.ink.ink import Ink


def alignment(cells, text="abcd", blur=0.0):
    """Cells that each look at one character of the text."""
    weights = np.eye(len(text))[cells] * (1 - blur) + blur / len(text)
    return Alignment(text, 8, weights)


def test_ink_in_order_is_monotonic_and_covers_the_text():
    ordered = alignment([0, 0, 1, 2, 2, 3])
    assert ordered.monotonicity == ordered.coverage == ordered.sharpness == 1
    assert ordered.places.tolist() == [0, 0, 1, 2, 2, 3]
    assert ordered.runs.tolist() == [1, 1, 1, 1]
    assert ordered.scores["skips"] == ordered.scores["repeats"] == 0


def test_what_goes_wrong_is_told():
    skipped = alignment([0, 0, 1, 3, 3])
    assert skipped.coverage == 3 / 4
    assert [row["character"] for row in skipped.table(40) if row["skipped"]] == ["c"]
    assert skipped.scores["skips"] == 1 / 4
    assert alignment([0, 3]).scores["skips"] == 2 / 4
    assert alignment([3, 0]).scores["skips"] == 0
    assert skipped.table(40)[2]["first_point"] is None
    repeated = alignment([0, 1, 2, 1, 2, 3])
    assert [row["character"] for row in repeated.table(48) if row["repeated"]] == ["b", "c"]
    assert repeated.monotonicity == pytest.approx(4 / 5)
    assert alignment([3, 2, 1, 0]).monotonicity == 0
    assert alignment([0, 1, 2, 3], blur=1.0).sharpness == pytest.approx(1 / 4)
    assert alignment([0, 1, 2, 3], blur=0.4).sharpness == pytest.approx(0.7)
    assert alignment([2, 2]).monotonicity == 0


def test_the_table_tells_which_points_belong_to_a_character():
    rows = alignment([0, 0, 1, 2, 2, 3]).table(45)
    assert [(row["first_point"], row["last_point"]) for row in rows] == [
        (0, 15),
        (16, 23),
        (24, 39),
        (40, 44),  # the ink has 45 points
    ]
    shared = Alignment("ab", 4, np.array([[0.7, 0.3], [0.1, 0.9]]))
    assert [(row["first_point"], row["last_point"], row["fraction"]) for row in shared.table(8)] == [
        (0, 3, 0.7),
        (0, 7, 0.9),
    ]


def test_a_space_is_no_letter():
    assert alignment([0, 2], text="a b").coverage == 1
    assert alignment([0, 2], text="a b").scores["skips"] == 0
    assert [row["skipped"] for row in alignment([0, 0], text="a b").table(16)] == [False, False, True]


def test_only_what_was_written_counts():
    weights = np.zeros((3, 4, 6))
    weights[:, [0, 1, 2, 3], [0, 1, 5, 5]] = (
        1  # the last two cells are padding, and look at what follows the text
    )
    ink = Ink(np.ones((15, 2)), np.zeros(15), "ab")
    aligned = alignment_of(ink, weights, length=32)
    assert aligned.weights.tolist() == [[1, 0], [0, 1]]
    assert aligned.points == 8
    with pytest.raises(HwdiffError, match="ink of 0 points"):
        alignment_of(Ink(np.zeros((0, 2)), []), weights, 32)


def test_sharp_attention_gives_the_true_boundaries_to_a_cell():
    owners = np.repeat([0, 1, 3, 4], [3, 5, 2, 4])
    aligned = Alignment("ab cd", 8, np.eye(5)[owners])
    found = boundaries_of(aligned, 8 * len(owners))
    assert np.abs(found - 8 * np.array([3, 8, 10])).max() <= 4


def test_attention_that_looks_nowhere_is_far_off():
    aligned = Alignment("abcdef", 8, np.full((20, 6), 1 / 6))
    found = boundaries_of(aligned, 160)
    assert found[0] < 8 and found[-1] > 152
