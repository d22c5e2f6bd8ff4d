import math

import pytest
import torch

from hwdiff.diffusion import process
from hwdiff.training import config as presets


def test_the_schedule_is_the_published_one():
    alpha_bar = process.alpha_bars()
    assert alpha_bar.shape == (61,)
    assert alpha_bar[0] == 1
    beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
    assert beta[0].item() == pytest.approx(0.02 + 1e-5)
    assert beta[-1].item() == pytest.approx(0.42)
    ratios = (beta[1:] - 0.02) / (beta[:-1] - 0.02)
    torch.testing.assert_close(ratios, torch.full_like(ratios, 40_000 ** (1 / 59)))
    assert alpha_bar[-1].item() == pytest.approx(0.0175199, abs=1e-6)


def test_the_schedule_equals_the_authors(reference):
    expected = torch.from_numpy(reference.arrays["schedule.alpha_bar"])
    torch.testing.assert_close(process.alpha_bars()[1:].float(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", ["paper", "released"])
def test_noise_levels_are_uniform_within_equally_likely_intervals(form):
    alpha_bar = process.alpha_bars()
    levels = process.draw_noise_levels(200_000, alpha_bar, torch.Generator().manual_seed(0), form)
    assert levels.shape == (200_000, 1, 1)
    values = levels.flatten().double()
    ladder = alpha_bar.sqrt() if form == "paper" else alpha_bar[1:]
    if form == "released":
        values = values**2
    counts = torch.histogram(values, ladder.flip(0)).hist
    expected = len(values) / (len(ladder) - 1)
    assert counts.sum() >= len(values) - 2  # all but what float32 rounds over an end
    assert (counts / expected - 1).abs().max() < 0.08
    top = values[values > ladder[1]]
    fraction = (top - ladder[1]) / (ladder[0] - ladder[1])
    assert fraction.mean().item() == pytest.approx(0.5, abs=0.02)
    assert (values.max() <= alpha_bar[1]) == (form == "released")


def test_noising_keeps_variance():
    clean, eps = torch.randn(2, 5000, 2).unbind()
    noisy = process.add_noise(clean[None], torch.tensor(0.6).view(1, 1, 1), eps[None])
    torch.testing.assert_close(noisy[0], 0.6 * clean + 0.8 * eps)


def test_the_loss_sums_over_x_and_y_and_weighs_each_example():
    eps = torch.zeros(2, 4, 2)
    predicted = torch.full((2, 4, 2), 2.0)
    pen_up = torch.ones(2, 4, 1)
    logit = torch.stack((torch.zeros(4, 1), torch.full((4, 1), math.log(3))))  # probabilities 1/2 and 3/4
    noise_level = torch.tensor([1.0, 0.5]).view(2, 1, 1)
    stroke, pen = process.loss_terms(eps, predicted, pen_up, logit, process.pen_weights(noise_level))
    assert stroke.item() == 8
    assert pen.item() == pytest.approx((math.log(2) + 0.25 * math.log(4 / 3)) / 2)
    _, released = process.loss_terms(eps, predicted, pen_up, logit, process.pen_weights(noise_level, "released"))
    assert released.item() == pytest.approx(0.625 * (math.log(2) + math.log(4 / 3)) / 2)


def test_the_loss_equals_the_authors(reference):
    arrays = {name: torch.from_numpy(array) for name, array in reference.arrays.items() if name.startswith("loss.")}
    weights = process.pen_weights(arrays["loss.alpha_bar"].sqrt(), "released")
    terms = process.loss_terms(arrays["loss.eps"], arrays["loss.score"], arrays["loss.pen_true"], arrays["loss.pen_pred"].logit(), weights)
    assert sum(terms).item() == pytest.approx(arrays["loss.value"].item(), rel=1e-5)


def test_the_learning_rate_is_the_published_one():
    assert presets.learning_rate(10_000) == pytest.approx(6.25e-4)
    assert presets.learning_rate(5_000) == pytest.approx(3.125e-4)
    assert presets.learning_rate(40_000) == pytest.approx(3.125e-4)


def test_the_learning_rate_equals_the_authors(reference):
    arrays = reference.arrays
    assert [presets.learning_rate(float(step)) for step in arrays["lr.step"]] == pytest.approx(arrays["lr.value"].tolist(), rel=1e-6)
