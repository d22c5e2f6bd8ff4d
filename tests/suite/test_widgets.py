import re

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

from hwdiff.diffusion.tracing import Trace, trace
from hwdiff.evaluation.alignment import alignment_of_trace
from hwdiff.ink.ink import Ink
from hwdiff.suite import outputs, widgets


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


def test_each_control_of_the_attention_changes_its_picture(written):
    widget = widgets.inspect_attention(written)
    for description, value in (("step t", 1), ("head", 1), ("block", 0)):
        before = pictures(widget)
        controls(widget, description).value = value
        after = pictures(widget)
        assert before[0] != after[0], description
        assert before[1] == after[1]
    assert controls(widget, "head").options == ("all", 0, 1, 2)
    before = pictures(widget)
    controls(widget, "character").value = 0
    assert before[1] != pictures(widget)[1]


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
    assert any(
        "text" in getattr(child, "value", b"").__str__()
        for child in _all(widget)
        if type(child).__name__ == "HTML"
    )


def test_the_desk_writes_and_saves(network, tmp_path):
    widget = widgets.desk(network, "ab", style="clara", sampler="ddim", folder=tmp_path)
    before = pictures(widget)
    controls(widget, "seed").value = 5
    assert pictures(widget) != before
    controls(widget, "save as SVG").click()
    ink = Ink.load(tmp_path / "ab-clara-ddim-5.svg")
    assert ink.text == "ab"


def test_headless_the_figure_is_shown_without_controls(written, network, monkeypatch):
    monkeypatch.setenv(outputs.HEADLESS, "1")
    shown = []
    monkeypatch.setattr(widgets, "display", lambda *pictures: shown.extend(pictures))
    assert widgets.inspect_attention(written) is None
    assert widgets.interpolate(network, "ab", "ada", "boris", sampler="ddim") is None
    assert widgets.desk(network, "ab", sampler="ddim") is None
    assert len(shown) == 4
    assert all(picture.data.startswith(b"\x89PNG") for picture in shown)
    assert not InteractiveShell.initialized()


def test_of_a_line_without_ink_it_is_said():
    empty = Trace(Ink(np.zeros((0, 2)), []), 8, {1: [np.ones((1, 1, 2))]})
    assert "Nothing was written" in widgets.inspect_attention(empty).value
