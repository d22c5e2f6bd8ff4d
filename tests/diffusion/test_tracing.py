import csv

import numpy as np
import pytest

from hwdiff import HwdiffError, sample
from hwdiff.diffusion.alignment import Alignment
from hwdiff.diffusion.attention_figures import (
    plot_against_truth,
    plot_attention,
    plot_characters,
    plot_every_head,
)
from hwdiff.diffusion.tracing import Trace, alignment_by_step, alignment_of_trace, trace
from hwdiff.ink.ink import Ink


@pytest.fixture(scope="module")
def written(network):
    return trace(network, "a text", steps=6, seed=3, sampler="ddim")


def test_all_steps_of_all_blocks_are_kept(network, written):
    assert written.steps == [6, 5, 4, 3, 2, 1]
    assert written.length == 96
    assert [written.weights(6, block).shape for block in range(3)] == [(3, 48, 7), (4, 24, 7), (6, 12, 7)]
    np.testing.assert_array_equal(written.weights(2), written.weights(2, 2))
    [plain] = sample(network, ["a text"], steps=6, seed=3, sampler="ddim")
    assert len(plain) == len(written.ink)
    assert written.noisy.keys() == written.predicted.keys() == written.attention.keys()
    assert written.noisy[6].shape == (96, 2)
    np.testing.assert_allclose(
        written.predicted[1].trimmed().offsets, written.ink.offsets, rtol=1e-5, atol=1e-6
    )
    with pytest.raises(HwdiffError, match="t = 7: the line was written in steps from 6 to 1"):
        written.weights(7)
    with pytest.raises(HwdiffError, match="block = 3: the network has 3 blocks"):
        written.weights(1, 3)


def maps(figure):
    return [axes for axes in figure.axes if axes.images]


def test_the_heat_maps_show_the_attention(written):
    figure = plot_attention(written, steps=(5, 1))
    assert [axes.get_title() for axes in figure.axes[:2]] == [
        "t = 5: the ink predicted (Eq. 10)",
        "t = 1: the ink predicted (Eq. 10)",
    ]
    first, second = maps(figure)
    np.testing.assert_allclose(second.images[0].get_array(), written.weights(1).mean(axis=0).T)
    assert [label.get_text() for label in first.get_yticklabels()] == [*"a␣text", "end"]
    assert all(axes.images[0].get_clim() == (0, 1) for axes in (first, second))
    assert figure.get_suptitle() == "block 2 (the last), 6 heads, 8 points a cell, mean of the heads"
    [one] = maps(plot_attention(written, steps=(5,), block=0, head=2))
    np.testing.assert_array_equal(one.images[0].get_array(), written.weights(5, 0)[2].T)
    assert len(maps(plot_every_head(written, 3))) == 3 + 4 + 6


def test_below_a_map_is_the_height_of_the_pen_that_was_predicted(written):
    [line] = plot_attention(written, steps=(5,)).axes[2].lines
    predicted = written.predicted[5]
    drawn = ~np.isnan(line.get_ydata())
    assert (drawn == ~predicted.pen_up).all()
    np.testing.assert_allclose(line.get_ydata()[drawn], predicted.offsets[:, 1].cumsum()[drawn])


def test_known_letters_are_drawn_over_the_map():
    aligned = Alignment("ab", 2, np.array([[1, 0], [0.5, 0.5], [0, 1]]))
    [axes] = maps(plot_against_truth({30: aligned}, np.array([0, 0, 0, 1, 1])))
    assert axes.get_title() == "t = 30"
    np.testing.assert_array_equal(axes.images[0].get_array(), aligned.weights.T)
    assert axes.lines[0].get_ydata().tolist() == [0, 0, 0, 1, 1]
    assert axes.figure.axes[-1].get_ylabel() == "fraction of a cell's attention to the characters"


def test_attention_is_kept_as_a_table(written, tmp_path):
    written.save_attention(tmp_path / "map.csv", steps=(6, 2))
    with (tmp_path / "map.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 12 * 7
    last = rows[-1]
    assert (last["t"], last["first_point"], last["token"], last["character"]) == ("2", "88", "6", "")
    assert rows[1]["character"] == " "
    assert float(last["weight"]) == pytest.approx(written.weights(2).mean(axis=0)[-1, -1], abs=1e-4)
    with pytest.raises(HwdiffError, match="t = 55"):
        written.save_attention(tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()


def test_ink_has_the_colour_of_its_character():
    ink = Ink(np.ones((6, 2)), [True, False, False, True, True, False], "abc")
    aligned = Alignment("abc", 2, np.eye(3))
    lines, dots = plot_characters(ink, aligned).axes[1].collections
    colours = lines.get_colors()
    assert len(colours) == 3
    assert len(np.unique(colours, axis=0)) == 3
    np.testing.assert_array_equal(dots.get_offsets(), [[4, 4]])
    assert (dots.get_facecolors() == colours[1]).all()  # both are of the second character
    lines, _ = plot_characters(ink, aligned, chosen=1).axes[1].collections
    assert len(np.unique(lines.get_colors(), axis=0)) == 2
    assert aligned.owners(5).tolist() == [0, 0, 1, 1, 2]


def test_the_alignment_is_that_of_the_later_half(written):
    aligned = alignment_of_trace(written)
    late = sum(written.weights(t) for t in (3, 2, 1))
    fraction = (late / late.sum(axis=-1, keepdims=True)).mean(axis=0)[: len(aligned.weights), :6]
    np.testing.assert_allclose(aligned.weights, fraction / fraction.sum(axis=1, keepdims=True), rtol=1e-5)


def test_ink_is_the_same_whether_aligned_or_not(network):
    written = trace(network, "a text", seed=3, steps=6, sampler="ddim")
    ink, aligned = written.ink, alignment_of_trace(written)
    [plain] = sample(network, ["a text"], seed=3, steps=6, sampler="ddim")
    np.testing.assert_allclose(ink.offsets, plain.offsets, rtol=1e-3, atol=1e-4 * np.abs(plain.offsets).max())
    assert aligned.weights.shape == (-(-len(ink) // 8), len("a text"))
    np.testing.assert_allclose(aligned.weights.sum(axis=1), 1)
    assert alignment_of_trace(written, block=0).points == 2
    assert alignment_of_trace(trace(network, "a text", seed=3, steps=1, sampler="ddim")) is not None
    with pytest.raises(HwdiffError, match="block = 9: the network has 3 blocks"):
        alignment_of_trace(written, block=9)


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
