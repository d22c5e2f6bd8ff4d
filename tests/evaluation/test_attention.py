from dataclasses import replace

import numpy as np
import pytest

from hwdiff import HwdiffError
from hwdiff.data.dataset import style_lines
from hwdiff.diffusion.alignment import alignment_of
from hwdiff.diffusion.tracing import Trace, alignment_by_step, alignment_of_trace, trace
from hwdiff.evaluation import attention as module
from hwdiff.evaluation.attention import AlignedLine, regenerate_aligned, relations, watch_attention
from hwdiff.evaluation.error_rates import legibility
from hwdiff.ink.ink import Ink


def test_lines_are_written_again_in_the_style_of_others_of_their_form(network, dataset, features, recognizer):
    options, told = {"sampler": "ddim", "steps": 4}, []
    rows = regenerate_aligned(
        network, dataset, features, [2, 5], recognizer, block=0, seed=7, progress=told.append, **options
    )
    style = features[style_lines(dataset.forms)[[5]]]
    written = trace(network, str(dataset.texts[5]), style=style[0], seed=8, **options)
    ink, aligned = written.ink, alignment_of_trace(written, 0)
    cer, real_cer = (legibility([one], recognizer, resamples=0).cer.value for one in (ink, dataset.ink(5)))
    steps = alignment_by_step(written, 0)
    assert rows[1] == AlignedLine(str(dataset.texts[5]), aligned.scores, steps, cer, real_cer)
    assert told == [1, 1]


def test_a_line_without_ink_is_none(network, dataset, features, recognizer, monkeypatch):
    empty = Trace(Ink(np.zeros((0, 2)), []), attention={1: [np.ones((1, 1, 1))]})
    monkeypatch.setattr(module, "trace", lambda *arguments, **options: empty)
    assert regenerate_aligned(network, dataset, features, [0], recognizer) == [None]


def lines_of(rates, real=None, **scores):
    """A line for each rate, with its scores, each of a text of its own."""
    real = np.random.default_rng(1).random(len(rates)) if real is None else real
    return [
        AlignedLine(f"text {number}", {name: some[number] for name, some in scores.items()}, [], rate, hard)
        for number, (rate, hard) in enumerate(zip(rates, real, strict=True))
    ]


def test_relations_are_rank_correlations():
    generator = np.random.default_rng(0)
    rates = generator.random(200)
    lines = lines_of(
        rates, forward=rates**3, against=-rates, neither=generator.random(200), same=np.ones(200)
    )
    found = relations(lines, resamples=200)
    assert found["forward"].correlation == pytest.approx(1)
    assert found["against"].correlation == pytest.approx(-1)
    assert found["neither"].low < 0 < found["neither"].high
    assert np.isnan([found["same"].correlation, found["same"].low, found["same"].given_high]).all()
    assert found["same"].differing == 0 and found["neither"].differing == 199
    with pytest.raises(HwdiffError, match="2 lines"):
        relations(lines[:2])
    assert np.isnan(relations(lines_of(np.ones(9), some=rates[:9]), resamples=20)["some"].correlation)


def test_lines_of_one_text_count_as_one():
    generator = np.random.default_rng(0)
    alone = lines_of(generator.random(40), some=generator.random(40)) * 5
    apart = [replace(line, text=f"{line.text} {number}") for number, line in enumerate(alone)]
    wide, narrow = (relations(lines, resamples=200)["some"] for lines in (alone, apart))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_a_resample_without_variation_counts_as_no_relation():
    """One line of twelve differs: a third of the resamples do not draw it, so that 0 is in the interval."""
    found = relations(lines_of(np.eye(12)[3], some=-np.eye(12)[3]), resamples=500)["some"]
    assert found.correlation == pytest.approx(-1)
    assert found.high == 0 and found.differing == 1


def test_hard_texts_alone_make_no_relation():
    generator = np.random.default_rng(0)
    hard = generator.random(400)
    noise = generator.normal(0, 0.1, (2, 400))
    found = relations(lines_of(hard + noise[0], hard, confounded=hard + noise[1]), resamples=100)[
        "confounded"
    ]
    assert found.correlation > 0.8
    assert found.given_low < 0 < found.given_high
    rates = hard + noise[0]
    own = relations(lines_of(rates, hard, own=rates + 0.1 * noise[1]), resamples=100)["own"]
    assert own.given_low > 0.8


def test_a_training_is_watched_by_three_fixed_lines(network, monkeypatch):
    monkeypatch.setattr(network, "metadata", {"writing": {"guidance": 2.0}})  # of no account
    monkeypatch.setattr(module, "WATCHED", ("a fox", "ten", "no way"))
    maps, record = watch_attention(network, network.default_style)
    assert [name for name in maps if name.endswith("t55")] == ["0.t55", "1.t55", "2.t55"]
    for seed, text in enumerate(module.WATCHED):
        written = trace(network, text, style=network.default_style, seed=seed, guidance=1)
        for t in (55, 30, 5):
            found = maps[f"{seed}.t{t}"]
            np.testing.assert_allclose(found, written.weights(t).mean(axis=0), atol=1e-3)
            seen = alignment_of(written.ink, written.weights(t), written.length)
            assert record["monotonicity_at"][text][str(t)] == seen.monotonicity
        assert record["scores"][text] == alignment_of_trace(written).scores


def test_a_network_that_writes_nothing_cannot_be_watched(network, monkeypatch):
    written = replace(trace(network, "a", style=network.default_style), ink=Ink(np.zeros((0, 2)), []))
    monkeypatch.setattr(module, "trace", lambda *arguments, **options: written)
    with pytest.raises(HwdiffError, match="the network writes nothing for 'the quick"):
        watch_attention(network, network.default_style)


def test_a_relation_that_is_none_has_no_interval():
    rates = np.random.default_rng(0).random(40)
    [relation] = relations(lines_of(rates, real=rates, score=rates + 0.1)).values()
    assert np.isfinite((relation.low, relation.high)).all()
    assert np.isnan((relation.given_text, relation.given_low, relation.given_high)).all()
