import pytest

from hwdiff.data import synthetic
from hwdiff.evaluation.recognizer import load_reader
from hwdiff.ink import strokes
from hwdiff.ink.ink import Ink

LEGIBLE_WRITERS = (13, 23, 42, 43)  # of the built-in ones, those that the reader, who has seen none of them, reads best


@pytest.fixture(scope="session")
def reader():
    return load_reader(device="cpu")


@pytest.fixture(scope="session")
def made_up_lines():
    """Lines of four built-in writers, trimmed."""
    inks = []
    for writer in LEGIBLE_WRITERS:
        for line in synthetic.write_form(0, writer, 0):
            offsets, pen_up = strokes.merge(line.offsets, line.pen_up, line.kept)
            inks.append(Ink(offsets / strokes.scale_of(offsets), pen_up, line.text).trimmed())
    return inks


@pytest.fixture(scope="session", params=["real", "made-up"])
def lines(request):
    """Lines by people who took no part in the reader's training, where the database is at hand, and made-up ones."""
    if request.param == "made-up":
        return request.getfixturevalue("made_up_lines")
    dataset = request.getfixturevalue("iam_dataset")
    return [dataset.ink(index).trimmed() for index in dataset.part("test")[::16]]
