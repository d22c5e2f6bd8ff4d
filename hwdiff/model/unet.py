"""The network: Fig. 9 of Luhman & Luhman 2020, a U-Net over pen offsets that attends to the text."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from hwdiff.data.tokenizer import PADDING
from hwdiff.model.blocks import AttentionBlock, Conv, ConvBlock, Linear, NoiseEmbedding
from hwdiff.model.config import ModelConfig
from hwdiff.model.text_encoder import TextStyleEncoder
from hwdiff.utils.errors import HwdiffError

LENGTH_UNIT = 8


class UNet(nn.Module):
    """Predicts the noise in pen offsets, and the pen flag, from noisy offsets, text, noise level and style.

    eps, pen_up, attention = network(strokes, text, noise_level, style)

    strokes: (B, N, 2), N divisible by 8.
    text: (B, L) tokens, 0 is padding.
    noise_level: (B, 1, 1), sqrt(alpha_bar).
    style: (B, S, 1280), S = 14 columns of MobileNetV2 features.
    attention: True for that of the last block to the text, (B, 6, N / 8, L), as in Fig. 4; "all" for a list
        of every block's, (B, heads, N / 2, 4 or 8, L); False for None, which is faster.
    Returns eps (B, N, 2); pen_up (B, N, 1), probabilities; and the attention.
    """

    def __init__(self, config: ModelConfig | None = None):
        super().__init__()
        self.metadata: dict = {}  # of the checkpoint it came from
        self.default_style: Tensor | None = None  # (14, 1280): the style it writes in when none is given
        self.gallery: Path | None = None  # the file of its named styles, if they came with it
        self.config = config = config or ModelConfig()
        c1, c2, c3, emb = config.c1, config.c2, config.c3, config.c1 // 4
        text_channels = 2 * c2

        def attention_block(channels, heads, position_factor):
            return AttentionBlock(
                text_channels,
                channels,
                heads=heads,
                emb=emb,
                position_factor=position_factor,
                position_variant=config.position_variant,
            )

        self.noise_embedding = NoiseEmbedding(emb)
        self.encoder = TextStyleEncoder(text_channels, 4 * c2, emb)
        self.input = Linear(2, c1)
        self.down1 = ConvBlock(c1, c1, emb)
        self.down2 = ConvBlock(c1, c2, emb)
        self.attention2 = attention_block(c2, 3, 4)
        self.down3 = ConvBlock(c2, c3, emb)
        self.attention3 = attention_block(c3, 4, 2)
        self.middle_dense = Linear(c3, text_channels)
        self.middle = nn.ModuleList(attention_block(text_channels, 6, 1) for _ in range(config.num_layers))
        self.skip3 = Conv(c3, text_channels)
        self.up3 = ConvBlock(text_channels, c3, emb)
        self.skip2 = Conv(c2, c3)
        self.up2 = ConvBlock(c3, c2, emb)
        self.skip1 = Conv(c1, c2)
        self.up1 = ConvBlock(c2, c1, emb)
        self.eps_out = Linear(c1, 2)
        self.pen_out = Linear(c1, 1)

    @property
    def settings(self) -> dict:
        """The configuration as a dictionary, as checkpoints store it."""
        return asdict(self.config)

    def forward(
        self,
        strokes: Tensor,
        text: Tensor,
        noise_level: Tensor,
        style: Tensor,
        attention: bool | str = True,
    ) -> tuple[Tensor, Tensor, Tensor | list[Tensor] | None]:
        eps, pen_logit, weights = self.predict(strokes, text, noise_level, style, attention)
        return eps, torch.sigmoid(pen_logit), weights

    def predict(
        self,
        strokes: Tensor,
        text: Tensor,
        noise_level: Tensor,
        style: Tensor,
        attention: bool | str = False,
    ) -> tuple[Tensor, Tensor, Tensor | list[Tensor] | None]:
        """As `forward`, but pen_up as the logit of its probability, which the loss needs."""
        if strokes.shape[1] % LENGTH_UNIT:
            found = f"{strokes.shape[1]} points"
            raise HwdiffError(f"strokes: {found}; their number must divide by {LENGTH_UNIT}")
        mask = (text != PADDING)[:, None, None, :]
        # bf16 is too coarse to tell the lowest noise levels apart, or their noise from the ink.
        with _full_precision(strokes):
            emb, strokes = self.noise_embedding(noise_level), self.input(strokes)
        text = self.encoder(text, style, emb)
        h1 = self.down1(strokes, emb)
        every, seen = attention == "all", []

        def attend(block, x, wanted):
            x, weights = block(x, text, emb, mask=mask, weights=wanted)
            seen.append(weights)
            return x

        h2 = attend(self.attention2, self.down2(_halve(h1), emb), every)
        h3 = attend(self.attention3, self.down3(_halve(h2), emb), every)
        x = self.middle_dense(_halve(h3))
        for number, block in enumerate(self.middle, start=1):
            x = attend(block, x, every or (attention and number == len(self.middle)))
        x = self.up3(_double(x) + self.skip3(h3), emb)
        x = self.up2(_double(x) + self.skip2(h2), emb)
        x = self.up1(_double(x) + self.skip1(h1), emb)
        with _full_precision(x):
            x = x.to(self.eps_out.weight.dtype)
            eps, pen_logit = self.eps_out(x), self.pen_out(x)
        return eps, pen_logit, seen if every else seen[-1]


def _full_precision(tensor):
    return torch.autocast(tensor.device.type, enabled=False)


def _halve(x):
    """The averages of pairs of neighbours, (B, N, C) to (B, N / 2, C)."""
    return x.unflatten(1, (-1, 2)).mean(dim=2)


def _double(x):
    """Each point twice, (B, N, C) to (B, 2 N, C)."""
    return x.repeat_interleave(2, dim=1)
