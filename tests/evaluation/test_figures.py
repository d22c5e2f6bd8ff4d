import numpy as np
import pytest

from hwdiff import Ink
from hwdiff.evaluation.error_rates import Recognition
from hwdiff.evaluation.figures import plot_comparison, plot_recognition
from hwdiff.evaluation.recognizer import ALPHABET
from hwdiff.evaluation.sampler_comparison import sampler_rows
from hwdiff.evaluation.tables import GROUND_TRUTH, Table
from hwdiff.ink.plot import save_figure


def test_a_reading_is_drawn_with_its_characters_and_their_probabilities(tmp_path):
    # Two letters of three points each, the pen lifted between them, and a dot that no segment shows.
    ink = Ink(
        [(0, 0), (1, 2), (1, -2), (2, 0), (1, 2), (1, -2), (1, 3)],
        [True, False, False, True, False, False, True],
        "cost $\\5 or $6",
    )
    classes = np.zeros((4, len(ALPHABET) + 1), dtype=np.float32)
    a, b, c = (ALPHABET.index(character) + 1 for character in "abc")
    classes[0, a], classes[2, b], classes[2, c] = 0.9, 0.6, 0.3
    read = Recognition("ab", np.array([0.9, 0.6]), np.array([0, 4]), np.array([0, 2]), classes)
    figure = plot_recognition(ink, read)
    above, below = figure.axes
    assert above.get_title(loc="left") == "read as: ab\nmeant: cost $\\5 or $6"
    segments, dots = above.collections
    assert len(segments.get_segments()) == 4
    colours = [tuple(colour) for colour in segments.get_colors()]
    assert len(set(colours[:2])) == len(set(colours[2:])) == 1
    assert colours[0] != colours[2]
    assert len(dots.get_offsets()) == 1
    assert [bar.get_height() for bar in below.patches] == pytest.approx([0.9, 0.6, 0.3])
    assert [text.get_text() for text in below.texts] == ["a", "b", "c"]
    assert [bar.get_x() + bar.get_width() / 2 for bar in below.patches] == pytest.approx([0, 1, 1])
    save_figure(figure, tmp_path / "recognition.png")


def test_a_line_in_which_nothing_was_read_is_drawn_too(tmp_path):
    none = np.zeros(0, dtype=int)
    nothing = Recognition("", np.zeros(0), none, none, np.zeros((0, len(ALPHABET) + 1)))
    save_figure(plot_recognition(Ink([(0, 0), (1, 2)], [True, False], "a"), nothing), tmp_path / "a.png")
    save_figure(plot_recognition(Ink(np.zeros((0, 2)), [], "a"), nothing), tmp_path / "b.png")


def test_a_comparison_of_samplers_is_drawn_by_evaluations():
    rows = sampler_rows(["eq12", "dpm"], [8, 60], ["time", "karras"])
    settings = {
        "rows": {
            row: {"sampler": written.sampler, "levels": written.alpha_bar.tolist()}
            for row, written in rows.items()
        }
    }
    settings["writing"] = {"guidance": 2.5}
    rates = {"eq12_60": [0.1, 0.2], "eq12_8_time": [0.3, 0.4], GROUND_TRUTH: [0.04, 0.06]}
    values = {row: {"cer": rates.get(row, [0.5, 0.5])} for row in (GROUND_TRUTH, *rows)}
    [axes] = plot_comparison(Table("", settings, values)).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "real lines",
        *("eq12, time", "eq12, karras", "dpm, time", "dpm, karras"),
    ]
    [first, *_] = axes.containers
    np.testing.assert_allclose(first.lines[0].get_ydata(), [35, 15])
    np.testing.assert_allclose(first.lines[0].get_xdata(), [16, 120], rtol=0.02)  # 16: two a step
    assert axes.get_xticks().tolist() == [16, 120]
    spaced = {row: about for row, about in settings["rows"].items() if row.startswith("dpm_8")}
    settings["rows"] = {"eq12_60": settings["rows"]["eq12_60"], **spaced}
    [axes] = plot_comparison(Table("", settings, values)).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "real lines",
        *("eq12", "dpm, time", "dpm, karras"),  # of Eq. 12 no spacing was measured
    ]
    of_student = {"sampler": "eq12", "levels": [1.0] * 13, "guidance": 1.0}
    settings["rows"] = {"eq12_60": settings["rows"]["eq12_60"], "student": of_student}
    values["student"] = {"cer": [0.2, 0.2]}
    [axes] = plot_comparison(Table("", settings, values)).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["real lines", "eq12", "student"]
    settings["rows"] = {"eq12_60": settings["rows"]["eq12_60"]}
    [axes] = plot_comparison(Table("", settings, values)).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["real lines", "eq12"]
