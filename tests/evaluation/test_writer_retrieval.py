import numpy as np
import pytest

from hwdiff import HwdiffError
from hwdiff.evaluation.writer_retrieval import (
    WriterStyles,
    descriptors,
    line_features,
    place_between,
    retrieve,
)
from hwdiff.ink import images
from hwdiff.ink.ink import Ink

GENERATOR = np.random.default_rng(0)
STYLES = (GENERATOR.normal(size=(60, 10)) @ GENERATOR.normal(size=(10, 1280)) / 3)[
    :, None
]  # they differ in ten ways
BLOT = GENERATOR.normal(size=(1, 1280))  # what differs from line to line far more than from style to style


def lines(forms, noise, seed, blot=0.0):
    """The descriptors of lines of some forms."""
    generator = np.random.default_rng(seed)
    blots = generator.normal(0, blot, (len(forms), 1, 1)) * BLOT
    return descriptors(STYLES[forms] + blots + generator.normal(0, noise, (len(forms), 14, 1280)))


@pytest.fixture(scope="module")
def writer_styles():
    """Learnt from forty forms that take no part in what follows."""
    forms = np.repeat(np.arange(20, 60), 4)
    return WriterStyles.learn(lines(forms, 1.0, 9, blot=5.0), forms)


def test_the_right_form_is_found_where_lines_are_like_it_and_by_chance_where_they_are_not(writer_styles):
    known_forms, forms = np.repeat(np.arange(20), 3), np.arange(20).repeat(5)
    known = lines(known_forms, 1.0, 1)
    clear = retrieve(
        writer_styles(lines(forms, 1.0, 2)), forms, known=writer_styles(known), known_forms=known_forms
    )
    assert (clear == 1).all()
    wrong = retrieve(
        writer_styles(lines(forms, 1.0, 2)),
        (forms + 1) % 20,
        known=writer_styles(known),
        known_forms=known_forms,
    )
    assert (wrong > 1).all()
    guessed = retrieve(
        writer_styles(np.random.default_rng(3).normal(size=(400, 2560))),
        np.arange(20).repeat(20),
        known=writer_styles(known),
        known_forms=known_forms,
    )
    assert np.mean(guessed == 1) == pytest.approx(1 / 20, abs=0.04)
    assert np.mean(guessed <= 5) == pytest.approx(5 / 20, abs=0.08)
    noisy = retrieve(
        writer_styles(lines(forms, 15.0, 4)), forms, known=writer_styles(known), known_forms=known_forms
    )
    assert 1 / 20 < np.mean(noisy == 1) < 1


def test_what_differs_within_forms_does_not_mislead(writer_styles):
    known_forms, forms = np.repeat(np.arange(20), 3), np.arange(20).repeat(5)
    known, queries = lines(known_forms, 1.0, 1, blot=5.0), lines(forms, 1.0, 2, blot=5.0)
    plain = WriterStyles(writer_styles.centre, writer_styles.spread, np.eye(2560))
    learnt, raw = (
        np.mean(retrieve(some(queries), forms, known=some(known), known_forms=known_forms) == 1)
        for some in (writer_styles, plain)
    )
    assert learnt == 1
    assert raw < 0.9


def test_directions_are_those_in_which_forms_differ(writer_styles):
    forms = np.arange(20).repeat(4)
    drawn = lines(forms, 1.0, 5, blot=5.0)
    fractions = []
    for seen in (writer_styles(drawn), drawn):
        seen = seen.reshape(20, 4, -1)
        fractions.append(seen.mean(axis=1).var(axis=0).sum() / seen.reshape(80, -1).var(axis=0).sum())
    assert writer_styles(drawn).shape == (80, 39)
    assert fractions[0] > 0.8 > 0.5 > fractions[1]


def test_lines_without_any_style_are_no_success(writer_styles):
    forms = np.arange(4)
    same = np.ones((4, 2560))
    known, known_forms = np.ones((8, 2560)), forms.repeat(2)
    ranks = retrieve(writer_styles(same), forms, known=writer_styles(known), known_forms=known_forms)
    assert (ranks > 1).all()


