import math

import pytest
import torch
import torch.nn.functional as F

from hwdiff.model import blocks


def test_conv_is_a_convolution_of_width_three():
    conv = blocks.Conv(5, 7)
    x = torch.randn(2, 9, 5)
    kernel = conv.weight.unflatten(1, (3, 5)).transpose(1, 2)  # (out, in, width)
    expected = F.conv1d(x.transpose(1, 2), kernel, conv.bias, padding=1).transpose(1, 2)
    torch.testing.assert_close(conv(x), expected)


def test_the_affine_transform_starts_near_one():
    affine = blocks.Affine(6, 4)
    x = torch.randn(2, 3, 6)
    assert torch.equal(affine(x, torch.zeros(2, 1, 4)), x)
    emb = torch.randn(2, 1, 4)
    scale, shift = affine.scale_shift(emb).split(6, dim=-1)
    torch.testing.assert_close(affine(x, emb), x * scale + shift)


def test_position_encoding():
    encoding = blocks.position_encoding(5, 6, 4, device=torch.device("cpu"), dtype=torch.float32)
    assert encoding[3, 2].item() == pytest.approx(math.sin(4 * 3 / 10000 ** (2 / 6)))
    assert encoding[3, 5].item() == pytest.approx(math.cos(4 * 3 / 10000 ** (4 / 6)))


def test_fused_attention_equals_the_spelt_out():
    attention = blocks.MultiHeadAttention(12, 3)
    query, text = torch.randn(2, 8, 12), torch.randn(2, 5, 12)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])[:, None, None]
    with torch.no_grad():
        out, weights = attention(query, text, text, mask=mask, weights=True)
        fused, none = attention(query, text, text, mask=mask)
    assert none is None
    torch.testing.assert_close(out, fused)
    assert weights.shape == (2, 3, 8, 5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 8))
    assert (weights[1, :, :, 3:] == 0).all()


@pytest.mark.parametrize("variant", ["strokes", "text"])
def test_the_position_factor_multiplies_what_it_should(variant):
    block = blocks.AttentionBlock(12, 12, heads=3, emb=4, position_factor=4, position_variant=variant)
    assert (block.stroke_factor, block.text_factor) == ((4, 1) if variant == "strokes" else (1, 4))
    x, text, emb = torch.randn(1, 8, 12), torch.randn(1, 5, 12), torch.randn(1, 1, 4)
    out, weights = block(x, text, emb, mask=None, weights=True)
    assert out.shape == (1, 8, 12)
    assert weights.shape == (1, 3, 8, 5)
