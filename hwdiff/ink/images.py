"""Line images: reading scans, cutting and scaling them as the authors do, drawing lines like official ones.

A line image here is (height, width) uint8, 0 black ink, 255 white paper.
"""

import io
import os
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from hwdiff.utils.errors import HwdiffError

HEIGHT = 96
MAX_WIDTH = 1400
DRAWING = 1  # version of `draw_line`, for the caches of what is made from its images
INK = 127  # a pixel below this is ink
# Measured on official images: strokes fill a canvas of 0.3 pixels a tablet unit less 10 pixels, and the soft
# pen is 6 pixels wide.
PIXELS_PER_UNIT = 0.3
PEN_WIDTH = 6
PEN_ROOM = 10
PEN_BLUR = (2, 5, 2)  # in either direction; the sum of all nine weights is 81
FIVE_LEVELS = np.minimum(255, 64 * np.round(np.arange(81 * 255 + 1) / 81 / 63.75)).astype(np.uint8)

MAX_SCALED_WIDTH = 200_000  # at height 96
MAX_PIXELS = 40_000_000  # of a picture; in float64, with copies, that takes more than 1 GB

_ADVICE = "give a scan of dark handwriting on light paper"

ImageSource = str | os.PathLike | bytes | Image.Image | np.ndarray
"""A path, the bytes of an image file, a PIL image, or an array (H, W) or (H, W, 3) uint8."""


