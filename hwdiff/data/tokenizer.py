"""Characters to tokens: 73 in all, in the order of the authors' program."""

import numpy as np

PADDING, END, UNKNOWN = 0, 1, 2
ALPHABET = "_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.?!,'\"- "  # `_` stands for every unknown character
VOCABULARY_SIZE = len(ALPHABET) + 2
_TOKEN_OF = {character: token for token, character in enumerate(ALPHABET, start=UNKNOWN)}


def encode(text, ends=1):
    """Tokens of `text`: (len(text) + ends,) int64, closed by `ends` end tokens (1 in training; the released inference uses 2)."""
    return np.array([_TOKEN_OF.get(character, UNKNOWN) for character in text] + [END] * ends, dtype=np.int64)


def decode(tokens):
    """The text of `tokens` up to the first end token; unknown characters come back as `_`."""
    characters = []
    for token in tokens:
        if token in (PADDING, END):
            break
        characters.append(ALPHABET[int(token) - UNKNOWN])
    return "".join(characters)


def unknown_characters(text):
    """The characters of `text` that the alphabet lacks (`_` is one: it stands for them), each once, in order of appearance."""
    return [character for character in dict.fromkeys(text) if _TOKEN_OF.get(character, UNKNOWN) == UNKNOWN]


def pad(token_lists, length=None):
    """Stack token arrays into (B, L) int64, padded with 0; L is `length` or that of the longest."""
    length = length or max(len(tokens) for tokens in token_lists)
    padded = np.full((len(token_lists), length), PADDING, dtype=np.int64)
    for row, tokens in zip(padded, token_lists, strict=True):
        row[: len(tokens)] = tokens
    return padded


def without_text(text):
    """Empty texts, whose only token is the end, in the shape of `text` (B, L), a tensor: what a line that is taught without its text says."""
    empty = text.new_full(text.shape, PADDING)
    empty[:, 0] = END
    return empty
