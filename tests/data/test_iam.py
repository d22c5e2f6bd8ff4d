import gzip
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hwdiff.data import iam
from hwdiff.data.lines import Limits, Report, drawable_strokes
from hwdiff.data.preparation import prepare
from hwdiff.ink import formats, strokes
from hwdiff.ink.images import normalise
from hwdiff.utils.errors import HwdiffError
from tests.conftest import TEXTS, form_files, make_points, make_transcript, make_xml, write_archive

LINE = "lineStrokes/a01/a01-000/a01-000u-{}.xml"


def read(folder, **options):
    report = Report()
    lines = iam.read_lines(iam.Source(folder), report, workers=1, **options)
    return {line.id: line for line in lines}, report


def make_source(folder, changes=None, texts=None):
    """One form of four lines as archives; `changes` replace or add members of the stroke archive."""
    folder.mkdir(exist_ok=True)
    stroke_files, text_files = form_files(["a01-000u"])
    write_archive(folder / "lineStrokes-all.tar.gz", {**stroke_files, **(changes or {})})
    write_archive(folder / "ascii-all.tar.gz", texts if texts is not None else text_files)
    return folder


def test_archives_and_folders_give_the_same_lines(source, tmp_path):
    for name in ("lineStrokes-all.tar.gz", "ascii-all.tar.gz"):
        shutil.unpack_archive(source / name, tmp_path)
    packed, _ = read(source)
    unpacked, _ = read(tmp_path)
    assert packed.keys() == unpacked.keys()
    assert len(packed) == 24
    for line_id, line in packed.items():
        np.testing.assert_array_equal(line.offsets, unpacked[line_id].offsets)
        assert line.text == unpacked[line_id].text == TEXTS[int(line_id[-2:]) - 1]


def test_any_number_of_workers_gives_the_same(source):
    one = iam.read_lines(iam.Source(source), Report(), workers=1)
    two = iam.read_lines(iam.Source(source), Report(), workers=2)
    assert [line.id for line in one] == [line.id for line in two]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.offsets, b.offsets)
        np.testing.assert_array_equal(a.kept, b.kept)


def test_a_line_is_kept_as_recorded(tmp_path):
    points = make_points(3)
    lines, _ = read(make_source(tmp_path, {LINE.format("01"): make_xml(points)}))
    line = lines["a01-000u-01"]
    flat = [point for stroke in points for point in stroke]
    np.testing.assert_array_equal(line.offsets, np.diff(flat, axis=0) * (1, -1))
    assert line.pen_up.sum() == len(points) - 1
    for drawn, stroke in zip(drawable_strokes(line.offsets, line.pen_up), points, strict=True):
        np.testing.assert_array_equal(drawn, np.array(stroke) - flat[0])


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
    b'<x><Stroke><Point x="&b;" y="1"/></Stroke></x>'
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<WhiteboardCaptureSession><Stroke>", "XML that is not well-formed"),
        (b"", "XML that is not well-formed"),
        (BOMB, "XML with a document type"),
        (make_xml(make_points(0)).replace(b' y="2', b' z="2', 1), "point without whole x and y"),
        (make_xml(make_points(0)).replace(b' x="1', b' x="1e', 1), "point without whole x and y"),
        (make_xml([[(0, 0), (10**30, 5)]]), "coordinate beyond 16000 tablet units"),
        (make_xml([[(5, 5)], [(5, 5)]]), "strokes without extent"),
        (make_xml([[(0, 0), (5, -5)]]), "strokes without extent"),  # one offset (5, 5), of deviation 0
        (make_xml([]), "strokes without extent"),
        (make_xml([[(i * 5, i % 7 * 40) for i in range(1000)]]), "more than 488 points"),
        (
            make_xml([[(i, i % 3) for i in range(700)] + [(12000, 0)]]),
            "an offset above 15 standard deviations",
        ),
        (
            make_xml([[(i * 100, i % 2 * 60) for i in range(100)]]),
            "a line image of 1400 pixels or more in width",
        ),
    ],
)
def test_a_bad_line_is_left_out_and_counted(tmp_path, content, reason):
    lines, report = read(make_source(tmp_path, {LINE.format("02"): content}))
    assert sorted(lines) == ["a01-000u-01", "a01-000u-03", "a01-000u-04"]
    assert [(found.startswith(reason), count) for found, count in report.left_out.items()] == [(True, 1)]
    assert next(iter(report.examples.values())) == ["a01-000u-02"]


