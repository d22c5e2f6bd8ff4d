import numpy as np
import pytest

from hwdiff.evaluation import error_rates as measures
from hwdiff.evaluation.error_rates import Recognition, legibility, recognize
from hwdiff.evaluation.recognizer import ALPHABET, BLANK, Recognizer, RecognizerConfig
from hwdiff.ink.ink import Ink
from hwdiff.utils.errors import HwdiffError


def ink(text, length=20):
    generator = np.random.default_rng(len(text))
    return Ink(generator.normal(0, 1, (length, 2)), np.zeros(length, dtype=bool), text)


@pytest.fixture
def judged(monkeypatch):
    """legibility of (text, what is read) pairs, without ink."""

    def judge(pairs, **options):
        monkeypatch.setattr(
            measures,
            "recognize",
            lambda inks, recognizer: [Recognition(found, None, None, None, None) for _, found in pairs],
        )
        return legibility(
            [ink(text) for text, _ in pairs],
            Recognizer(RecognizerConfig(c1=4, c2=4, c3=4, convolutions=0, hidden=4, layers=1)),
            **options,
        )

    return judge


def test_rates_are_edits_as_a_fraction_of_the_text(judged):
    result = judged([("hand writing", "hand writing"), ("pen and ink", "pan nd inkk")])
    assert result.lines == 2
    assert result.characters == 23
    assert result.cer.value == pytest.approx(3 / 23)  # e as a, a left out, k put in
    assert result.wer.value == pytest.approx(3 / 5)
    assert result.confusions == [("", "k", 1), ("a", "", 1), ("e", "a", 1)]
    assert result.by_character["a"] == (2, 1)
    assert result.by_character["e"] == (1, 1)
    assert result.by_character["k"] == (1, 0)  # one too many is no fault of the one that was written
    assert result.by_length == {"11-20": (2, pytest.approx(3 / 23))}
    assert result.recognized == ["hand writing", "pan nd inkk"]


def test_both_sides_are_normalised_alike(judged):
    result = judged([("  a “b”\n€ ", 'a  "b" _')])
    assert result.cer.value == result.wer.value == 0
    assert result.outside == {"€": 1}
    assert judged([("ABC", "abc")]).cer.value == 1


def test_nothing_read_is_all_wrong_and_too_much_is_worse(judged):
    assert judged([("abc", "")]).cer.value == 1
    assert judged([("abc", "xxxxxx")]).cer.value == 2


def test_lines_count_by_length(judged):
    result = judged([("a" * 10, "a" * 10), ("a" * 11, "b" * 11), ("a" * 41, "a" * 41)])
    assert result.by_length == {"1-10": (1, 0), "11-20": (1, 1), "41 and more": (1, 0)}


def test_the_interval_is_that_of_the_bootstrap(judged):
    generator = np.random.default_rng(0)
    edits = generator.random(200) < 0.3
    pairs = [("a", "b" if wrong else "a") for wrong in edits]
    options = {"resamples": 2000, "groups": range(200)}
    result = judged(pairs, **options)
    # For single characters the bootstrap is binomial.
    deviation = np.sqrt(edits.mean() * (1 - edits.mean()) / 200)
    assert result.cer.low == pytest.approx(edits.mean() - 1.96 * deviation, abs=0.01)
    assert result.cer.high == pytest.approx(edits.mean() + 1.96 * deviation, abs=0.01)
    assert judged(pairs, **options).cer == result.cer
    assert judged(pairs, **options, seed=1).cer != result.cer


def test_lines_of_a_group_are_drawn_together(judged):
    # Ten writers who always fail and ten who never do, twenty lines each: as if there were twenty lines.
    pairs = [("a", "b" if writer < 10 else "a") for writer in range(20) for _ in range(20)]
    lines, writers = (
        judged(pairs, groups=range(400)).cer,
        judged(pairs, groups=[writer for writer in range(20) for _ in range(20)]).cer,
    )
    assert lines.value == writers.value == 0.5
    assert writers.high - writers.low == pytest.approx(20**0.5 * (lines.high - lines.low), rel=0.2)


