import copy
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import hwdiff
from hwdiff import HwdiffError
from hwdiff.data.characters import spell
from hwdiff.diffusion import generate, samplers
from hwdiff.diffusion.generate import check_text, default_length, sample, style_features
from hwdiff.diffusion.style_gallery import load_styles, mixed
from hwdiff.model.checkpoint import load_model, save_model


def test_a_sample_is_ink(tame):
    [ink] = hwdiff.sample(tame, ["the quick brown"])
    assert isinstance(ink, hwdiff.Ink)
    assert ink.offsets.shape == (16 * 15, 2)
    assert ink.text == "the quick brown"
    [short] = sample(tame, "a", length=80, steps=5, sampler="ddim")
    assert len(short) == 80


@pytest.mark.parametrize(
    ("characters", "points"), [(1, 32), (3, 48), (30, 480), (31, 488), (48, 488), (49, 496), (60, 600)]
)
def test_long_texts_get_no_more_points_than_were_trained_on_unless_they_need_them(characters, points):
    assert default_length("x" * characters, 16.0) == points


def test_small_letters_may_have_few_points():
    assert [default_length("x" * count, 6.0) for count in (10, 80, 100)] == [64, 480, 600]


def test_another_seed_writes_otherwise(tame):
    first, second = (sample(tame, "abc", steps=10, seed=seed)[0] for seed in (3, 4))
    assert not np.allclose(first.offsets, second.offsets)


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_a_sample_does_not_depend_on_its_batch(tame, sampler):
    texts = ["abcd", "a longer text", "efgh", "i, j", "k"]
    together = sample(tame, texts, sampler=sampler, steps=12, seed=7)
    for i, text in enumerate(texts):
        [alone] = sample(tame, [text], sampler=sampler, steps=12, seed=7 + i)
        np.testing.assert_allclose(together[i].offsets, alone.offsets, atol=1e-4)
        np.testing.assert_array_equal(together[i].pen_up, alone.pen_up)


def test_each_text_may_have_a_seed_of_its_own(tame):
    texts = ["ab", "cd", "ef"]
    counted, given = (
        sample(tame, texts, steps=6, seed=np.int64(4)),
        sample(tame, texts, steps=6, seed=[4, 9, 6]),
    )
    same = [
        len(one) == len(other) and np.allclose(one.offsets, other.offsets, atol=1e-4)
        for one, other in zip(counted, given, strict=True)
    ]
    assert same == [True, False, True]


def test_switches_and_the_guidance_of_style_change_the_ink(tame, extractor):
    [paper] = sample(tame, ["abc"], steps=8)
    [two_ends] = sample(tame, ["abc"], steps=8, end_tokens=2)
    assert not np.allclose(paper.offsets, two_ends.offsets)
    [styled] = sample(tame, ["abc"], steps=8, style_guidance=3)
    assert not np.allclose(paper.offsets, styled.offsets)
    picture = np.full((60, 300), 255, dtype=np.uint8)
    picture[20:40, 20:280:10] = 0
    options = {"steps": 2, "style_extractor": extractor}
    padded, narrow = (sample(tame, "abc", picture, padded_style=one, **options)[0] for one in (True, False))
    assert not np.allclose(padded.offsets, narrow.offsets)


def test_guidance_changes_the_ink_and_1_does_not(tame):
    every = ({}, {"guidance": 1}, {"guidance": 3})
    [plain], [same], [guided] = (sample(tame, ["abc"], sampler="dpm", steps=5, **each) for each in every)
    np.testing.assert_array_equal(plain.offsets, same.offsets)
    assert plain.offsets.shape != guided.offsets.shape or np.abs(plain.offsets - guided.offsets).max() > 1e-3


