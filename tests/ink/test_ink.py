import tarfile
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from hwdiff import HwdiffError, Ink

# A stroke to the right and up, a pen-up move, a dot, then padding.
OFFSETS = [(0, 0), (4, 0), (0, 3), (5, 0), (3, 3), (0, 0), (1, 1)]
PEN_UP = [True, False, False, True, True, True, True]


@pytest.fixture
def ink():
    return Ink(OFFSETS, [True, False, False, True, False, True, True], "a & b")


def test_pen_up_moves_at_the_end_are_cut(ink):
    trimmed = ink.trimmed()
    assert len(trimmed) == 5
    assert trimmed.text == "a & b"
    assert len(Ink(OFFSETS, [True] * 7).trimmed()) == 0


def test_no_line_is_drawn_at_pen_ups(ink):
    first, second = ink.trimmed().strokes()
    assert first.tolist() == [[0, 0], [4, 0], [4, 3]]
    assert second.tolist() == [[9, 3], [12, 6]]
    picture = np.asarray(ink.trimmed().to_image(10))
    columns = (picture < 128).any(axis=0)
    assert not columns[10 * 7 : 10 * 9].any()  # the gap between the strokes, margins of 1.5 units included
    assert columns[20:50].all()


def test_svg_is_well_formed_and_turns_y_down(ink):
    root = ET.fromstring(ink.trimmed().to_svg())
    assert root[0].text == "a & b"
    assert root[2].attrib["d"] == "M1.500 7.500 L5.500 7.500 L5.500 4.500 M10.500 4.500 L13.500 1.500"
    assert ink._repr_svg_() == ink.to_svg()


def test_a_point_is_a_dot():
    ink = Ink(OFFSETS[:5], PEN_UP[:5])
    assert [len(stroke) for stroke in ink.strokes()] == [3, 1, 1]
    assert (np.asarray(Ink([(0, 0)], [False]).to_image(20)) < 128).sum() > 50


def test_saving(ink, tmp_path):
    ink.save(tmp_path / "deep" / "line.svg")
    ink.save(tmp_path / "deep" / "line.PNG")
    assert (tmp_path / "deep" / "line.svg").read_text() == ink.to_svg()
    assert Image.open(tmp_path / "deep" / "line.PNG").size == ink.to_image(24).size
    with pytest.raises(
        HwdiffError, match=r"line\.bmp: ink is saved as \.svg, \.png, \.gif, \.inkml or \.json"
    ):
        ink.save(tmp_path / "line.bmp")
    (tmp_path / "file").write_text("")
    with pytest.raises(HwdiffError, match="cannot be written"):
        ink.save(tmp_path / "file" / "line.svg")


def test_texts_that_xml_cannot_hold_are_cleaned():
    ET.fromstring(Ink([(0, 0)], [False], "a\x01<b\x0c").to_svg())


def test_ink_without_bounds_is_drawn_small():
    picture = Ink([(0, 0), (1e7, 5e6)], [True, False]).to_image()
    assert picture.width == 4000
    assert np.asarray(picture).min() < 200


def test_empty_ink_is_a_blank_page():
    ink = Ink(np.zeros((0, 2)), [])
    assert np.asarray(ink.to_image()).min() == 255
    ET.fromstring(ink.to_svg())


@pytest.mark.parametrize(
    ("offsets", "pen_up"),
    [([(0, 0, 0)], [True]), ([(0, 0)], [True, False]), ([(0, np.nan)], [True]), ([0, 1], [True, True])],
)
def test_arrays_that_do_not_fit_are_refused(offsets, pen_up):
    with pytest.raises(HwdiffError, match="ink:"):
        Ink(offsets, pen_up)