def test_lines_of_one_text_are_drawn_together(judged):
    pairs = [
        (letter, letter if letter < "k" else "-") for letter in "abcdefghijklmnopqrst" for _ in range(20)
    ]
    assert judged(pairs).cer == judged(pairs, groups=[text for text, _ in pairs]).cer
    assert judged([("a", "a"), ("a", "b")]).cer.low is None


def test_the_floor_compares_with_the_texts_of_others(judged):
    result = judged([("aaaa", "aaaa"), ("bbbb", "bbbb"), ("cccc", "cccc")])
    assert result.cer.value == 0
    assert result.floor.value == 1
    # Lines with the same text: only what says something else is compared.
    assert judged([("aaaa", "aaaa"), ("aaaa", "aaaa"), ("bbbb", "bbbb")] * 20).floor.value == 1
    assert judged([("aaaa", "aaaa")]).floor is None
    assert judged([("aaaa", "aaaa"), (" aaaa", "aaaa")]).floor is None


def test_the_ceiling_is_that_of_real_ink(made_up_lines, recognizer):
    result = legibility(made_up_lines[:4], recognizer, real=made_up_lines[4:8], resamples=100)
    assert result.ceiling == legibility(made_up_lines[4:8], recognizer, resamples=100).cer
    assert result.ceiling_of == "4 real lines"
    alike = legibility(
        made_up_lines[:4], recognizer, real=made_up_lines[4:8], real_groups=[1, 1, 2, 2], resamples=100
    )
    assert (
        alike.ceiling
        == legibility(made_up_lines[4:8], recognizer, [1, 1, 2, 2], resamples=100).cer
        != result.ceiling
    )
    alone = legibility(made_up_lines[:4], recognizer)
    assert alone.ceiling.value == recognizer.metadata["test"]["cer"]["value"]
    assert "1263 real lines on which the recognizer was tested" in alone.table()
    assert alone.summary() == {
        "lines": 4,
        "characters": alone.characters,
        "cer": vars(alone.cer),
        "wer": vars(alone.wer),
    }


def test_what_cannot_be_judged_is_refused(recognizer):
    with pytest.raises(HwdiffError, match="there is no ink"):
        legibility([], recognizer)
    with pytest.raises(HwdiffError, match="ink 1 has no text"):
        legibility([ink("a"), ink("  ")], recognizer)
    with pytest.raises(HwdiffError, match="1 groups for 2 inks"):
        legibility([ink("a"), ink("b")], recognizer, groups=["x"])


def test_how_a_line_is_read_does_not_depend_on_the_others(made_up_lines, recognizer):
    together = recognize(made_up_lines, recognizer)
    for number in (0, 9, 20):
        [alone] = recognize([made_up_lines[number]], recognizer)
        assert alone.text == together[number].text
        assert alone.points.tolist() == together[number].points.tolist()
        np.testing.assert_allclose(alone.classes, together[number].classes, atol=1e-4)


