"""Pages of handwriting: lines of ink placed on paper in millimetres, and saved for printers and plotters."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.collections import PathCollection
from matplotlib.colors import is_color_like, to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline

from hwdiff.ink.formats import printable, to_inkml
from hwdiff.ink.ink import PAGE_FORMATS, Ink, or_list
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write

PAPERS = {
    "A4": (210.0, 297.0),
    "A5": (148.0, 210.0),
    "letter": (215.9, 279.4),
}  # width, height in millimetres
INK_HEIGHT = 11.0  # of a line with ascenders and descenders, in the unit of its offsets
FILLED = 0.85  # fraction of the line spacing that this takes up
SPACE = 3.4  # between two pieces of a line, in the unit of their offsets
MM, POINT = 1 / 25.4, 72 / 25.4  # of a millimetre: in inches, in points
PIXELS_PER_INCH = 200
MAX_SLOPE = 0.15  # of a baseline; a steeper one is taken for an error


@dataclass(frozen=True)
class Layout:
    """How handwriting lies on paper, in millimetres.

    paper: the name of one of `PAPERS`.
    margin: on all four sides.
    line_spacing: from baseline to baseline. It gives the size of the writing too.
    pen_width, color: of the pen; any color that matplotlib knows.
    smooth: draw curves through the points (Catmull-Rom) instead of straight lines between them.
    Raises HwdiffError for anything that leaves no room or cannot be drawn.
    """

    paper: str = "A4"
    margin: float = 20.0
    line_spacing: float = 9.0
    pen_width: float = 0.4
    color: str = "black"
    smooth: bool = False

    def __post_init__(self):
        if self.paper not in PAPERS:
            raise HwdiffError(f"paper {self.paper!r}: no such paper; choose one of {', '.join(PAPERS)}")
        for name in ("margin", "line_spacing", "pen_width"):
            if not np.isfinite(getattr(self, name)) or getattr(self, name) < (
                0 if name == "margin" else 0.05
            ):
                raise HwdiffError(f"{name} = {getattr(self, name)}: must be a length in millimetres")
        if self.pen_width > self.line_spacing / 4:
            found = f"pen_width = {self.pen_width}, line_spacing = {self.line_spacing}"
            raise HwdiffError(f"{found}: the pen is too wide for lines so close; make it smaller")
        if not is_color_like(self.color) or to_rgba(self.color)[3] < 1:
            raise HwdiffError(f"color {self.color!r}: no opaque color; give a name, or one such as #1a2a6c")
        if self.lines < 1 or self.text_width < 4 * self.line_spacing:
            found = f"margin = {self.margin}, line_spacing = {self.line_spacing}"
            raise HwdiffError(f"{found}: they leave no room on {self.paper}; make them smaller")

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the paper."""
        return PAPERS[self.paper]

    @property
    def text_width(self) -> float:
        """From margin to margin."""
        return self.size[0] - 2 * self.margin

    @property
    def lines(self) -> int:
        """How many lines fit on a page."""
        return int((self.size[1] - 2 * self.margin) / self.line_spacing + 1e-9)

    @property
    def scale(self) -> float:
        """Millimetres to the unit of offsets."""
        return FILLED * self.line_spacing / INK_HEIGHT


@dataclass
class Page:
    """A page of handwriting.

    layout: of the page.
    lines: the strokes of each of its lines, [(n, 2)] in millimetres from the upper left corner, y downwards.
    texts: what each line is meant to say.
    """

    layout: Layout
    lines: list[list[np.ndarray]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def to_svg(self) -> str:
        """The page as an SVG document in millimetres.

        It has a group for each line, a centre-line path for each stroke, and no filled shapes, so that a pen
        plotter draws it as it is.
        """
        width, height = self.layout.size
        pen = f'stroke="{to_hex(self.layout.color)}" stroke-width="{self.layout.pen_width:g}"'
        groups = []
        for text, strokes in zip(self.texts, self.lines, strict=True):
            paths = "".join(f'<path d="{self._path(stroke)}"/>' for stroke in strokes)
            groups.append(f"<g><title>{escape(printable(text))}</title>{paths}</g>")
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}mm" height="{height:g}mm" '
            f'viewBox="0 0 {width:g} {height:g}"><g fill="none" {pen} stroke-linecap="round" '
            f'stroke-linejoin="round">\n' + "\n".join(groups) + "\n</g></svg>\n"
        )

    def to_inkml(self) -> str:
        """The strokes of the page, in millimetres, as an InkML document whose text is that of its lines."""
        strokes = [stroke for line in self.lines for stroke in line]
        return to_inkml(strokes, "\n".join(map(printable, self.texts)))

    def _path(self, stroke):
        outline = self._outline(stroke)
        start, rest = outline[0], outline[1:]
        letter = "C" if self.layout.smooth else "L"
        numbers = " ".join(f"{x:.3f} {y:.3f}" for x, y in rest)
        return f"M{start[0]:.3f} {start[1]:.3f} {letter}{numbers}"

    def _outline(self, stroke):
        """The vertices of a path along a stroke; a dot has no length, which round caps make visible."""
        stroke = stroke if len(stroke) > 1 else np.repeat(stroke, 2, axis=0)
        return bezier(stroke) if self.layout.smooth else stroke

    def figure(self) -> Figure:
        """The page as a matplotlib figure of its size."""
        width, height = self.layout.size
        figure = Figure(figsize=(width * MM, height * MM))
        axes = figure.add_axes((0, 0, 1, 1))
        outlines = []
        for stroke in (stroke for strokes in self.lines for stroke in strokes):
            vertices = self._outline(stroke)
            then = Outline.CURVE4 if self.layout.smooth else Outline.LINETO
            outlines.append(Outline(vertices, [Outline.MOVETO] + [then] * (len(vertices) - 1)))
        pen = {"edgecolors": self.layout.color, "linewidths": self.layout.pen_width * POINT}
        axes.add_collection(
            PathCollection(outlines, facecolors="none", capstyle="round", joinstyle="round", **pen)
        )
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        return figure


