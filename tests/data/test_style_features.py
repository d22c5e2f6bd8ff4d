from copy import copy

import numpy as np
import pytest
import torch

from hwdiff.data.style_features import StyleFeatures
from hwdiff.utils.errors import HwdiffError


class Extractor:
    fingerprint, device, batch_size = "0" * 64, torch.device("cpu"), 8

    def __call__(self, pixels):
        return torch.ones(len(pixels), 14, 1280)


@pytest.mark.parametrize(
    "header", [b"{'descr': (((", b"\n{'a' :", b"{'descr': '|O', 'fortran_order': False, 'shape': (9,)}"]
)
def test_a_damaged_cache_is_refused(dataset, tmp_path, header):
    features = StyleFeatures(dataset, Extractor(), tmp_path)
    assert features[np.array([3])].shape == (1, 14, 1280)
    content = features.path.read_bytes()
    features.path.write_bytes(content[:10] + header.ljust(118)[:118] + content[128:])
    with pytest.raises(HwdiffError, match="cannot be used as the cache of style features"):
        StyleFeatures(dataset, Extractor(), tmp_path)


def test_a_cache_that_cannot_be_written_is_read(dataset, tmp_path, monkeypatch):
    StyleFeatures(dataset, Extractor(), tmp_path).compute(np.array([3]))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    features = StyleFeatures(dataset, Extractor(), tmp_path)
    assert features[np.array([3])].mean() == 1
    with pytest.raises(HwdiffError, match="lacks 1 lines, and cannot be written; copy the dataset"):
        features[np.array([3, 4])]
    (tmp_path / "new").mkdir()
    with pytest.raises(HwdiffError, match="keeps the style features; copy the dataset"):
        StyleFeatures(dataset, Extractor(), tmp_path / "new")


def test_caches_opened_at_once_are_one(dataset, tmp_path, monkeypatch):
    """The second is made when the first has found no file and not yet written its own."""
    seconds = []

    whole = np.lib.format.open_memmap

    def opened(path, mode="r+", **options):
        if mode == "w+" and not seconds:
            seconds.append(None)
            seconds[0] = StyleFeatures(dataset, Extractor(), tmp_path)
        return whole(path, mode=mode, **options)

    monkeypatch.setattr(np.lib.format, "open_memmap", opened)
    first = StyleFeatures(dataset, Extractor(), tmp_path)
    first.compute(np.array([3]))
    assert seconds[0].missing(np.array([3, 4])).tolist() == [4]


def test_a_cache_is_of_these_lines_and_these_weights(dataset, tmp_path):
    other, encoder = copy(dataset), Extractor()
    other.manifest, encoder.fingerprint = {**dataset.manifest, "fingerprint": "1" * 64}, "1" * 64
    given = [(lines, weights) for lines in (dataset, other) for weights in (Extractor(), encoder)]
    assert len({StyleFeatures(*one, tmp_path).path for one in given}) == 4
