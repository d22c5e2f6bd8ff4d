"""Inspectors for JupyterLab: attention, style interpolation, a writing desk.

In headless runs, where nobody can move a slider, each shows the same figure without controls.
"""

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from itertools import chain, count
from pathlib import Path

import ipywidgets
from IPython.display import Image, display
from matplotlib.figure import Figure

from hwdiff.diffusion.alignment import Alignment
from hwdiff.diffusion.attention_figures import plot_attention, plot_characters
from hwdiff.diffusion.generate import named_styles, sample, signal_levels, writing_settings
from hwdiff.diffusion.samplers import SAMPLERS, SPACINGS, schedule
from hwdiff.diffusion.style_gallery import mixed
from hwdiff.diffusion.tracing import alignment_of_trace, trace
from hwdiff.ink.ink import Ink
from hwdiff.ink.plot import COLOURS, plot_inks
from hwdiff.model.unet import UNet
from hwdiff.suite.outputs import HEADLESS
from hwdiff.utils.errors import HwdiffError

ALL = "all"


def headless() -> bool:
    """Whether inspectors are to show their figure only."""
    return bool(os.environ.get(HEADLESS))


def hover_svg(ink: Ink, aligned: Alignment) -> str:
    """An ink as SVG below its text. Pointing at a character lights up its ink, and at ink its character."""
    placed, (width, height) = ink.placed()
    owners, rules, names, lines, start = aligned.owners(len(ink)), [], [], [], 0
    space = max(width, 1.0) / max(len(aligned.text), 1)
    for number, character in enumerate(aligned.text):
        colour = "#" + "".join(f"{round(255 * channel):02x}" for channel in COLOURS[number % len(COLOURS)])
        rules.append(
            f".hwdiff:has(.c{number}:hover) .c{number} {{stroke: {colour}; fill: {colour}; opacity: 1}}"
        )
        name, x = escape(character.replace(" ", "␣")), (number + 0.5) * space
        names.append(
            f'<text class="c{number}" x="{x:.2f}" y="4" font-size="4" text-anchor="middle">{name}</text>'
        )
    for stroke in placed:
        # A dot is a line of no length, which round caps make visible.
        for place in range(min(1, len(stroke) - 1), len(stroke)):
            (x, y), (u, v) = stroke[max(0, place - 1)], stroke[place]
            lines.append(
                f'<path class="c{owners[start + place]}" d="M{x:.2f} {y + 6:.2f}L{u:.2f} {v + 6:.2f}"/>'
            )
        start += len(stroke)
    style = (
        ".hwdiff path {stroke: #222; stroke-width: 0.5; fill: none; stroke-linecap: round} "
        ".hwdiff text {fill: #222; stroke: none !important}"
    )
    hovered = ".hwdiff:has(text:hover, path:hover)"
    fade = f"{hovered} path, {hovered} text {{opacity: 0.25}}"
    return (
        '<svg class="hwdiff" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {width:.2f} {height + 6:.2f}" style="max-width: 900px; background: #fff" '
        f'role="img" aria-label="{escape(aligned.text, quote=True)}">'
        f"<style>{style} {fade} {' '.join(rules)}</style>{''.join(names)}{''.join(lines)}</svg>"
    )


