import pytest
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
