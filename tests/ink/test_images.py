import gc
import warnings

import numpy as np
import pytest
from PIL import Image

from hwdiff.ink import images
from hwdiff.utils.errors import HwdiffError
from tests.conftest import golden, make_points


@pytest.fixture
def scan():
    picture = np.full((120, 300), 255, dtype=np.uint8)
    picture[30:80, 20:280:9] = 0
    return picture


def test_scaled_line_images_equal_the_authors(shared, iam):
    arrays = golden(shared / "golden" / "preprocessing.npz")
    names = [name for name in arrays if name.endswith(".h96")]
    assert len(names) == 2
    for name in names:
        image = images.read_image(iam / "lineImages" / name.removesuffix(".h96"))
        np.testing.assert_array_equal(images.normalise(image), arrays[name][..., 0])


def test_scaling_has_half_pixel_centres_and_truncates():
    image = np.array([[0, 100], [200, 250]], dtype=np.uint8)
    assert images.scale_to_height(image, 4).tolist() == [
        [0, 25, 75, 100],
        [50, 71, 115, 137],
        [150, 165, 196, 212],
        [200, 212, 237, 250],
    ]


def test_trim_loses_the_last_row_and_column_of_ink(scan):
    assert images.trim(scan).shape == (49, 252)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "I;16", "I", "F"])
def test_scans_of_every_mode_are_read_alike(scan, mode, tmp_path):
    deep = Image.fromarray(scan.astype(np.uint16) * 257)
    picture = deep if mode == "I;16" else Image.fromarray(scan).convert(mode)
    path = tmp_path / ("scan.tif" if mode in ("F", "I") else "scan.png")
    picture.save(path)
    np.testing.assert_array_equal(images.read_image(path), scan)


def test_transparent_paper_is_white(scan):
    picture = np.dstack([np.zeros_like(scan)] * 3 + [255 - scan])
    np.testing.assert_array_equal(images.read_image(Image.fromarray(picture)), scan)


def test_grey_paper_and_pale_ink_are_stretched(scan):
    np.testing.assert_array_equal(images.read_image(np.where(scan == 0, 90, 210).astype(np.uint8)), scan)


@pytest.mark.parametrize(
    "picture",
    [np.full((50, 50), 255), np.zeros((50, 50)), np.zeros((1, 1)), np.zeros((0, 0)), np.full((96, 400), 130)],
)
def test_pictures_without_ink_are_refused(picture):
    with pytest.raises(HwdiffError, match="no ink found"):
        images.read_image(picture.astype(np.uint8))


def test_a_word_on_a_large_sheet_is_found():
    sheet = np.full((3000, 4000), 240, dtype=np.uint8)
    sheet[1500:1540, 1000:1200:5] = 20
    assert images.normalise(images.read_image(sheet)).shape == (96, 480)


def test_what_is_no_image_is_refused(tmp_path):
    path = tmp_path / "letter.png"
    path.write_text("Dear Sir")
    with pytest.raises(HwdiffError, match=r"letter\.png: not an image"):
        images.read_image(path)
    with pytest.raises(HwdiffError, match="no such file"):
        images.read_image(tmp_path / "none.png")


def test_padding_refuses_what_is_too_wide():
    assert images.pad_to_width(np.zeros((96, 10), dtype=np.uint8)).shape == (96, 1400)
    with pytest.raises(HwdiffError, match="1401 pixels wide"):
        images.pad_to_width(np.zeros((96, 1401), dtype=np.uint8))


def test_drawn_lines_have_four_greys_and_white():
    strokes = [np.array(stroke) for stroke in make_points(0)]
    drawn = images.draw_line(strokes)
    assert set(np.unique(drawn)) == {0, 64, 128, 192, 255}
    height, width = np.ptp(np.concatenate(strokes)[:, 1]), np.ptp(np.concatenate(strokes)[:, 0])
    scale = (np.floor(0.3 * height) - images.PEN_ROOM) / height
    inked = images.trim(drawn)
    assert inked.shape == pytest.approx((height * scale + 6, width * scale + 6), abs=2)
    estimate = images.estimated_width(np.ptp(np.concatenate(strokes), axis=0))
    assert estimate == pytest.approx(images.normalise(drawn).shape[1], rel=0.02)


def test_drawing_nothing_is_refused():
    with pytest.raises(HwdiffError, match="no extent"):
        images.draw_line([np.zeros((3, 2))])
    assert (images.draw_line([np.array([(0, 0), (300, 0)])]) == 0).any()  # a lone dash


@pytest.mark.slow
def test_drawn_lines_resemble_the_official_ones(shared, iam):
    from hwdiff.data.figures import compare_line_images
    from hwdiff.data.iam import Source, read_pairs
    from hwdiff.data.lines import Report
    from hwdiff.model.style_encoder import load_style_extractor

    extractor = load_style_extractor(shared / "weights" / "mobilenet_v2-imagenet.safetensors")
    _, cosines = compare_line_images(read_pairs(Source(iam), Report()), extractor)
    assert len(cosines) == 6
    assert min(cosines.values()) > 0.95


def test_pictures_are_refused_by_their_size_before_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100 * 100)
    Image.new("L", (101, 100)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image.Image, "load", None)  # it would be unpacked by this
    with pytest.raises(HwdiffError, match=r"large\.png: 101 x 100 pixels, more than 10,000; make it smaller"):
        images.read_image(tmp_path / "large.png")


def test_a_large_photo_is_unpacked_at_half_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100 * 100)
    photo = Image.new("L", (190, 180), 255)
    photo.paste(0, (40, 80, 150, 100))
    photo.save(tmp_path / "photo.jpg")
    assert images.read_image(tmp_path / "photo.jpg").shape == (90, 95)
    photo.resize((400, 380)).save(tmp_path / "larger.jpg")
    with pytest.raises(HwdiffError, match=r"larger\.jpg: 200 x 190 pixels, more than 10,000"):
        images.read_image(tmp_path / "larger.jpg")


def test_a_hairline_is_no_line_of_handwriting():
    picture = np.full((60, 50_000), 255, dtype=np.uint8)
    picture[20:23] = 0
    with pytest.raises(HwdiffError, match="its ink is 49999 pixels wide and 2 high, which is no line"):
        images.normalise(picture)


def test_strokes_far_larger_than_a_line_are_not_drawn():
    with pytest.raises(HwdiffError, match="its strokes take 19661 x 19661 pixels, far more than a line does"):
        images.draw_line([np.array([(0, 0), (65_534, 65_534)])])


def test_a_callers_picture_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100 * 100)
    Image.new("RGB", (190, 180), "white").save(tmp_path / "photo.jpg")
    with Image.open(tmp_path / "photo.jpg") as photo:
        with pytest.raises(HwdiffError, match="190 x 180 pixels, more than 10,000"):
            images.read_image(photo)
        assert (photo.size, photo.mode) == ((190, 180), "RGB")


def test_files_of_several_pictures_are_closed(tmp_path):
    page = Image.new("L", (300, 60), 255)
    page.paste(0, (20, 20, 200, 40))
    page.save(tmp_path / "pages.tiff", save_all=True, append_images=[page])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        assert images.read_image(tmp_path / "pages.tiff").shape == (60, 300)
        gc.collect()
