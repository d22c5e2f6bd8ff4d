import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from hwdiff import HwdiffError, Ink
from hwdiff.ink.page import Layout, Page, baseline, bezier, place_lines, save_pages


def ink_of(strokes, text="some ink"):
    """An ink of strokes (n, 2)."""
    points = np.concatenate(strokes)
    pen_up = np.zeros(len(points), dtype=bool)
    pen_up[np.cumsum([0, *map(len, strokes)])[:-1]] = True
    return Ink(np.diff(points, axis=0, prepend=np.zeros((1, 2))), pen_up, text)


def letters(count, slope=0.0, height=2.0, left=5.0, descender=None):
    """Letters like a u, 3 wide and 4 high, standing on a line; one of them may reach 5 below it."""
    shape = np.array([(0, 4), (0.5, 1), (1, 0), (1.5, 1), (2, 4)], dtype=float)
    strokes = []
    for number in range(count):
        stroke = shape + np.array((left + 3 * number, 0))
        if number == descender:
            stroke[2, 1] = -5
        strokes.append(stroke + np.stack((np.zeros(5), height + slope * stroke[:, 0]), axis=1))
    return strokes


def test_the_baseline_is_found_beneath_letters_whatever_hangs_below():
    slope, height = baseline(ink_of(letters(20, slope=0.05, descender=7)))
    assert slope == pytest.approx(0.05, abs=1e-3)
    assert height == pytest.approx(2, abs=0.02)
    assert baseline(ink_of(letters(2))) == (0, pytest.approx(2, abs=1e-5))
    assert baseline(Ink([(1, 3)], [True])) == (0, 3)  # a dot
    assert baseline(Ink(np.zeros((0, 2)), [])) == (0, 0)


def test_lines_stand_on_even_baselines_between_the_margins():
    layout = Layout(paper="A5", margin=15, line_spacing=8)
    lines = [[ink_of(letters(14, 0.04))], [], [ink_of(letters(5)), ink_of(letters(4, height=-9))]]
    [page] = place_lines(lines, layout)
    assert page.texts == ["some ink", "", "some ink some ink"]
    assert page.lines[1] == []
    for row, strokes in ((0, page.lines[0]), (2, page.lines[2])):
        lowest = [stroke[:, 1].max() for stroke in strokes]
        np.testing.assert_allclose(lowest, 15 + (row + 0.75) * 8, atol=0.15)
        assert min(stroke[:, 0].min() for stroke in strokes) == pytest.approx(15)
    # Pieces of a line lie side by side.
    ends = [(stroke[:, 0].min(), stroke[:, 0].max()) for stroke in page.lines[2]]
    assert all(before[1] < after[0] for before, after in pairwise(ends))


def test_a_wide_line_makes_all_smaller_and_long_texts_take_more_pages():
    layout = Layout(paper="A5", margin=15)
    wide = [[ink_of(letters(100))], [ink_of(letters(10))]]
    [page] = place_lines(wide, layout)
    right = [max(stroke[:, 0].max() for stroke in strokes) for strokes in page.lines]
    assert right[0] == pytest.approx(148 - 15)
    assert right[1] - 15 == pytest.approx((right[0] - 15) * 29 / 299, rel=1e-3)
    pages = place_lines([[ink_of(letters(3))]] * (layout.lines + 1), layout)
    assert [len(page.lines) for page in pages] == [layout.lines, 1]
    lowest = max(stroke[:, 1].max() for strokes in pages[0].lines for stroke in strokes)
    assert lowest < 210 - 15


def test_curves_go_through_all_points():
    stroke = letters(1)[0]
    curve = bezier(stroke)
    np.testing.assert_allclose(curve[::3], stroke)
    straight = np.stack((np.arange(5.0), 2 * np.arange(5.0)), axis=1)
    np.testing.assert_allclose(bezier(straight)[1], (1 / 3, 2 / 3))
    assert bezier(straight[:2]).shape == (4, 2)