def name_of(source: ImageSource) -> str:
    """What errors call a picture: its path, if it has one."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else "style image"


def open_image(source: ImageSource, name: str, *, colours: bool = False) -> Image.Image:
    """A picture in grey, upright as its EXIF data say, on white where it is transparent.

    source: see `ImageSource`.
    name: what errors call it.
    colours: keep them.
    Returns a PIL image of mode L (RGB with colours), or of a deep grey.
    Raises HwdiffError when it is not an image.
    """
    try:
        with ExitStack() as files:
            if isinstance(source, np.ndarray):
                image = Image.fromarray(source)
            elif isinstance(source, Image.Image):
                image = source
            else:
                content = io.BytesIO(source) if isinstance(source, bytes) else source
                image = files.enter_context(Image.open(content))
                if image.width * image.height > MAX_PIXELS and image.format == "JPEG":
                    half = (image.width // 2, image.height // 2)
                    image.draft("RGB" if colours else "L", half)  # a large photo is unpacked at half its size
            return _flat(image, name, "RGB" if colours else "L")
    except HwdiffError:
        raise
    except FileNotFoundError as error:
        raise HwdiffError(f"{name}: no such file; give a picture of handwriting") from error
    except Exception as error:  # Pillow raises many kinds
        advice = "give a PNG, TIFF or JPEG of one line of handwriting"
        raise HwdiffError(f"{name}: not an image that can be read ({error}); {advice}") from error


def _flat(image, name, mode):
    if not image.width * image.height:
        raise HwdiffError(f"{name}: no ink found in {image.width} x {image.height} pixels; {_ADVICE}")
    if image.width * image.height > MAX_PIXELS:  # before any of it is unpacked
        raise HwdiffError(
            f"{name}: {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}; make it smaller"
        )
    image = ImageOps.exif_transpose(image)
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA"):
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    if not image.mode.startswith(("I", "F")):  # PIL would clip deep greys at 255 instead of scaling them
        image = image.convert(mode)
    image.load()
    return image


def read_image(source: ImageSource, name: str | None = None) -> np.ndarray:
    """Read a scan of a line of handwriting: any size, grey, colour or transparent, dark ink on light paper.

    source: see `ImageSource`.
    name: what errors call it.
    Returns (H, W) uint8. Contrast is stretched so that the paper (the median) becomes 255 and the darkest ink
    (but for a few pixels) 0. An official line image is left as it is.
    Raises HwdiffError when it is not an image or shows no ink.
    """
    name = name or name_of(source)
    image = open_image(source, name)
    grey = np.asarray(image, dtype=np.float64)
    few = min(30, grey.size // 1000)
    paper, ink = np.median(grey), np.partition(grey, few, axis=None)[few]
    if grey.size < 64 or not np.isfinite(paper - ink) or paper - ink < 0.15 * max(255, paper):
        raise HwdiffError(f"{name}: no ink found in {image.width} x {image.height} pixels; {_ADVICE}")
    return (np.clip((grey - ink) / (paper - ink), 0, 1) * 255).round().astype(np.uint8)


def trim(image: np.ndarray, name: str = "style image") -> np.ndarray:
    """Cut the white margins of (H, W) uint8, as the authors do: the last row and column of ink are lost.

    Raises HwdiffError when no row or column of ink is left.
    """
    ink = image < INK
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if len(rows) < 2 or len(columns) < 2:
        raise HwdiffError(f"{name}: no ink found in {image.shape[1]} x {image.shape[0]} pixels; {_ADVICE}")
    return image[rows[0] : rows[-1], columns[0] : columns[-1]]


def scaled_width(shape: tuple[int, int], height: int = HEIGHT) -> int:
    """The width, rounded down, that an image of `shape` (H, W) gets when it is scaled to `height`."""
    return height * shape[1] // shape[0]


def scale_to_height(image: np.ndarray, height: int = HEIGHT) -> np.ndarray:
    """Scale (H, W) uint8 to (height, W') by bilinear interpolation without antialiasing.

    Values are truncated, as in the authors' program.
    """
    width = max(1, scaled_width(image.shape, height))
    image = image.astype(np.float32)
    for axis, size in ((0, height), (1, width)):
        old = image.shape[axis]
        at = np.clip((np.arange(size, dtype=np.float32) + 0.5) * np.float32(old / size) - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        fraction = (at - low.astype(np.float32)).reshape((-1, 1) if axis == 0 else (1, -1))
        high = np.minimum(low + 1, old - 1)
        image = np.take(image, low, axis) * (1 - fraction) + np.take(image, high, axis) * fraction
    return image.astype(np.uint8)


def normalise(image: np.ndarray, name: str = "style image") -> np.ndarray:
    """Cut the margins of (H, W) uint8 and scale it to height 96: (96, W') uint8.

    Raises HwdiffError when it shows no ink.
    """
    image = trim(image, name)
    if scaled_width(image.shape) > MAX_SCALED_WIDTH:
        found = f"its ink is {image.shape[1]} pixels wide and {image.shape[0]} high"
        raise HwdiffError(f"{name}: {found}, which is no line of handwriting")
    return scale_to_height(image)


def pad_to_width(image: np.ndarray, width: int = MAX_WIDTH, name: str = "style image") -> np.ndarray:
    """Pad (H, W) uint8 with white on the right to `width`.

    Raises HwdiffError when it is wider than that.
    """
    if image.shape[1] > width:
        found = f"{image.shape[1]} pixels wide at height {image.shape[0]}"
        raise HwdiffError(f"{name}: {found}, at most {width} can be used; cut a shorter piece of the line")
    return np.pad(image, ((0, 0), (0, width - image.shape[1])), constant_values=255)


def draw_strokes(strokes: Sequence[np.ndarray], shape: tuple[int, int], pen_width: float) -> Image.Image:
    """Draw strokes with round joints and ends, black on white, at twice the size and then averaged.

    strokes: (n, 2) positions of each, in pixels, y downwards.
    shape: (height, width) of the image.
    pen_width: in pixels.
    Returns a PIL image of mode L.
    """
    height, width = shape
    canvas = Image.new("L", (2 * width, 2 * height), 255)
    pen = ImageDraw.Draw(canvas)
    radius = max(pen_width, 0.5)  # half of the doubled width; thinner lines would vanish
    for stroke in strokes:
        path = 2 * np.asarray(stroke)
        if len(path) > 1:
            pen.line(path.round().astype(int).ravel().tolist(), fill=0, width=round(2 * radius))
        for x, y in path.tolist():  # ten times faster than PIL's own curved joints
            pen.ellipse((x - radius, y - radius, x + radius - 0.5, y + radius - 0.5), fill=0)
    return canvas.reduce(2)


def draw_line(strokes: Sequence[np.ndarray]) -> np.ndarray:
    """Draw a line like the official IAM line images: four greys and white, without the margin of 100 pixels.

    strokes: (n, 2) positions of each, in tablet units, y downwards.
    Returns (H, W) uint8.
    Raises HwdiffError when the strokes have no extent.
    """
    points = np.concatenate(strokes) if strokes else np.zeros((1, 2))
    origin, extent = points.min(axis=0), np.ptp(points, axis=0)
    if not extent.any():
        raise HwdiffError("line: its strokes have no extent, so there is nothing to draw")
    scale = _scale(extent)
    width, height = canvas_size(extent)
    if width * height > MAX_PIXELS:
        raise HwdiffError(f"line: its strokes take {width} x {height} pixels, far more than a line does")
    placed = [(stroke - origin) * scale + PEN_ROOM / 2 for stroke in strokes]
    drawn = draw_strokes(placed, (int(height), int(width)), PEN_WIDTH)
    blurred = np.asarray(drawn, dtype=np.uint16)
    side, middle, _ = PEN_BLUR
    blurred = side * (blurred[:-2] + blurred[2:]) + middle * blurred[1:-1]
    blurred = side * (blurred[:, :-2] + blurred[:, 2:]) + middle * blurred[:, 1:-1]
    return FIVE_LEVELS[blurred]


def canvas_size(extent: np.ndarray) -> tuple[int, int]:
    """Width and height in pixels of what strokes are drawn on.

    extent: (2,) of the strokes, x and y, in tablet units.
    """
    width, height = np.ceil(extent * _scale(extent)).astype(int) + PEN_ROOM + 1
    return int(width), int(height)


def estimated_width(extent: np.ndarray) -> float:
    """About the width at height 96, within 2 %, of what `draw_line` makes of strokes.

    extent: (2,) of the strokes, x and y, in tablet units.
    """
    ink_width, ink_height = extent * _scale(extent) + PEN_WIDTH
    return HEIGHT * ink_width / ink_height


def _scale(extent):
    """Pixels a tablet unit. The official scale follows from the height alone.

    A line too flat for that, such as a lone dash, is drawn at the plain scale.
    """
    height = np.floor(PIXELS_PER_UNIT * extent[1])
    return (height - PEN_ROOM) / extent[1] if height > 2 * PEN_ROOM else PIXELS_PER_UNIT
