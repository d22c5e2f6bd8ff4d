"""Characters to tokens: 73 in all, in the order of the authors' program."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

TensorLike = TypeVar("TensorLike")  # a torch.Tensor; torch takes long to load

PADDING, END, UNKNOWN = 0, 1, 2
# `_` stands for every unknown character.
ALPHABET = "_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.?!,'\"- "
VOCABULARY_SIZE = len(ALPHABET) + 2
_TOKEN_OF = {character: token for token, character in enumerate(ALPHABET, start=UNKNOWN)}


def encode(text: str, ends: int = 1) -> np.ndarray:
    """Tokens of a text, (len(text) + ends,) int64.

    ends: end tokens after the text, 1 in training; the released inference uses 2.
    """
    return np.array([_TOKEN_OF.get(character, UNKNOWN) for character in text] + [END] * ends, dtype=np.int64)


def decode(tokens: Iterable[int]) -> str:
    """The text of `tokens` up to the first end token. Unknown characters come back as `_`."""
    characters = []
    for token in tokens:
        if token in (PADDING, END):
            break
        characters.append(ALPHABET[int(token) - UNKNOWN])
    return "".join(characters)


def unknown_characters(text: str) -> list[str]:
    """The characters that the alphabet lacks, each once, in order of appearance.

    `_` is one of them, since it stands for them.
    """
    return [character for character in dict.fromkeys(text) if _TOKEN_OF.get(character, UNKNOWN) == UNKNOWN]


def pad(token_lists: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    """Stack lists of tokens into (B, L) int64, padded with 0 to the longest."""
    padded = np.full((len(token_lists), max(map(len, token_lists))), PADDING, dtype=np.int64)
    for row, tokens in zip(padded, token_lists, strict=True):
        row[: len(tokens)] = tokens
    return padded


def without_text(text: TensorLike) -> TensorLike:
    """Empty texts, whose only token is the end, in the shape of the tensor `text` (B, L).

    Classifier-free guidance needs them, in training and sampling.
    """
    empty = text.new_full(text.shape, PADDING)
    empty[:, 0] = END
    return empty
