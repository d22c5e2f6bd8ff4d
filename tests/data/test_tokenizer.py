import numpy as np

from hwdiff.data import tokenizer
from tests.conftest import golden


def test_tokens_follow_the_published_order():
    assert tokenizer.VOCABULARY_SIZE == 73
    assert tokenizer.encode("_aZ09- ").tolist() == [2, 3, 54, 55, 64, 71, 72, 1]


def test_unknown_characters_become_underscore_and_are_named_once():
    assert tokenizer.encode("a#b").tolist() == [3, 2, 4, 1]
    assert tokenizer.unknown_characters("#a_€#") == ["#", "_", "€"]


def test_decode_stops_at_the_end_token():
    assert tokenizer.decode(tokenizer.encode("To be, or not", ends=2)) == "To be, or not"


def test_padding():
    padded = tokenizer.pad([tokenizer.encode("ab"), tokenizer.encode("c")])
    assert padded.tolist() == [[3, 4, 1], [5, 1, 0]]


def test_tokens_equal_the_authors(shared):
    arrays = golden(shared / "golden" / "preprocessing.npz")
    assert str(arrays["tokenizer.text"]) == tokenizer.ALPHABET
    names = [
        name.removesuffix(".text")
        for name in arrays
        if name.endswith(".text") and not name.startswith("tokenizer")
    ]
    assert len(names) == 8
    for name in names:
        np.testing.assert_array_equal(tokenizer.encode(str(arrays[f"{name}.text"])), arrays[f"{name}.tokens"])
    encoded = arrays["tokenizer.encoded"]
    assert tokenizer.encode(tokenizer.decode(encoded)).tolist() == encoded.tolist()