def inspect_attention(
    network: UNet,
    text: str,
    *,
    style: str | None = None,
    seed: int = 0,
    guidance: float | None = None,
) -> ipywidgets.Widget | None:
    """Write a text and look through its attention, by step, block and head.

    Choosing a character, or pointing at it, lights up its ink.
    text, style, seed, guidance: what to start with; style None is the first of `named_styles`, guidance None
        the network's own.
    """
    guidance = _own(network, guidance)
    written = aligned = None

    def write(text, style, seed, guidance):
        nonlocal written, aligned
        new = trace(network, text, style=style, seed=seed, guidance=guidance)
        new_aligned = alignment_of_trace(new)
        if new_aligned is None:
            raise HwdiffError("nothing was written; choose another seed or text")
        written, aligned = new, new_aligned

    def heat(t, block, head):
        return plot_attention(written, (t,), block, None if head == ALL else head)

    def ink(character):
        return plot_characters(written.ink, aligned, None if character == ALL else character)

    try:
        styles = named_styles(network)
        style = style or next(iter(styles))
        write(text, style, seed, guidance)
    except HwdiffError as error:
        return ipywidgets.HTML(escape(str(error)))
    steps = written.steps
    if headless():
        return display(*map(_image, (heat(steps[len(steps) // 2], -1, ALL), ink(ALL))))

    # What is written.
    line = {
        "text": _text(text),
        "style": ipywidgets.Dropdown(options=list(styles), value=style, description="style"),
        "seed": _seed(seed),
        "guidance": _guidance(guidance),
    }
    said = ipywidgets.HTML()

    # What is looked at.
    blocks = len(written.attention[steps[0]])
    step = ipywidgets.SelectionSlider(options=steps, value=steps[len(steps) // 2], description="step t")
    block = ipywidgets.Dropdown(options=range(blocks), value=blocks - 1, description="block")
    head = ipywidgets.Dropdown(options=_heads(written, blocks - 1), description="head")
    character = ipywidgets.Dropdown(options=_characters(aligned), description="character")
    # Before the picture is drawn anew, which listens to the block too.
    block.observe(lambda change: setattr(head, "options", _heads(written, change["new"])), "value")
    heat_map = _Picture(heat, t=step, block=block, head=head)
    coloured = _Picture(ink, character=character)
    hover = ipywidgets.HTML(hover_svg(written.ink, aligned))

    def write_again(_):
        try:
            write(**{name: control.value for name, control in line.items()})
        except HwdiffError as error:
            said.value = escape(str(error))
            return
        said.value, character.options = "", _characters(aligned)
        hover.value = hover_svg(written.ink, aligned)
        heat_map.draw()
        coloured.draw()

    for control in line.values():
        control.observe(write_again, "value")
    return ipywidgets.VBox(
        [
            ipywidgets.HBox([line["text"], line["style"]]),
            ipywidgets.HBox([line["seed"], line["guidance"]]),
            said,
            ipywidgets.HBox([step, block, head]),
            heat_map,
            character,
            coloured,
            ipywidgets.HTML("Point at a character, or at a piece of ink:"),
            hover,
        ]
    )


def _characters(aligned):
    return [(ALL, ALL), *((f"{number}: {one}", number) for number, one in enumerate(aligned.text))]


def _heads(written, block):
    return [ALL, *range(len(written.weights(written.steps[0], block)))]


def interpolate(
    network: UNet,
    text: str,
    first: str,
    second: str,
    *,
    seed: int = 0,
    guidance: float | None = None,
    sampler: str = "eq12",
) -> ipywidgets.Widget | None:
    """Write a text in a style between two of `named_styles` (Fig. 5 of Luhman & Luhman 2020).

    first, second: their names. At λ = 1 the style is the first alone.
    seed, guidance, sampler: as in `sample`.
    """
    styles = named_styles(network)

    def render(text, first, second, fraction, seed, guidance):
        features = mixed([styles[first], styles[second]], [fraction, 1 - fraction])
        [ink] = sample(network, [text], style=features[None], seed=seed, sampler=sampler, guidance=guidance)
        return plot_inks(
            [ink],
            titles=[
                f"{fraction:.2f} {first} + {1 - fraction:.2f} {second}, {sampler}, guidance {guidance:g}"
            ],
        )

    guidance = _own(network, guidance)
    if headless():
        return display(_image(render(text, first, second, 0.5, seed, guidance)))
    controls = {
        "text": _text(text),
        "first": ipywidgets.Dropdown(options=list(styles), value=first, description="at λ = 1"),
        "second": ipywidgets.Dropdown(options=list(styles), value=second, description="at λ = 0"),
        "fraction": ipywidgets.FloatSlider(
            0.5, min=0, max=1, step=0.05, description="λ", continuous_update=False
        ),
        "seed": _seed(seed),
        "guidance": _guidance(guidance),
    }
    return ipywidgets.VBox([*controls.values(), _Picture(render, **controls)])


def desk(
    network: UNet,
    text: str,
    *,
    style: str | None = None,
    seed: int = 0,
    guidance: float | None = None,
    sampler: str = "eq12",
    folder: str | Path = ".",
) -> ipywidgets.Widget | None:
    """A desk at which to write any text. The ink is shown at once.

    Choosing a sampler sets the network's own number of steps, which can be changed; others are spaced
    as in `schedule`.
    text, style, seed, guidance, sampler: what to start with; style None is the first of `named_styles`,
        guidance None the network's own.
    folder: where the ink can be saved as SVG.
    """
    try:
        styles, written = named_styles(network), {}
    except HwdiffError as error:
        return ipywidgets.HTML(escape(str(error)))

    def render(text, style, seed, guidance, sampler, steps, spacing):
        own = signal_levels(network, sampler)
        levels = own if steps == len(own) - 1 else schedule(steps, spacing)
        options = {"seed": seed, "guidance": guidance, "sampler": sampler}
        [ink] = sample(network, [text], style=style, alpha_bar=levels, **options)
        with_what = (text, style, seed, guidance, sampler, steps, spacing)
        name = re.sub(r"[^\w.-]+", "-", "-".join(map(str, with_what))).lstrip(".")
        written["now"] = ink, name
        return plot_inks([ink], titles=[f"{sampler}, {steps} steps, guidance {guidance:g}"])

    style, guidance = style or next(iter(styles)), _own(network, guidance)
    steps = len(signal_levels(network, sampler)) - 1
    if headless():
        return display(_image(render(text, style, seed, guidance, sampler, steps, SPACINGS[0])))
    controls = {
        "text": _text(text),
        "style": ipywidgets.Dropdown(options=list(styles), value=style, description="style"),
        "seed": _seed(seed),
        "guidance": _guidance(guidance),
        "sampler": ipywidgets.Dropdown(options=list(SAMPLERS), value=sampler, description="sampler"),
        "steps": ipywidgets.BoundedIntText(steps, min=1, max=1000, description="steps"),
        "spacing": ipywidgets.Dropdown(options=SPACINGS, description="spacing"),
    }
    picture = _Picture(render, **controls)

    def take_its_steps(change):
        with picture.drawn_once():
            controls["steps"].value = len(signal_levels(network, change["new"])) - 1

    controls["sampler"].unobserve(picture.draw, "value")
    controls["sampler"].observe(take_its_steps, "value")
    save, said = ipywidgets.Button(description="save as SVG"), ipywidgets.HTML()

    def store(_):
        if "now" not in written:
            said.value = "nothing is written yet"
            return
        ink, name = written["now"]
        # Other texts may have the same name: what was saved stays.
        name = name.encode()[:100].decode(errors="ignore")  # file systems have limits
        names = chain([name], (f"{name}-{number}" for number in count(2)))
        path = next(path for path in (Path(folder) / f"{one}.svg" for one in names) if not path.exists())
        try:
            ink.save(path)
            said.value = f"wrote {escape(str(path))}"
        except HwdiffError as error:
            said.value = escape(str(error))

    save.on_click(store)
    return ipywidgets.VBox([*controls.values(), picture, ipywidgets.HBox([save, said])])


def _own(network, guidance):
    return writing_settings(network)["guidance"] if guidance is None else guidance


def _text(value):
    return ipywidgets.Text(value, description="text", continuous_update=False)


def _seed(value):
    return ipywidgets.BoundedIntText(value, min=0, max=2**31, description="seed")


def _guidance(value):
    return ipywidgets.FloatSlider(
        value,
        min=min(1, value),
        max=max(5, value),
        step=0.25,
        description="guidance",
        continuous_update=False,
    )


def _png(figure):
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def _image(figure):
    return Image(_png(figure))


class _Picture(ipywidgets.VBox):
    """A figure that is drawn again when one of its controls changes.

    What is wrong with a choice is said below it; the picture stays.
    """

    def __init__(self, render: Callable[..., Figure], **controls: ipywidgets.Widget):
        layout = {"max_width": "100%", "align_self": "flex-start"}
        self.image, self.said = ipywidgets.Image(format="png", layout=layout), ipywidgets.HTML()
        super().__init__([self.image, self.said])
        self._render, self._controls = render, controls
        self._waits = False
        for control in controls.values():
            control.observe(self.draw, "value")
        self.draw()

    @contextmanager
    def drawn_once(self) -> Iterator[None]:
        """Draw the figure at the end of the block, however many controls are changed in it."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
        self.draw()

    def draw(self, _=None):
        """Draw the figure for the present values of the controls."""
        if self._waits:
            return
        try:
            figure = self._render(**{name: control.value for name, control in self._controls.items()})
            self.image.value, self.said.value = _png(figure), ""
        except HwdiffError as error:
            self.said.value = escape(str(error))