def test_guidance_by_what_was_never_left_out_in_the_training_is_warned_of(tame):
    tame.metadata = {"training": {"drop_text": 0.0, "drop_style": 0.1}}
    with pytest.warns(UserWarning, match=r"guidance = 2: this network never saw lines without"):
        sample(tame, "abc", steps=1, guidance=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(tame, "abc", steps=1, style_guidance=2)
        sample(tame, "abc", steps=1)


def test_a_sampler_may_be_a_function(tame):
    seen = []

    def mine(network, y, text, style, alpha_bar, noise, callback=None):
        seen.append((y.shape, text.shape, style.shape, len(alpha_bar)))
        return y, torch.zeros(*y.shape[:2], 1)

    [ink] = sample(tame, ["abc"], sampler=mine, steps=4)
    assert seen == [((1, 48, 2), (1, 4), (1, 14, 1280), 5)]
    assert not ink.pen_up.any()


def test_the_callback_gets_the_attention(tame):
    steps = []

    def callback(step):
        steps.append((step.t, step.attention[-1].shape))

    sample(tame, ["abc"], steps=3, callback=callback)
    assert steps == [(t, (1, 6, 6, 4)) for t in (3, 2, 1)]


def test_texts_that_cannot_be_written_are_refused_and_characters_named(tame):
    for text in ("", "   ", "€ §", "_"):
        with pytest.raises(HwdiffError, match="nothing in it can be written"):
            sample(tame, [text])
    for text, found in (
        ("café; crème", r"cannot write ';' \(character 5\)"),
        ("café; crème", "the accents of é è are drawn"),
        ("“so”", 'written with " for “, " for ”'),
        ("one\ntwo €", r"cannot write '€' \(line 2, character 5\)"),
        ("a" + 12 * "€", r"\(character 11\) and 2 more"),
        ("long " * 20 + "€", r"^text 'long long .*\.\.\.': the model cannot"),
    ):
        with pytest.warns(UserWarning, match=found):
            check_text(text, spell(text))
    with pytest.warns(UserWarning, match="break it into lines"):
        sample(tame, ["x" * 60], steps=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps = 0"),
        ({"steps": 1001}, "steps = 1001"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": [-1]}, "seed = -1"),
        ({"seed": [1, 2]}, "2 seeds for 1 texts"),
        ({"length": 12}, "length = 12"),
        ({"sampler": "euler"}, "no such sampler as 'euler'"),
        ({"guidance": -1}, "guidance = -1"),
        ({"guidance": float("nan")}, "guidance = nan"),
        ({"style_guidance": -1}, "style_guidance = -1"),
        ({"end_tokens": 0}, "end_tokens = 0: must be between 1 and 8"),
        ({"alpha_bar": torch.ones(1)}, "alpha_bar: 1 signal levels"),
        ({"style": "a" * 300}, "no such style as"),
    ],
)
def test_bad_options_are_named(tame, options, message):
    with pytest.raises(HwdiffError, match=message):
        sample(tame, ["abc"], **options)


def test_styles_are_images_or_features(tame, extractor, tmp_path):
    picture = np.full((100, 500), 255, dtype=np.uint8)
    picture[20:80, 10:480:9] = 0
    path, image = tmp_path / "line.png", Image.fromarray(picture)
    image.save(path)
    ways = [path, str(path), picture, image, extractor.of_image(picture)]
    features = [style_features(tame, way, 2, style_extractor=extractor) for way in ways]
    assert all(torch.equal(features[0], other) for other in features)
    assert features[0].shape == (2, 14, 1280)
    names = list(load_styles())[:2]
    wanted = mixed([load_styles()[names[0]], features[0][0]], (0.75, 0.25))
    found = style_features(tame, {names[0]: 0.75, str(path): 0.25}, 2, style_extractor=extractor)
    torch.testing.assert_close(found, wanted.expand(2, -1, -1))
    with pytest.raises(HwdiffError, match="adding up to 1"):
        style_features(tame, {names[0]: 0.75, names[1]: 0.75}, 2)
    own = torch.rand(2, 14, 1280)
    assert torch.equal(style_features(tame, own, 2), own)
    narrow = style_features(tame, picture, 1, style_extractor=extractor, padded=False)
    assert narrow.shape == (1, 8, 1280)
    for wrong in (
        torch.rand(3, 14, 1280),
        torch.rand(14, 100),
        torch.full((14, 1280), torch.nan),
        torch.tensor(1.0),
        torch.rand(1, 1, 14, 1280),
    ):
        with pytest.raises(HwdiffError, match="style: features of shape"):
            style_features(tame, wrong, 2)
    with pytest.raises(HwdiffError, match="no such file"):
        sample(tame, ["abc"], style="missing.png", style_extractor=extractor)


def test_a_model_refuses_other_style_weights(tame, extractor, tmp_path):
    picture = np.full((100, 500), 255, dtype=np.uint8)
    picture[20:80, 10:480:9] = 0
    for fingerprint in (extractor.fingerprint, "0" * 64):
        style_weights = {"name": "some", "padding": "both", "fingerprint": fingerprint}
        save_model(tame, tmp_path / "model.safetensors", style_weights=style_weights)
        opened = load_model(tmp_path / "model.safetensors", device="cpu")
        if fingerprint == extractor.fingerprint:
            features = style_features(opened, picture, 1, style_extractor=extractor)
            assert features.shape == (1, 14, 1280)
        else:
            with pytest.raises(HwdiffError, match="but the model was trained with some"):
                style_features(opened, picture, 1, style_extractor=extractor)


def test_a_model_without_a_default_style_asks_for_one(tame):
    bare = copy.deepcopy(tame)
    bare.default_style = None
    with pytest.raises(HwdiffError, match="no default style"):
        sample(bare, ["abc"])


def test_the_authors_models_want_other_features_than_the_bundled_ones(network):
    picture = np.full((60, 300), 255, dtype=np.uint8)
    picture[20:40, 20:280:9] = 0
    assert not network.metadata  # as of a weights file of the authors' program
    with pytest.warns(UserWarning, match="trained with ImageNet's features; give Keras's weights"):
        sample(network, ["a"], picture, sampler="dpm", steps=1)


def test_a_folder_does_not_hide_a_style_of_its_name(tame, tmp_path, monkeypatch):
    (tmp_path / "ada").mkdir()
    monkeypatch.chdir(tmp_path)
    assert torch.equal(style_features(tame, "ada", 1)[0], load_styles()["ada"].float())


def test_ink_does_not_depend_on_the_default_type(tame):
    [ink] = sample(tame, ["abc"], steps=2)
    torch.set_default_dtype(torch.float64)
    try:
        [same] = sample(tame, ["abc"], steps=2)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(ink.offsets, same.offsets)


def test_a_warning_names_the_line_that_called(tame):
    with pytest.warns(UserWarning, match="accents") as told:
        sample(tame, ["café"], steps=1)
    assert told[0].filename == __file__


def test_text_and_style_are_guided_by_their_own_weights(tame, monkeypatch):
    seen = []
    monkeypatch.setattr(generate, "guided", lambda network, *weights: seen.append(weights) or network)
    sample(tame, "abc", steps=1, guidance=3, style_guidance=2)
    assert seen == [(3, 2)]


def test_the_noise_of_a_seed_is_pytorchs():
    """So that a seed writes the same ink in later versions."""
    expected = torch.randn(8, 2, generator=torch.Generator().manual_seed(4))
    assert torch.equal(generate.seeded_noise([3, 4], 8, "cpu")(None)[1], expected)