@pytest.mark.parametrize(
    "accent", [np.ones(2), np.ones((0, 2)), np.ones((3, 3)), [(0, np.nan)], [(1e300, 0)]]
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_accents_that_could_not_be_drawn_are_refused(accent):
    with pytest.raises(HwdiffError, match="an accent of shape"):
        Ink(np.ones((2, 2)), np.zeros(2), accents=[accent])


def test_ink_comes_back_from_its_svg(ink, tmp_path):
    ink.save(tmp_path / "ink.svg")
    again = Ink.load(tmp_path / "ink.svg")
    assert again.text == "a & b"
    assert again.pen_up.tolist() == ink.pen_up.tolist()
    np.testing.assert_allclose(again.offsets[1:], ink.offsets[1:], atol=0.002)
    again.save(tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == (tmp_path / "ink.svg").read_text()


@pytest.mark.parametrize("suffix", [".inkml", ".json"])
def test_files_for_other_programs_lose_nothing(suffix, tmp_path):
    generator = np.random.default_rng(0)
    offsets = generator.normal(size=(200, 2)).astype(np.float32)
    offsets[0] = 0
    ink = Ink(offsets, generator.random(200) < 0.2, 'a < b & "c"')
    ink.pen_up[0] = True
    ink.save(tmp_path / f"ink{suffix}")
    again = Ink.load(tmp_path / f"ink{suffix}")
    np.testing.assert_allclose(again.offsets, ink.offsets, atol=2e-6)
    np.testing.assert_array_equal(again.pen_up, ink.pen_up)
    assert again.text == ink.text


@settings(derandomize=True, deadline=None, max_examples=40, database=None)
@given(
    offsets=arrays(
        np.float32, st.tuples(st.integers(1, 30), st.just(2)), elements=st.floats(-50, 50, width=32)
    ),
    text=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"])),
    draw=st.data(),
)
def test_any_ink_comes_back_from_its_files(offsets, text, draw, tmp_path_factory):
    offsets[0] = 0
    pen_up = draw.draw(arrays(bool, len(offsets)))
    pen_up[0] = True
    ink, folder = Ink(offsets, pen_up, text), tmp_path_factory.mktemp("ink")
    for suffix in (".inkml", ".json"):
        ink.save(folder / f"ink{suffix}")
        again = Ink.load(folder / f"ink{suffix}")
        np.testing.assert_allclose(again.offsets, ink.offsets, atol=1e-4)
        np.testing.assert_array_equal(again.pen_up, ink.pen_up)
        assert again.text == text


def test_inkml_is_as_the_standard_has_it(ink, tmp_path):
    ink.trimmed().save(tmp_path / "ink.inkml")
    root = ET.parse(tmp_path / "ink.inkml").getroot()
    assert root.tag == "{http://www.w3.org/2003/InkML}ink"
    assert [child.tag.split("}")[1] for child in root] == ["annotation", "trace", "trace"]
    assert root[0].attrib == {"type": "truth"} and root[0].text == "a & b"
    assert root[1].text == "0.000000 0.000000, 4.000000 0.000000, 4.000000 -3.000000"


INKML = '<ink xmlns="http://www.w3.org/2003/InkML">{}</ink>'
CHANNELS = "<traceFormat>{}</traceFormat>".format("".join(f'<channel name="{name}"/>' for name in "TYX"))


def test_files_of_other_programs_are_read(tmp_path):
    files = {
        "a.inkml": INKML.format(f"<definitions>{CHANNELS}</definitions><trace>7 1 2, 8 3 5</trace>"),
        "b.inkml": INKML.format("<trace>2 1,5 3</trace>").replace(
            ' xmlns="http://www.w3.org/2003/InkML"', ""
        ),
        "a.svg": '<svg xmlns="http://www.w3.org/2000/svg"><polyline points="2,1 5,3"/></svg>',
        "b.svg": '<svg xmlns="http://www.w3.org/2000/svg"><g><path d="M2,1L5,3"/></g></svg>',
        "a.json": '{"strokes": [[[2, 1], [5, 3]]]}',
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        ink = Ink.load(tmp_path / name)
        assert ink.offsets.tolist() == [[0, 0], [3, -2]], name
        assert ink.text == ""


def test_what_is_not_drawn_is_no_ink(tmp_path):
    files = {
        "a.inkml": INKML.format(
            '<trace>0 0, 1 0</trace><trace type="penUp">1 0, 9 9</trace><trace>2 0, <!-- x -->3 0</trace>'
        ),
        "a.svg": '<svg><defs><path d="M9 9 L8 8"/></defs><path d="M0 0 L1 0"/><path d="M2 0 L3 0 M"/></svg>',
        "b.svg": '<svg><polyline points=""/><path d="M0 0 1 0M2 0 3 0"/></svg>',
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        strokes = Ink.load(tmp_path / name).strokes()
        assert [np.ptp(stroke, axis=0).tolist() for stroke in strokes] == [[1, 0], [1, 0]], name


def test_a_text_that_is_none_is_no_text(tmp_path):
    (tmp_path / "a.json").write_text('{"text": null, "strokes": [[[0, 0], [1, 0]]]}')
    assert Ink.load(tmp_path / "a.json").text == ""


def test_empty_ink_comes_back_empty(tmp_path):
    Ink(np.zeros((0, 2)), []).save(tmp_path / "empty.svg")
    assert len(Ink.load(tmp_path / "empty.svg")) == 0


def test_a_line_file_of_iam_is_loaded_as_the_model_sees_it(dataset, source, tmp_path):
    with tarfile.open(source / "lineStrokes-all.tar.gz") as archive:
        for number in (0, 7):
            line_id = str(dataset.ids[number])
            member = next(member for member in archive if member.name.endswith(f"{line_id}.xml"))
            (tmp_path / "line.xml").write_bytes(archive.extractfile(member).read())
            ink, wanted = Ink.load(tmp_path / "line.xml"), dataset.ink(dataset.index_of(line_id))
            np.testing.assert_array_equal(ink.offsets, wanted.offsets)
            assert ink.pen_up.tolist() == wanted.pen_up.tolist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.svg", "no XML", "holds no ink"),
        ("a.svg", '<svg xmlns="http://www.w3.org/2000/svg"/>', "holds no ink"),
        ("a.svg", '<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0 C 1 2 3 4"/></svg>', "holds no ink"),
        ("a.svg", '<svg xmlns="http://www.w3.org/2000/svg"><path/></svg>', "holds no ink"),
        (
            "a.svg",
            '<svg xmlns="http://www.w3.org/2000/svg"><polyline points="0 0 nan 1"/></svg>',
            "not finite",
        ),
        ("a.svg", '<svg><path d="M0 0C1 1 2 2 3 3"/></svg>', "a path with C; only M and L are read"),
        ("a.xml", "<WhiteboardCaptureSession/>", "strokes without extent"),
        ("a.svg", '<svg><path transform="scale(2)" d="M0 0 L1 1"/></svg>', "transforms, which are not read"),
        ("a.inkml", "<svg/>", "holds no ink .no InkML document"),
        ("a.inkml", INKML.format("<trace>1 2, '3 '4</trace>"), "holds no ink"),
        ("a.inkml", INKML.format(f"{CHANNELS}<trace>1 2</trace>"), "a point with too few values"),
        ("a.inkml", INKML.format("<trace>nan 2, 3 4</trace>"), "not finite"),
        ("a.json", "[]", "holds no ink"),
        ("a.json", '{"strokes": [[[1, 2, 3]]]}', "holds no ink"),
        ("a.json", '{"strokes": [[[1, 2, 9], [3, 4, 9]]]}', "a point that is not .x, y."),
        ("a.json", '{"strokes": [[1, 2]]}', "a point that is not .x, y."),
        ("a.svg", '<svg><path d="M0 0 1 1 m 5 5 1 1"/></svg>', "a path with m; only M and L are read"),
        ("a.json", '{"strokes": 3}', "holds no ink"),
        ("a.json", '{"text": ["a"], "strokes": []}', "a text that is no string"),
        ("a.svg", '<svg><path d="M0 0 1 1"/><line x2="1"/></svg>', "an SVG with line; only paths and polyl"),
        ("a.svg", '<svg><clipPath><path d="M0 0 1 1"/></clipPath></svg>', "an SVG with clipPath"),
        ("a.png", "", "holds no ink"),
    ],
)
def test_what_is_no_ink_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(HwdiffError, match=message):
        Ink.load(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(HwdiffError, match=r"none.svg: cannot be read \(No such file"):
        Ink.load(tmp_path / "none.svg")


def test_a_gif_shows_the_pen_writing(tmp_path):
    offsets = np.concatenate((np.zeros((1, 2)), np.tile([[1.0, 0.5]], (20, 1))))
    ink = Ink(offsets, [True, *[False] * 20])
    ink.save(tmp_path / "ink.gif")
    with Image.open(tmp_path / "ink.gif") as movie:
        assert movie.n_frames == 7
        darkness = []
        for frame in range(movie.n_frames):
            movie.seek(frame)
            darkness.append((np.asarray(movie.convert("L")) < 128).sum())
        assert (np.diff(darkness) > 0).all()
        assert movie.info["duration"] == 2000
        last = np.asarray(movie.convert("L")).astype(int)
        assert np.abs(last - np.asarray(ink.to_image())).max() < 40  # GIF has few greys
    Ink(np.zeros((0, 2)), []).save(tmp_path / "empty.gif")


def test_the_line_image_is_like_those_of_the_data(dataset):
    drawn, wanted = dataset.ink(0).line_image(), dataset.line_image(0)
    assert drawn.shape[0] == wanted.shape[0] == 96
    assert drawn.dtype == np.uint8
    assert abs(drawn.shape[1] / wanted.shape[1] - 1) < 0.05
    ink = [(image < 128).mean() for image in (drawn, wanted)]
    assert ink[0] == pytest.approx(ink[1], rel=0.3)
    with pytest.raises(HwdiffError, match="no extent"):
        Ink(np.zeros((0, 2)), []).line_image()
    ink = dataset.ink(0)
    assert abs(Ink(1e4 * ink.offsets, ink.pen_up).line_image().shape[1] / wanted.shape[1] - 1) < 0.05


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        f'{{"strokes": [[[1{"0" * 400}, 0]]]}}',
        '{"text": "\\ud800", "strokes": [[[0, 0]]]}',
        '{"strokes": 3}',
        '{"strokes": [[[0, 0], [1e308, -1e308], [-1e308, 1e308]]]}',
    ],
)
def test_json_of_anything_else_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(HwdiffError, match=r"a\.json: holds no ink"):
        Ink.load(tmp_path / "a.json")


def test_inks_are_compared_as_objects(ink):
    other = Ink(ink.offsets, ink.pen_up, ink.text)
    assert ink in [other, ink]
    assert ink != other
