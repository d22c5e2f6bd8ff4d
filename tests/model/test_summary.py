import numpy as np
import pytest
import torch

from hwdiff.model.config import ModelConfig
from hwdiff.model.figures import plot_network
from hwdiff.model.summary import attention_to_style, conditioning, layers, receptive_field
from hwdiff.model.unet import UNet


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return UNet(ModelConfig(c1=32, c2=48, c3=64, num_layers=2)).eval()


def test_the_parts_of_the_published_network_add_up():
    assert sum(layer.parameters for layer in layers(UNet(), 64, tokens=4)) == 10_028_451


def test_shapes_and_sources_are_those_of_figure_9(small):
    found = {layer.name: layer for layer in layers(small, 64, tokens=5)}
    assert found["encoder"].shape == (5, 96)
    assert [found[name].shape for name in ("down1", "down2", "down3", "middle.1")] == [
        (64, 32),
        (32, 48),
        (16, 64),
        (8, 96),
    ]
    assert set(found["middle.1"].sources) == {"middle.0", "encoder"}
    assert set(found["up3"].sources) == {"middle.1", "skip3"}
    assert found["skip1"].sources == ("down1",)
    assert found["eps_out"].sources == found["pen_out"].sources == ("up1",)


def test_every_part_is_a_box_of_the_diagram(small):
    parts = layers(small, 64)
    [axes] = plot_network(parts, 64).axes
    assert len(axes.patches) == len(parts)
    named = {text.get_text().split("\n")[0] for text in axes.texts}
    assert {part.name for part in parts} <= named


def test_convolutions_alone_see_few_points(small):
    before, after = receptive_field(small, 512)
    assert receptive_field(small, 256) == (before, after)
    assert 20 < after <= before < 60
    # Attention is back afterwards: the first point changes the prediction at the last.
    strokes = torch.zeros(2, 256, 2)
    strokes[1, 0] = 5
    text, level, style = torch.full((2, 3), 4), torch.full((2, 1, 1), 0.5), torch.zeros(2, 14, 1280)
    with torch.no_grad():
        eps, _, _ = small(strokes, text, level, style)
    assert not torch.equal(eps[0, -1], eps[1, -1])
    assert all(weight.grad is None or not weight.grad.any() for weight in small.parameters())


def test_scales_and_shifts_are_those_that_are_applied(small):
    level = torch.tensor([0.3, 0.9])
    found = conditioning(small, level)
    scale, shift = found["down1.affine1"]
    assert scale.shape == shift.shape == (2, 16)
    x = torch.randn(1, 4, 16)
    with torch.no_grad():
        emb = small.noise_embedding(level[1].view(1, 1, 1))
        applied = small.down1.affine1(x, emb)
    torch.testing.assert_close(applied[0], x[0] * scale[1] + shift[1])


def test_attention_to_the_style_is_shared_out_over_its_columns(small):
    style = torch.zeros(14, 1280)
    weights = attention_to_style(small, torch.tensor([3, 4, 1]), style, 0.5)
    assert weights.shape == (3, 14)
    np.testing.assert_allclose(weights.sum(dim=1), 1, rtol=1e-5)
    np.testing.assert_allclose(weights, 1 / 14, rtol=1e-5)  # all columns are alike
    style[3] = 2.0
    changed = attention_to_style(small, torch.tensor([3, 4, 1]), style, 0.5)
    assert (changed[:, 3] - changed[:, 4]).abs().min() > 1e-4
    assert not small.encoder.attention._forward_pre_hooks
