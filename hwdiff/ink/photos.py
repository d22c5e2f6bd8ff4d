"""Photos and scans of handwriting, cleaned: even paper, upright, without ruled lines, cut into lines."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage
from scipy.signal import find_peaks
from skimage.filters import threshold_otsu
from skimage.morphology import skeletonize
from skimage.transform import rotate

from hwdiff.ink.images import INK, MAX_WIDTH, ImageSource, name_of, normalise, open_image, read_image
from hwdiff.utils.errors import HwdiffError

MAX_SIDE = 1800  # pixels of a picture; larger ones are made smaller
MAX_LINES = 8  # of a page, the first ones, are used
EVEN = 0.02  # paper that differs by less from its median is even
LINE_SHAPE = 3.0  # a picture so many times as wide as it is high is taken for one line
MAX_ANGLE, ANGLE_STEP = 8.0, 0.25  # degrees, of the rotation that is looked for
RULE_LENGTH = 60  # pixels; a straight horizontal run so long is no handwriting
STROKE_WIDTH = 4.0  # pixels, in line images at height 96: the median of IAM's
MAX_WIDER = 1.4  # times that, above which strokes are drawn anew
MIN_INK = 0.15  # of a line, against the line with the most ink
MIN_STRENGTH = 0.5  # of a line's ink, against the darkest line's: the edge of a sheet is paler than writing


def handwriting_lines(source: ImageSource, name: str | None = None) -> list[np.ndarray]:
    """The lines of handwriting in a picture, from top to bottom: each (H, W) uint8, dark ink on white paper.

    A picture of one line on even paper is read as it is (`images.read_image`). Anything else is taken for a
    photo: its light is evened out, white on black is turned, it is rotated until its lines are level, ruled
    lines are taken out, and it is cut into lines.

    source: see `images.ImageSource`.   name: what errors call it.
    Raises HwdiffError when it is not an image or shows no ink.
    """
    name = name or name_of(source)
    grey = _grey(open_image(source, name))
    paper = np.median(grey)
    even = paper > 0.5 and np.mean(np.abs(grey - paper) < EVEN) > 0.5
    if even and grey.shape[1] >= LINE_SHAPE * grey.shape[0]:
        return [read_image(source, name)]
    ink = _ink(grey)
    mask = _strong(ink)
    angle = _skew(mask)
    if angle:
        ink = rotate(np.where(mask, ink, 0), angle, resize=True, order=1)
        mask = _strong(ink)
    # Ruled lines first: they may tie the writing to the edges of the sheet.
    mask = _without_edges(_without_rules(mask))
    lines = _cut(mask, ink)
    if even and len(lines) < 2:
        return [read_image(source, name)]
    if not lines:
        raise HwdiffError(f"{name}: no line of handwriting found in it; cut out the part with the writing")
    if len(lines) > MAX_LINES:
        warnings.warn(f"{name}: the first {MAX_LINES} of its {len(lines)} lines are used", stacklevel=2)
    return [_redrawn(line, name) for line in lines[:MAX_LINES]]


def _redrawn(line, name):
    """A line as the pen of the training's line images would have drawn it: its strokes are as wide as theirs.

    A photo's pen is often twice as wide, and the style encoder takes that for style.
    """
    line = normalise(line, name)
    # At twice the size, where the middle of a stroke is found more exactly.
    wide = ndimage.zoom(line.astype(float), 2, order=1) < INK
    middle = skeletonize(ndimage.binary_closing(wide, np.ones((3, 3))))
    if wide.sum() < MAX_WIDER * 2 * STROKE_WIDTH * middle.sum():
        return line
    distance = ndimage.distance_transform_edt(~middle)
    ink = np.clip(STROKE_WIDTH - distance + 0.5, 0, 1)
    drawn = ndimage.zoom(ndimage.gaussian_filter(ink, 0.8), 0.5, order=1)
    return (255 * (1 - drawn)).round().clip(0, 255).astype(np.uint8)


def _grey(image):
    """An image as (H, W) float64 of 0 to 1, no side longer than `MAX_SIDE`. Deep greys go by their range."""
    image = image.copy() if image.mode == "L" else image.convert("F")  # PIL cannot shrink all deep greys
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    grey = np.asarray(image, dtype=np.float64)
    return grey / 255 if image.mode == "L" else (grey - grey.min()) / max(np.ptp(grey), 1e-9)


def _ink(grey):
    """How dark each pixel is against the paper around it: 0 for paper, 1 for the darkest ink."""
    size = max(15, max(grey.shape) // 24)
    if _is_light_on_dark(grey, size):
        grey = 1 - grey
    # The paper's brightness: the brightest nearby, then smoothed. It is found in a small copy.
    small = grey[::4, ::4]
    paper = ndimage.grey_closing(ndimage.median_filter(small, 3), size // 4)
    paper = ndimage.gaussian_filter(paper, size / 8)
    paper = ndimage.zoom(paper, np.array(grey.shape) / paper.shape, order=1)
    darkness = np.clip(1 - grey / np.maximum(paper, 1e-3), 0, 1)
    noise = 1.5 * np.median(darkness)
    darkness = np.clip(darkness - noise, 0, None)
    strongest = np.quantile(darkness, 0.998)
    return np.clip(darkness / max(strongest, 0.05), 0, 1)


def _is_light_on_dark(grey, size):
    """Whether what stands out from its surroundings is lighter than they are."""
    small = grey[::4, ::4]
    around = ndimage.median_filter(small, size // 4 * 2 + 1)
    return ((small - around) ** 3).sum() > 0


def _strong(ink):
    """The pixels of ink: those above Otsu's threshold, and what they touch above half of it. No specks."""
    threshold = threshold_otsu(ink) if ink.max() > ink.min() else 1.0
    labels, count = ndimage.label(ink > threshold / 2, np.ones((3, 3)))
    if not count:
        return np.zeros(ink.shape, dtype=bool)
    has_strong = ndimage.maximum(ink, labels, np.arange(count + 1)) > threshold
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    kept = has_strong & (areas > 6)
    kept[0] = False
    return kept[labels]