def test_a_stroke_without_points_is_nothing(tmp_path):
    content = make_xml(make_points(0)).replace(b"<Stroke>", b"<Stroke></Stroke><Stroke>", 2)
    lines, _ = read(make_source(tmp_path, {LINE.format("01"): content}))
    assert lines["a01-000u-01"].pen_up.sum() == 2


def test_a_line_in_which_nothing_can_be_written_is_left_out(tmp_path):
    texts = {"ascii/a01/a01-000/a01-000u.txt": make_transcript(["one", "+ %"])}
    lines, report = read(make_source(tmp_path, texts=texts))
    assert list(lines) == ["a01-000u-01"]
    assert report.left_out["text in which nothing can be written"] == 1


def test_text_and_strokes_are_paired_exactly(tmp_path):
    texts = {
        "ascii/a01/a01-000/a01-000u.txt": make_transcript(["one", "  ", "three " + "x" * 50]),
        "ascii/a01/a01-000/a01-000x.txt": make_transcript(["not this form"]),
    }
    lines, report = read(make_source(tmp_path, texts=texts))
    assert {line_id: line.text for line_id, line in lines.items()} == {"a01-000u-01": "one"}
    assert report.left_out == {
        "empty text": 1,
        "50 or more tokens": 1,
        "line file without a text line": 1,
        "transcript of a form without line files": 1,
    }


@pytest.mark.parametrize("content", [b"", b"OCR:\n\nwords\n", b"CSR:\n\n", b"CSR:\n\n\n\n"])
def test_an_empty_form_is_left_out(tmp_path, content):
    strokes_of_both, texts = form_files(["a01-000u", "b01-000"])
    texts["ascii/a01/a01-000/a01-000u.txt"] = content
    lines, report = read(make_source(tmp_path, strokes_of_both, texts))
    assert {line.form for line in lines.values()} == {"b01-000"}
    assert report.left_out == {"transcript without lines after CSR:": 1, "line file without a text line": 4}


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_transcript_in_another_encoding_is_left_out(tmp_path, encoding):
    _, texts = form_files(["b01-000"])
    texts["ascii/a01/a01-000/a01-000u.txt"] = "CSR:\n\ncafé\n".encode(encoding)
    strokes_of_both, _ = form_files(["a01-000u", "b01-000"])
    lines, report = read(make_source(tmp_path, strokes_of_both, texts))
    assert {line.form for line in lines.values()} == {"b01-000"}
    assert report.left_out["transcript that is not UTF-8 text"] == 1


def test_member_paths_that_climb_out_are_left_out(tmp_path):
    evil = {
        "../../a01-000u-05.xml": make_xml(make_points(1)),
        "/tmp/a01-000u-06.xml": make_xml(make_points(1)),
    }
    folder = tmp_path / "source"
    folder.mkdir()
    lines, report = read(make_source(folder, evil))
    assert len(lines) == 4
    assert report.left_out["archive member with a path that climbs out"] == 2
    assert [path.name for path in tmp_path.rglob("*.xml")] == []


@pytest.mark.parametrize(("keep", "workers"), [(0.5, 1), (0.5, 2), (0.99, 1)])
def test_a_truncated_archive_is_named(tmp_path, keep, workers):
    archive = make_source(tmp_path) / "lineStrokes-all.tar.gz"
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * keep)])
    message = r"lineStrokes-all\.tar\.gz: damaged or cut short .* download it again"
    with pytest.raises(HwdiffError, match=message):
        iam.read_lines(iam.Source(tmp_path), Report(), workers=workers)


def test_an_archive_that_is_none_is_named(tmp_path):
    make_source(tmp_path)
    (tmp_path / "ascii-all.tar.gz").write_bytes(gzip.compress(b"hello"))
    with pytest.raises(HwdiffError, match=r"ascii-all\.tar\.gz: damaged"):
        read(tmp_path)


def test_missing_sources_are_named(tmp_path):
    with pytest.raises(HwdiffError, match="no such folder"):
        iam.Source(tmp_path / "none")
    with pytest.raises(HwdiffError, match="neither lineStrokes-all"):
        iam.Source(tmp_path)


def test_nothing_left_is_an_error(tmp_path):
    with pytest.raises(HwdiffError, match="no line that can be used"):
        read(make_source(tmp_path, texts={}))


