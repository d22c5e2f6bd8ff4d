from dataclasses import replace

import numpy as np
import pytest

from hwdiff import HwdiffError
from hwdiff.data.dataset import style_lines
from hwdiff.diffusion.generate import sample
from hwdiff.diffusion.tracing import Trace, trace
from hwdiff.evaluation import alignment as module
from hwdiff.evaluation.alignment import (
    AlignedLine,
    Alignment,
    align,
    alignment_by_step,
    alignment_of,
    regenerate_aligned,
    relations,
    watch_attention,
)
from hwdiff.evaluation.error_rates import legibility
from hwdiff.ink.ink import Ink


def alignment(cells, text="abcd", blur=0.0):
    """Cells that each look at one character of the text."""
    weights = np.eye(len(text))[cells] * (1 - blur) + blur / len(text)
    return Alignment(text, 8, weights)


def test_ink_in_order_is_monotonic_and_covers_the_text():
    ordered = alignment([0, 0, 1, 2, 2, 3])
    assert ordered.monotonicity == ordered.coverage == ordered.sharpness == 1
    assert ordered.places.tolist() == [0, 0, 1, 2, 2, 3]
    assert ordered.runs.tolist() == [1, 1, 1, 1]
    assert ordered.scores["skips"] == ordered.scores["repeats"] == 0


def test_what_goes_wrong_is_told():
    skipped = alignment([0, 0, 1, 3, 3])
    assert skipped.coverage == 3 / 4
    assert [row["character"] for row in skipped.table() if row["skipped"]] == ["c"]
    assert skipped.scores["skips"] == 1 / 4
    assert alignment([0, 3]).scores["skips"] == 2 / 4
    assert alignment([3, 0]).scores["skips"] == 0
    assert skipped.table()[2]["first_point"] is None
    repeated = alignment([0, 1, 2, 1, 2, 3])
    assert [row["character"] for row in repeated.table() if row["repeated"]] == ["b", "c"]
    assert repeated.monotonicity == pytest.approx(4 / 5)
    assert alignment([3, 2, 1, 0]).monotonicity == 0
    assert alignment([0, 1, 2, 3], blur=1.0).sharpness == pytest.approx(1 / 4)
    assert alignment([0, 1, 2, 3], blur=0.4).sharpness == pytest.approx(0.7)
    assert alignment([2, 2]).monotonicity == 0


def test_the_table_tells_which_points_belong_to_a_character():
    rows = alignment([0, 0, 1, 2, 2, 3]).table()
    assert [(row["first_point"], row["last_point"]) for row in rows] == [
        (0, 15),
        (16, 23),
        (24, 39),
        (40, 47),
    ]
    shared = Alignment("ab", 4, np.array([[0.7, 0.3], [0.1, 0.9]]))
    assert [(row["first_point"], row["last_point"], row["fraction"]) for row in shared.table()] == [
        (0, 3, 0.7),
        (0, 7, 0.9),
    ]


def test_a_space_is_no_letter():
    assert alignment([0, 2], text="a b").coverage == 1
    assert alignment([0, 2], text="a b").scores["skips"] == 0
    assert [row["skipped"] for row in alignment([0, 0], text="a b").table()] == [False, False, True]


def test_only_what_was_written_counts():
    weights = np.zeros((3, 4, 6))
    weights[:, [0, 1, 2, 3], [0, 1, 5, 5]] = (
        1  # the last two cells are padding, and look at what follows the text
    )
    ink = Ink(np.ones((15, 2)), np.zeros(15), "ab")
    aligned = alignment_of(ink, weights, length=32)
    assert aligned.weights.tolist() == [[1, 0], [0, 1]]
    assert aligned.points == 8
    with pytest.raises(HwdiffError, match="ink of 0 points"):
        alignment_of(Ink(np.zeros((0, 2)), []), weights, 32)


def test_ink_is_the_same_whether_aligned_or_not(network):
    ink, aligned = align(network, "a text", seed=3, steps=6, sampler="ddim")
    [plain] = sample(network, ["a text"], seed=3, steps=6, sampler="ddim")
    np.testing.assert_allclose(ink.offsets, plain.offsets, rtol=1e-3, atol=1e-4 * np.abs(plain.offsets).max())
    assert aligned.weights.shape == (-(-len(ink) // 8), len("a text"))
    np.testing.assert_allclose(aligned.weights.sum(axis=1), 1)
    _, fine = align(network, "a text", block=0, seed=3, steps=6, sampler="ddim")
    assert fine.points == 2
    assert align(network, "a text", seed=3, steps=1, sampler="ddim")[1] is not None
    with pytest.raises(HwdiffError, match="block = 9: the network has 3 blocks"):
        align(network, "a text", block=9, steps=1)


def test_alignment_forms_step_by_step():
    """Three steps over two letters in four cells: no order, half of the last one's, the last."""
    uniform, half, last = (
        np.array([weights], dtype=np.float32)
        for weights in ([[0.5, 0.5]] * 4, [[1, 0], [1, 0], [1, 0], [1, 0]], [[1, 0], [1, 0], [0, 1], [0, 1]])
    )
    written = Trace(
        Ink(np.ones((32, 2)), np.zeros(32), "ab"), 32, attention={3: [uniform], 2: [half], 1: [last]}
    )
    rows = alignment_by_step(written)
    assert [row["t"] for row in rows] == [3, 2, 1]
    assert [row["sharpness"] for row in rows] == [0.5, 1, 1]
    assert [row["agreement"] for row in rows] == [0.5, 0.5, 1]
    assert rows[-1]["monotonicity"] == 1
    assert alignment_by_step(Trace(Ink(np.zeros((0, 2)), []))) == []


def test_lines_are_written_again_in_the_style_of_others_of_their_form(network, dataset, features, recognizer):
    options, told = {"sampler": "ddim", "steps": 4}, []
    rows = regenerate_aligned(
        network, dataset, features, [2, 5], recognizer, seed=7, progress=told.append, **options
    )
    style = features[style_lines(dataset.forms)[[5]]]
    ink, aligned = align(network, str(dataset.texts[5]), style=style[0], seed=8, **options)
    cer, real_cer = (legibility([one], recognizer, resamples=0).cer.value for one in (ink, dataset.ink(5)))
    steps = alignment_by_step(trace(network, str(dataset.texts[5]), style=style[0], seed=8, **options))
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
    maps, record = watch_attention(network, network.default_style)
    assert [name for name in maps if name.endswith("t55")] == ["0.t55", "1.t55", "2.t55"]
    for seed, text in enumerate(module.WATCHED):
        written = trace(network, text, style=network.default_style, seed=seed, guidance=1)
        for t in (55, 30, 5):
            found = maps[f"{seed}.t{t}"]
            np.testing.assert_allclose(found, written.weights(t).mean(axis=0), atol=1e-3)
            seen = alignment_of(written.ink, written.weights(t), written.length)
            assert record["monotonicity_at"][text][str(t)] == seen.monotonicity
        assert record["scores"][text] == module.alignment_of_trace(written).scores


def test_a_network_that_writes_nothing_cannot_be_watched(network, monkeypatch):
    written = replace(trace(network, "a", style=network.default_style), ink=Ink(np.zeros((0, 2)), []))
    monkeypatch.setattr(module, "trace", lambda *arguments, **options: written)
    with pytest.raises(HwdiffError, match="the network writes nothing for 'the quick"):
        watch_attention(network, network.default_style)