def test_a_recognition_tells_where_and_how_surely(made_up_lines, recognizer):
    line = made_up_lines[0]
    [recognition] = recognize([line], recognizer)
    assert len(recognition.text) == len(recognition.probabilities) == len(recognition.points) > 10
    assert recognition.classes.shape == (-(-len(line) // 2), len(ALPHABET) + 1)
    assert (np.diff(recognition.points) > 0).all()
    assert recognition.points.max() < len(line)
    for character, probability, row in zip(
        recognition.text, recognition.probabilities, recognition.rows, strict=True
    ):
        assert (
            recognition.classes[row, ALPHABET.index(character) + 1]
            == probability
            == recognition.classes[row].max()
        )


def test_a_letter_told_twice_needs_ctcs_blank_between():
    a, b = ALPHABET.index("a") + 1, ALPHABET.index("b") + 1
    classes = np.full((7, len(ALPHABET) + 1), 0.001, dtype=np.float32)
    for row, best in enumerate([a, a, BLANK, a, b, BLANK, ALPHABET.index(" ") + 1]):
        classes[row, best] = 0.5 + 0.01 * row
    recognition = measures._decode(classes, np.arange(100, 114))
    assert recognition.text == "aab"
    assert recognition.rows.tolist() == [1, 3, 4]  # where each is most probable
    assert recognition.points.tolist() == [102, 106, 108]


@pytest.mark.parametrize("ending", [0, 1, 37])
def test_pen_up_moves_at_the_end_are_not_read(made_up_lines, recognizer, ending):
    line = made_up_lines[0]
    longer = Ink(
        np.concatenate((line.offsets, np.ones((ending, 2)))),
        np.concatenate((line.pen_up, np.ones(ending, dtype=bool))),
        line.text,
    )
    assert recognize([longer], recognizer)[0].text == recognize([line], recognizer)[0].text


def test_neither_size_nor_place_matters_nor_the_way_through_a_file(made_up_lines, recognizer, tmp_path):
    few = made_up_lines[:12]
    before = [recognition.text for recognition in recognize(few, recognizer)]
    elsewhere = np.array([[50, -300]])
    moved = [
        Ink(np.concatenate((ink.offsets[:1] + elsewhere, ink.offsets[1:])) * 7.3, ink.pen_up) for ink in few
    ]
    assert [recognition.text for recognition in recognize(moved, recognizer)] == before
    for number, ink in enumerate(few):
        ink.save(tmp_path / f"{number}.svg")
    again = [
        recognition.text
        for recognition in recognize(
            [Ink.load(tmp_path / f"{number}.svg") for number in range(12)], recognizer
        )
    ]
    assert sum(a != b for a, b in zip(again, before, strict=True)) <= 1  # files keep positions to 0.001


def test_a_pen_that_rests_on_the_paper_changes_nothing(made_up_lines, recognizer):
    [before] = recognize(made_up_lines[:1], recognizer)
    line = made_up_lines[0]
    resting = Ink(
        np.concatenate((line.offsets, np.zeros((2 * len(line), 2)))),
        np.concatenate((line.pen_up, np.zeros(2 * len(line), dtype=bool))),
    )
    [after] = recognize([resting], recognizer)
    assert after.text == before.text
    assert after.points.tolist() == before.points.tolist()


@pytest.mark.parametrize(
    ("offsets", "pen_up"),
    [
        (np.zeros((0, 2)), []),
        ([[1, 1]], [False]),
        ([[1, 1]] * 40, [True] * 40),
        ([[0, 0]] * 40, [False] * 40),
        ([[1, 0]] * 40, [False] * 40),
    ],
)
def test_ink_without_extent_is_read_as_nothing(offsets, pen_up, recognizer):
    empty = Ink(offsets, pen_up, "text")
    assert recognize([empty, empty], recognizer)[1].text == ""
    assert legibility([empty], recognizer).cer.value == 1


def test_ink_of_two_points_is_read(recognizer):
    assert len(recognize([Ink([[0, 0], [1, 1]], [True, False])], recognizer)[0].text) <= 2


def test_ink_that_goes_on_for_ever_is_refused(recognizer):
    with pytest.raises(
        HwdiffError, match=r"ink 1: 5000 points, but at most 2000 are read at a time; break it into lines"
    ):
        recognize([ink("a"), ink("a", 5000)], recognizer)
    assert recognize([ink("a", 2000)], recognizer)[0].classes.shape[0] == 1000


def test_real_ink_is_read(iam_dataset, recognizer):
    """The claim of the model card, on the lines that the recognizer has not seen."""
    indices = iam_dataset.split("test")
    result = legibility(
        [iam_dataset.ink(index) for index in indices], recognizer, groups=iam_dataset.forms[indices]
    )
    assert result.lines == 1263
    assert result.cer.value < 0.10
    assert result.cer.value == pytest.approx(recognizer.metadata["test"]["cer"]["value"], abs=0.002)
    assert result.floor.value > 0.85
    seen = iam_dataset.split("train")[::40]
    assert legibility([iam_dataset.ink(index) for index in seen], recognizer).cer.value < result.cer.value
