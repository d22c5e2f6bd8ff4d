"""The blocks of the network: Fig. 6 (conditional affine), Fig. 7 (conv block) and Fig. 8 (attention block) of Luhman & Luhman 2020.

Sequences are (B, N, C) throughout; `emb` is the embedded noise level, (B, 1, E).
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

NOISE_HIDDEN = 2048


def layer_norm(features):
    """LayerNorm without learned scale or shift: those come from the affine transform after it."""
    return nn.LayerNorm(features, eps=1e-6, elementwise_affine=False)


class NoiseEmbedding(nn.Module):
    """The noise level sqrt(alpha_bar), (B, 1, 1), to emb (B, 1, features)."""

    def __init__(self, features):
        super().__init__()
        self.hidden = nn.Linear(1, NOISE_HIDDEN)
        self.out = nn.Linear(NOISE_HIDDEN, features)

    def forward(self, noise_level):
        return self.out(F.silu(self.hidden(F.silu(noise_level))))


class Affine(nn.Module):
    """Fig. 6: scale and shift the channels of x (B, N, C) by two linear maps of emb (B, 1, E), kept as one. The scale starts near 1."""

    def __init__(self, channels, emb):
        super().__init__()
        self.scale_shift = nn.Linear(emb, 2 * channels)
        with torch.no_grad():
            self.scale_shift.bias.copy_(torch.cat((torch.ones(channels), torch.zeros(channels))))

    def forward(self, x, emb):
        scale, shift = self.scale_shift(emb).chunk(2, dim=-1)
        return torch.addcmul(shift, x, scale)


class Conv(nn.Linear):
    """A convolution of width 3 with zero padding over (B, N, C): a linear map of each point and its two neighbours.

    weight: (channels_out, 3 channels_in), the three neighbours one after the other.
    """

    def __init__(self, channels_in, channels_out):
        super().__init__(3 * channels_in, channels_out)

    def forward(self, x):
        padded = F.pad(x, (0, 0, 1, 1))
        return super().forward(torch.cat((padded[:, :-2], x, padded[:, 2:]), dim=-1))


class ConvBlock(nn.Module):
    """Fig. 7: (B, N, C) to (B, N, features)."""

    def __init__(self, channels, features, emb):
        super().__init__()
        self.skip = Conv(channels, features)
        self.conv1 = Conv(channels, features // 2)
        self.affine1 = Affine(features // 2, emb)
        self.conv2 = Conv(features // 2, features)
        self.affine2 = Affine(features, emb)
        self.dense = nn.Linear(features, features)
        self.affine3 = Affine(features, emb)

    def forward(self, x, emb):
        skip = self.skip(x)
        x = self.affine1(self.conv1(F.silu(x)), emb)
        x = self.affine2(self.conv2(F.silu(x)), emb)
        x = self.affine3(self.dense(F.silu(x)), emb)
        return x + skip


def position_encoding(length, channels, factor, device, dtype):
    """(length, channels): sin in the even channels i and cos in the odd of factor * position / 10000^(2 floor(i / 2) / channels)."""
    compute = _position_encoding if torch.compiler.is_compiling() else _kept_position_encoding
    return compute(length, channels, factor, device, dtype)


def _position_encoding(length, channels, factor, device, dtype):
    position = torch.arange(length, dtype=torch.float32, device=device)[:, None] * factor
    channel = torch.arange(channels, device=device)
    angle = position / 10000 ** (2 * (channel // 2) / channels)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).to(dtype)


_kept_position_encoding = lru_cache(maxsize=64)(_position_encoding)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention with projections for query, key, value and output, over `heads` heads."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, query, key, value, mask=None, weights=False):
        """query (B, N, C), key and value (B, L, C), mask (B, 1, 1, L) bool, False where a key is not to be seen.

        Returns (B, N, C), and the attention weights (B, heads, N, L) if `weights`, else None: then the fused kernel does it all,
        except in bf16 on a CPU, where its backward pass alone would take a third of a training step.
        """
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        if weights or (q.dtype is torch.bfloat16 and q.device.type == "cpu"):
            scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            if mask is not None:
                scores = scores.masked_fill(~mask, -torch.inf)
            attention = scores.softmax(dim=-1)
            attended = attention @ v
        else:
            attention = None
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(attended.transpose(1, 2).flatten(2)), attention if weights else None


class FeedForward(nn.Module):
    """swish, Linear(hidden), swish, Linear(channels_out)."""

    def __init__(self, channels_in, hidden, channels_out):
        super().__init__()
        self.hidden = nn.Linear(channels_in, hidden)
        self.out = nn.Linear(hidden, channels_out)

    def forward(self, x):
        return self.out(F.silu(self.hidden(F.silu(x))))


class AttentionBlock(nn.Module):
    """Fig. 8: strokes (B, N, channels) attend to the text (B, L, text_channels) and to themselves.

    position_factor: strokes are shorter here than text by this factor, so that either the stroke angles (position_variant "strokes", the
    released code) or the text positions ("text", the paper) are multiplied by it.
    """

    def __init__(self, text_channels, channels, heads, emb, position_factor, position_variant):
        super().__init__()
        self.stroke_factor, self.text_factor = (position_factor, 1) if position_variant == "strokes" else (1, position_factor)
        self.text_dense = nn.Linear(text_channels, channels)
        self.text_affine = Affine(channels, emb)
        self.cross_attention = MultiHeadAttention(channels, heads)
        self.affine1 = Affine(channels, emb)
        self.self_attention = MultiHeadAttention(channels, heads)
        self.affine2 = Affine(channels, emb)
        self.feed_forward = FeedForward(channels, 2 * channels, channels)
        self.affine3 = Affine(channels, emb)
        self.norm = layer_norm(channels)

    def forward(self, x, text, emb, mask, weights=False):
        """Returns (B, N, channels) and the text-to-stroke attention (B, heads, N, L) if `weights`, else None."""
        stroke_positions = position_encoding(x.shape[1], x.shape[2], self.stroke_factor, x.device, x.dtype)
        text_positions = position_encoding(text.shape[1], x.shape[2], self.text_factor, x.device, x.dtype)
        text = self.text_affine(self.norm(self.text_dense(F.silu(text))), emb)
        attended, attention = self.cross_attention(x + stroke_positions, text + text_positions, text, mask, weights)
        x2 = self.affine1(self.norm(attended), emb) + x
        x2_at = x2 + stroke_positions
        attended, _ = self.self_attention(x2_at, x2_at, x2)
        x3 = self.affine2(self.norm(x2 + attended), emb)
        return self.affine3(self.norm(x3 + self.feed_forward(x3)), emb), attention
