import numpy as np
import pytest

from hwdiff import HwdiffError
from hwdiff.evaluation.style import descriptors, retrieve

HANDS = np.random.default_rng(0).normal(size=(20, 1, 1280))


def lines(forms, noise, seed):
    generator = np.random.default_rng(seed)
    return HANDS[forms] + generator.normal(0, noise, (len(forms), 14, 1280))


def test_the_right_form_is_found_where_lines_are_like_it_and_by_chance_where_they_are_not():
    known_forms, forms = np.repeat(np.arange(20), 3), np.arange(20).repeat(5)
    known = lines(known_forms, 1.0, 1)
    clear = retrieve(lines(forms, 1.0, 2), forms, known, known_forms)
    assert clear.forms == 20
    assert clear.within(1) == 1
    wrong = retrieve(lines(forms, 1.0, 2), (forms + 1) % 20, known, known_forms)
    assert wrong.within(1) == 0
    guessed = retrieve(np.random.default_rng(3).normal(size=(400, 14, 1280)), np.arange(20).repeat(20), known, known_forms)
    assert guessed.within(1) == pytest.approx(1 / 20, abs=0.04)
    assert guessed.within(5) == pytest.approx(5 / 20, abs=0.08)
    noisy = retrieve(lines(forms, 15.0, 4), forms, known, known_forms)
    assert 1 / 20 < noisy.within(1) < 1


def test_lines_without_any_hand_are_no_success():
    forms = np.arange(4)
    same = np.ones((4, 14, 1280))
    assert retrieve(same, forms, np.ones((8, 14, 1280)), forms.repeat(2)).within(1) == 0


def test_descriptors_see_the_spread_over_the_columns():
    flat, varied = np.ones((1, 14, 1280)), np.ones((1, 14, 1280))
    varied[0, ::2] = 0
    varied[0, 1::2] = 2
    assert (descriptors(flat)[:, :1280] == descriptors(varied)[:, :1280]).all()
    assert (descriptors(varied)[:, 1280:] == 1).all()


@pytest.mark.parametrize(
    ("queries", "query_forms", "known", "known_forms", "message"),
    [
        (np.zeros((0, 14, 1280)), [], np.ones((2, 14, 1280)), [0, 1], r"features of shape \(0, 14, 1280\)"),
        (np.ones((1, 14, 1280)), [5], np.ones((2, 14, 1280)), [0, 1], "no known lines of the form 5"),
        (np.ones((1, 14, 1280)), [0], np.ones((2, 14, 1280)), [0, 0], "1 known forms"),
        (np.ones((1, 14, 1280)), [0, 1], np.ones((2, 14, 1280)), [0, 1], "2 and 2 forms for 1 and 2 lines"),
        (np.full((1, 14, 1280), np.nan), [0], np.ones((2, 14, 1280)), [0, 1], "not finite"),
    ],
)
def test_bad_input_is_named(queries, query_forms, known, known_forms, message):
    with pytest.raises(HwdiffError, match=message):
        retrieve(queries, query_forms, known, known_forms)
