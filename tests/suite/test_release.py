from copy import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hwdiff import HwdiffError, Ink, load_model
from hwdiff.data.dataset import style_lines
from hwdiff.diffusion import generate, texts
from hwdiff.diffusion.generate import sample
from hwdiff.diffusion.style_gallery import Styles, load_styles
from hwdiff.evaluation.generation import lines_of_others, regenerate_lines, subsample_lines, training_of
from hwdiff.model.checkpoint import save_model
from hwdiff.suite import release

FEW = {"sampler": "dpm", "steps": 3}


@pytest.fixture
def given():
    """Three styles to write in."""
    return torch.rand(3, 14, 1280, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def opened(network, extractor, dataset, tmp_path_factory):
    """The test network as a checkpoint of a run."""
    path = tmp_path_factory.mktemp("opened") / "model.safetensors"
    save_model(
        network,
        path,
        step=7,
        training={"seed": 0},
        dataset=dataset.fingerprint,
        style_weights=extractor.identity,
    )
    return load_model(path, "cpu")


def test_styles_are_those_of_what_was_written(network, extractor, given):
    inks, styles = release.drawn_styles(network, given, extractor, text="a line of text", **FEW)
    assert (styles.shape, styles.dtype) == ((3, 14, 1280), torch.half)
    for ink, style in zip(inks, styles, strict=True):
        picture = np.pad(ink.line_image(), ((0, 0), (0, 1400)), constant_values=255)[:, :1400]
        assert torch.equal(style, extractor.of_line(picture).half())
    assert (styles[0] - styles[1]).abs().max() > 0.01


def test_a_style_in_which_nothing_is_written_is_named(network, extractor):
    def silent(network, y, *arguments, **options):
        return torch.zeros_like(y), torch.ones_like(y[..., :1])

    with pytest.raises(HwdiffError, match="style 0: nothing was written"):
        release.drawn_styles(
            network, network.default_style.expand(1, -1, -1), extractor, text="abc", sampler=silent
        )


def test_styles_are_chosen_that_are_legible_and_differ(network, monkeypatch):
    """Of ten styles, 0 to 4 are illegible and 5 is read best; 6 and 7 are like 5, 8 and 9 are not.

    The first text is read best in 7.
    """
    candidates = torch.eye(10)[:, None, :].repeat(1, 14, 128) + 1
    candidates[6] = candidates[5] + 0.01
    candidates[7] = candidates[5] - 0.01
    writing = []

    def write(network, some, style, seed=0, **options):
        if isinstance(some, str):
            some, style = [some], style[None]
        writing.append(len(some))
        return [
            Ink(np.zeros((2, 2)), [True, False], f"{text}|{int(style.sum() * 100)}")
            for text, style in zip(some, style, strict=True)
        ]

    def judge(inks, recognizer=None):
        meant = [ink.text.split("|")[0] for ink in inks]
        assert meant in ([texts.STYLE_TEXT] * 4, list(texts.TRIAL_TEXTS) * 10)
        known = [int(style.sum() * 100) for style in candidates]
        numbers = np.array([known.index(int(ink.text.split("|")[1])) for ink in inks])
        best = 7 if len(meant) == 4 else 5
        edits = abs(numbers - best) + np.where(numbers < 5, 10, 0)
        return np.stack((edits, np.full(len(inks), 10)), axis=1)

    # Sums tell the styles apart.
    candidates = candidates * torch.linspace(1, 2, 10)[:, None, None]
    monkeypatch.setattr(release, "sample", write)
    monkeypatch.setattr(release, "edits_of", judge)
    chosen = release.choose_styles(network, candidates, names=("a", "b", "c", "d"))
    assert writing == [10 * len(texts.TRIAL_TEXTS), 1, 1, 1, 1]
    found = [
        next(number for number, candidate in enumerate(candidates) if torch.equal(candidate, style))
        for style in chosen.values()
    ]
    assert list(chosen) == ["a", "b", "c", "d"]
    assert found[0] == 7
    assert set(found) == {5, 6, 7, 8}
    assert found[1:3] == [5, 8]  # the most legible, and what is not like it
    with pytest.raises(HwdiffError, match="10 candidates are too few for 5 names"):
        release.choose_styles(network, candidates, names="abcde")


def test_a_release_holds_the_weights_in_half_and_styles_of_its_own(
    opened, extractor, given, tmp_path, monkeypatch
):
    monkeypatch.setattr(release, "NAMES", ("one",))
    writing = {"guidance": 2.0, "points_per_character": 9.0}
    own = {"features": given, "extractor": extractor}
    assert release.release(opened, "small", tmp_path, writing, **own, **FEW) == "one"
    shipped = load_model(tmp_path / "small.safetensors", "cpu")
    styles = load_styles(tmp_path / "small-styles.safetensors")
    assert shipped.metadata["step"] == styles.metadata["drawn_by"]["step"] == 7
    assert styles.metadata["style_weights"] == shipped.metadata["style_weights"] == extractor.identity
    for ours, theirs in zip(shipped.state_dict().values(), opened.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs.half().float())
    assert torch.equal(shipped.default_style, styles["one"])
    assert not any(torch.equal(styles["one"], style.half().float()) for style in given)
    [ink], [same], [plain] = (
        sample(shipped, ["abcd"], **FEW, **more)
        for more in ({}, {"guidance": 2, "length": 40}, {"guidance": 1})
    )
    np.testing.assert_array_equal(ink.offsets, same.offsets)
    assert not np.array_equal(ink.offsets, plain.offsets)
    # Its styles go by name with it, and with no other.
    with pytest.raises(HwdiffError, match="its styles would be taken for those"):
        release.release(opened, "small", tmp_path, {}, **FEW)
    [named] = sample(shipped, ["abcd"], style="one", **FEW)
    np.testing.assert_array_equal(ink.offsets, named.offsets)
    (tmp_path / "other.safetensors").write_bytes((tmp_path / "small.safetensors").read_bytes())
    with pytest.raises(HwdiffError, match="the named styles do not fit it"):
        sample(load_model(tmp_path / "other.safetensors", "cpu"), ["abcd"], style="one", **FEW)


def test_a_release_does_not_replace_the_checkpoint_of_a_run(opened, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(HwdiffError, match="holds a training run, whose checkpoint might be replaced"):
        release.release(opened, "model", tmp_path, {})


def test_a_release_of_the_authors_network_keeps_its_style_encoder(
    network, extractor, given, tmp_path, monkeypatch
):
    monkeypatch.setattr(release, "NAMES", ("one",))
    monkeypatch.setattr(network, "metadata", {})
    monkeypatch.setattr(network, "default_style", None)
    release.release(network, "theirs", tmp_path, {}, features=given, extractor=extractor, **FEW)
    assert load_model(tmp_path / "theirs.safetensors", "cpu").metadata["style_weights"] == extractor.identity


def test_a_release_without_styles_of_its_own_takes_the_bundled_ones(opened, given, tmp_path, monkeypatch):
    with pytest.raises(HwdiffError, match="but the model was trained with"):
        release.release(opened, "other", tmp_path, {}, **FEW)
    about = {"style_weights": opened.metadata["style_weights"]}
    styles = Styles({"one": given[0], "two": given[1]}, about)
    opened.metadata = {**opened.metadata, "training": {"init": "/home/someone/weights.safetensors"}}
    monkeypatch.setattr(generate, "load_styles", lambda: styles)

    def judge(inks, recognizer=None):
        assert [ink.text for ink in inks] == 2 * list(texts.TRIAL_TEXTS)
        return np.repeat([[2, 4], [1, 4]], len(texts.TRIAL_TEXTS), axis=0)

    monkeypatch.setattr(release, "edits_of", judge)
    with pytest.raises(HwdiffError, match="guidance = 100: must be above 0 and below 100"):
        release.release(opened, "other", tmp_path, {"guidance": 100}, **FEW)
    assert release.release(opened, "other", tmp_path, {"guidance": 1.5}, **FEW) == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["other.safetensors"]
    released = load_model(tmp_path / "other.safetensors", "cpu")
    assert torch.equal(released.default_style, given[1].half().float())
    assert released.metadata["writing"] == {"guidance": 1.5}
    assert released.metadata["training"] == {"init": "weights.safetensors"}


def test_a_released_student_writes_as_it_has_learnt(opened, given, tmp_path, monkeypatch):
    about = {"style_weights": opened.metadata["style_weights"]}
    one, two = given[:2].half().float()
    monkeypatch.setattr(generate, "load_styles", lambda: Styles({"one": one, "two": two}, about))
    opened.default_style = two
    learnt = {"guidance": 1.0, "levels": [60, 30, 1]}
    save_model(opened, tmp_path / "student.safetensors", teacher="a hash", writing=learnt, **about)
    student = load_model(tmp_path / "student.safetensors", "cpu")
    # It keeps its teacher's default style, whatever is more legible.
    monkeypatch.setattr(release, "_trial_rates", None)
    assert release.release(student, "fast", tmp_path, {"points_per_character": 9.0}, **FEW) == "two"
    released = load_model(tmp_path / "fast.safetensors", "cpu").metadata
    assert released["writing"] == {**learnt, "points_per_character": 9.0}
    assert released["teacher"] == "a hash"
    assert torch.equal(load_model(tmp_path / "fast.safetensors", "cpu").default_style, two)


def test_lines_are_written_again_in_the_style_of_their_form(opened, dataset, features):
    indices = subsample_lines(dataset, "train", 3)
    assert len(indices) == 3
    assert set(indices) <= set(dataset.split("train"))
    assert np.array_equal(subsample_lines(dataset, "train", 10_000), dataset.split("train"))
    inks = regenerate_lines(opened, dataset, features, indices, seed=4, **FEW)
    assert [ink.text for ink in inks] == dataset.texts[indices].tolist()
    other = style_lines(dataset.forms)[indices[1]]
    assert dataset.forms[other] == dataset.forms[indices[1]]
    [alone] = sample(opened, [str(dataset.texts[indices[1]])], style=features[[other]], seed=5, **FEW)
    np.testing.assert_allclose(
        alone.offsets, inks[1].offsets, rtol=1e-4, atol=1e-3
    )  # untrained, its ink is large
    untested = copy(dataset)
    untested.splits = np.full(len(dataset), "train")
    with pytest.raises(HwdiffError, match=r"\.npz: has no lines in the split test; prepare more lines"):
        subsample_lines(untested, "test")


def test_of_a_student_no_planned_steps_are_recorded(network):
    of = copy(network)
    of.metadata = {"step": 7, "training": {"steps": 9, "init": "/home/me/small.safetensors"}}
    assert training_of(of)["planned"] == 9 and training_of(of)["init"] == "small.safetensors"
    assert not training_of(of)["student"]
    of.metadata = {**of.metadata, "teacher": {}, "writing": {"levels": [60, 1]}}
    assert training_of(of)["planned"] is None and training_of(of)["distilled"] and training_of(of)["student"]


def test_foreign_styles_are_of_other_forms_of_the_split(opened, dataset, features):
    indices = dataset.split("train")
    others = lines_of_others(dataset, indices)
    assert set(dataset.splits[others]) == {"train"}
    assert not (dataset.forms[others] == dataset.forms[indices]).any()
    assert np.array_equal(lines_of_others(dataset, indices[2:3]), others[2:3])  # whatever is beside it
    [ink] = regenerate_lines(opened, dataset, features, indices[:1], seed=4, foreign_styles=True, **FEW)
    assert ink.text == dataset.texts[indices[0]]
    style = features[style_lines(dataset.forms)[others[:1]]]
    [same] = sample(opened, [ink.text], style=style, seed=4, **FEW)
    np.testing.assert_array_equal(ink.offsets, same.offsets)


def test_pages_of_samples_say_what_was_read(network, monkeypatch):
    styles = Styles({name: torch.rand(14, 1280) for name in "abcdefghij"}, {})
    monkeypatch.setattr(release, "named_styles", lambda network: styles)
    monkeypatch.setattr(
        release, "recognize", lambda inks, judge: [SimpleNamespace(text=f"{ink.text}?") for ink in inks]
    )
    pages = dict(release.sample_pages(network, steps=1))
    assert list(pages) == ["texts", "seeds", "sampler-eq12", "sampler-eq9"]
    captions = [axes.get_title(loc="left") for axes in pages["texts"].axes]
    assert len(captions) == len(texts.PAGE_TEXTS)
    names = [list(styles)[number % len(styles)] for number in range(len(captions))]
    assert captions == [
        f"{text}   [{name}; read: {text}?]" for text, name in zip(texts.PAGE_TEXTS, names, strict=True)
    ]
    assert "character error rate of the recognizer" in pages["texts"].get_suptitle()


def test_pages_of_samples_are_not_written_in_foreign_styles(opened):
    with pytest.raises(HwdiffError, match=r"was trained with .*; the named styles do not fit it$"):
        next(release.sample_pages(opened, steps=1))
    with pytest.raises(HwdiffError, match="give --data FILE and those weights with --style-encoder"):
        release.release(opened, "other", "nowhere", {})


def test_styles_by_another_style_encoder_are_refused(opened, extractor, given, tmp_path):
    other = SimpleNamespace(identity={**extractor.identity, "fingerprint": "f" * 64})
    with pytest.raises(HwdiffError, match="but the model was trained with"):
        release.release(opened, "other", tmp_path, {}, features=given, extractor=other, **FEW)
    with pytest.raises(HwdiffError, match="points_per_character = nan: must be above 0"):
        release.release(opened, "other", tmp_path, {"points_per_character": float("nan")}, **FEW)
    assert list(tmp_path.iterdir()) == []


def test_pages_are_written_by_the_samplers_that_they_name(network, monkeypatch):
    seen, styles = [], Styles({name: torch.rand(14, 1280) for name in "abcdefghij"}, {})
    monkeypatch.setattr(release, "named_styles", lambda network: styles)
    monkeypatch.setattr(release, "_judge", lambda network: None)
    monkeypatch.setattr(release, "recognize", lambda inks, judge: [SimpleNamespace(text="")] * len(inks))
    monkeypatch.setattr(release, "legibility", lambda inks, judge: SimpleNamespace(cer=0))
    monkeypatch.setattr(release, "plot_inks", lambda inks, columns, title, captions: title)
    monkeypatch.setattr(release, "sample", lambda network, texts, **how: seen.append(how) or list(texts))
    pages = dict(release.sample_pages(network, 3, steps=1))
    assert [how.get("sampler") for how in seen] == [None, None, "eq12", "eq9"]
    assert all((how["seed"], how["steps"]) == (3, 1) for how in seen)
    assert "Eq. 12" in pages["sampler-eq12"] and "Eq. 9" in pages["sampler-eq9"]
