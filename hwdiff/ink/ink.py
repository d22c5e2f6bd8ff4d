"""Ink: one line of pen strokes, as the model writes it, and how it is drawn."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from hwdiff.ink import formats, images, strokes
from hwdiff.ink.formats import printable
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write

PEN_WIDTH = 0.45  # in standard deviations of the offsets: about the pen of the official IAM line images
TABLET_UNITS = 64  # of IAM's tablet to the offsets' unit: the median standard deviation of its lines
MAX_TABLET = np.array((20_000, 4_000))
MARGIN = 1.5
PIXELS_PER_UNIT, PNG_PIXELS_PER_UNIT = 8, 24  # on the screen, and in a PNG file
MAX_SIDE = 4000
FORMATS = (".svg", ".png", ".gif", ".inkml", ".json")  # of `Ink.save`
PAGE_FORMATS = (".pdf", ".svg", ".png", ".inkml")  # of `page.save_pages`
_PARSERS = {".inkml": formats.parse_inkml, ".json": formats.parse_json}
POINTS_PER_SECOND, POINTS_PER_FRAME, GIF_PAUSE = 60, 3, 2000  # of an animation; the pause in milliseconds


@dataclass(eq=False)  # of arrays there is no one answer
class Ink:
    """A line of handwriting.

    offsets: (N, 2) float32, from point to point, y upwards, in the line's standard deviation.
    pen_up: (N,) bool, True where the pen moved to the point without writing.
    text: what it is meant to say.
    accents: (n, 2) float32 positions of strokes that are drawn over it, as of `strokes`: those of accented
        letters, which the network cannot write.
    covered: the numbers of its strokes that are not drawn, such as a dot under an accent.
    In a notebook it shows itself.
    Raises HwdiffError when the arrays do not fit or hold numbers that are not finite.
    """

    offsets: np.ndarray
    pen_up: np.ndarray
    text: str = ""
    accents: Sequence[np.ndarray] = ()
    covered: frozenset[int] = frozenset()

    def __post_init__(self):
        self.offsets = np.asarray(self.offsets, dtype=np.float32)
        self.pen_up = np.asarray(self.pen_up, dtype=bool)
        if (
            self.offsets.ndim != 2
            or self.offsets.shape[1] != 2
            or self.pen_up.shape != self.offsets.shape[:1]
        ):
            found = f"offsets {self.offsets.shape} and pen_up {self.pen_up.shape}"
            raise HwdiffError(f"ink: {found}; they must be (N, 2) and (N,)")
        if not np.isfinite(self.offsets).all():
            raise HwdiffError("ink: offsets that are not finite numbers")
        self.accents = [np.asarray(stroke, dtype=np.float32) for stroke in self.accents]
        for stroke in self.accents:
            if stroke.ndim != 2 or stroke.shape[1] != 2 or not len(stroke) or not np.isfinite(stroke).all():
                raise HwdiffError(f"ink: an accent of shape {stroke.shape}; it must be (n, 2), all finite")

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The ink of a file.

        path: an `.svg`, `.inkml` or `.json` that `save` wrote, or such a file of another program, of straight
            lines and in its own unit; or an `.xml` line file of IAM's lineStrokes, which is merged and
            normalised as the model sees it and has no text.
        Raises HwdiffError when the file is missing or holds no such ink.
        """
        path = Path(path)
        advice = "give an .svg, .inkml or .json that hwdiff write made, or an .xml line file of IAM"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise HwdiffError(f"{path}: cannot be read ({error.strerror}); {advice}") from error
        try:
            if path.suffix.lower() == ".xml":
                return cls._of_line_file(content)
            parse = _PARSERS.get(path.suffix.lower(), formats.parse_svg)
            return cls._of_strokes(*parse(content))
        except (*formats.UNREADABLE, HwdiffError) as error:
            raise HwdiffError(f"{path}: holds no ink ({error}); {advice}") from error

    @classmethod
    def _of_line_file(cls, content) -> "Ink":
        offsets, pen_up = strokes.to_offsets(*formats.parse_points(content))
        merged, pen_up = strokes.merge(offsets, pen_up, strokes.merge_collinear(offsets))
        scale = strokes.scale_of(merged)
        if not scale:
            raise ValueError("strokes without extent")
        return cls(merged / scale, np.concatenate(([True], pen_up[1:])))

    @classmethod
    def _of_strokes(cls, parts, text) -> "Ink":
        """The ink of strokes with y downwards.

        Its first offset is zero: where the line lay on the page is dropped.
        """
        points = np.concatenate([np.zeros((0, 2)), *parts])
        offsets = np.diff(points, axis=0, prepend=points[:1]) * (1, -1)
        return cls(offsets, strokes.stroke_starts(list(map(len, parts))), text)

    def trimmed(self) -> Self:
        """The ink without the pen-up moves at its end: the padding that the model writes after the text.

        A last dot of one point is lost too (0.9 % of IAM's lines end in one).
        """
        down = np.flatnonzero(~self.pen_up)
        end = down[-1] + 1 if len(down) else 0
        return replace(self, offsets=self.offsets[:end], pen_up=self.pen_up[:end])

    def strokes(self) -> list[np.ndarray]:
        """The strokes: (n, 2) positions of each, y upwards. One point is a dot. Accents come last."""
        own = strokes.split_strokes(self.offsets, self.pen_up)
        return [stroke for number, stroke in enumerate(own) if number not in self.covered] + [*self.accents]

    def placed(self) -> tuple[list[np.ndarray], np.ndarray]:
        """The strokes with y downwards inside margins, and the size (2,) of all: width, height."""
        placed = [stroke * (1, -1) for stroke in self.strokes()]
        points = np.concatenate(placed) if placed else np.zeros((1, 2))
        low = points.min(axis=0) - MARGIN
        return [stroke - low for stroke in placed], points.max(axis=0) + MARGIN - low

    def to_svg(self) -> str:
        """The line as an SVG document: one path, a subpath for each stroke."""
        placed, (width, height) = self.placed()
        # A dot is a subpath of no length, which round caps make visible.
        drawable = [stroke if len(stroke) > 1 else np.repeat(stroke, 2, axis=0) for stroke in placed]
        path = " ".join("M" + " L".join(f"{x:.3f} {y:.3f}" for x, y in stroke) for stroke in drawable)
        title = f"<title>{escape(printable(self.text))}</title>"
        pixels = f'width="{width * PIXELS_PER_UNIT:.0f}" height="{height * PIXELS_PER_UNIT:.0f}"'
        view = f'viewBox="0 0 {width:.2f} {height:.2f}"'
        pen = f'stroke-width="{PEN_WIDTH}" stroke-linecap="round" stroke-linejoin="round"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {pixels} {view}>{title}'
            f'<rect width="100%" height="100%" fill="white"/>'
            f'<path d="{path}" fill="none" stroke="black" {pen}/></svg>\n'
        )

    def _repr_svg_(self) -> str:
        return self.to_svg()

    def to_image(self, pixels_per_unit: float = PIXELS_PER_UNIT, points: int | None = None) -> Image.Image:
        """The line as a PIL image of mode L, black on white.

        pixels_per_unit: fewer are used if a side would have more than 4000 pixels.
        points: draw only so many of its first points, in the same frame.
        """
        placed, size = self.placed()
        scale = min(pixels_per_unit, MAX_SIDE / size.max())
        width, height = np.ceil(size * scale).astype(int)
        if points is not None:
            starts = np.cumsum([0, *map(len, placed)])
            placed = [
                stroke[: points - start]
                for stroke, start in zip(placed, starts, strict=False)
                if start < points
            ]
        scaled = [stroke * scale for stroke in placed]
        return images.draw_strokes(scaled, (int(height), int(width)), PEN_WIDTH * scale)

    def line_image(self) -> np.ndarray:
        """The line drawn like an official IAM line image, for style features: (96, W) uint8, margins cut.

        Raises HwdiffError when it has no extent.
        """
        strokes = self.strokes()
        extent = np.ptp(np.concatenate(strokes), axis=0) if strokes else np.zeros(2)
        # Ink far larger than anyone writes is shrunk, or the canvas would take all memory.
        scale = min(TABLET_UNITS, *(MAX_TABLET / np.maximum(extent, 1e-6)))
        return images.normalise(images.draw_line([stroke * (scale, -scale) for stroke in strokes]))

    def to_gif(self) -> bytes:
        """The pen writing the line, as an animated GIF: 60 points a second, then a pause, over and over."""
        total = sum(map(len, self.strokes()))
        counts = [*range(POINTS_PER_FRAME, total, POINTS_PER_FRAME), total]
        frames = [self.to_image(points=count).quantize(8) for count in counts]
        content = io.BytesIO()
        milliseconds = 1000 * POINTS_PER_FRAME // POINTS_PER_SECOND
        durations = [milliseconds] * (len(frames) - 1) + [GIF_PAUSE]
        frames[0].save(content, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
        return content.getvalue()

    def save(self, path: str | Path) -> None:
        """Write the line to the file `path`, whose folders are made.

        path: an `.svg`, a `.png`, a `.gif` of the pen writing it, or for other programs an `.inkml` (W3C) or
            a `.json`; in these two y is downwards and the unit that of the offsets.
        Raises HwdiffError for another suffix, or when the file cannot be written.
        """
        path = Path(path)
        suffix, text = path.suffix.lower(), printable(self.text)
        if suffix not in FORMATS:
            found = path.suffix or "a file without a suffix"
            raise HwdiffError(f"{path}: ink is saved as {or_list(FORMATS)}, not as {found}")
        with atomic_write(path) as temporary:
            if suffix == ".svg":
                temporary.write_text(self.to_svg(), encoding="utf-8")
            elif suffix == ".png":
                self.to_image(PNG_PIXELS_PER_UNIT).save(temporary, format="PNG")
            elif suffix == ".gif":
                temporary.write_bytes(self.to_gif())
            else:
                write = formats.to_inkml if suffix == ".inkml" else formats.to_json
                downwards = [stroke * (1, -1) + 0.0 for stroke in self.strokes()]  # 0.0 instead of -0.0
                temporary.write_text(write(downwards, text), encoding="utf-8")


def or_list(names: Sequence[str]) -> str:
    """Some names as in a sentence: "a, b or c"."""
    return f"{', '.join(names[:-1])} or {names[-1]}"
