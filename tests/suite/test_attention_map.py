import json
import re
import shutil

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from hwdiff import HwdiffError
from hwdiff.diffusion.tracing import Trace, trace
from hwdiff.ink.ink import Ink
from hwdiff.suite.attention_map import MAX_STEPS, attention_map

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def made_up(text="ab", t=(2, 1)):
    """A line of four cells: the first half attends to the first character, the second to the second."""
    tokens = len(text) + 1
    last = np.zeros((1, 4, tokens))
    last[0, [0, 1, 2, 3], [0, 0, min(1, tokens - 1), min(1, tokens - 1)]] = 1
    ink = Ink([(1, step % 3 - 1) for step in range(32)], [number % 8 == 0 for number in range(32)], text)
    uniform = np.full((1, 4, tokens), 1 / tokens)
    attention = {one: [last if one == t[-1] else uniform] for one in t}
    return Trace(ink, 32, predicted=dict.fromkeys(t, ink), attention=attention)


def data_of(html):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1])


def test_the_map_holds_ink_and_weights_of_each_step():
    data = data_of(attention_map(made_up()))
    assert data["steps"] == [2, 1]
    assert data["weights"][1] == [100, 0, 0, 100, 0, 0, 0, 100, 0, 0, 100, 0]
    assert [path.count("L") for path in data["paths"][1]] == [7, 7, 7, 7]


def test_a_dot_is_drawn():
    dot = Trace(
        Ink([(0, 0), (3, 0), (2, 1)], [True, False, True], "i."),
        8,
        predicted={1: Ink(np.zeros((0, 2)), [])},
        attention={1: [np.full((1, 1, 3), 1 / 3)]},
    )
    assert data_of(attention_map(dot))["paths"][0][0].endswith("h0")


def test_texts_are_escaped():
    html = attention_map(made_up("</script><img src=x onerror=alert(1)>\"'&"))
    assert "<img" not in html
    assert html.count("</script>") == 2
    assert "&lt;" in html and "&amp;" in html


@pytest.mark.parametrize("text", ["a", "a line of forty-nine characters, as long as one may be"[:49]])
def test_short_and_long_texts_have_a_map(network, text):
    html = attention_map(trace(network, text, steps=3, sampler="ddim"))
    assert len(re.findall(r"<text data-token", html)) == 2 * (len(text) + 1)
    assert len(data_of(html)["steps"]) == 3


def test_the_slider_has_few_steps(network):
    steps = data_of(attention_map(trace(network, "ab", steps=40, sampler="ddim")))["steps"]
    assert len(steps) == MAX_STEPS
    assert (steps[0], steps[-1]) == (40, 1)


def test_of_nothing_there_is_no_map():
    with pytest.raises(HwdiffError, match="nothing was written"):
        attention_map(Trace(Ink(np.zeros((0, 2)), []), 8, attention={1: [np.ones((1, 1, 2))]}))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: install it with apt-get install chromium")
def test_in_a_browser_without_a_network_ink_lights_up_under_the_mouse(tmp_path):
    path, errors, requests = tmp_path / "map.html", [], []
    path.write_text(attention_map(made_up()), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        lines, texts = page.locator("path.line"), page.locator("svg.ink text")

        def colours(found):
            return found.evaluate_all(
                "all => all.map(one => getComputedStyle(one)[one.tagName === 'text' ? 'fill' : 'stroke'])"
            )

        before = colours(lines)
        texts.nth(0).hover()
        first, said = colours(lines), page.locator(".said")
        assert first[0] == first[1] != before[0]
        assert first[2] == first[3] != first[0]
        assert said.inner_text().endswith("most attention from points 1 to 8, 100 %")
        # What was chosen stays on the way to the slider.
        page.locator("p").last.hover()
        assert colours(lines) == first
        lines_of_second = page.locator("path.hit").nth(3)
        lines_of_second.hover(force=True)
        named = colours(texts)
        assert named[1] != named[0] == named[2]
        # The keyboard does the same, and another step has other weights.
        texts.nth(0).focus()
        assert colours(lines) == first
        page.locator("input").focus()
        page.keyboard.press("ArrowLeft")
        assert page.locator("output").inner_text() == "2"
        texts.nth(0).hover()
        assert len(set(colours(lines))) == 1
        browser.close()
    assert errors == []
    assert requests == [path.as_uri()]


def test_the_map_shows_the_ink_upright_and_the_block_asked_for():
    rising = Trace(Ink([(0, 0), (1, 2)], [True, False], "l"), 8, attention={1: [np.full((1, 1, 2), 0.5)]})
    x, y, u, v = map(int, re.findall(r"-?\d+", data_of(attention_map(rising))["paths"][0][0]))
    assert (u - x, v - y) == (10, -20)  # y goes downwards
    ink = Ink(np.ones((16, 2)), np.arange(16) == 0, "l")
    two = Trace(ink, 16, attention={1: [np.eye(2)[None], np.eye(2)[None, ::-1]]})
    found = [data_of(html)["weights"][0] for html in (attention_map(two, 0), attention_map(two))]
    assert found == [[100, 0, 0, 100], [0, 100, 100, 0]]
