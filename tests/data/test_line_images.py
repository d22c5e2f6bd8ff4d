from copy import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hwdiff.data.line_images import LineImages
from hwdiff.utils.errors import HwdiffError


def test_images_are_drawn_once_and_are_those_of_the_dataset(dataset, tmp_path):
    drawn = []
    images = LineImages(dataset, tmp_path, workers=2, progress=drawn.append)
    assert sum(drawn) == len(images) == len(dataset)
    assert all(np.array_equal(images[index], dataset.line_image(index)) for index in range(len(dataset)))
    written = images.path.stat().st_mtime_ns
    again = LineImages(dataset, tmp_path, progress=drawn.append)
    assert sum(drawn) == len(dataset)
    assert again.path.stat().st_mtime_ns == written
    assert np.array_equal(again[7], images[7])


def test_a_damaged_file_is_refused(dataset, tmp_path):
    path = LineImages(dataset, tmp_path).path
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(HwdiffError, match="damaged file of line images"):
        LineImages(dataset, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"widths": torch.ones(3, dtype=torch.int64)},
        {"widths": torch.zeros(24, dtype=torch.int64)},
        {"widths": torch.ones(24)},
        {"pixels": torch.zeros(96, dtype=torch.uint8)},
        {"pixels": torch.zeros(3)},
    ],
)
def test_tensors_that_do_not_fit_are_refused(dataset, tmp_path, change):
    path = LineImages(dataset, tmp_path).path
    save_file({**load_file(path), **change}, path)
    with pytest.raises(HwdiffError, match=r"damaged file of line images .*; delete it"):
        LineImages(dataset, tmp_path)


def test_images_are_of_these_lines(dataset, tmp_path):
    other = copy(dataset)
    other.manifest = {**dataset.manifest, "fingerprint": "1" * 64}
    assert LineImages(other, tmp_path, workers=1).path != LineImages(dataset, tmp_path, workers=1).path
