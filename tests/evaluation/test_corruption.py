"""What a generator gets wrong must raise the error rate, and about as much as was corrupted."""

import numpy as np
import pytest

from hwdiff.evaluation import corruption
from hwdiff.evaluation.error_rates import legibility, letters, recognize
from hwdiff.ink.ink import Ink
from hwdiff.utils.errors import HwdiffError


@pytest.fixture(scope="module")
def recognitions(lines, recognizer):
    return recognize(lines, recognizer)


@pytest.fixture(scope="module")
def error_of(lines, recognitions, recognizer):
    """corrupt(ink, recognition, number) -> the error rate of the lines so corrupted."""

    def measure(corrupt):
        corrupted = [
            corrupt(ink, recognition, number)
            for number, (ink, recognition) in enumerate(zip(lines, recognitions, strict=True))
        ]
        return legibility(corrupted, recognizer, resamples=10).cer.value

    return measure


@pytest.fixture(scope="module")
def as_written(error_of):
    return error_of(lambda ink, *_: ink)


def test_the_ink_is_legible_to_begin_with(as_written):
    assert as_written < 0.25


@pytest.mark.parametrize("fraction", [0.1, 0.3])
@pytest.mark.parametrize(
    ("corrupt", "least"), [(corruption.without_letters, 0.6), (corruption.with_doubled_letters, 0.5)]
)
def test_missing_and_doubled_letters_are_noticed(error_of, as_written, corrupt, least, fraction):
    found = error_of(lambda ink, recognition, number: corrupt(ink, recognition, fraction, seed=number))
    assert least * fraction < found - as_written < 1.6 * fraction


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.6])
def test_ink_after_the_text_is_read(error_of, as_written, lines, fraction):
    rise = (
        error_of(lambda ink, _, number: corruption.with_more_ink(ink, lines[number - 1], fraction))
        - as_written
    )
    assert 0.7 * fraction < rise < 1.6 * fraction


def test_more_jitter_is_less_legible(error_of, as_written):
    rates = [
        error_of(lambda ink, _, number, size=size: corruption.with_jitter(ink, size, number))
        for size in (0.2, 0.4, 1.0)
    ]
    assert as_written + 0.03 < rates[0]
    assert rates[0] + 0.1 < rates[1]
    assert rates[1] + 0.1 < rates[2]
    assert rates[2] > 0.6


def test_a_line_whose_end_is_shifted_is_less_legible(error_of, as_written):
    little, much = (
        error_of(lambda ink, *_, rise=rise: corruption.with_raised_end(ink, rise)) for rise in (5, 10)
    )
    assert as_written < little < much
    assert much > as_written + 0.05


def test_a_resting_pen_changes_nothing(error_of, as_written):
    assert error_of(lambda ink, *_: corruption.with_resting_pen(ink, 1.5)) == as_written


def test_sizes_that_change_within_a_line_are_noticed(error_of, as_written):
    twice, four_times = (
        error_of(lambda ink, *_, factor=factor: corruption.with_scaled_end(ink, factor)) for factor in (2, 4)
    )
    assert as_written < twice < four_times
    assert four_times > as_written + 0.06


def test_words_written_over_one_another_are_noticed(error_of, as_written):
    assert (
        error_of(lambda ink, recognition, _: corruption.with_piled_words(ink, recognition))
        > as_written + 0.15
    )


def test_each_point_belongs_to_one_character(lines, recognitions):
    for ink, recognition in zip(lines, recognitions, strict=True):
        bounds = letters(ink, recognition)
        assert len(bounds) == len(recognition.text) + 1
        assert (bounds[0], bounds[-1]) == (0, len(ink))
        assert (np.diff(bounds) >= 0).all()


def test_every_corruption_is_measured(made_up_lines, recognizer):
    few = made_up_lines[:8]
    rates = dict(corruption.corrupted_rates(few, recognizer))
    assert rates.keys() == corruption.CORRUPTIONS.keys()
    before = legibility(few, recognizer).cer.value
    assert {key for key, rate in rates.items() if rate.value <= before} <= {"resting_pen", "end_scaled_2"}
    assert rates["missing_3_in_10"].value > rates["missing_1_in_10"].value > before
    assert dict(corruption.corrupted_rates(few, recognizer)) == rates


def test_one_line_has_no_other_to_be_corrupted_with(made_up_lines, recognizer):
    with pytest.raises(HwdiffError, match="give at least two"):
        list(corruption.corrupted_rates(made_up_lines[:1], recognizer))


def test_nothing_is_left_out_of_what_is_unread():
    ink = Ink([[0, 0], [1, 1]], [True, False], "a")
    [recognition] = recognize([ink])
    recognition.text, recognition.points = "", np.zeros(0, dtype=int)
    assert len(corruption.without_letters(ink, recognition, 0.5)) == 0
    assert len(corruption.with_more_ink(Ink(np.zeros((0, 2)), []), ink, 0.5)) == 1
    assert letters(ink, recognition).tolist() == [2]
