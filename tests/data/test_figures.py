import numpy as np
import pytest
import torch

from hwdiff.data.figures import compare_line_images


def test_line_images_are_compared(dataset, extractor):
    image = dataset.line_image(0)
    pairs = {"same": (image, image), "other": (image, dataset.line_image(5))}
    figure, cosines = compare_line_images(pairs, extractor)
    assert cosines["same"] == pytest.approx(1)
    assert cosines["other"] < 0.999
    assert len(figure.axes) == 4


def test_a_figure_shows_some_of_many_pairs():
    pairs = {f"{number:03}": (np.zeros((96, 20), dtype=np.uint8),) * 2 for number in range(100)}
    figure, cosines = compare_line_images(pairs, lambda pixels: torch.ones(len(pixels), 14, 1280))
    assert len(cosines) == 100
    assert len(figure.axes) == 24
    titles = [axes.get_title("left") for axes in figure.axes]
    assert (titles[0], titles[-2]) == ("000 official", "099 official")
