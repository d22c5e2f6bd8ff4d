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


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_noise_levels_are_uniform_within_equally_likely_intervals(variant):
    alpha_bar = process.alpha_bars()
    generator = torch.Generator().manual_seed(0)
    levels = process.draw_noise_levels(200_000, alpha_bar, generator, variant=variant)
    assert levels.shape == (200_000, 1, 1)
    values = levels.flatten().double()
    ladder = alpha_bar.sqrt() if variant == "paper" else alpha_bar[1:]
    if variant == "released":
        values = values**2
    counts = torch.histogram(values, ladder.flip(0)).hist
    expected = len(values) / (len(ladder) - 1)
    assert counts.sum() >= len(values) - 2  # all but what float32 rounds over an end
    assert (counts / expected - 1).abs().max() < 0.08
    top = values[values > ladder[1]]
    fraction = (top - ladder[1]) / (ladder[0] - ladder[1])
    assert fraction.mean().item() == pytest.approx(0.5, abs=0.02)
    assert (values.max() <= alpha_bar[1]) == (variant == "released")


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
    weights = process.pen_weights(noise_level, "released")
    _, released = process.loss_terms(eps, predicted, pen_up, logit, weights)
    assert released.item() == pytest.approx(0.625 * (math.log(2) + math.log(4 / 3)) / 2)


def test_the_loss_equals_the_authors(reference):
    def array(name):
        return torch.from_numpy(reference.arrays[f"loss.{name}"])

    weights = process.pen_weights(array("alpha_bar").sqrt(), "released")
    logit = array("pen_pred").logit()
    terms = process.loss_terms(array("eps"), array("score"), array("pen_true"), logit, weights)
    assert sum(terms).item() == pytest.approx(array("value").item(), rel=1e-5)


def test_the_learning_rate_is_the_published_one():
    assert presets.learning_rate(10_000) == pytest.approx(6.25e-4)
    assert presets.learning_rate(5_000) == pytest.approx(3.125e-4)
    assert presets.learning_rate(40_000) == pytest.approx(3.125e-4)


def test_the_learning_rate_equals_the_authors(reference):
    arrays = reference.arrays
    rates = [presets.learning_rate(float(step)) for step in arrays["lr.step"]]
    assert rates == pytest.approx(arrays["lr.value"].tolist(), rel=1e-6)