@pytest.mark.parametrize("smooth", [False, True])
def test_pages_are_saved_in_their_size(smooth, tmp_path):
    layout = Layout(paper="A5", color="#1a2a6c", pen_width=0.7, smooth=smooth)
    pages = place_lines([[ink_of([*letters(4), np.array([[20.0, 3.0]])], "a < b")]] * 30, layout)
    assert len(pages) == 2
    assert save_pages(pages, tmp_path / "out" / "page.svg") == [
        tmp_path / "out" / "page-1.svg",
        tmp_path / "out" / "page-2.svg",
    ]
    root = ET.parse(tmp_path / "out" / "page-1.svg").getroot()
    assert root.attrib["width"] == "148mm" and root.attrib["viewBox"] == "0 0 148 210"
    group = root[0]
    assert group.attrib["stroke"] == "#1a2a6c" and group.attrib["stroke-width"] == "0.7"
    assert group[0][0].text == "a < b"
    paths = [path.attrib["d"] for path in root.iter("{http://www.w3.org/2000/svg}path")]
    assert len(paths) == layout.lines * 5
    assert all(("C" in path) is smooth for path in paths)

    first, second = (Ink.load(path) for path in save_pages(pages, tmp_path / "page.inkml"))
    assert first.text == "\n".join(["a < b"] * layout.lines)
    assert len(first.strokes()) == layout.lines * 5
    assert len(first.strokes()) + len(second.strokes()) == 30 * 5
    width, _ = np.ptp(np.concatenate(first.strokes()), axis=0)
    assert width == pytest.approx(np.ptp(np.concatenate(pages[0].lines[0]), axis=0)[0], rel=1e-4)

    [pdf] = save_pages(pages, tmp_path / "page.pdf")
    content = pdf.read_bytes()
    assert (
        content.startswith(b"%PDF-") and content.count(b"/Type /Page ") + content.count(b"/Type /Page\n") == 2
    )
    width, height = 148 * 72 / 25.4, 210 * 72 / 25.4
    assert f"[ 0 0 {width:.4f}"[:12].encode() in content and str(int(height)).encode() in content
    save_pages(pages, tmp_path / "again.pdf")
    assert (tmp_path / "again.pdf").read_bytes() == content

    [png] = save_pages(pages[:1], tmp_path / "page.png")
    image = Image.open(png)
    assert image.size == (int(148 / 25.4 * 200), int(210 / 25.4 * 200))
    rows = np.flatnonzero((np.asarray(image.convert("L")) < 128).any(axis=1))
    assert rows.min() > 18 / 25.4 * 200  # nothing in the margin
    with pytest.raises(HwdiffError, match=r"pages are saved as \.pdf, \.svg, \.png or \.inkml, not as \.doc"):
        save_pages(pages, tmp_path / "page.doc")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"paper": "A9"}, "no such paper; choose one of A4, A5, letter"),
        ({"margin": -1}, "margin = -1: must be a length"),
        ({"line_spacing": float("nan")}, "line_spacing = nan: must be a length"),
        ({"pen_width": 0}, "pen_width = 0: must be a length"),
        ({"pen_width": 3, "line_spacing": 9}, "the pen is too wide for lines so close"),
        ({"color": "inky"}, "'inky': no opaque color"),
        ({"color": "none"}, "'none': no opaque color"),
        ({"color": "#11223380"}, "'#11223380': no opaque color"),
        ({"margin": 100}, "leave no room on A4"),
        ({"line_spacing": 300}, "leave no room on A4"),
    ],
)
def test_layouts_that_make_no_sense_are_refused(given, message):
    with pytest.raises(HwdiffError, match=message):
        Layout(**given)


def test_texts_that_xml_cannot_hold_are_cleaned():
    [page] = place_lines([[ink_of(letters(2), "a bell\x07 & more")]], Layout())
    root = ET.fromstring(page.to_svg())
    assert root.find(".//{*}title").text == "a bell & more"


def test_an_empty_page_can_be_drawn():
    assert "<path" not in Page(Layout()).to_svg()
    Page(Layout()).figure()
