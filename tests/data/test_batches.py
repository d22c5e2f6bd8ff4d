from copy import copy

import numpy as np
import pytest
import torch

from hwdiff.data.batches import Lines, batch_order, bucket_length
from hwdiff.data.dataset import style_lines
from hwdiff.data.line_images import LineImages
from hwdiff.data.style_features import StyleFeatures
from hwdiff.ink.images import pad_to_width
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.interrupt import Stop


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
    lines, indices = Lines(dataset, features, styles, "cpu"), np.array([0, 5])
    batch = lines.batch(indices, 488)
    assert batch.strokes.shape == (2, 488, 2)
    length = dataset.lengths[0]
    offsets, pen_up = dataset.strokes(0)
    assert torch.equal(batch.strokes[0, :length], torch.from_numpy(offsets))
    assert (batch.strokes[0, length:] == 0).all()
    assert (batch.pen_up[0, length:] == 1).all()
    assert batch.pen_up[0, :length, 0].tolist() == pen_up.tolist()
    tokens = dataset.tokens(0)
    assert batch.text[0, : len(tokens)].tolist() == tokens.tolist()
    assert (batch.text[0, len(tokens) :] == 0).all()
    assert torch.equal(batch.style, features[styles[indices]])
    assert lines.batch(indices).strokes.shape[1] == -(-dataset.lengths[indices].max() // 32) * 32
    assert [bucket_length(np.array(lengths)) for lengths in ([1], [32, 5], [33], [481])] == [32, 32, 64, 488]


def test_a_line_that_is_drawn_already_is_not_drawn_again(dataset, extractor, tmp_path):
    blank = np.full((96, 200), 255, dtype=np.uint8)
    images, line = LineImages(dataset, tmp_path, workers=1), np.array([2])
    drawn = StyleFeatures(dataset, extractor, tmp_path / "drawn", line_images=images)
    assert torch.equal(drawn[line], StyleFeatures(dataset, extractor, tmp_path / "own")[line])
    other = StyleFeatures(dataset, extractor, tmp_path / "other", line_images=[blank] * len(dataset))
    assert not torch.equal(drawn[line], other[line])


def test_stopping_keeps_what_is_computed(dataset, extractor, tmp_path):
    stop, features = Stop(), StyleFeatures(dataset, extractor, tmp_path)

    def interrupt(count):
        stop.signal = "SIGINT"

    features.compute(np.arange(6), interrupt, stop)
    assert 0 < len(features.missing(np.arange(6))) < 6


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
    seeds_and_epochs = ((1, 0), (1, 0), (1, 1), (2, 0))
    orders = [np.concatenate(batch_order(lengths, 8, *which)).tolist() for which in seeds_and_epochs]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2] != orders[3] != orders[0]
    with pytest.raises(HwdiffError, match="only 100 lines"):
        batch_order(lengths, 101, 0, 0)


def test_lines_longer_than_the_network_takes_are_refused(dataset, features):
    long = copy(dataset)
    long.lengths = dataset.lengths + 488
    with pytest.raises(HwdiffError, match="the network takes at most 488; prepare it again"):
        Lines(long, features, style_lines(dataset.forms), "cpu")


def test_styles_in_a_gpus_memory_are_those_of_the_style_lines(dataset, features):
    styles, indices = style_lines(dataset.forms), np.array([0, 5])
    lines = Lines(dataset, features, styles, "cpu")
    lines._style = torch.arange(len(dataset)).half()[:, None, None]  # as where the device is a GPU
    assert lines.batch(indices).style.flatten().tolist() == styles[indices].tolist()


def test_batches_come_in_no_order_of_length_and_any_line_may_be_left_over():
    lengths = np.random.default_rng(0).integers(50, 488, 320)
    means = [lengths[batch].mean() for batch in batch_order(lengths, 16, seed=1, epoch=0)]
    assert abs(np.corrcoef(means, np.arange(20))[0, 1]) < 0.9
    drawn = (np.concatenate(batch_order(np.arange(101), 50, seed=0, epoch=epoch)) for epoch in range(20))
    assert len({int(np.setdiff1d(np.arange(101), some)[0]) for some in drawn}) > 5
