"""Figures of a training run: its loss by step and by noise level."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import read_jsonl

AVERAGED = 20  # steps, for a curve that can be read
# Loss (stroke + pen) of a public PyTorch port on training batches, padding included, by step: means of five
# steps, from data/best_exp/run.log of sleep3r/Diffusion-Handwriting-Generation.pytorch at commit 0ec70d2. Its
# learning rate is 3e-4, perhaps after a warm-up of 10 000 steps, its noise levels are the released ones.
PORT_CURVE = {
    100: 2.02,
    200: 1.23,
    300: 0.93,
    500: 0.68,
    1000: 0.501,
    5000: 0.347,
    10_000: 0.315,
    20_000: 0.284,
    40_000: 0.261,
    60_000: 0.246,
}


def read_metrics(run: str | Path) -> dict[str, np.ndarray]:
    """The metrics of a training run: {name: (steps,) array}.

    run: its directory.
    Raises HwdiffError when it has none.
    """
    path = Path(run) / "metrics.jsonl"
    try:
        rows = read_jsonl(path)
        # A setting that was changed on the way may add a term or take one away.
        names = dict.fromkeys(["step", "loss", *(name for row in rows for name in row)])
        if not rows:
            raise ValueError("no step is logged")
        metrics = {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
        if words := [name for name, values in metrics.items() if values.dtype.kind not in "if"]:
            raise ValueError(f"{words[0]} is not always a number")
        return metrics
    except (OSError, ValueError) as error:
        advice = "give the directory that hwdiff train wrote"
        raise HwdiffError(f"{path}: no training metrics ({error}); {advice}") from error


def plot_loss(metrics: dict[str, np.ndarray]) -> Figure:
    """The loss of a run by step, its mean over the last steps, and the curve of a public port.

    metrics: from `read_metrics`.
    """
    step, loss = metrics["step"], metrics["loss"]
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(step, loss, color="0.7", linewidth=0.7, label="hwdiff, each step")
    sums = np.cumsum(np.concatenate(([0.0], loss)))
    starts = np.maximum(np.arange(1, len(loss) + 1) - AVERAGED, 0)
    means = (sums[1:] - sums[starts]) / (np.arange(1, len(loss) + 1) - starts)
    axes.plot(step, means, color="C0", label=f"hwdiff, mean of the last {AVERAGED} steps")
    port = {at: value for at, value in PORT_CURVE.items() if at <= step[-1]}
    axes.plot(port.keys(), port.values(), "kx", label="public PyTorch port, mean of the last 5")
    axes.set(xlabel="step", ylabel="loss (stroke + pen)", yscale="log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.legend(frameon=False)
    return figure


def plot_validation(rows: Sequence[dict], baseline: dict[int, float]) -> Figure:
    """The validation loss by noise level: of the strokes on the left, of the pen on the right.

    rows: of `validation.jsonl`; each is a curve.
    baseline: {t: loss} of the strokes by `validation.linear_baseline`, dashed.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    names = {"stroke": "stroke loss", "pen": "pen loss, not weighted"}
    for axes, term in zip(figure.subplots(1, 2), names, strict=True):
        for place, row in enumerate(rows):
            levels = sorted(map(int, row[term]))
            losses = [row[term][str(t)] for t in levels]
            shade = str(0.75 - 0.75 * (place + 1) / len(rows))
            axes.plot(levels, losses, "o-", markersize=3, color=shade, label=f"step {row['step']}")
        if term == "stroke":
            style = {"color": "C3", "linestyle": "--", "label": "best linear predictor"}
            axes.plot(baseline.keys(), baseline.values(), **style)
        axes.set(xlabel="t (more noise to the right)", ylabel=names[term], ylim=(0, None))
        axes.legend(frameon=False, fontsize=7)
    return figure
