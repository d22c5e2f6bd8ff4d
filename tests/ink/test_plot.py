import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from hwdiff import HwdiffError, Ink
from hwdiff.data.figures import compare_line_images
from hwdiff.evaluation.error_rates import Recognition
from hwdiff.evaluation.figures import plot_recognition
from hwdiff.evaluation.recognizer import ALPHABET
from hwdiff.ink import plot
from hwdiff.training.figures import plot_loss, read_metrics


@pytest.fixture
def figure():
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([1, 2, 3])
    return figure


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_figure_gives_the_same_bytes(figure, tmp_path, suffix):
    plot.save_figure(figure, tmp_path / "new" / f"a.{suffix}")
    plot.save_figure(figure, tmp_path / f"b.{suffix}")
    assert (tmp_path / "new" / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    with pytest.raises(HwdiffError, match="saved as"):
        plot.save_figure(figure, tmp_path / "a.pdf")


def test_line_images_are_compared(dataset, extractor):
    image = dataset.line_image(0)
    figure, cosines = compare_line_images({"same": (image, image), "other": (image, dataset.line_image(5))}, extractor)
    assert cosines["same"] == pytest.approx(1)
    assert cosines["other"] < 0.999
    assert len(figure.axes) == 4


def test_pages_of_ink_have_a_place_for_each_line():
    inks = [Ink([(0, 0), (3, 1)], [True, False], f"line {i}") for i in range(5)]
    figure = plot.plot_inks(inks, columns=2, title="a page")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [ink.text for ink in inks]


def test_the_loss_curve_shows_the_run_and_the_port(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"step": step, "loss": 2 / step}) + "\n" for step in range(1, 301)))
    metrics = read_metrics(tmp_path)
    np.testing.assert_array_equal(metrics["step"], np.arange(1, 301))
    each, mean, port = plot_loss(metrics).axes[0].lines
    assert each.get_ydata()[9] == 0.2
    assert mean.get_ydata()[9] == pytest.approx(np.mean([2 / step for step in range(1, 11)]))
    assert list(port.get_xdata()) == [100, 200, 300]
    with pytest.raises(HwdiffError, match="no training metrics"):
        read_metrics(tmp_path / "none")


def test_a_reading_is_drawn_with_its_characters_and_their_probabilities(tmp_path):
    # Two letters of three points each, the pen lifted between them, and a dot that no segment shows.
    ink = Ink([(0, 0), (1, 2), (1, -2), (2, 0), (1, 2), (1, -2), (1, 3)], [True, False, False, True, False, False, True], "cost $\\5 or $6")
    classes = np.zeros((4, len(ALPHABET) + 1), dtype=np.float32)
    a, b, c = (ALPHABET.index(character) + 1 for character in "abc")
    classes[0, a], classes[2, b], classes[2, c] = 0.9, 0.6, 0.3
    figure = plot_recognition(ink, Recognition("ab", np.array([0.9, 0.6]), np.array([0, 4]), np.array([0, 2]), classes))
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
    plot.save_figure(figure, tmp_path / "recognition.png")


def test_a_line_in_which_nothing_was_read_is_drawn_too(tmp_path):
    nothing = Recognition("", np.zeros(0), np.zeros(0, dtype=int), np.zeros(0, dtype=int), np.zeros((0, len(ALPHABET) + 1)))
    plot.save_figure(plot_recognition(Ink([(0, 0), (1, 2)], [True, False], "a"), nothing), tmp_path / "a.png")
    plot.save_figure(plot_recognition(Ink(np.zeros((0, 2)), [], "a"), nothing), tmp_path / "b.png")
