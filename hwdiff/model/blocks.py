"""The blocks of the network: Fig. 6 to 8 of Luhman & Luhman 2020.

Sequences are (B, N, C) throughout; `emb` is the embedded noise level, (B, 1, E).
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NOISE_HIDDEN = 2048
VECTOR = 32  # numbers that a CPU's vectorised loop takes at a time


def layer_norm(features: int) -> nn.LayerNorm:
    """LayerNorm without learned scale or shift: those come from the affine transform after it."""
    return nn.LayerNorm(features, eps=1e-6, elementwise_affine=False)


class Linear(nn.Linear):
    """A linear map of the channels of x (B, N, C).

    When a CPU writes, each line gets a matrix product of its own, so that on most processors its bits do not
    depend on the other lines. One product of all lines rounds differently for other B, and 60 guided steps
    make a rounding visible.
    """

    def forward(self, x: Tensor) -> Tensor:
        return line_by_line(self, x) if writes_on_cpu(x) else super().forward(x)


def writes_on_cpu(x: Tensor) -> bool:
    """Whether x is float32 on a CPU and nothing is trained, so that lines are multiplied one by one."""
    plain = x.device.type == "cpu" and x.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def line_by_line(linear: nn.Linear, x: Tensor) -> Tensor:
    """The linear map of x (B, N, C), a matrix product for each of the B lines."""
    return torch.baddbmm(linear.bias, x, linear.weight.t().expand(len(x), -1, -1))


def product(left: Tensor, right: Tensor) -> Tensor:
    """left (B, heads, N, M) times right (B, heads, M, L), line by line as above: (B, heads, N, L)."""
    if not writes_on_cpu(left):
        return left @ right
    return torch.stack([one @ other for one, other in zip(left, right, strict=True)])


class NoiseEmbedding(nn.Module):
    """The noise level sqrt(alpha_bar), (B, 1, 1), to emb (B, 1, features)."""

    def __init__(self, features: int):
        super().__init__()
        self.hidden = Linear(1, NOISE_HIDDEN)
        self.out = Linear(NOISE_HIDDEN, features)

    def forward(self, noise_level: Tensor) -> Tensor:
        # In whole SIMD vectors: a CPU rounds the remainder differently, and a line's bits must not depend on
        # how many lines there are.
        swish = F.silu(noise_level.expand(-1, -1, VECTOR))[..., :1]
        return self.out(F.silu(self.hidden(swish)))


class Affine(nn.Module):
    """Fig. 6: scale and shift the channels of x (B, N, C) by two linear maps of emb (B, 1, E), kept as one.

    The scale starts near 1.
    """

    def __init__(self, channels: int, emb: int):
        super().__init__()
        self.scale_shift = Linear(emb, 2 * channels)
        with torch.no_grad():
            nn.init.ones_(self.scale_shift.bias[:channels])
            nn.init.zeros_(self.scale_shift.bias[channels:])

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.scale_shift(emb).chunk(2, dim=-1)
        return torch.addcmul(shift, x, scale)


class Conv(Linear):
    """A convolution of width 3 over (B, N, C), zero-padded: a linear map of each point and its neighbours.

    weight: (channels_out, 3 channels_in), the three points one after the other.
    """

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(3 * channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        if writes_on_cpu(x):
            padded = F.pad(x, (0, 0, 1, 1))
            return line_by_line(self, torch.cat((padded[:, :-2], x, padded[:, 2:]), dim=-1))
        # As a convolution of images of height 1 whose channels lie last, neither x nor weight need be copied.
        image, weight = x.mT.unsqueeze(2), self.weight.unflatten(1, (3, -1)).mT.unsqueeze(2)
        return F.conv2d(image, weight, self.bias, padding=(0, 1)).squeeze(2).mT


class ConvBlock(nn.Module):
    """Fig. 7: (B, N, C) to (B, N, features)."""

    def __init__(self, channels: int, features: int, emb: int):
        super().__init__()
        self.skip = Conv(channels, features)
        self.conv1 = Conv(channels, features // 2)
        self.affine1 = Affine(features // 2, emb)
        self.conv2 = Conv(features // 2, features)
        self.affine2 = Affine(features, emb)
        self.dense = Linear(features, features)
        self.affine3 = Affine(features, emb)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        skip = self.skip(x)
        x = self.affine1(self.conv1(F.silu(x)), emb)
        x = self.affine2(self.conv2(F.silu(x)), emb)
        x = self.affine3(self.dense(F.silu(x)), emb)
        return x + skip


def position_encoding(
    length: int,
    channels: int,
    factor: float,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Sines in the even channels, cosines in the odd, (length, channels).

    Their angle in channel i is factor * position / 10000^(2 floor(i / 2) / channels).
    """
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

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (Linear(channels, channels) for _ in range(4))

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        mask: Tensor | None = None,
        weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from `query` to `key`.

        query: (B, N, C).
        key, value: (B, L, C).
        mask: (B, 1, 1, L) bool, False where a key is not to be seen.
        weights: return the attention weights too; without them a fused kernel is faster.
        Returns (B, N, C), and the attention weights (B, heads, N, L) or None.
        """
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        # In bf16 on a CPU the fused kernel's backward pass alone would take a third of a training step.
        if weights or (q.dtype is torch.bfloat16 and q.device.type == "cpu"):
            scores = product(q, k.transpose(-1, -2)) / q.shape[-1] ** 0.5
            if mask is not None:
                scores = scores.masked_fill(~mask, -torch.inf)
            attention = scores.softmax(dim=-1)
            attended = product(attention, v)
        else:
            attention = None
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(attended.transpose(1, 2).flatten(2)), attention if weights else None


class FeedForward(nn.Module):
    """swish, Linear(hidden), swish, Linear(channels_out)."""

    def __init__(self, channels_in: int, hidden: int, channels_out: int):
        super().__init__()
        self.hidden = Linear(channels_in, hidden)
        self.out = Linear(hidden, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.silu(self.hidden(F.silu(x))))


class AttentionBlock(nn.Module):
    """Fig. 8: strokes (B, N, channels) attend to the text (B, L, text_channels) and to themselves.

    position_factor: 4, 2 or 1, how many times as many cells the strokes have here as at the deepest level.
    position_variant: which positions it multiplies, those of the "strokes" (the released code) or of the
        "text" (the paper).
    """

    def __init__(
        self,
        text_channels: int,
        channels: int,
        *,
        heads: int,
        emb: int,
        position_factor: float,
        position_variant: str,
    ):
        super().__init__()
        self.stroke_factor, self.text_factor = (
            (position_factor, 1) if position_variant == "strokes" else (1, position_factor)
        )
        self.text_dense = Linear(text_channels, channels)
        self.text_affine = Affine(channels, emb)
        self.cross_attention = MultiHeadAttention(channels, heads)
        self.affine1 = Affine(channels, emb)
        self.self_attention = MultiHeadAttention(channels, heads)
        self.affine2 = Affine(channels, emb)
        self.feed_forward = FeedForward(channels, 2 * channels, channels)
        self.affine3 = Affine(channels, emb)
        self.norm = layer_norm(channels)

    def forward(
        self,
        x: Tensor,
        text: Tensor,
        emb: Tensor,
        *,
        mask: Tensor | None,
        weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Returns (B, N, channels), and the attention to the text (B, heads, N, L) if `weights`, or None."""
        alike = {"device": x.device, "dtype": x.dtype}
        stroke_positions = position_encoding(x.shape[1], x.shape[2], self.stroke_factor, **alike)
        text_positions = position_encoding(text.shape[1], x.shape[2], self.text_factor, **alike)
        text = self.text_affine(self.norm(self.text_dense(F.silu(text))), emb)
        attended, attention = self.cross_attention(
            x + stroke_positions, text + text_positions, text, mask=mask, weights=weights
        )
        x2 = self.affine1(self.norm(attended), emb) + x
        x2_at = x2 + stroke_positions
        attended, _ = self.self_attention(x2_at, x2_at, x2)
        x3 = self.affine2(self.norm(x2 + attended), emb)
        return self.affine3(self.norm(x3 + self.feed_forward(x3)), emb), attention
