import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from hwdiff import HwdiffError, Ink, figures


@pytest.fixture
def figure():
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([1, 2, 3])
    return figure


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_figure_gives_the_same_bytes(figure, tmp_path, suffix):
    figures.save_figure(figure, tmp_path / "new" / f"a.{suffix}")
    figures.save_figure(figure, tmp_path / f"b.{suffix}")
    assert (tmp_path / "new" / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    with pytest.raises(HwdiffError, match="saved as"):
        figures.save_figure(figure, tmp_path / "a.pdf")


def test_line_images_are_compared(dataset, extractor):
    image = dataset.line_image(0)
    figure, cosines = figures.compare_line_images({"same": (image, image), "other": (image, dataset.line_image(5))}, extractor)
    assert cosines["same"] == pytest.approx(1)
    assert cosines["other"] < 0.999
    assert len(figure.axes) == 4


def test_pages_of_ink_have_a_place_for_each_line():
    inks = [Ink([(0, 0), (3, 1)], [True, False], f"line {i}") for i in range(5)]
    figure = figures.plot_inks(inks, columns=2, title="a page")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [ink.text for ink in inks]


def test_the_loss_curve_shows_the_run_and_the_port(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps({"step": step, "loss": 2 / step}) + "\n" for step in range(1, 301)))
    metrics = figures.read_metrics(tmp_path)
    np.testing.assert_array_equal(metrics["step"], np.arange(1, 301))
    each, mean, port = figures.plot_loss(metrics).axes[0].lines
    assert each.get_ydata()[9] == 0.2
    assert mean.get_ydata()[9] == pytest.approx(np.mean([2 / step for step in range(1, 11)]))
    assert list(port.get_xdata()) == [100, 200, 300]
    with pytest.raises(HwdiffError, match="no training metrics"):
        figures.read_metrics(tmp_path / "none")
