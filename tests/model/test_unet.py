import numpy as np
import pytest
import torch

from hwdiff.model.config import ModelConfig
from hwdiff.model.unet import UNet
from hwdiff.utils.errors import HwdiffError
from tests.conftest import TINY


def inputs(batch=2, points=24, length=9, seed=0):
    generator = np.random.default_rng(seed)
    text = generator.integers(3, 73, (batch, length))
    text[-1, -3:] = 0
    return (
        torch.from_numpy(generator.normal(size=(batch, points, 2)).astype(np.float32)),
        torch.from_numpy(text),
        torch.from_numpy(generator.random((batch, 1, 1), dtype=np.float32)),
        torch.from_numpy(generator.random((batch, 14, 1280), dtype=np.float32)),
    )


def test_the_published_size():
    assert sum(weight.numel() for weight in UNet().parameters()) == 10_028_451


@torch.inference_mode()
def test_outputs_are_those_of_the_day_they_were_checked(network):
    """Small golden numbers from fixed weights, taken when the network equalled the authors' to 2e-6."""
    eps, pen_up, attention = network(*inputs())
    assert (eps.shape, pen_up.shape, attention.shape) == ((2, 24, 2), (2, 24, 1), (2, 6, 3, 9))
    close = {"atol": 2e-5, "rtol": 0}
    expected = torch.tensor([-1.604724, -1.008172, -1.28865, -2.204332])
    torch.testing.assert_close(eps[0, :2].flatten(), expected, **close)
    torch.testing.assert_close(pen_up[1, :3, 0], torch.tensor([0.625662, 0.561604, 0.610818]), **close)
    torch.testing.assert_close(attention[0, 0, 0, :3], torch.tensor([0.234039, 0.169929, 0.037964]), **close)


@torch.inference_mode()
def test_the_attention_of_every_block_is_available(network):
    eps, _, every = network.predict(*inputs(), attention="all")
    plain_eps, _, last = network.predict(*inputs(), attention=True)
    middle = [(2, 6, 3, 9)] * len(network.middle)
    assert [tuple(weights.shape) for weights in every] == [(2, 3, 12, 9), (2, 4, 6, 9), *middle]
    torch.testing.assert_close(every[-1], last)
    torch.testing.assert_close(eps, plain_eps, atol=1e-5, rtol=1e-4)
    for weights in every:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


def test_fused_attention_changes_nothing(network):
    eps, pen_up, _ = network(*inputs())
    fused_eps, fused_pen_up, attention = network(*inputs(), attention=False)
    assert attention is None
    torch.testing.assert_close(eps, fused_eps, atol=1e-5, rtol=0)
    torch.testing.assert_close(pen_up, fused_pen_up, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_padded_text_is_not_seen(network):
    strokes, text, noise_level, style = inputs(batch=1)
    padded = torch.cat((text[:, :6], torch.zeros(1, 5, dtype=torch.long)), dim=1)
    for whole, cut in zip(
        network(strokes, padded, noise_level, style),
        network(strokes, text[:, :6], noise_level, style),
        strict=True,
    ):
        torch.testing.assert_close(whole[..., : cut.shape[-1]], cut, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_every_input_matters(network):
    arguments = inputs()
    before = network(*arguments)[0]
    for i in range(4):
        changed = list(arguments)
        changed[i] = (arguments[i] + 1) % 70 if i == 1 else arguments[i] * 0.5
        assert (network(*changed)[0] - before).abs().max() > 1e-3


@torch.inference_mode()
def test_the_position_variant_is_architecture(network):
    other = UNet(ModelConfig(**{**network.settings, "position_variant": "text"})).eval()
    other.load_state_dict(network.state_dict())
    assert (other(*inputs())[0] - network(*inputs())[0]).abs().max() > 1e-3


def test_bad_sizes_are_refused(network):
    with pytest.raises(HwdiffError, match="23 points; their number must divide by 8"):
        network(*inputs(points=23))
    for wrong in ({"c1": 30}, {"c2": 50}, {"c3": 0}, {"num_layers": 0}, {"position_variant": "both"}):
        with pytest.raises(HwdiffError, match=next(iter(wrong))):
            ModelConfig(**{**vars(TINY), **wrong})
