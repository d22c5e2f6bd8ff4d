import numpy as np
import pytest
import torch

from hwdiff.data.batches import StyleFeatures, batch_order, make_batch
from hwdiff.data.dataset import style_lines
from hwdiff.data.images import pad_to_width
from hwdiff.errors import HwdiffError


def test_features_are_computed_once_and_kept_in_half_precision(dataset, extractor, tmp_path):
    features = StyleFeatures(dataset, extractor, tmp_path)
    indices = np.array([3, 1, 3])
    assert len(features.missing(indices)) == 2
    first = features[indices]
    assert first.shape == (3, 14, 1280)
    assert first.dtype == torch.float32
    assert len(features.missing(np.arange(5))) == 3
    again = StyleFeatures(dataset, extractor, tmp_path)
    assert len(again.missing(indices)) == 0
    assert torch.equal(again[indices], first)
    direct = extractor(torch.from_numpy(pad_to_width(dataset.line_image(1)))[None])[0]
    torch.testing.assert_close(direct.half().float(), first[1], atol=2e-3, rtol=2e-3)


def test_a_foreign_cache_is_refused(dataset, extractor, tmp_path):
    path = StyleFeatures(dataset, extractor, tmp_path).path
    path.write_bytes(b"something else")
    with pytest.raises(HwdiffError, match="cannot be used as the cache"):
        StyleFeatures(dataset, extractor, tmp_path)
    np.save(path, np.zeros(3))
    with pytest.raises(HwdiffError, match="not the cache of style features"):
        StyleFeatures(dataset, extractor, tmp_path)


def test_a_batch_is_padded_as_the_authors_pad(dataset, features):
    styles = style_lines(dataset.forms)
    indices = np.array([0, 5])
    batch = make_batch(dataset, features, indices, styles, 488)
    assert batch.strokes.shape == (2, 488, 2)
    length = dataset.lengths[0]
    offsets, pen_up = dataset.strokes(0)
    assert torch.equal(batch.strokes[0, :length], torch.from_numpy(offsets))
    assert (batch.strokes[0, length:] == 0).all()
    assert (batch.pen_up[0, length:] == 1).all()
    assert batch.pen_up[0, :length, 0].tolist() == pen_up.tolist()
    assert torch.equal(batch.style, features[styles[indices]])
    short = make_batch(dataset, features, indices, styles)
    assert short.strokes.shape[1] == -(-dataset.lengths[indices].max() // 8) * 8


def test_buckets_hold_lines_of_like_length_and_lose_none_twice():
    lengths = np.random.default_rng(0).integers(50, 488, 1000)
    spreads = {}
    for bucketed in (True, False):
        batches = batch_order(lengths, 16, seed=1, epoch=0, bucketed=bucketed)
        drawn = np.concatenate(batches)
        assert len(batches) == 62
        assert len(set(drawn)) == len(drawn) == 992
        spreads[bucketed] = np.mean([np.ptp(lengths[batch]) for batch in batches])
    assert spreads[True] < 30 < 300 < spreads[False]


def test_the_order_depends_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(50, 488, 100)
    orders = [np.concatenate(batch_order(lengths, 8, *which)).tolist() for which in ((1, 0), (1, 0), (1, 1), (2, 0))]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2] != orders[3] != orders[0]
    with pytest.raises(HwdiffError, match="only 100 lines"):
        batch_order(lengths, 101, 0, 0)