def test_descriptors_see_the_spread_over_the_columns():
    flat, varied = np.ones((1, 14, 1280)), np.ones((1, 14, 1280))
    varied[0, ::2] = 0
    varied[0, 1::2] = 2
    assert (descriptors(flat)[:, :1280] == descriptors(varied)[:, :1280]).all()
    assert (descriptors(varied)[:, 1280:] == 1).all()


def test_features_of_ink_are_those_of_its_line_image(extractor, made_up_lines):
    found = line_features(
        [
            made_up_lines[0],
            Ink(np.zeros((0, 2)), []),
            wide := Ink(np.tile([(5, 1), (5, -1)], (99, 1)), np.zeros(198)),
        ],
        extractor,
    )
    np.testing.assert_array_equal(
        found[0], extractor.of_line(images.pad_to_width(made_up_lines[0].line_image()))
    )
    assert wide.line_image().shape[1] > images.MAX_WIDTH
    assert found.shape == (3, 14, 1280)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("query_forms", "known_forms", "message"),
    [
        ([5], [0, 1], "no known lines of the form 5"),
        ([0], [0, 0], "1 known forms"),
        ([0, 1], [0, 1], "2 forms for 1 lines"),
    ],
)
def test_bad_input_is_named(query_forms, known_forms, message):
    with pytest.raises(HwdiffError, match=message):
        retrieve(np.ones((1, 3)), query_forms, known=np.ones((2, 3)), known_forms=known_forms)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((0, 14, 1280)), r"features of shape \(0, 14, 1280\)"),
        (np.full((1, 14, 1280), np.nan), "not finite"),
    ],
)
def test_bad_style_features_are_named(features, message):
    with pytest.raises(HwdiffError, match=message):
        descriptors(features)


@pytest.mark.parametrize("forms", [np.arange(20), np.repeat(np.arange(5), 4)])
def test_styles_are_not_learnt_from_too_little(forms):
    with pytest.raises(HwdiffError, match=f"20 lines of {len(set(forms))} forms"):
        WriterStyles.learn(np.ones((20, 30)), forms)


def test_unrelated_lines_are_at_distance_one_whatever_the_features_measure():
    generator = np.random.default_rng(0)
    sizes = np.array([1, 1000, 1e-3, 0.0])  # the last one never varies
    known = generator.normal(size=(400, 4)) * sizes
    styles = WriterStyles.learn(known, np.arange(400) // 4)
    distances = styles.distances(generator.normal(size=(300, 4)) * sizes)
    assert distances.shape == (300 * 299 // 2,)
    assert np.sqrt(np.mean(distances**2)) == pytest.approx(np.sqrt(3 / 4), rel=0.05)
    assert styles.distances(np.array([[0, 0, 0, 0], [0, 0, 0, 9]])) == [0]


def test_places_between_two_writer_styles():
    generator = np.random.default_rng(0)
    first, second = (place + generator.normal(0, 0.01, (5, 14, 1280)) for place in (0.0, 2.0))
    middle = 0.5 + generator.normal(0, 0.01, (3, 14, 1280))
    assert place_between(middle, first, second) == pytest.approx([0.75] * 3, abs=0.01)
    for same in (first, np.zeros((4, 14, 1280))):
        with pytest.raises(HwdiffError, match="both styles are the same"):
            place_between(middle, same, same)
    with pytest.raises(HwdiffError, match="one line of a style"):
        place_between(middle, first[:1], second)


def test_noise_does_not_draw_places_towards_the_middle():
    generator = np.random.default_rng(0)
    found = []
    for _ in range(40):  # four lines of each style, that differ more than the styles do
        first, second, ends = (generator.normal(place, 2, (4, 2, 1280)) for place in (0.0, 1.0, 0.0))
        found.append(
            [place_between(ends, first, second).mean(), place_between(ends + 1, first, second).mean()]
        )
    assert np.mean(found, axis=0) == pytest.approx([1, 0], abs=0.1)


def test_one_feature_does_not_outweigh_the_rest():
    styles = WriterStyles(np.zeros(4), np.array([1e-4, 1, 1, 1]), np.eye(4))
    [distance] = styles.distances(np.array([[0.1, 0, 0, 0], [0, 0, 0, 0]]))
    assert distance == pytest.approx(4 / np.sqrt(8))
