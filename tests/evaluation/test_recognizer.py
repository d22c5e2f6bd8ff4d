import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hwdiff.evaluation import recognizer as recognizers
from hwdiff.evaluation.recognizer import (
    ALPHABET,
    BUNDLED,
    Recognizer,
    RecognizerConfig,
    encode,
    features,
    load_recognizer,
    normalise_text,
    outside,
    pad,
    save_recognizer,
)
from hwdiff.utils.errors import HwdiffError

SMALL = RecognizerConfig(c1=8, c2=8, c3=8, convolutions=1, hidden=8, layers=1)


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("  two\t spaces\n", "two spaces"),
        ("“so” – it’s [sic]", '"so" - it\'s (sic)'),
        ("5 € & 3 %", "5 _ _ 3 _"),
        ("e\u0301", "_"),  # one letter, however it is encoded
        ("Case, Counts!", "Case, Counts!"),
        (" ", ""),
    ],
)
def test_texts_are_normalised(text, normalised):
    assert normalise_text(text) == normalised
    assert normalise_text(normalised) == normalised


def test_characters_outside_the_alphabet_are_named():
    assert outside("5 € & _ 3 €") == ["€", "&", "€"]


def test_characters_have_classes_of_their_own():
    assert len(set(ALPHABET)) == len(ALPHABET)
    numbers = [number for number, character in enumerate(ALPHABET, start=1) if character != " "]
    assert encode(ALPHABET.replace(" ", "")).tolist() == numbers
    assert encode("€").tolist() == encode("_").tolist()


def line(seed=0, length=100):
    generator = np.random.default_rng(seed)
    return generator.normal(0.3, 1, (length, 2)).astype(np.float32), generator.random(length) < 0.1


def test_features_depend_neither_on_size_nor_on_place():
    offsets, pen_up = line()
    seen, points = features(offsets, pen_up)
    assert seen.shape == (100, recognizers.FEATURES)
    assert seen.dtype == np.float32
    assert points.tolist() == list(range(100))
    np.testing.assert_allclose(features(1000 * offsets, pen_up)[0], seen, atol=1e-5)
    offsets[0] += (50, -300)
    np.testing.assert_array_equal(features(offsets, pen_up)[0], seen)


def test_features_tell_what_is_written():
    offsets, pen_up = line()
    seen, _ = features(offsets, pen_up)
    for other in ((offsets * (1, -1), pen_up), (offsets[:, ::-1], pen_up), (offsets, ~pen_up)):
        assert np.abs(features(*other)[0] - seen).max() > 0.5


def test_points_at_which_the_pen_rests_are_left_out():
    offsets, pen_up = line()
    at = [1, 40, 40, 40, 99, 100, 100]
    resting = np.insert(offsets, at, np.random.default_rng(0).normal(0, 1e-5, (len(at), 2)), axis=0)
    pen = np.insert(pen_up, at, False)
    seen, points = features(resting, pen)
    np.testing.assert_allclose(seen, features(offsets, pen_up)[0], atol=1e-3)
    np.testing.assert_allclose(resting[points], offsets, atol=1e-6)


@pytest.mark.parametrize(
    "offsets",
    [np.zeros((0, 2)), np.zeros((1, 2)), np.ones((1, 2)), np.zeros((50, 2)), np.ones((50, 2)) * (1, 0)],
)
def test_ink_without_height_has_no_features(offsets):
    seen, points = features(offsets, np.zeros(len(offsets), dtype=bool))
    assert seen.shape == (0, recognizers.FEATURES)
    assert points.shape == (0,)


def test_a_pen_that_is_never_down_has_no_features():
    offsets, _ = line()
    assert not len(features(offsets, np.ones(len(offsets), dtype=bool))[0])


def test_lines_are_padded_to_a_multiple_of_32():
    padded = pad([features(*line(length=length))[0] for length in (50, 33)])
    assert padded.shape == (2, 64, recognizers.FEATURES)
    assert not padded[1, 33:].any()
    assert padded[1, :33].any(dim=1).all()


