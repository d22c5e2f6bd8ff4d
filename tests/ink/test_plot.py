import numpy as np
import pytest
from lxml import etree
from matplotlib.figure import Figure

from hwdiff import HwdiffError, Ink
from hwdiff.ink import plot


@pytest.fixture
def figure():
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([1, 2, 3])
    return figure


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_figure_gives_the_same_bytes(figure, tmp_path, suffix):
    plot.save_figure(figure, tmp_path / "new" / f"a.{suffix}")
    plot.save_figure(figure, tmp_path / f"b.{suffix}")
    assert (tmp_path / "new" / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    with pytest.raises(HwdiffError, match="saved as"):
        plot.save_figure(figure, tmp_path / "a.pdf")


def test_pages_of_ink_have_a_place_for_each_line():
    inks = [Ink([(0, 0), (3, 1)], [True, False], f"line {i}") for i in range(5)]
    figure = plot.plot_inks(inks, columns=2, title="a page")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [ink.text for ink in inks]


def test_lines_of_a_page_have_one_scale():
    """Ink twice as large is drawn twice as large, wherever it stands."""
    small, large = (Ink([(0, 0), (size, 0), (0, 2 * size)], [True, False, False]) for size in (3, 6))
    figure = plot.plot_inks([small, large, small], columns=2)
    figure.draw_without_rendering()
    extents = []
    for axes in figure.axes:
        [[line]] = [collection.get_paths() for collection in axes.collections]
        extents.append(np.ptp(axes.transData.transform(line.vertices), axis=0))
    np.testing.assert_allclose(extents[1], 2 * extents[0])
    np.testing.assert_allclose(extents[2], extents[0])
    assert extents[0][1] == pytest.approx(2 * extents[0][0])


def test_dots_are_drawn_and_empty_ink_is_a_place():
    figure = plot.plot_inks([Ink([(0, 0), (1, 1)], [True, True]), Ink(np.zeros((0, 2)), [])])
    assert len(figure.axes[0].collections[1].get_offsets()) == 2
    assert len(figure.axes) == 2


def test_captions_that_xml_cannot_hold_are_cleaned(tmp_path):
    plot.save_figure(plot.plot_inks([Ink([(0, 0), (1, 1)], [True, False], "a\x07b")]), tmp_path / "a.svg")
    etree.fromstring((tmp_path / "a.svg").read_bytes())


def test_a_page_without_ink_is_refused():
    with pytest.raises(HwdiffError, match="there is no ink to draw"):
        plot.plot_inks([])
