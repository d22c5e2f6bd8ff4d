import numpy as np
import pytest

from hwdiff import HwdiffError
from hwdiff.diffusion import process
from hwdiff.training.validation import NOISE_STEPS, linear_baseline


class Lines:
    """Lines of a made-up process, as a dataset gives them."""

    path = "made-up.npz"

    def __init__(self, *lines):
        self.lines = lines

    def strokes(self, index):
        return self.lines[index], None


def test_of_independent_offsets_nothing_is_known_but_their_variance():
    generator = np.random.default_rng(0)
    found = linear_baseline(Lines(generator.normal(size=(200_000, 2))), np.array([0]), neighbours=2)
    for t in NOISE_STEPS:
        # With variance 1 the best predictor leaves alpha_bar of the noise in each coordinate.
        assert found[t] == pytest.approx(2 * process.alpha_bars()[t].item(), rel=0.02)


def test_it_is_what_least_squares_finds():
    generator = np.random.default_rng(1)
    line = np.cumsum(generator.normal(size=(60_000, 2)), axis=0)
    line = (line[4:] - line[:-4]) / 2  # neighbours are alike
    size, t = 7, 30
    signal = process.alpha_bars()[t].item()
    eps = generator.normal(size=line.shape)
    noisy = np.sqrt(signal) * line + np.sqrt(1 - signal) * eps
    windows = np.lib.stride_tricks.sliding_window_view(noisy, size, axis=0).reshape(-1, 2 * size)
    wanted = eps[3:-3]
    weights, *_ = np.linalg.lstsq(windows, wanted, rcond=None)
    left = np.square(wanted - windows @ weights).sum(axis=1).mean()
    found = linear_baseline(Lines(line), np.array([0]), neighbours=3)[t]
    assert found == pytest.approx(left, rel=0.02)
    assert found < linear_baseline(Lines(line), np.array([0]), neighbours=0)[t] - 0.1


def test_lines_that_are_too_short_are_refused():
    with pytest.raises(HwdiffError, match="no line of 1 has 33 points"):
        linear_baseline(Lines(np.zeros((5, 2))), np.array([0]))
