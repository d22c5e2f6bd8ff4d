import numpy as np
import pytest

from hwdiff import HwdiffError, sample
from hwdiff.diffusion.attention_figures import plot_attention, plot_characters, plot_every_head
from hwdiff.diffusion.tracing import trace
from hwdiff.evaluation.alignment import Alignment, alignment_of_trace
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


def test_the_heat_maps_show_the_attention(written):
    figure = plot_attention(written, steps=(5, 1))
    assert [axes.get_title() for axes in figure.axes] == ["t = 5", "t = 1"]
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), written.weights(1).mean(axis=0).T)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["a", "␣", "t", "e", "x", "t", "end"]
    one = plot_attention(written, steps=(5,), block=0, head=2)
    np.testing.assert_array_equal(one.axes[0].images[0].get_array(), written.weights(5, 0)[2].T)
    assert sum(bool(axes.images) for axes in plot_every_head(written, 3).axes) == 3 + 4 + 6


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
