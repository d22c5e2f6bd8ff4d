"""An executed notebook as one HTML file that a browser shows without a network."""

import base64
import hashlib
import re
from functools import lru_cache
from html import escape
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

from hwdiff.utils.files import sha256_of

_MATH = re.compile(r"(?<!\\)(\$\$?)(?=\S)(.+?)(?<=\S)\1", re.DOTALL)
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 1rem auto; padding: 0 1rem;
  color: #222; background: #fff; }}
img {{ max-width: 100%; height: auto; background: #fff; }}
.highlight, .output_area {{ overflow-x: auto; }}
.highlight {{ background: #f6f6f6; padding: 0.1rem 0.6rem; font-size: 0.85rem; }}
[tabindex]:focus-visible {{ outline: 3px solid #0b57d0; }}
.prompt {{ color: #666; font: 0.75rem monospace; }}
.anchor-link {{ display: none; }}
table {{ border-collapse: collapse; font-size: 0.85rem; }}
th, td {{ padding: 0.2rem 0.6rem; text-align: left; border-bottom: 1px solid #ddd; }}
@media print {{ .highlight pre {{ white-space: pre-wrap; }} }}
@media screen and (prefers-color-scheme: dark) {{
  {dark}
  body {{ color: #ddd; background: #16181c; }}
  .prompt {{ color: #aaa; }}
  a {{ color: #8ab8ff; }}
}}
</style>
</head>
<body>
<nav><a href="../index.html">the page of the run</a></nav>
<main>
{body}
</main>
</body>
</html>
"""


def notebook_html(path: str | Path) -> str:
    """The notebook in the file `path` of a run's folder, as a whole HTML document that loads nothing remote.

    Formulas become MathML. Pictures that are files of the run, in figures/, are linked, the others embedded.
    """
    path = Path(path)
    notebook = nbformat.read(path, as_version=4)
    figures = {sha256_of(file): file for file in sorted((path.parents[1] / "figures").glob("*.png"))}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _with_mathml(cell.source)
        for output in cell.get("outputs", []):
            _link(output, figures)
    body, _ = _exporter().from_notebook_node(notebook)
    style, dark = (HtmlFormatter(style=name).get_style_defs(".highlight") for name in ("default", "monokai"))
    return _PAGE.format(title=escape(_heading(notebook) or path.stem), style=style, dark=dark, body=body)


def _heading(notebook):
    """The first heading of a notebook, "" without one."""
    texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = (line for text in texts for line in text.splitlines() if line.startswith("# "))
    return next(found, "").removeprefix("# ")


@lru_cache(maxsize=1)
def _exporter():
    """The exporter of all notebooks: it would compile its templates for each anew."""
    return HTMLExporter(template_name="basic")


def _with_mathml(source):
    """Markdown with its formulas as MathML. What stands in code, or is no formula, stays as it is."""

    def formula(match):
        try:
            return convert(match[2], display="block" if match[1] == "$$" else "inline")
        except Exception:  # whatever it stumbles over: latex2mathml has no error class of its own
            return match[0]

    parts = _CODE.split(source)
    return "".join(part if number % 2 else _MATH.sub(formula, part) for number, part in enumerate(parts))


def _link(output, figures):
    """Show the picture of an output from the run's file, where there is one with the same bytes."""
    data = output.get("data", {})
    if "image/png" not in data:
        return
    known = figures.get(hashlib.sha256(base64.b64decode(data["image/png"])).hexdigest())
    if known:
        del data["image/png"]
        alt = escape(output.get("metadata", {}).get("image/png", {}).get("alt", ""), quote=True)
        data["text/html"] = f'<img src="../figures/{escape(known.name, quote=True)}" alt="{alt}">'
