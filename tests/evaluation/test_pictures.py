import numpy as np
import pytest
import torch

from hwdiff import HwdiffError, Ink
from hwdiff.evaluation.mobilenet import mobilenet_features
from hwdiff.evaluation.pictures import Canvas


def test_lines_stand_alike_on_the_canvas():
    ink = Ink([[0, 0], [10, 4], [10, -4], [5, 5], [5, 5]], [True, False, False, True, False], "v")
    canvas = Canvas(200, 100, 5.0, 2.0)
    drawn = canvas.draw(ink)
    assert (drawn.shape, drawn.dtype) == ((100, 200), np.uint8)
    ys, xs = np.nonzero(drawn < 128)
    assert abs(xs.min() - (4 - 1)) <= 1
    assert abs((ys.min() + ys.max()) / 2 - 50) <= 1
    moved = Ink(np.concatenate(([[7, -9]], ink.offsets[1:])), ink.pen_up)
    np.testing.assert_array_equal(canvas.draw(moved), drawn)
    assert (canvas.draw(Ink(np.zeros((0, 2)), [])) == 255).all()
    assert (Canvas(20, 100).draw(ink) < 128).any()  # what does not fit is cut off


@pytest.mark.parametrize(
    "pictures",
    [
        [],
        np.zeros((1, 9, 9)),
        np.zeros((1, 9, 9, 3), np.uint8),
        [np.zeros((9, 9), np.uint8), np.zeros((9, 8), np.uint8)],
    ],
)
def test_pictures_of_another_kind_are_named(pictures, extractor):
    with pytest.raises(HwdiffError, match="all of one size"):
        mobilenet_features(pictures, extractor)


def test_mobilenet_features_are_of_pictures_scaled_with_antialiasing(extractor):
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (3, 96, 500), dtype=np.uint8)
    features = mobilenet_features(small, extractor)
    assert (features.shape, features.dtype) == ((3, 1280), np.float64)
    padded = np.full((3, 96, 1400), 255, dtype=np.uint8)
    padded[:, :, :500] = small
    np.testing.assert_allclose(
        features, extractor(torch.from_numpy(padded)).mean(dim=1), rtol=1e-4, atol=1e-5
    )
    # One thin line in a large picture is grey in the small one, wherever it falls. Without antialiasing it
    # would vanish from some.
    thin = np.full((6, 960, 5000), 255, dtype=np.uint8)
    for number in range(6):
        thin[number, 400 + number] = 0
    found = mobilenet_features(thin, extractor)
    blank = mobilenet_features(np.full((1, 960, 5000), 255, dtype=np.uint8), extractor)
    assert (np.abs(found - blank).max(axis=1) > 0.01).all()
    assert mobilenet_features(np.zeros((1, 60, 1400), dtype=np.uint8), extractor).shape == (
        1,
        1280,
    )  # too long: cut off


def test_lines_are_not_upside_down():
    rising = Ink([(0, 0), (10, 0), (10, 8), (10, 0)], [True, False, True, False])
    ys, xs = np.nonzero(Canvas(200, 100).draw(rising) < 128)
    assert ys[xs < 60].mean() > ys[xs > 100].mean()
