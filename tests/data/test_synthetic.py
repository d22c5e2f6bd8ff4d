from string import ascii_letters

import numpy as np
import pytest

from hwdiff.data import preparation as ds
from hwdiff.data import synthetic, tokenizer
from hwdiff.data.dataset import Dataset
from hwdiff.data.lines import Limits, drawable_strokes
from hwdiff.ink import images
from hwdiff.utils.errors import HwdiffError


def test_lines_are_of_the_same_kind_as_iams(written):
    assert len(written) == 16 * synthetic.LINES_PER_FORM
    limits = Limits()
    assert written.lengths.max() <= limits.max_points
    assert max(len(written.tokens(index)) for index in range(len(written))) < limits.max_tokens
    offsets, pen_up = written.strokes(3)
    assert offsets.std() == pytest.approx(1)
    assert pen_up[0]
    assert written.line_image(3).shape[0] == images.HEIGHT
    assert written.manifest["parameters"]["split_scheme"] == "writer"
    assert {len(written.split(split)) for split in ds.SPLITS} == {13 * 8, 8, 2 * 8}


def test_limits_that_no_line_is_within_are_named(monkeypatch):
    monkeypatch.setattr(synthetic, "MAX_REFUSED", 20)
    with pytest.raises(HwdiffError, match="limits: they leave out every built-in line"):
        synthetic.write_form(0, 0, 0, limits=Limits(max_points=5))


@pytest.mark.slow
def test_a_seed_writes_the_same_lines_with_any_number_of_workers(monkeypatch):
    monkeypatch.setattr(synthetic, "FORMS_PER_WRITER", 2)
    one, two = (synthetic.write_lines(0, writers=2, workers=workers) for workers in (1, 2))
    other = synthetic.write_lines(1, writers=2, workers=1)
    assert [line.id for line in one] == sorted(line.id for line in one)
    for a, b in zip(one, two, strict=True):
        assert (a.id, a.form, a.text) == (b.id, b.form, b.text)
        assert np.array_equal(a.offsets, b.offsets)
    assert [line.text for line in one] != [line.text for line in other]
    assert synthetic.draw_writer_style(0, 0) != synthetic.draw_writer_style(1, 0)


def test_every_token_is_written():
    generator = np.random.default_rng(0)
    seen = set()
    for _ in range(3000):
        seen |= set(tokenizer.encode(synthetic.draw_text(generator)).tolist())
    assert seen | {tokenizer.PADDING} == set(range(tokenizer.VOCABULARY_SIZE))


def test_a_writer_style_stays_the_same_and_letters_vary():
    """Lines of one writer are more alike than lines of two, but a text is never written twice alike."""

    def measures(number, seed):
        style, generator = synthetic.draw_writer_style(0, number), np.random.default_rng(seed)
        points, first, _ = synthetic.write_points(style, "minimum value of the hand", generator)
        down = np.diff(points, axis=0)[~first[1:]]
        steep = down[np.abs(down[:, 1]) > np.abs(down[:, 0])]
        slant = np.median(steep[:, 0] / steep[:, 1])
        width, height = np.ptp(points, axis=0)
        return np.array([width / 4000, height / 600, 4 * slant, first.sum() / 15])

    measured = np.array([[measures(number, seed) for seed in (1, 2, 3)] for number in range(16)])
    within = measured.std(axis=1).mean()
    between = measured.mean(axis=1).std(axis=0).mean()
    assert between > 4 * within
    assert not np.array_equal(measured[:, 0], measured[:, 1])


def test_writers_are_whole_in_one_split():
    splits = [synthetic.split_of_form(f"w{number:02d}-3") for number in range(64)]
    assert {split: splits.count(split) for split in ds.SPLITS} == {"train": 52, "validation": 4, "test": 8}


def test_what_is_written_is_what_is_asked_for():
    """A drawn line has a gap for each space of its text, and a dot above each i of a writer who prints."""
    style = synthetic.draw_writer_style(0, 4)
    points, first, _ = synthetic.write_points(style, "ill hill", np.random.default_rng(0))
    strokes = np.split(points, np.flatnonzero(first)[1:])
    dots = [stroke for stroke in strokes if np.ptp(stroke, axis=0).max() < 4 * style.unit]
    assert len(dots) == 2
    assert all(dot[:, 1].mean() < -synthetic.PRINT_X * style.unit for dot in dots)
    covered = np.zeros(np.ptp(points[:, 0]) + 1, dtype=bool)
    for stroke in strokes:
        x = stroke[:, 0] - points[:, 0].min()
        covered[x.min() : x.max() + 1] = True
    gaps = np.diff(np.flatnonzero(covered))
    assert (gaps > 0.5 * style.word_gap * style.unit).sum() == 1
    with pytest.raises(HwdiffError, match="nothing in it can be written"):
        synthetic.write_points(style, "  ", np.random.default_rng(0))


def test_lines_can_be_drawn(written):
    for index in range(0, len(written), 16):
        offsets, pen_up, _ = written.recorded(index)
        assert images.draw_line(drawable_strokes(offsets, pen_up)).min() == 0


def test_another_seed_is_another_dataset(written):
    with pytest.raises(HwdiffError, match=r"prepared from something else \(built-in writers differ\)"):
        ds.prepare(None, written.path, seed=1)
    with pytest.raises(HwdiffError, match="seed = -1"):
        ds.prepare(None, written.path, seed=-1)


def test_each_point_knows_its_character(written):
    """Letters are drawn from left to right but for what comes later, dots and crossbars; none is left out."""
    for index in range(0, len(written), 97):
        offsets, _ = written.strokes(index)
        characters, text = written.characters(index), str(written.texts[index])
        assert len(characters) == len(offsets)
        assert set(characters) == {number for number, character in enumerate(text) if character != " "}
        x = np.cumsum(offsets[:, 0])
        centres = [x[characters == number].mean() for number in np.unique(characters)]
        assert (np.diff(centres) > 0).mean() > 0.95
        back = np.flatnonzero(np.diff(characters) < 0)
        assert {text[number] for number in characters[back + 1]} <= set("ijtxIT.,'!?-\"")


def test_a_ligature_belongs_half_to_either_letter():
    style = next(
        found for number in range(64) if (found := synthetic.draw_writer_style(0, number)).script == 1
    )
    points, first, characters = synthetic.write_points(style, "mm", np.random.default_rng(0))
    assert first.sum() == 1
    assert (np.diff(characters) >= 0).all()
    changes = np.flatnonzero(np.diff(characters))
    assert len(changes) == 1
    assert 0.35 < np.interp(changes[0], [0, len(points)], [0, 1]) < 0.65


def test_the_letters_of_many_writers_are_not_all_remembered():
    for number in range(synthetic.HABITS // 20):
        style = synthetic.draw_writer_style(0, number)
        for character in ascii_letters:
            synthetic._letter(style, character)
    assert synthetic._letter.cache_info().currsize == synthetic.HABITS


def test_the_fingerprint_is_of_what_the_lines_are(tmp_path):
    line, found = synthetic.write_form(0, 0, 0)[0], []
    for name in ("a", "b"):
        found.append(ds.write(tmp_path / f"{name}.npz", [line], splits=["train"], manifest={})["fingerprint"])
        line.offsets[0] += 1
    assert found[0] != found[1]


def test_the_seed_is_that_of_the_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "FORMS_PER_WRITER", 1)
    ds.prepare(None, tmp_path / "a.npz", seed=1, writers=1, workers=1)
    wanted = [line.text for line in synthetic.write_form(1, 0, 0)]
    assert Dataset(tmp_path / "a.npz").texts.tolist() == wanted