@pytest.mark.parametrize("layout", ["lineImages", "lineImages/a01/a01-000"])
def test_official_images_are_used_where_they_are(tmp_path, layout):
    picture = np.full((100, 400), 255, dtype=np.uint8)
    picture[20:80, 20:380:8] = 0
    (tmp_path / layout).mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / layout / "a01-000u-02.tif")
    (tmp_path / layout / "a01-000u-03.tif").write_bytes(b"no picture")
    lines, report = read(make_source(tmp_path))
    assert [line_id for line_id, line in lines.items() if line.image is not None] == ["a01-000u-02"]
    np.testing.assert_array_equal(lines["a01-000u-02"].image, normalise(picture))
    assert report.left_out == {"line image that cannot be read": 1}


def test_long_offsets_are_measured_from_the_mean_or_from_zero():
    path = np.cumsum([(0, 0)] + [(90, 60), (90, -60)] * 50 + [(700, 0)], axis=0)
    content = make_xml([[tuple(point) for point in path]])
    offsets, pen_up = strokes.to_offsets(*formats.parse_points(content))
    merged, _ = strokes.merge(offsets, pen_up, strokes.merge_collinear(offsets))
    limit = (700 - merged.mean() / 2) / strokes.scale_of(merged)  # between the two
    limits = Limits(max_offset=limit, max_image_width=10**6)
    iam.preprocess(content, "text", limits=limits)
    with pytest.raises(ValueError, match="an offset above"):
        iam.preprocess(content, "text", limits=replace(limits, long_offsets="released"))


def test_the_whole_database(iam_dataset):
    """Counts of the real archives: those of the paper's program where it has them."""
    manifest = iam_dataset.manifest
    left_out = manifest["left_out"]
    assert left_out["line file without a text line"] == 8  # 6 lines too many, and 2 whose text is empty
    assert left_out["transcript of a form without line files"] == 177
    reasons = ("a line image of 1400 pixels or more in width", "form that is in no split list")
    before_image_rule = len(iam_dataset) + sum(left_out[reason] for reason in reasons)
    assert before_image_rule == pytest.approx(11_370, abs=10)
    assert manifest["counts"]["train"] + manifest["counts"]["validation"] > 9_500
    assert manifest["official_line_images"] == 6
    assert iam_dataset.lengths.max() <= 488


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hwdiff.utils.arrays.SMALL", 0)
    make_source(tmp_path, {LINE.format("01"): bytes(4 * 2**20)})
    with pytest.raises(HwdiffError, match=r"lineStrokes-all\.tar\.gz: would unpack to more than"):
        read(tmp_path)


def test_a_long_header_in_an_archive_is_refused(tmp_path):
    make_source(tmp_path)
    with tarfile.open(tmp_path / "lineStrokes-all.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.xml")
        member.pax_headers = {"comment": "a" * 2**21}
        archive.addfile(member)
    with pytest.raises(HwdiffError, match=r"lineStrokes-all\.tar\.gz: has a header of more than 1 MB"):
        read(tmp_path)


def test_a_name_that_is_no_text_can_be_reported(tmp_path):
    _, report = read(make_source(tmp_path, {"a\udcff.xml": b""}))
    assert report.examples["line file whose name is no line id"] == ["a\\udcff.xml"]


def test_a_split_list_of_another_kind_is_refused(tmp_path):
    make_source(tmp_path)
    for name in iam.SPLIT_LISTS:
        (tmp_path / f"{name}.txt").write_text("a01-000u")
    with (tmp_path / "trainset.txt").open("r+b") as file:
        file.truncate(iam.MAX_FILE + 1)
    with pytest.raises(HwdiffError, match=r"trainset\.txt: a split list of more than 32 MB"):
        iam.Source(tmp_path).split_lists()


def test_strokes_far_larger_than_a_line_are_left_out(tmp_path):
    corners = make_xml([[(-16_000, -16_000), (0, 100), (100, 0), (16_000, 16_000)]] * 9)
    lines, report = read(make_source(tmp_path, {LINE.format("01"): corners}))
    assert len(lines) == 3
    assert report.left_out == {"strokes that cover far more than a line": 1}


