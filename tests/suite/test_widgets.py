import re

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure

from hwdiff import HwdiffError
from hwdiff.diffusion.samplers import published_levels, schedule
from hwdiff.diffusion.style_gallery import load_styles
from hwdiff.diffusion.tracing import Trace, alignment_of_trace, trace
from hwdiff.ink.ink import Ink
from hwdiff.suite import outputs, widgets

INK = Ink([(0, 0), (1, 1)], [True, False])


@pytest.fixture(autouse=True)
def a_person_looks(monkeypatch):
    monkeypatch.delenv(outputs.HEADLESS, raising=False)


@pytest.fixture(scope="module")
def written(network):
    return trace(network, "a <b", steps=4, seed=3, sampler="ddim")


def controls(widget, description):
    found = [child for child in _all(widget) if getattr(child, "description", None) == description]
    assert len(found) == 1
    return found[0]


def _all(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _all(child)


def pictures(widget):
    return [child.image.value for child in _all(widget) if isinstance(child, widgets._Picture)]


def said(widget):
    return " ".join(child.value for child in _all(widget) if type(child).__name__ == "HTML")


def test_each_control_of_the_attention_changes_its_picture(network):
    widget = widgets.inspect_attention(network, "a <b", seed=3)
    for description, value in (("step t", 1), ("head", 1), ("block", 0)):
        before = pictures(widget)
        controls(widget, description).value = value
        after = pictures(widget)
        assert before[0] != after[0], description
        assert before[1] == after[1]
    assert controls(widget, "head").options == ("all", 0, 1, 2)
    controls(widget, "block").value = len(controls(widget, "block").options) - 1
    controls(widget, "head").value = most = controls(widget, "head").options[-1]
    controls(widget, "block").value = 0
    assert (most, controls(widget, "head").options) == (5, ("all", 0, 1, 2))
    assert pictures(widget)[0] != b""
    before = pictures(widget)
    controls(widget, "character").value = 0
    assert before[1] != pictures(widget)[1]
    for description, value in (("text", "ab"), ("style", "boris"), ("seed", 4)):
        before = pictures(widget)
        controls(widget, description).value = value
        after = pictures(widget)
        assert before[0] != after[0] and before[1] != after[1], description
    assert [name for name, _ in controls(widget, "character").options] == ["all", "0: a", "1: b"]
    before = pictures(widget)
    controls(widget, "text").value = "  "
    assert pictures(widget) == before
    assert "text" in said(widget)


def test_pointing_at_a_character_is_a_matter_of_its_class(written):
    aligned = alignment_of_trace(written)
    svg = widgets.hover_svg(written.ink, aligned)
    assert "&lt;" in svg
    owners = aligned.owners(len(written.ink))
    lines, dots = ~written.ink.pen_up, written.ink.pen_up & np.append(written.ink.pen_up[1:], True)
    drawn = np.flatnonzero(np.append(False, lines[1:]) | dots)
    assert [int(number) for number in re.findall(r'<path class="c(\d+)"', svg)] == owners[drawn].tolist()
    assert all(f".c{number}:hover" in svg for number in range(4))


def test_styles_are_mixed_and_a_wrong_choice_is_said(network):
    widget = widgets.interpolate(network, "ab", "ada", "boris", sampler="ddim")
    before = pictures(widget)
    controls(widget, "λ").value = 0.9
    assert pictures(widget) != before
    before = pictures(widget)
    controls(widget, "text").value = "   "
    assert pictures(widget) == before
    assert "text" in said(widget)


def test_at_1_the_style_is_the_first(network, monkeypatch):
    seen, styles = [], load_styles()
    monkeypatch.setattr(widgets, "sample", lambda *given, style, **options: seen.append(style[0]) or [INK])
    widget = widgets.interpolate(network, "ab", "ada", "boris", sampler="ddim")
    for fraction, name in ((1, "ada"), (0, "boris")):
        controls(widget, "λ").value = fraction
        torch.testing.assert_close(seen[-1], styles[name])
    monkeypatch.setattr(widgets, "sample", lambda *given, style, **options: seen.append(style) or [INK])
    widget = widgets.desk(network, "ab", style="clara", sampler="ddim")
    controls(widget, "style").value = "emil"
    assert seen[-2:] == ["clara", "emil"]


def test_the_desk_writes_and_saves(network, tmp_path, monkeypatch):
    widget = widgets.desk(network, "ab", style="clara", sampler="ddim", folder=tmp_path)
    before = pictures(widget)
    controls(widget, "seed").value = 5
    assert pictures(widget) != before
    controls(widget, "save as SVG").click()
    ink = Ink.load(tmp_path / "ab-clara-5-1.0-ddim-60-log-snr.svg")
    assert ink.text == "ab"
    before = pictures(widget)
    controls(widget, "steps").value = 12
    assert pictures(widget) != before
    before = pictures(widget)
    controls(widget, "spacing").value = "karras"
    assert pictures(widget) != before
    # What is shown is saved, not what could not be written.
    controls(widget, "text").value = " "
    controls(widget, "save as SVG").click()
    assert Ink.load(tmp_path / "ab-clara-5-1.0-ddim-12-karras.svg").text == "ab"
    assert len(list(tmp_path.iterdir())) == 2
    # Another text with the same name of its file, and one whose file would be hidden.
    for text in ("ab!", "ab?", "..a"):
        controls(widget, "text").value = text
        controls(widget, "save as SVG").click()
    saved = sorted(path.name for path in tmp_path.iterdir())
    assert [name for name in saved if name.startswith(("ab--", "a-"))] == [
        "a-clara-5-1.0-ddim-12-karras.svg",
        "ab--clara-5-1.0-ddim-12-karras-2.svg",
        "ab--clara-5-1.0-ddim-12-karras.svg",
    ]
    assert Ink.load(tmp_path / "ab--clara-5-1.0-ddim-12-karras.svg").text == "ab!"
    controls(widget, "text").value = "ab"
    drawn = []
    monkeypatch.setattr(widgets, "plot_inks", lambda *given, titles: drawn.extend(titles) or Figure())
    controls(widget, "sampler").value = "dpm"
    assert (controls(widget, "steps").value, controls(widget, "spacing").value) == (60, "karras")
    assert drawn == ["dpm, 60 steps, guidance 1"]


def test_the_desk_writes_in_the_networks_own_levels(network, monkeypatch):
    monkeypatch.setattr(network, "metadata", {**network.metadata, "writing": {"levels": [60, 30, 1]}})
    seen = []
    monkeypatch.setattr(widgets, "sample", lambda *given, **options: seen.append(options) or [INK])
    widget = widgets.desk(network, "ab", style="clara")
    assert controls(widget, "steps").value == 3
    assert seen[-1]["alpha_bar"].tolist() == published_levels([60, 30, 1]).tolist()
    controls(widget, "steps").value = 4
    assert seen[-1]["alpha_bar"].tolist() == schedule(4).tolist()
    controls(widget, "sampler").value = "dpm"
    assert seen[-1]["alpha_bar"].tolist() == schedule().tolist()


def test_a_desk_that_has_written_nothing_saves_nothing(network, tmp_path):
    widget = widgets.desk(network, " ", sampler="ddim", folder=tmp_path)
    controls(widget, "save as SVG").click()
    assert list(tmp_path.iterdir()) == []


def test_styles_that_do_not_fit_the_network_are_not_mixed(network, monkeypatch):
    other = {"style_weights": {"name": "other", "padding": "both", "fingerprint": "f" * 64}}
    monkeypatch.setattr(network, "metadata", other)
    with pytest.raises(HwdiffError, match=r"the named styles do not fit it$"):
        widgets.interpolate(network, "ab", "ada", "boris", sampler="ddim")


def test_headless_the_figure_is_shown_without_controls(network, monkeypatch):
    monkeypatch.setenv(outputs.HEADLESS, "1")
    shown = []
    monkeypatch.setattr(widgets, "display", lambda *pictures: shown.extend(pictures))
    assert widgets.inspect_attention(network, "ab") is None
    assert widgets.interpolate(network, "ab", "ada", "boris", sampler="ddim") is None
    assert widgets.desk(network, "ab", sampler="ddim") is None
    assert len(shown) == 4
    assert all(picture.data.startswith(b"\x89PNG") for picture in shown)
    assert not InteractiveShell.initialized()


def test_of_a_line_without_ink_it_is_said(network, monkeypatch):
    empty = Trace(Ink(np.zeros((0, 2)), []), 8, attention={1: [np.ones((1, 1, 2))]})
    monkeypatch.setattr(widgets, "trace", lambda *arguments, **options: empty)
    assert "nothing was written" in widgets.inspect_attention(network, "ab").value


@pytest.mark.parametrize("value", [0.5, 2.5, 7.0])
def test_guidance_is_what_the_model_has(value):
    assert widgets._guidance(value).value == value


def test_seed_and_guidance_reach_what_writes(network, written, monkeypatch):
    seen = []
    monkeypatch.setattr(widgets, "sample", lambda *given, **how: seen.append(how) or [INK])
    monkeypatch.setattr(widgets, "trace", lambda *given, **how: seen.append(how) or written)
    for widget in (
        widgets.interpolate(network, "ab", "ada", "boris", sampler="ddim"),
        widgets.desk(network, "ab", sampler="ddim"),
        widgets.inspect_attention(network, "a <b"),
    ):
        controls(widget, "seed").value = 5
        controls(widget, "guidance").value = 3
        assert (seen[-1]["seed"], seen[-1]["guidance"]) == (5, 3)
