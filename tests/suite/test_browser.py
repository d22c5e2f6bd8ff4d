"""The inspectors in JupyterLab, in a real browser: Debian's chromium, or another that is installed."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from playwright.sync_api import sync_playwright

from hwdiff.suite.outputs import HEADLESS
from hwdiff.suite.runner import NOTEBOOKS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 180_000  # milliseconds: a kernel loads PyTorch and writes a line, on a busy machine
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: install it with apt-get install chromium"
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory, untrained):
    """The address and folder of a JupyterLab, with the cells of the notebooks that their inspectors need."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("03_attention", "04_style_interpolation", "06_sampling"):
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        notebook.cells = [code[0], code[1], code[-1]]
        code[0].source = code[0].source.replace("run: str = None", 'run = "run"')
        if not name.startswith("03"):  # there the first letter must have ink
            assert 'checkpoint = "small"' in code[0].source
            code[0].source = code[0].source.replace(
                'checkpoint = "small"', f"checkpoint = {str(untrained)!r}"
            )
        nbformat.write(notebook, folder / f"{name}.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}",
    ]
    log = (folder / "lab.log").open("w")
    environment = {name: value for name, value in os.environ.items() if name != HEADLESS}
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", *options],
        stdout=log,
        stderr=log,
        cwd=folder,
        env=environment,
    )
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5)
                break
            except OSError:
                assert server.poll() is None, (folder / "lab.log").read_text()
                assert time.monotonic() < end, (folder / "lab.log").read_text()
                time.sleep(0.5)
        yield address, folder
    finally:
        server.terminate()
        try:
            server.wait(timeout=60)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(lab, browser):
    """Open a notebook, run it and wait for its inspector; the browser's console must stay free of errors."""
    page, errors = browser.new_page(viewport={"width": 1400, "height": 2400}), []
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))

    def run(name):
        page.goto(f"{lab[0]}/lab/tree/{name}.ipynb?reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        # Cells that are run before there is a kernel make JupyterLab ask for one in a dialog.
        page.wait_for_function(
            "!/No Kernel/.test(document.querySelector('.jp-KernelName')?.innerText ?? 'No Kernel')"
        )
        first, dialog = page.locator(".jp-CodeCell").first, page.locator(".jp-Dialog button.jp-mod-accept")
        for _ in range(20):  # a notebook that has just been opened does not listen yet
            if dialog.count():
                dialog.first.click()
            first.locator(".cm-content").click()
            page.keyboard.press("Shift+Enter")
            page.wait_for_timeout(1500)
            if first.locator(".jp-InputPrompt").inner_text() != "[ ]:":
                break
        for _ in range(2):
            page.keyboard.press("Shift+Enter")
        page.wait_for_selector("img.widget-image")
        return page

    yield run
    page.close()
    assert not errors


def changes(page, number, act):
    """Whether picture `number` of the page becomes another one when `act` is done."""
    image = page.locator("img.widget-image").nth(number)
    before = image.get_attribute("src")
    act()
    page.wait_for_function(f"document.querySelectorAll('img.widget-image')[{number}].src != {before!r}")
    assert image.evaluate("image => image.naturalWidth") > 100
    return True


def test_attention_is_looked_through(opened):
    page = opened("03_attention")
    slider = page.locator(".noUi-handle").nth(1)  # the first is that of the guidance
    slider.focus()
    assert changes(page, 0, lambda: slider.press("ArrowRight"))
    character = page.locator(".widget-dropdown select").last
    assert changes(page, 1, lambda: character.select_option(index=3))
    ink = page.locator("svg.hwdiff path.c1").first
    before = ink.evaluate("path => getComputedStyle(path).stroke")
    page.locator("svg.hwdiff text.c1").hover()
    assert ink.evaluate("path => getComputedStyle(path).stroke") != before


def test_styles_are_interpolated(opened):
    page = opened("04_style_interpolation")
    slider = page.locator(".noUi-handle").first
    slider.focus()
    assert changes(page, 0, lambda: slider.press("ArrowRight"))


def test_the_desk_writes_and_saves(opened, lab):
    page = opened("06_sampling")
    text = page.locator(".widget-text input[type=text]").first

    def write():
        text.fill("hello world")
        text.press("Enter")

    assert changes(page, 0, write)
    page.get_by_role("button", name="save as SVG").click()
    page.get_by_text("wrote ").wait_for(timeout=30_000)
    [saved] = lab[1].glob("*.svg")
    assert "hello world" in saved.read_text()