def test_characters_are_predicted_at_half_the_rate_of_the_points():
    network = Recognizer(SMALL).eval()
    x = torch.randn(3, 64, recognizers.FEATURES)
    assert network(x).shape == (3, 32, len(ALPHABET) + 1)
    assert network(x).exp().sum(dim=-1).sub(1).abs().max() < 1e-5
    # The whole line is seen from everywhere.
    x.requires_grad_()
    network(x)[0, 0].max().backward()
    assert x.grad[0, -1].abs().sum() > 0
    assert x.grad[1].abs().sum() == 0


def test_a_recognizer_is_saved_in_half_precision(tmp_path):
    torch.manual_seed(0)
    network = Recognizer(SMALL).eval()
    save_recognizer(network, tmp_path / "recognizer.safetensors", step=7)
    again = load_recognizer(tmp_path / "recognizer.safetensors", "cpu")
    assert again.metadata["step"] == 7
    x = torch.randn(2, 32, recognizers.FEATURES)
    assert (again(x) - network(x)).abs().max() < 0.02
    with safe_open(tmp_path / "recognizer.safetensors", "pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys() if "num_batches" not in name}  # noqa: SIM118
    assert kinds == {torch.half}


def test_the_bundled_recognizer(recognizer):
    assert BUNDLED.stat().st_size < 8e6
    assert sum(weight.numel() for weight in recognizer.parameters()) < 3e6
    assert recognizer.metadata["test"]["lines"] == 1263
    assert recognizer.metadata["test"]["cer"]["value"] < 0.10
    assert not recognizer.training
    counts = {split: len(forms) for split, forms in recognizer.metadata["forms"].items()}
    assert counts == {"train": 1448, "validation": 84}


def test_what_is_no_recognizer_is_refused(tmp_path):
    message = r"none.safetensors: not a whole recognizer .* hwdiff train-recognizer"
    with pytest.raises(HwdiffError, match=message):
        load_recognizer(tmp_path / "none.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(BUNDLED.read_bytes()[:1000])
    with pytest.raises(HwdiffError, match="not a whole recognizer"):
        load_recognizer(cut)
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(HwdiffError, match="not a recognizer; give"):
        load_recognizer(other)
    with safe_open(BUNDLED, "pt") as file:
        metadata = json.loads(file.metadata()["hwdiff"])
    save_file({"a": torch.zeros(1)}, other, metadata={"hwdiff": json.dumps(metadata)})
    with pytest.raises(HwdiffError, match="its weights do not fit its metadata"):
        load_recognizer(other)
    save_file({"a": torch.zeros(1)}, other, metadata={"hwdiff": json.dumps({**metadata, "alphabet": "abc"})})
    with pytest.raises(HwdiffError, match="recognizes another alphabet"):
        load_recognizer(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"hidden": 4096, "layers": 64}}, "do not fit its metadata"),
        (
            {"network": {"layers": 10**9}},
            r"metadata \(layers = 1000000000: must be at most 64",
        ),
        ({"network": {"c1": 0}}, "do not fit its metadata"),
        ({"network": 3}, r"not a whole recognizer \(network = 3\)"),
        ({"forms": {"train": 3}}, r"not a whole recognizer \(forms.train = 3\)"),
        ({"test": {"cer": 0.1}}, r"not a whole recognizer \(test = "),
    ],
)
def test_metadata_of_another_kind_is_refused(tmp_path, change, message):
    about = {"format": recognizers.FORMAT, "alphabet": ALPHABET, "network": {}, **change}
    state = dict(Recognizer(SMALL).state_dict())
    save_file(state, tmp_path / "a.safetensors", metadata={"hwdiff": json.dumps(about)})
    with pytest.raises(HwdiffError, match=rf"a\.safetensors: .*{message}"):
        load_recognizer(tmp_path / "a.safetensors")
