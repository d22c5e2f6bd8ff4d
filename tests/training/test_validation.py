from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hwdiff import HwdiffError
from hwdiff.diffusion import process
from hwdiff.training.validation import NOISE_STEPS, gradient_norms, linear_baseline


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
    with pytest.raises(HwdiffError, match="too few lines of 33 points or more among 1"):
        linear_baseline(Lines(np.zeros((5, 2))), np.array([0]))
    with pytest.raises(HwdiffError, match="too few lines of 33 points"):
        linear_baseline(Lines(np.random.default_rng(0).normal(size=(40, 2))), np.array([0]))


class OneBatch:
    """`Lines` of one batch: white noise, with the pen up at a tenth of the points."""

    device = torch.device("cpu")

    def batch(self, indices):
        strokes = torch.randn(len(indices), 2000, 2, generator=torch.Generator().manual_seed(1))
        pen_up = (torch.arange(2000) % 10 == 0).float().expand(len(indices), 2000)[..., None]
        return SimpleNamespace(strokes=strokes, pen_up=pen_up, text=None, style=None)


class Gains(nn.Module):
    """Predicts the noise as a multiple of what is seen, the pen without seeing anything; both begin at 0."""

    def __init__(self):
        super().__init__()
        self.gain, self.logit = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(()))

    def predict(self, noisy, text, noise_level, style):
        return self.gain * noisy, self.logit.expand(*noisy.shape[:2], 1), None


def test_gradients_of_each_term():
    norms = gradient_norms(Gains(), OneBatch(), [np.arange(8), np.arange(8)])
    for t, (stroke, pen) in norms.items():
        # d/dgain of |eps - gain noisy|^2 is -2 eps noisy: -2 sqrt(1 - alpha_bar) for each coordinate.
        noise = (1 - process.alpha_bars()[t].item()) ** 0.5
        assert stroke == pytest.approx(2 * noise * 2**0.5, abs=0.1)
        # d/dlogit of the cross-entropy is p - flag, with p = 1/2, whatever the noise level.
        assert pen == pytest.approx(0.4, abs=1e-6)


def test_gradients_depend_on_the_seed_alone():
    first = gradient_norms(Gains(), OneBatch(), [np.arange(8)], seed=3)
    torch.rand(5)  # whatever else draws numbers
    assert gradient_norms(Gains(), OneBatch(), [np.arange(8)], seed=3) == first
    assert gradient_norms(Gains(), OneBatch(), [np.arange(8)], seed=4) != first
