"""Figures of the network: a diagram of its parts, and what the noise level does to them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from hwdiff.model.summary import Layer

COLOURS = {"ConvBlock": "#cfe3f5", "AttentionBlock": "#f8ddc3", "Conv": "#e4e4e4"}
KINDS = {"ConvBlock": "conv block", "AttentionBlock": "attention"}
WIDTH, HEIGHT, LEVEL = 0.9, 0.6, 1.15  # of a box, and from level to level, in units of the grid


def plot_network(layers: Sequence[Layer], points: int) -> Figure:
    """Fig. 9 of Luhman & Luhman (2020), drawn from the parts themselves.

    From left to right the way of a line, downwards fewer points; above, what the whole network is told.
    layers: of `summary.layers`, with a line of so many `points`.
    """
    places, column, before = {}, 0, None
    for layer in layers:
        if layer.name in ("noise_embedding", "encoder"):
            places[layer.name] = (2.4 if layer.name == "encoder" else 0.3, 1.4)
            continue
        level = -np.log2(points / layer.shape[0]) * LEVEL
        if before and layer.sources and layer.sources == before.sources:  # two outputs, one above the other
            places[before.name] = (column - 1, level + 0.36)
            places[layer.name] = (column - 1, level - 0.36)
            continue
        places[layer.name], before = (column, level), layer
        column += 1
    figure = Figure(figsize=(0.8 * column, 4.7), layout="constrained")
    axes = figure.add_subplot()
    for layer in layers:
        x, y = places[layer.name]
        for source in layer.sources:
            u, v = places[source]
            quiet = source == "encoder"
            style = {"color": "0.75" if quiet else "0.3", "lw": 0.7 if quiet else 1, "arrowstyle": "-|>"}
            ends = {"xy": _edge((x, y), (u, v), _width(y)), "xytext": _edge((u, v), (x, y), _width(v))}
            axes.annotate(
                "", **ends, arrowprops={**style, "shrinkA": 0, "shrinkB": 1}, zorder=1 if quiet else 2
            )
    for layer in layers:
        x, y = places[layer.name]
        axes.add_patch(
            _box((x - _width(y) / 2, y - HEIGHT / 2), _width(y), COLOURS.get(layer.kind, "#dff0d8"))
        )
        kind = KINDS.get(layer.kind, layer.kind)
        text = f"{layer.name}\n{kind}\n{' x '.join(map(str, layer.shape))}"
        axes.text(x, y, text, ha="center", va="center", fontsize=6, zorder=4)
    for name, told in (("noise_embedding", "noise level"), ("encoder", "text, style")):
        x, y = places[name]
        arrow = {"color": "0.3", "arrowstyle": "-|>", "shrinkB": 1}
        above = {"xy": (x, y + HEIGHT / 2), "xytext": (x, y + 0.75), "arrowprops": arrow}
        axes.annotate(told, **above, ha="center", fontsize=7)
    for level in range(4):
        axes.text(-0.6, -LEVEL * level, f"{points // 2**level} points", fontsize=7, ha="right", va="center")
    axes.set(xlim=(-1.6, column - 0.4), ylim=(-4.0, 2.3))
    axes.set_axis_off()
    return figure


def _width(y):
    return WIDTH * (1.7 if y > 1 else 1)


def _edge(place, towards, width):
    """Where the way from a box's middle to another place leaves the box."""
    way = np.subtract(towards, place)
    with np.errstate(divide="ignore"):
        fraction = min(np.array([width / 2, HEIGHT / 2]) / np.abs(way))
    return tuple(place + fraction * way)


def _box(corner, width, colour):
    style = "round,pad=0.02,rounding_size=0.06"
    return FancyBboxPatch(corner, width, HEIGHT, boxstyle=style, fc=colour, ec="0.4", lw=0.7, zorder=3)


def plot_conditioning(t: Sequence[int], strength: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """How scales and shifts of the affine transforms (Fig. 6) change with the noise level.

    t: (T,) steps.
    strength: {group: (change of the scale (T,), change of the shift (T,))}, root mean squares over channels.
    """
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, place, title in zip(
        figure.subplots(1, 2), (0, 1), ("change of the scale", "change of the shift"), strict=True
    ):
        for name, both in strength.items():
            axes.plot(t, both[place], label=name)
        axes.set(xlabel="step t (60 is noise)", title=title, ylim=(0, None))
        axes.title.set_fontsize(9)
    axes.legend(frameon=False, fontsize=7)
    figure.axes[0].set_ylabel("root mean square over channels")
    return figure


def plot_attention_to_style(weights: np.ndarray, names: Sequence[str]) -> Figure:
    """Which columns of the style image each character looks at.

    weights: (L, S).   names: of the L tokens.
    """
    figure = Figure(figsize=(6, 0.6 + 0.16 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(weights, aspect="auto", cmap="magma", vmin=0)
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.set_xlabel("column of the style image, 96 pixels each")
    axes.set_ylabel("character")
    figure.colorbar(image, ax=axes, label="fraction of the attention")
    return figure
