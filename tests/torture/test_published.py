"""What leaves: texts and names of data or a user are shown in a run's page and notebooks, and never run."""

import shutil

import pytest
from playwright.sync_api import sync_playwright

from hwdiff.suite.page import publish
from hwdiff.suite.runner import Reproduction, chosen_parameters, find_notebooks
from tests.suite.conftest import write_notebook

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = """<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>'"&{{1}}"""
NAME = '<img src=x onerror="window.hacked=1">'
CELLS = (
    "import sys\nimport numpy as np\nimport hwdiff\nfrom hwdiff.ink.plot import plot_inks\n"
    "from hwdiff.suite.attention_map import attention_map\nfrom hwdiff.diffusion.tracing import Trace\n"
    "ink = hwdiff.Ink(np.ones((32, 2)), np.arange(32) % 8 == 0, word)\n"
    "print(word)\nprint(word, file=sys.stderr)",
    "ink",
    "word",
    "outputs.figure(plot_inks([ink], titles=[word]), 'figure', word, takeaway=word)",
    "outputs.table([{word: word}], 'table', word, paper={word: {word: word}}, notes=[word])",
    "attention = {1: [np.full((1, 4, len(word) + 1), 0.1)]}\n"
    "trace = Trace(ink, 32, predicted={1: ink}, attention=attention)\n"
    "outputs.html(attention_map(trace), 'map', word, takeaway=word)",
    f"Path(run, {NAME + '.txt'!r}).write_text(word)\noutputs.file(Path(run, {NAME + '.txt'!r}), word)",
)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: install it with apt-get install chromium")
def test_nothing_is_run_that_data_or_user_wrote(tmp_path):
    folder, run = tmp_path / "notebooks", tmp_path / f"run {NAME}"
    write_notebook(folder, "01_hostile", *CELLS, parameters="word = 'a'")
    reproduce(folder, run)
    publish(run, tmp_path / "published")
    write_notebook(folder, "02_fails", "raise hwdiff.HwdiffError(word)", parameters="word = 'a'")
    reproduce(folder, run)
    pages = [page for place in (run, tmp_path / "published") for page in place.rglob("*.html")]
    assert len(pages) == 2 * 3 + 1  # of each the page, a notebook and the map; and the notebook that failed
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for path in pages:
            page, asked_for = browser.new_page(), []
            page.on("request", lambda request, asked_for=asked_for: asked_for.append(request.url))
            page.goto(path.as_uri())
            page.wait_for_load_state("networkidle")
            assert page.evaluate("window.hacked") is None, path
            assert "onerror" in page.content(), path  # it is shown
            assert [address for address in asked_for if address.endswith("/x")] == [], path
            page.close()
        # What runs such a text is noticed.
        page = browser.new_page()
        page.set_content(HOSTILE)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("window.hacked") == 1
        browser.close()


def reproduce(folder, run):
    notebooks = find_notebooks(folder)
    parameters = chosen_parameters(notebooks, "smoke", {"word": HOSTILE})
    Reproduction(run, "smoke", notebooks, parameters, 5, say=lambda text: None).run(notebooks)
