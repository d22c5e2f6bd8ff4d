import numpy as np
import pytest

from hwdiff.evaluation import written
from hwdiff.evaluation.written import write_lines
from hwdiff.ink.ink import Ink

TEXTS = ["four", "a", "three", "go"] * 5
LINES = np.arange(3, 20)


class Scribbler:
    """Writes noise. calls: the lines that it was asked for. stops_at: the call at which it is interrupted."""

    def __init__(self, stops_at=None):
        self.calls, self.stops_at = [], stops_at

    def __call__(self, indices, seeds):
        if len(self.calls) == self.stops_at:
            raise KeyboardInterrupt
        self.calls.append(indices.tolist())
        return [self._line(int(index), int(seed)) for index, seed in zip(indices, seeds, strict=True)]

    @staticmethod
    def _line(index, seed):
        generator = np.random.default_rng((index, seed))
        offsets = generator.normal(size=(index, 2))
        accents = [generator.normal(size=(count, 2)) for count in range(1, index % 3)]
        return Ink(offsets, offsets[:, 0] > 0, f"é {seed}", accents, frozenset({index, 1}))


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(written, "BATCH_SIZE", 5)


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        assert (one.offsets == other.offsets).all() and (one.pen_up == other.pen_up).all()
        assert (one.text, one.covered) == (other.text, other.covered)
        for accent, same in zip(one.accents, other.accents, strict=True):
            assert (accent == same).all()


def test_each_line_has_its_own_seed_and_lines_of_one_length_are_written_together(at_once):
    scribbler, told = Scribbler(), []
    inks, seconds = write_lines(scribbler, TEXTS, LINES, 100, progress=told.append)
    assert [ink.text for ink in inks] == [f"é {100 + number}" for number in range(len(LINES))]
    assert [len(ink) for ink in inks] == LINES.tolist()
    lengths = [len(TEXTS[index]) for call in scribbler.calls for index in call]
    assert lengths == sorted(lengths)
    assert told == [5, 5, 5, 2]
    assert seconds > 0


def test_what_was_stopped_goes_on_with_the_lines_that_are_there(at_once, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_lines(Scribbler(stops_at=2), TEXTS, LINES, 7, folder=tmp_path / "kept")
    second, whole, told = Scribbler(), Scribbler(), []
    inks, _ = write_lines(second, TEXTS, LINES, 7, folder=tmp_path / "kept", progress=told.append)
    expected, _ = write_lines(whole, TEXTS, LINES, 7)
    assert second.calls == whole.calls[2:]
    assert told == [5, 5, 5, 2]
    assert_same(inks, expected)
    again, seconds = write_lines(third := Scribbler(), TEXTS, LINES, 7, folder=tmp_path / "kept")
    assert third.calls == []
    assert_same(again, expected)
    assert seconds > 0


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-30], lambda content: b"", lambda content: b"no"]
)
def test_a_file_that_is_not_whole_is_written_again(at_once, tmp_path, damage):
    expected, _ = write_lines(Scribbler(), TEXTS, LINES, 7, folder=tmp_path)
    path = sorted(tmp_path.iterdir())[1]
    path.write_bytes(damage(path.read_bytes()))
    inks, _ = write_lines(scribbler := Scribbler(), TEXTS, LINES, 7, folder=tmp_path)
    assert len(scribbler.calls) == 1
    assert_same(inks, expected)


def test_several_processes_write_the_same(at_once, tmp_path):
    told = []
    inks, seconds = write_lines(
        Scribbler(), TEXTS, LINES, 7, folder=tmp_path, workers=2, progress=told.append
    )
    alone, _ = write_lines(Scribbler(), TEXTS, LINES, 7)
    assert_same(inks, alone)
    assert told == [5, 5, 5, 2]
    assert seconds > 0
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("seconds", [-1.0, np.nan, np.inf])
def test_a_time_that_is_none_is_measured_again(at_once, tmp_path, seconds):
    write_lines(Scribbler(), TEXTS, LINES[:4], 7, folder=tmp_path)
    [path] = tmp_path.iterdir()
    np.savez(path, **{**np.load(path), "seconds": seconds})
    _, found = write_lines(scribbler := Scribbler(), TEXTS, LINES[:4], 7, folder=tmp_path)
    assert len(scribbler.calls) == 1
    assert 0 < found < 60


def test_a_file_of_fewer_lines_is_written_again(at_once, tmp_path):
    write_lines(Scribbler(), TEXTS, LINES[:4], 7, folder=tmp_path)
    inks, _ = write_lines(Scribbler(), TEXTS, LINES[:5], 7, folder=tmp_path)
    assert len(inks) == 5


def test_a_file_of_more_lines_is_written_again(tmp_path, monkeypatch):
    for at_once in (4, 2):  # as versions might differ
        monkeypatch.setattr(written, "BATCH_SIZE", at_once)
        inks, _ = write_lines(Scribbler(), TEXTS, LINES[:8], 0, folder=tmp_path)
    assert_same(inks, write_lines(Scribbler(), TEXTS, LINES[:8], 0)[0])