def test_a_damaged_line_has_no_pair(tmp_path):
    picture = np.full((100, 400), 255, dtype=np.uint8)
    picture[20:80, 20:380:8] = 0
    (tmp_path / "lineImages").mkdir()
    for number in (1, 2):
        Image.fromarray(picture).save(tmp_path / "lineImages" / f"a01-000u-0{number}.tif")
    report = Report()
    pairs = iam.read_pairs(iam.Source(make_source(tmp_path, {LINE.format("01"): b"<a>"})), report)
    assert list(pairs) == ["a01-000u-02"]
    assert report.left_out == {"XML that is not well-formed": 1}


def test_images_without_a_pair_are_left_out_and_none_left_is_an_error(tmp_path):
    (tmp_path / "lineImages").mkdir()
    source = make_source(tmp_path, {})
    Image.new("L", (400, 100), 255).save(tmp_path / "lineImages" / "a01-000u-1.tif")
    with pytest.raises(HwdiffError, match=r"nothing to compare; left out: .*a01-000u-01: no ink found"):
        iam.read_pairs(iam.Source(source), Report())
    Image.new("L", (400, 100), 255).save(tmp_path / "lineImages" / "z99-999-01.tif")
    (tmp_path / "lineImages" / "a01-000u-1.tif").unlink()
    with pytest.raises(HwdiffError, match="no image of a line whose strokes are there"):
        iam.read_pairs(iam.Source(source), Report())


def test_lists_of_other_forms_are_an_error(tmp_path):
    source = make_source(tmp_path, {})
    for name in iam.SPLIT_LISTS:
        (source / f"{name}.txt").write_text(f"{name}-000")
    with pytest.raises(HwdiffError, match="no form is in its split lists, such as a01-000u; correct them"):
        prepare(source, tmp_path / "lines.npz", workers=1)


def test_split_lists_may_have_a_byte_order_mark(tmp_path):
    source = make_source(tmp_path)
    for name in iam.SPLIT_LISTS:
        (source / f"{name}.txt").write_text(f"{name}-000\r\n", encoding="utf-8-sig")
    assert iam.Source(source).split_lists()["trainset"] == ["trainset-000"]


def test_a_split_list_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    source = make_source(tmp_path)
    for name in iam.SPLIT_LISTS:
        (source / f"{name}.txt").write_text("a01-000u")
    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    with pytest.raises(HwdiffError, match=r"trainset\.txt: cannot be read \(Permission denied"):
        iam.Source(source).split_lists()


def test_a_folder_may_hold_a_file_whose_name_is_no_text(tmp_path):
    make_source(tmp_path / "packed")
    with tarfile.open(tmp_path / "packed" / "lineStrokes-all.tar.gz") as archive:
        archive.extractall(tmp_path / "packed", filter="data")
    (tmp_path / "packed" / "lineStrokes" / "caf\udce9.xml").write_bytes(b"")
    (tmp_path / "packed" / "lineStrokes-all.tar.gz").unlink()
    assert "lineStrokes" in iam.Source(tmp_path / "packed").fingerprints()


def test_an_image_too_wide_is_left_out_of_the_pairs(tmp_path):
    picture = np.full((96, 3000), 255, dtype=np.uint8)
    picture[20:80, 20:2980:8] = 0
    (tmp_path / "lineImages").mkdir()
    for number, width in ((1, 3000), (2, 400)):
        Image.fromarray(picture[:, :width]).save(tmp_path / "lineImages" / f"a01-000u-0{number}.tif")
    report = Report()
    assert list(iam.read_pairs(iam.Source(make_source(tmp_path)), report)) == ["a01-000u-02"]
    assert report.left_out == {"line image of more than 1400 pixels in width": 1}


def test_a_changed_file_in_a_folder_is_noticed(tmp_path):
    stroke_files, texts = form_files(["a01-000u"])
    for name, content in {**stroke_files, **texts}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    before = iam.Source(tmp_path).fingerprints()
    (tmp_path / LINE.format("01")).write_bytes(make_xml(make_points(9)))
    after = iam.Source(tmp_path).fingerprints()
    assert before["lineStrokes"] != after["lineStrokes"] and before["ascii"] == after["ascii"]


def test_the_official_image_of_a_pair_comes_first(tmp_path):
    picture = np.full((100, 400), 255, dtype=np.uint8)
    picture[20:80, 20:380:8] = 0
    (tmp_path / "lineImages").mkdir()
    Image.fromarray(picture).save(tmp_path / "lineImages" / "a01-000u-01.tif")
    [(official, _)] = iam.read_pairs(iam.Source(make_source(tmp_path)), Report()).values()
    np.testing.assert_array_equal(official, normalise(picture))
