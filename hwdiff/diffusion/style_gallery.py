"""Styles by name, so that a model can write in many styles without images.

They are features of lines that the bundled network of the paper's size drew.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from hwdiff.model.config import STYLE_FEATURES
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.json_values import require
from hwdiff.utils.tensors import load_tensors, save_tensors

FORMAT = "hwdiff styles 1"
BUNDLED = Path(__file__).parents[1] / "weights" / "pretrained-styles.safetensors"
# Of 298 training lines of IAM, every 31st, one in twenty has a lower cosine to the nearest named style.
FAR = 0.88


class Styles(dict):
    """Styles by name, {name: (14, 1280) float32}, in the order in which they were made.

    metadata: of their file.
    """

    def __init__(self, styles: dict[str, Tensor], metadata: dict):
        super().__init__(styles)
        self.metadata = metadata

    def __missing__(self, name):
        advice = f"choose one of {', '.join(self)}, or give an image of a line of handwriting"
        raise HwdiffError(f"style: no such style as {name!r}; {advice}")


def mixed(styles: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """A style between several: their weighted sum.

    Fig. 5 of Luhman & Luhman (2020) has two: lambda s0 + (1 - lambda) s1.

    styles: each (S, 1280).
    weights: one for each style, adding up to 1.
    Raises HwdiffError when they are not that.
    """
    columns = [len(style) for style in styles]
    if len(set(columns)) > 1:
        raise HwdiffError(
            f"styles: features of {columns} columns cannot be mixed; pad the images to one width"
        )
    if len(styles) != len(weights) or not abs(sum(weights) - 1) <= 1e-6:
        given = [float(weight) for weight in weights]
        found = f"weights {given} for {len(styles)} styles"
        raise HwdiffError(f"styles: {found}; give one for each, adding up to 1")
    return sum(float(weight) * style for style, weight in zip(styles, weights, strict=True))


def by_likeness(style: Tensor, named: dict[str, Tensor]) -> dict[str, float]:
    """{name: the cosine of its mean column and that of `style` (S, 1280)}, the nearest style first.

    The mean over columns leaves out what is written where.
    """
    found = {
        name: float(torch.cosine_similarity(style.mean(dim=0), other.mean(dim=0), dim=0))
        for name, other in named.items()
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def save_styles(path: str | Path, styles: dict[str, Tensor], **metadata) -> None:
    """Write styles to the safetensors file `path`.

    styles: {name: (14, 1280)}.
    metadata: "style_weights", the `StyleExtractor.identity` of theirs, and what else the file should say, in
        JSON types.
    """
    save_tensors(path, styles, {"format": FORMAT, "names": list(styles), **metadata})


def load_styles(path: str | Path = BUNDLED) -> Styles:
    """The styles of a file, by default those that come with the package.

    Raises HwdiffError when the file is missing, damaged, or something else.
    """
    is_bundled = Path(path) == BUNDLED
    advice = "install hwdiff again" if is_bundled else "copy it again, or make it with hwdiff release"
    metadata, tensors = load_tensors(path, FORMAT, what="file of styles", advice=advice)
    wanted = {"names": [str], "style_weights": {"name": str, "fingerprint": str, "padding": str}}
    require(metadata, wanted, name=path, what="a whole file of styles", advice=advice)
    for name in metadata["names"]:
        style = tensors.get(name)
        if style is None or style.ndim != 2 or style.shape[1] != STYLE_FEATURES or not style.isfinite().all():
            shape = "missing" if style is None else f"of shape {tuple(style.shape)}"
            found = f"its style {name!r} is {shape}; finite features (14, 1280) are needed"
            raise HwdiffError(f"{path}: {found}; {advice}")
    return Styles({name: tensors[name].float() for name in metadata["names"]}, metadata)