def bezier(stroke: np.ndarray) -> np.ndarray:
    """A smooth curve through the points of a stroke (n, 2), a Catmull-Rom spline.

    Returns (3 n - 2, 2): the first point, then two control points and a point of each cubic Bézier curve.
    """
    tangents = np.gradient(stroke, axis=0) if len(stroke) > 2 else np.diff(stroke, axis=0).repeat(2, axis=0)
    before, after = stroke[:-1] + tangents[:-1] / 3, stroke[1:] - tangents[1:] / 3
    return np.concatenate((stroke[:1], np.stack((before, after, stroke[1:]), axis=1).reshape(-1, 2)))


def baseline(ink: Ink) -> tuple[float, float]:
    """The line that letters stand on: slope and height at x = 0, in the ink's own coordinates, y upwards.

    It goes through the lowest points of letters. Half of these or more lie on it, so that the medians of
    their slopes (Theil-Sen) and heights leave out descenders and commas.
    """
    strokes = [stroke for stroke in ink.strokes() if len(stroke) > 2]
    if not strokes:
        return 0.0, float(min((stroke[:, 1].min() for stroke in ink.strokes()), default=0.0))
    lowest = []
    for stroke in strokes:
        y = np.concatenate(([np.inf], stroke[:, 1], [np.inf]))
        lowest.append(stroke[(y[1:-1] <= y[:-2]) & (y[1:-1] <= y[2:])])
    x, y = np.concatenate(lowest).T
    low = y <= np.median(np.concatenate(strokes)[:, 1])
    x, y = (x[low], y[low]) if low.any() else (x, y)
    slope, first, second = 0.0, *np.triu_indices(len(x), 1)
    far = np.abs(x[first] - x[second]) > INK_HEIGHT
    if far.sum() > 10:
        slope = float(np.median((y[first] - y[second])[far] / (x[first] - x[second])[far]))
        slope = slope if abs(slope) < MAX_SLOPE else 0.0
    return slope, float(np.median(y - slope * x))


def place_lines(lines: Sequence[Sequence[Ink]], layout: Layout) -> list[Page]:
    """Pages of lines, each of one or more inks side by side; a line without ink stays empty.

    All are drawn at one scale, and smaller than the layout says where the widest line needs it.
    """
    straight = [[_straightened(ink) for ink in line] for line in lines]
    widths = [sum(width + SPACE for _, width in line) - SPACE if line else 0.0 for line in straight]
    scale = min(layout.scale, layout.text_width / max([*widths, 1e-9]))
    pages = []
    for number, line in enumerate(straight):
        row = number % layout.lines
        if row == 0:
            pages.append(Page(layout))
        # Ascenders of the first line reach to the margin.
        at = np.array((layout.margin, layout.margin + (row + 0.75) * layout.line_spacing))
        placed = []
        for strokes, width in line:
            placed += [at + scale * stroke * (1, -1) for stroke in strokes]
            at = at + scale * np.array((width + SPACE, 0))
        pages[-1].lines.append(placed)
        pages[-1].texts.append(" ".join(ink.text for ink in lines[number]))
    return pages


def _straightened(ink):
    """An ink's strokes with its left end at x = 0 and its baseline at y = 0, and its width."""
    strokes, (slope, height) = ink.strokes(), baseline(ink)
    if not strokes:
        return [], 0.0
    left = min(stroke[:, 0].min() for stroke in strokes)
    strokes = [
        np.stack((stroke[:, 0] - left, stroke[:, 1] - slope * stroke[:, 0] - height), axis=1)
        for stroke in strokes
    ]
    return strokes, float(max(stroke[:, 0].max() for stroke in strokes))


def numbered(path: Path, number: int) -> Path:
    """The file of one of several pages, the first of which has the number 1."""
    return path.with_stem(f"{path.stem}-{number}")


def save_pages(pages: Sequence[Page], path: str | Path) -> list[Path]:
    """Write pages: into one .pdf, or an .svg, .png or .inkml for each, numbered if there are several.

    Returns the paths written. Raises HwdiffError for another suffix, or when a file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        # Without a date the same pages give the same bytes.
        with (
            atomic_write(path) as temporary,
            matplotlib.rc_context({"path.simplify": False}),
            PdfPages(temporary, metadata={"CreationDate": None}) as file,
        ):
            for page in pages:
                file.savefig(page.figure())
        return [path]
    if suffix not in PAGE_FORMATS:
        found = path.suffix or "a file without a suffix"
        raise HwdiffError(f"{path}: pages are saved as {or_list(PAGE_FORMATS)}, not as {found}")
    paths = [path] if len(pages) == 1 else [numbered(path, page + 1) for page in range(len(pages))]
    for page, one in zip(pages, paths, strict=True):
        with atomic_write(one) as temporary, matplotlib.rc_context({"path.simplify": False}):
            if suffix == ".png":
                page.figure().savefig(temporary, format="png", dpi=PIXELS_PER_INCH)
            else:
                content = page.to_svg() if suffix == ".svg" else page.to_inkml()
                temporary.write_text(content, encoding="utf-8")
    return paths
