"""Photos as people take them, made from clean lines: turned, in uneven light, noisy, on ruled paper."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from skimage.morphology import skeletonize

from hwdiff import HwdiffError
from hwdiff.ink.images import INK, normalise, read_image
from hwdiff.ink.page import Layout, place_lines
from hwdiff.ink.photos import handwriting_lines, plot_lines
from hwdiff.model.style_encoder import load_style_extractor

ORIENTATION = 0x0112  # the EXIF tag; 6: to be turned clockwise


def page_of(inks, color="black", rules=None, pen_width=0.6):
    """A picture of a page of lines, RGB."""
    layout = Layout("A5", margin=15, line_spacing=14, pen_width=pen_width, color=color)
    [page] = place_lines([[ink] for ink in inks], layout)
    figure = page.figure()
    if rules:
        for number in range(13):
            figure.axes[0].axhline(15 + (number + 0.75) * 14 + 0.8, color=rules, linewidth=0.6)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return Image.open(content).convert("RGB")


def photo_of(picture, angle, shade=0.45, noise=5.0, lying=False):
    """The picture turned, on a darker table, in light that falls off, blurred, noisy, as a JPEG file.

    lying: the camera lay on its side, and says so in the EXIF data.
    """
    turned = picture.rotate(angle, expand=True, fillcolor=(190, 185, 170), resample=Image.BICUBIC)
    seen = np.asarray(turned, dtype=float)
    height, width, _ = seen.shape
    y, x = np.mgrid[:height, :width]
    light = 1 - shade * (0.6 * x / width + 0.4 * y / height)
    seen = seen * light[..., None] * (1, 0.97, 0.9)
    seen = seen + np.random.default_rng(0).normal(0, noise, seen.shape)
    image = Image.fromarray(seen.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8))
    exif = Image.Exif()
    if lying:
        image, exif[ORIENTATION] = image.transpose(Image.Transpose.ROTATE_90), 6
    content = io.BytesIO()
    image.save(content, "JPEG", quality=70, exif=exif)
    return content.getvalue()


@pytest.fixture(scope="module")
def inks(made_up_lines):
    return made_up_lines[:4]


@pytest.fixture(scope="module")
def others(made_up_lines):
    return made_up_lines[-4:]


CASES = {
    "shadow": lambda inks: photo_of(page_of(inks), angle=3),
    "ruled": lambda inks: photo_of(page_of(inks, "#223388", "#8899cc"), angle=-2),
    "white on black": lambda inks: photo_of(Image.fromarray(255 - np.asarray(page_of(inks))), 1, shade=0.2),
    "lying": lambda inks: photo_of(page_of(inks), angle=0, lying=True),
    "screenshot": lambda inks: page_of(inks, "#223388").convert("RGBA"),
}


@pytest.fixture(scope="module")
def extractor():
    return load_style_extractor("bundled", "cpu")


@pytest.fixture(scope="module")
def mean_styles(inks, others, extractor):
    """The mean style columns of `inks`, and of `others`."""
    columns = ([extractor.of_image(ink.line_image()) for ink in lines] for lines in (inks, others))
    return [torch.stack(one).mean(dim=(0, 1)) for one in columns]


@pytest.mark.parametrize("case", CASES)
def test_the_style_of_a_photo_is_near_that_of_its_lines(case, inks, mean_styles, extractor):
    photo = CASES[case](inks)
    assert len(handwriting_lines(photo)) == len(inks)
    seen, (own, other) = extractor.of_image(photo).mean(dim=0), mean_styles
    near, far = (torch.cosine_similarity(seen, one, dim=0) for one in (own, other))
    assert near > 0.92
    assert far < near - 0.1


def test_a_scan_of_one_line_is_read_as_before(inks):
    line = inks[0].line_image()
    [same] = handwriting_lines(line)
    np.testing.assert_array_equal(same, read_image(line))


def test_pictures_without_handwriting_are_refused(tmp_path):
    grey = np.full((300, 300), 200, dtype=np.uint8)
    with pytest.raises(HwdiffError, match=r"no ink found|no line of handwriting"):
        handwriting_lines(grey)
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(HwdiffError, match=r"a\.jpg: not an image that can be read"):
        handwriting_lines(tmp_path / "a.jpg")
    with pytest.raises(HwdiffError, match=r"none\.jpg: no such file"):
        handwriting_lines(tmp_path / "none.jpg")


def test_strokes_become_as_wide_as_those_of_the_training(inks):
    """The mean width of strokes: their area by the length of their middle."""

    def width(line):
        ink = line < INK
        return ink.sum() / skeletonize(ink).sum()

    photo = page_of(inks[:2], pen_width=1.2)
    found = [normalise(line) for line in handwriting_lines(photo)]
    assert all(4 < width(line) < 5.5 for line in found)  # a little more than 4, since they are blurred
    thin = [normalise(line) for line in handwriting_lines(page_of(inks[:2], pen_width=0.25))]
    assert max(map(width, thin)) < 4 * 1.4


@pytest.mark.parametrize("angle", [-4, 5])
def test_the_edge_of_the_sheet_is_no_line(made_up_lines, angle):
    photo = photo_of(page_of(made_up_lines[:1]), angle)
    assert len(handwriting_lines(photo)) == 1


def test_what_is_seen_is_drawn(inks, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(CASES["ruled"](inks))
    figure = plot_lines(tmp_path / "photo.jpg")
    assert sum(len(axes.images) for axes in figure.axes) == 1 + len(inks)


def test_pictures_are_shown_as_they_are_looked_at(inks, tmp_path):
    """Colours stay, transparent paper is white, and deep grey is not clipped."""
    page_of(inks, "#2233ee").convert("RGB").save(tmp_path / "blue.png")
    shown = np.asarray(plot_lines(tmp_path / "blue.png").axes[0].images[0].get_array(), dtype=int)
    assert (shown[..., 2] - shown[..., 0]).max() > 100
    plain = page_of(inks).convert("L")
    clear = Image.new("RGBA", plain.size)
    clear.putalpha(plain.point(lambda value: 255 - value))
    clear.save(tmp_path / "clear.png")
    Image.fromarray(np.asarray(plain).astype(np.uint16) * 200).save(tmp_path / "deep.png")
    for name in ("clear.png", "deep.png"):
        shown = plot_lines(tmp_path / name).axes[0].images[0]
        level = np.asarray(shown.get_array(), dtype=float)
        assert level.max() > 0.9 * shown.get_clim()[1], name
        assert (
            np.corrcoef(level.reshape(*plain.size[::-1], -1)[..., 0].flat, np.asarray(plain).flat)[0, 1]
            > 0.99
        )


def test_what_is_too_much_is_told_and_neither_used_nor_shown(made_up_lines, extractor, tmp_path):
    layout = Layout("A4", margin=15, line_spacing=14, pen_width=0.6)
    long = [[made_up_lines[0], made_up_lines[1]], *([ink] for ink in made_up_lines[2:11])]
    [page] = place_lines(long, layout)
    page.figure().savefig(tmp_path / "page.png", dpi=100)
    with pytest.warns(UserWarning, match="page.png: the first 8 of its 10 lines are used"):
        figure = plot_lines(tmp_path / "page.png")
    seen = [axes.images[0].get_array().shape[1] for axes in figure.axes[1:]]
    assert len(seen) == 8
    assert seen[0] == 1400
    with pytest.warns(UserWarning, match=r"page.png: line 1 is \d+ pixels wide at height 96; only the first"):
        extractor.of_image(tmp_path / "page.png")


@pytest.mark.parametrize("suffix", ["tiff", "png"])
def test_a_large_scan_in_deep_grey_is_looked_at(suffix):
    """PIL first reduces what is more than twice too large by two, which it cannot do with 16 bits."""
    picture = np.full((3000, 7400), 60_000, dtype=np.uint16)
    for top in (400, 1800):
        picture[top : top + 300, 400:6600:60] = 2000
        picture[top + 140 : top + 160, 400:6600] = 2000
    content = io.BytesIO()
    Image.fromarray(picture).save(content, suffix)
    lines = handwriting_lines(content.getvalue())
    assert [line.shape for line in lines] == [(3000, 7400)]  # on even paper it is read as it is
