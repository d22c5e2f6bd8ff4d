from itertools import product

import numpy as np
import pytest
import torch

from hwdiff import HwdiffError
from hwdiff.data import tokenizer
from hwdiff.diffusion import process, samplers
from hwdiff.diffusion.generate import seeded_noise
from hwdiff.model.keras_import import load_reference


def gaussian_network(mean, deviation):
    """The best possible network for normal ink of this mean and deviation: its eps has a closed form."""

    def network(y, text, noise_level, style, attention=True):
        variance = noise_level**2 * deviation**2 + 1 - noise_level**2
        eps = (1 - noise_level**2).sqrt() * (y - noise_level * mean) / variance
        return eps, torch.sigmoid(y[..., :1]), None

    return network


def run(sampler, network, steps, points=4000, **options):
    noise = seeded_noise([0, 1], points, "cpu")
    start, alpha_bar = noise(None).double(), samplers.schedule(steps)
    return sampler(network, start, None, None, alpha_bar, lambda t: noise(t).double(), **options)


@pytest.mark.parametrize(
    ("name", "sampler", "options"),
    [("new", samplers.sample_eq12, {"released": True}), ("standard", samplers.sample_eq9, {})],
)
@torch.inference_mode()
def test_the_recorded_loops_come_out(reference, name, sampler, options):
    def array(key):
        return torch.from_numpy(reference.arrays[f"sample.{key}"])

    network = load_reference(reference.weights)
    draws = iter(array(f"{name}.noise"))
    given = (next(draws), array("text").long(), array("style"), process.alpha_bars().float())
    offsets, pen_up = sampler(network, *given, lambda t: next(draws), **options)
    expected = array(f"{name}.output")
    assert (offsets - expected[..., :2]).abs().max() / expected[..., :2].abs().max() < reference.tolerance
    assert (pen_up[..., 0] - expected[..., 2]).abs().max() < reference.tolerance


def test_the_released_program_adds_no_noise_at_t_2():
    network = gaussian_network(0.7, 0.4)
    paper, released = (
        run(samplers.sample_eq12, network, 60, points=8, released=released)[0] for released in (False, True)
    )
    assert (paper - released).abs().max() > 1e-3
    asked = []
    noise = seeded_noise([0], 8, "cpu")

    def watched(t):
        asked.append(t)
        return noise(t)

    given = (noise(None), None, None, samplers.schedule(60), watched)
    samplers.sample_eq12(network, *given, released=True)
    assert asked == list(range(60, 2, -1))


def eq12_deviation(deviation, steps):
    """The deviation of normal ink written by Eq. 12, by recursion.

    Noising the *expected* clean ink at each step loses some variance.
    """
    alpha_bar, variance = samplers.schedule(steps), 1.0
    for t in range(steps, 0, -1):
        gain = alpha_bar[t].sqrt() * deviation**2 / (alpha_bar[t] * deviation**2 + 1 - alpha_bar[t])
        variance = alpha_bar[t - 1] * gain**2 * variance + 1 - alpha_bar[t - 1]
    return float(variance) ** 0.5


@pytest.mark.parametrize("name", samplers.SAMPLERS)
@pytest.mark.parametrize("steps", [60, 200])
def test_the_samplers_reach_a_known_distribution(name, steps):
    offsets, _ = run(samplers.SAMPLERS[name], gaussian_network(0.7, 0.4), steps)
    expected = eq12_deviation(0.4, steps) if name.startswith("eq12") else 0.4
    assert offsets.mean().item() == pytest.approx(0.7, abs=0.06)
    assert offsets.std().item() == pytest.approx(expected, abs=0.035)


def test_deterministic_samplers_follow_the_ode_with_few_steps():
    """For normal ink the flow is known: y_0 = mean + deviation (y_T - l_T mean) / s_T.

    Halving the steps shows the order.
    """
    alpha = process.alpha_bars()[-1]
    start = seeded_noise([0, 1], 4000, "cpu")(None).double()
    exact = 0.7 + 0.4 * (start - alpha.sqrt() * 0.7) / (alpha * 0.16 + 1 - alpha).sqrt()

    def error(name, steps):
        offsets, _ = run(samplers.SAMPLERS[name], gaussian_network(0.7, 0.4), steps)
        return (offsets - exact).square().mean().sqrt().item()

    errors = {name: [error(name, steps) for steps in (10, 20, 40)] for name in ("ddim", "dpm")}
    assert errors["ddim"][2] < errors["ddim"][1] < errors["ddim"][0] < 0.15
    assert all(second < first for first, second in zip(errors["ddim"], errors["dpm"], strict=True))


def test_schedules_keep_the_published_ends():
    published = process.alpha_bars()
    for steps, spacing in product((2, 5, 20, 100), samplers.SPACINGS):
        levels = samplers.schedule(steps, spacing)
        assert len(levels) == steps + 1
        assert levels[0] == 1
        assert (levels.diff() < 0).all()
        torch.testing.assert_close(levels[[1, -1]], published[[1, -1]])
    assert torch.equal(samplers.schedule(60), published)
    assert samplers.schedule(1).tolist() == pytest.approx([1, published[-1].item()])
    with pytest.raises(HwdiffError, match="no such spacing as 'even'"):
        samplers.schedule(60, "even")


