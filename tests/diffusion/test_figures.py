import numpy as np
import pytest

from hwdiff.diffusion import process
from hwdiff.diffusion.figures import plot_forward, plot_schedule
from hwdiff.ink.ink import Ink
from hwdiff.ink.plot import plot_curve
from hwdiff.training.figures import plot_validation


def test_the_schedule_is_the_published_one():
    signal, noise = plot_schedule(process.alpha_bars()).axes[0].lines
    assert signal.get_ydata()[0] == 1
    np.testing.assert_allclose(np.square(signal.get_ydata()) + np.square(noise.get_ydata()), 1)
    beta = plot_schedule(process.alpha_bars()).axes[1].lines[0].get_ydata()
    assert beta[0] == pytest.approx(0.02001)
    assert beta[-1] == pytest.approx(0.42)


def test_the_forward_process_starts_with_the_line():
    ink = Ink(np.tile([[1.0, 0.0], [0.0, 1.0]], (10, 1)), np.arange(20) % 5 == 0)
    figure = plot_forward(ink, steps=(0, 60), seed=0)
    drawn = [np.concatenate([line.get_xydata() for line in axes.lines]) for axes in figure.axes]
    np.testing.assert_allclose(drawn[0], np.cumsum(ink.offsets, axis=0))
    noisy = np.diff(drawn[1], axis=0)
    assert abs(np.corrcoef(noisy.ravel(), ink.offsets[1:].ravel())[0, 1]) < 0.6
    assert "100 % of the variance is signal" in figure.axes[0].get_title(loc="left")


def test_validation_losses_are_drawn_by_noise_level():
    rows = [
        {"step": step, "stroke": {"5": 1.0 / step, "60": 0.1}, "pen": {"60": 0.01, "5": 0.05}}
        for step in (1, 2)
    ]
    stroke, pen = plot_validation(rows, {5: 1.7, 60: 0.03}).axes
    assert [line.get_ydata()[0] for line in stroke.lines[:2]] == [1.0, 0.5]
    assert list(stroke.lines[2].get_ydata()) == [1.7, 0.03]
    assert len(pen.lines) == 2
    assert pen.lines[0].get_xdata().tolist() == [5, 60]
    assert pen.lines[0].get_ydata().tolist() == [0.05, 0.01]


def test_curves_have_names_and_bands():
    figure = plot_curve([1, 2], {"a": [1, 2], "b": [2, 1]}, "x", "y")
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["a", "b"]
    assert plot_curve([1, 2], [1, 2], "x", "y", [0, 1], [2, 3]).axes[0].collections
