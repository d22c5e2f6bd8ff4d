import base64

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from hwdiff.suite.notebook_html import notebook_html

PIXEL = base64.b64encode(b"\x89PNG one").decode()


def write(tmp_path, *cells):
    for folder in ("notebooks", "figures"):
        (tmp_path / folder).mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells)), tmp_path / "notebooks" / "01_one.ipynb")
    return notebook_html(tmp_path / "notebooks" / "01_one.ipynb")


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    html = write(tmp_path, new_markdown_cell("# One"), new_code_cell("1 + 1"))
    assert "<h1" in html and "<title>One</title>" in html
    assert "src=" not in html
    assert "http" not in html


def test_formulas_are_mathml(tmp_path):
    html = write(tmp_path, new_markdown_cell(r"$\bar\alpha_t$ and $$y = \sqrt{x}$$, but `$HOME$` and 5 $."))
    assert html.count("<math") == 2
    assert 'display="block"' in html
    assert "<code>$HOME$</code>" in html
    assert "5 $." in html


def test_what_is_no_formula_stays_as_it_is(tmp_path):
    html = write(tmp_path, new_markdown_cell(r"from $5_ to 6_$, $a_b_c$ and $x^2$"))
    assert "$5_ to 6_$, $a_b_c$" in html
    assert html.count("<math") == 1


def test_figures_of_the_run_are_linked_and_others_embedded(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "01-a.png").write_bytes(base64.b64decode(PIXEL))
    other = base64.b64encode(b"\x89PNG two").decode()
    cell = new_code_cell(
        "figure",
        outputs=[
            new_output(
                "display_data",
                data={"image/png": content},
                metadata={"image/png": {"alt": "a “figure” <b>"}},
            )
            for content in (PIXEL, other)
        ],
    )
    html = write(tmp_path, cell)
    assert 'alt="a “figure” &lt;b&gt;" src="../figures/01-a.png"' in html
    assert PIXEL not in html
    assert other in html


def test_titles_and_texts_are_escaped(tmp_path):
    output = new_output("stream", text="<script>alert(1)</script>")
    html = write(tmp_path, new_code_cell("print(text)", outputs=[output]))
    assert "<script>" not in html
