"""Lines drawn as pictures, all on the same canvas, for distances between sets of pictures."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hwdiff.ink import images
from hwdiff.ink.ink import Ink
from hwdiff.utils.errors import HwdiffError


@dataclass(frozen=True)
class Canvas:
    """What lines are drawn on, real and generated ones alike. The paper leaves its size open ("M x N").

    width, height: in pixels.
    scale: pixels to a standard deviation of the offsets.
    pen: its width in pixels.
    A line stands in the middle, its first letter at the left margin. Ink beyond the edge is cut off.
    """

    width: int = 1200
    height: int = 120
    scale: float = 5.0
    pen: float = 2.0

    def draw(self, ink: Ink) -> np.ndarray:
        """An ink as (height, width) uint8, black on white. An empty one gives a blank image."""
        strokes = [stroke * (self.scale, -self.scale) for stroke in ink.strokes()]
        if not strokes:
            return np.full((self.height, self.width), 255, dtype=np.uint8)
        points = np.concatenate(strokes)
        margin = 2 * self.pen
        shift = (margin - points[:, 0].min(), self.height / 2 - (points[:, 1].min() + points[:, 1].max()) / 2)
        placed = [stroke + shift for stroke in strokes]
        return np.asarray(images.draw_strokes(placed, (self.height, self.width), self.pen))


def as_pictures(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """Pictures as (n, H, W) uint8.

    Raises HwdiffError when there are none, or they are of several sizes, in colours or in other numbers.
    """
    pictures = list(pictures)
    kinds = {(np.shape(picture), str(np.asarray(picture).dtype)) for picture in pictures}
    alike = len(kinds) == 1 and all(
        len(shape) == 2 and 0 not in shape and kind == "uint8" for shape, kind in kinds
    )
    if not alike:
        found = ", ".join(f"{shape} of {kind}" for shape, kind in sorted(kinds)) or "none"
        raise HwdiffError(
            f"pictures: {found}; at least one is needed, all of one size (H, W), "
            "in greys from 0 to 255 (uint8)"
        )
    return np.stack(pictures)


def resize(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """A picture (H, W) uint8 as (height, width) uint8, with antialiasing."""
    # PIL's bilinear filter widens with the reduction, so that thin lines turn grey instead of vanishing.
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
