"""The text-style encoder: Fig. 10 of Luhman & Luhman 2020."""

from torch import Tensor, nn

from hwdiff.data.tokenizer import VOCABULARY_SIZE
from hwdiff.model.blocks import Affine, FeedForward, MultiHeadAttention, layer_norm

STYLE_CHANNELS = 256  # the 1280 features of a column are read as five vectors of 256
HEADS = 8


class TextStyleEncoder(nn.Module):
    """Text that has looked at the style: tokens (B, L) and style (B, S, 1280) to (B, L, channels).

    The figure's dropout of style features is drawn with the noise of Algorithm 1 (`training.objective.draw`).
    """

    def __init__(self, channels: int, hidden: int, emb: int):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY_SIZE, channels)
        self.style_feed_forward = FeedForward(STYLE_CHANNELS, hidden, channels)
        self.style_affine = Affine(channels, emb)
        self.text_affine = Affine(channels, emb)
        self.attention = MultiHeadAttention(channels, HEADS)
        self.attention_affine = Affine(channels, emb)
        self.feed_forward = FeedForward(channels, 2 * channels, channels)
        self.out_affine = Affine(channels, emb)
        self.norm = layer_norm(channels)

    def forward(self, text: Tensor, style: Tensor, emb: Tensor) -> Tensor:
        style = style.unflatten(2, (-1, STYLE_CHANNELS)).flatten(1, 2)
        style = self.style_affine(self.norm(self.style_feed_forward(style)), emb)
        text = self.text_affine(self.norm(self.embedding(text)), emb)
        attended, _ = self.attention(text, style, style)
        text = self.attention_affine(self.norm(text + attended), emb)
        return self.out_affine(self.norm(self.feed_forward(text)), emb)  # no residual around this one