def _without_edges(mask):
    """`mask` without the edges of the sheet and of what lies around it.

    They touch the picture's edge and are long, or are longer than anything written on a page.
    """
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    height, width = mask.shape
    dropped = np.zeros(count + 1, dtype=bool)
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        tall, wide = (rows.stop - rows.start) / height, (columns.stop - columns.start) / width
        touches = rows.start == 0 or columns.start == 0 or rows.stop == height or columns.stop == width
        is_page = height > width / LINE_SHAPE
        dropped[number] = (touches and max(tall, wide) > 0.5) or (is_page and tall > 0.4)
    return mask & ~dropped[labels]


def _skew(mask):
    """By how many degrees to turn a page so that its lines are level: where rows differ most in ink."""
    step = max(1, max(mask.shape) // 500)
    small = mask[::step, ::step].astype(float)

    def evenness(angle):
        turned = rotate(small, angle, resize=True, order=1)
        rows = turned.sum(axis=1)
        return (np.diff(rows) ** 2).sum()

    angles = np.arange(-MAX_ANGLE, MAX_ANGLE + 0.1, 4 * ANGLE_STEP)
    best = max(angles, key=evenness)
    fine = best + ANGLE_STEP * np.arange(-3, 4)
    best = max(fine, key=evenness)
    return float(best) if abs(best) >= ANGLE_STEP / 2 and evenness(best) > 1.02 * evenness(0.0) else 0.0


def _without_rules(mask):
    """`mask` without straight horizontal runs, but with the strokes that cross them."""
    # A run may step up or down by a pixel.
    thick = ndimage.binary_dilation(mask, np.ones((3, 1)))
    rules = ndimage.binary_opening(thick, np.ones((1, RULE_LENGTH))) & mask
    if not rules.any():
        return mask
    left = mask & ~ndimage.binary_dilation(rules, np.ones((3, 1)))
    bridged = ndimage.binary_closing(left, np.ones((9, 3))) & mask
    return left | bridged


def _cut(mask, ink):
    """The lines in a level page: pieces of ink that hang together go to the line nearest to their middle."""
    labels, count = ndimage.label(ndimage.binary_dilation(mask, np.ones((3, 3))), np.ones((3, 3)))
    places = ndimage.find_objects(labels)
    heights = np.array([rows.stop - rows.start for rows, _ in places])
    widths = np.array([columns.stop - columns.start for _, columns in places])
    areas = np.bincount(labels[mask], minlength=count + 1)[1:]
    if not count or heights.max() < 8:
        return []
    # Large pieces tell the height of the writing; dots and commas do not.
    large = areas >= 0.2 * np.sort(areas)[-max(1, count // 10) :].mean()
    height = float(np.median(heights[large]))
    profile = ndimage.gaussian_filter1d(mask.sum(axis=1).astype(float), 0.35 * height)
    padded = np.pad(profile, 1)
    peaks, _ = find_peaks(padded, distance=max(1, 1.3 * height), prominence=0.15 * padded.max())
    peaks = peaks - 1
    if not len(peaks):
        return []
    middles = np.array([(rows.start + rows.stop) / 2 for rows, _ in places])
    owner = np.abs(middles[:, None] - peaks).argmin(axis=1)
    # Specks and stains far from any line are none of its ink.
    kept = np.abs(middles - peaks[owner]) < 1.5 * height
    kept &= (heights < 4 * height) & ~((widths > 0.9 * mask.shape[1]) & (heights < 0.3 * height))
    lines = []
    for line in range(len(peaks)):
        own = np.concatenate(([False], kept & (owner == line)))[labels]
        amount = (own & mask).sum()
        if not amount:
            continue
        rows, columns = (np.flatnonzero(own.any(axis=axis)) for axis in (1, 0))
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        picture = 255 * (1 - np.where(own, ink, 0)[box])
        strength = np.quantile(ink[own & mask], 0.9)
        lines.append((amount, strength, np.pad(picture.round().astype(np.uint8), 4, constant_values=255)))
    most, strongest = (max((line[number] for line in lines), default=0) for number in (0, 1))
    return [
        picture
        for amount, strength, picture in lines
        if amount >= MIN_INK * most and strength >= MIN_STRENGTH * strongest
    ]


def plot_lines(path: str | Path) -> Figure:
    """A picture, and the lines that are found in it, as the style encoder sees them."""
    lines = handwriting_lines(path)
    figure = Figure(figsize=(10, 0.8 + max(2.4, 0.7 * len(lines))), layout="constrained")
    left, right = figure.subfigures(1, 2)
    axes = left.subplots()
    axes.imshow(np.asarray(open_image(path, name_of(path), colours=True)), cmap="gray")
    axes.set_title("the picture", fontsize=8, loc="left")
    axes.set_axis_off()
    for number, (axes, line) in enumerate(zip(np.atleast_1d(right.subplots(len(lines))), lines, strict=True)):
        axes.imshow(normalise(line)[:, :MAX_WIDTH], cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
        if not number:
            axes.set_title("what is seen of it", fontsize=8, loc="left")
    return figure
