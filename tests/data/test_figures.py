import pytest

from hwdiff.data.figures import compare_line_images


def test_line_images_are_compared(dataset, extractor):
    image = dataset.line_image(0)
    pairs = {"same": (image, image), "other": (image, dataset.line_image(5))}
    figure, cosines = compare_line_images(pairs, extractor)
    assert cosines["same"] == pytest.approx(1)
    assert cosines["other"] < 0.999
    assert len(figure.axes) == 4
