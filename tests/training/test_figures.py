import json

import numpy as np
import pytest

from hwdiff.training.figures import plot_loss, read_metrics
from hwdiff.utils.errors import HwdiffError


def test_the_loss_curve_shows_the_run_and_the_port(tmp_path):
    rows = [json.dumps({"step": step, "loss": 2 / step}) for step in range(1, 301)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{row}\n" for row in rows))
    metrics = read_metrics(tmp_path)
    np.testing.assert_array_equal(metrics["step"], np.arange(1, 301))
    each, mean, port = plot_loss(metrics).axes[0].lines
    assert each.get_ydata()[9] == 0.2
    assert mean.get_ydata()[9] == pytest.approx(np.mean([2 / step for step in range(1, 11)]))
    assert mean.get_ydata()[99] == pytest.approx(np.mean([2 / step for step in range(81, 101)]))
    assert list(port.get_xdata()) == [100, 200, 300]
    with pytest.raises(HwdiffError, match="no training metrics"):
        read_metrics(tmp_path / "none")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(HwdiffError, match="no training metrics"):
        read_metrics(tmp_path)


def test_a_term_that_was_switched_on_or_off_is_missing_in_between(tmp_path):
    """Guided attention may be changed when a run is resumed."""
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "attention": 0.5}, {"step": 3, "loss": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = read_metrics(tmp_path)
    np.testing.assert_array_equal(metrics["attention"], [np.nan, 0.5, np.nan])
    assert len(plot_loss(metrics).axes[0].lines) == 3


@pytest.mark.parametrize(
    "row", ['{"step": 2, "loss": "low"}', '{"step": 2, "loss": [1]}', '{"step": 2, "loss": null}', "3"]
)
def test_metrics_that_are_no_numbers_are_refused(tmp_path, row):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "loss": 2.0}}\n{row}\n')
    with pytest.raises(HwdiffError, match=r"metrics\.jsonl: (no training metrics|line 2 is no row of a log)"):
        read_metrics(tmp_path)


def test_a_mean_of_rows_that_are_missing_is_of_those_that_are_there():
    metrics = {"step": np.array([1, 500, 501]), "loss": np.full(3, 0.5)}
    [_, mean, *_] = plot_loss(metrics).axes[0].lines
    assert mean.get_ydata() == pytest.approx([0.5] * 3)