def test_schedules_are_even_in_what_they_say():
    published = process.alpha_bars()
    levels = {spacing: samplers.schedule(30, spacing)[1:] for spacing in samplers.SPACINGS}
    for even in (torch.logit(levels["log-snr"]), ((1 - levels["karras"]) / levels["karras"]) ** (1 / 14)):
        torch.testing.assert_close(even.diff(), even.diff().mean().expand(29))
    # Evenly in t: 30 of 60 levels lie 59 / 29 apart.
    assert published[10] > levels["time"][5] > published[12]
    torch.testing.assert_close(samplers.schedule(59 * 2 + 1, "time")[1::2], published[1:])


@torch.inference_mode()
def test_the_callback_sees_each_step(network):
    seen = []
    noise = seeded_noise([0], 16, "cpu")
    text = torch.tensor([[3, 4, 1]])
    given = (noise(None), text, network.default_style[None], samplers.schedule(5).float(), noise)
    offsets, _ = samplers.sample_ddim(network, *given, callback=seen.append)
    assert [step.t for step in seen] == [5, 4, 3, 2, 1]
    for step in seen:
        assert (step.y.shape, step.clean.shape, step.pen_up.shape) == ((1, 16, 2), (1, 16, 2), (1, 16, 1))
        assert step.attention[-1].shape == (1, 6, 2, 3)
    assert [weights.shape for weights in seen[0].attention] == [(1, 3, 8, 3), (1, 4, 4, 3), (1, 6, 2, 3)]
    assert not np.array_equal(seen[-1].y, offsets)
    # The last step of DDIM goes to the clean ink itself.
    torch.testing.assert_close(seen[-1].clean, offsets)


def test_guidance_goes_beyond_the_text():
    asked = []

    def network(y, text, noise_level, style, attention=True):
        asked.append((text.tolist(), attention))
        words = (text > tokenizer.END).sum(dim=1).view(-1, 1, 1)
        assert len(y) == len(noise_level) == len(style) == 4
        pen_up = torch.full_like(y[..., :1], 0.1) * words
        return y * 0 + words, pen_up, [words, words + 1] if attention else None

    y, text = torch.zeros(2, 8, 2), torch.tensor([[3, 4, 1, 0], [5, 6, 7, 1]])
    noise_level, style = torch.ones(2, 1, 1), torch.ones(2, 14, 1280)
    eps, pen_up, attention = samplers.guided(network, 3.0)(y, text, noise_level, style, attention="all")
    # From 0 for no text past 2 and 3 letters: three times as far.
    assert (eps[0] == 6).all()
    assert (eps[1] == 9).all()
    assert pen_up[:, 0, 0].tolist() == pytest.approx([0.2, 0.3])
    assert [weights.flatten().tolist() for weights in attention] == [[2, 3], [3, 4]]
    assert samplers.guided(network, 3.0)(y, text, noise_level, style, attention=False)[2] is None
    assert asked == [([*text.tolist(), [1, 0, 0, 0], [1, 0, 0, 0]], wanted) for wanted in ("all", False)]
    assert samplers.guided(network, 1) is network


@pytest.mark.parametrize(("weight", "evaluations"), [(1.0, 2), (3.0, 3)])
def test_guidance_by_the_style_goes_beyond_it(weight, evaluations):
    def network(y, text, noise_level, style, attention=True):
        assert len(y) == len(text) == len(noise_level) == len(style) == 2 * evaluations
        words, ink = (text > tokenizer.END).sum(dim=1).view(-1, 1, 1), style.mean(dim=(1, 2)).view(-1, 1, 1)
        return y * 0 + 10 * ink + words, ink.expand(-1, 8, 1), None

    y, text = torch.zeros(2, 8, 2), torch.tensor([[3, 4, 1, 0], [5, 6, 7, 1]])
    style = torch.stack((torch.ones(14, 1280), torch.full((14, 1280), 2.0)))
    eps, pen_up, _ = samplers.guided(network, weight, 1.5)(y, text, torch.ones(2, 1, 1), style)
    assert (eps[0] == 15 + weight * 2).all()
    assert (eps[1] == 30 + weight * 3).all()
    assert pen_up[:, 0, 0].tolist() == [1, 2]
    assert samplers.network_evaluations(60, weight, 1.5) == 60 * evaluations
    assert samplers.network_evaluations(60, 1) == 60


def test_published_levels_of_some_steps():
    published = process.alpha_bars()
    assert torch.equal(samplers.published_levels(range(60, 0, -1)), published)
    found = samplers.published_levels([60, 30, 1])
    assert torch.equal(found, published[[0, 1, 30, 60]])
    assert found[0] == 1 and (found.diff() < 0).all()


@pytest.mark.parametrize(("name", "last"), [("eq12", 2), ("eq12-released", 3)])
def test_only_the_released_program_leaves_out_noise(name, last):
    asked, noise = [], seeded_noise([0], 8, "cpu")

    def watched(t):
        asked.append(t)
        return noise(t)

    network = gaussian_network(0.7, 0.4)
    samplers.SAMPLERS[name](network, noise(None), None, None, samplers.schedule(5), watched)
    assert asked == list(range(5, last - 1, -1))
