"""Styles by name: features of lines that the model itself drew, so that it writes in many hands without a picture of one."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write

FORMAT = "hwdiff styles 1"
BUNDLED = Path(__file__).parents[1] / "weights" / "small-styles.safetensors"


class Styles(dict):
    """Styles by name, {name: (14, 1280) float32}, in the order in which they were made; `metadata` is what their file tells of them."""

    def __init__(self, styles, metadata):
        super().__init__(styles)
        self.metadata = metadata

    def __missing__(self, name):
        raise HwdiffError(f"style: no such style as {name!r}; choose one of {', '.join(self)}, or give a picture of a line of handwriting")


def mixed(styles, weights):
    """A style between several: the sum of `styles`, a list of (S, 1280), each times its weight (Fig. 5 of Luhman & Luhman 2020 has two).

    Raises HwdiffError when there is not one weight for each, or they do not add up to 1.
    """
    if len(styles) != len(weights) or abs(sum(weights) - 1) > 1e-6:
        raise HwdiffError(f"styles: weights {[float(weight) for weight in weights]} for {len(styles)} styles; one for each is needed, adding up to 1")
    return sum(float(weight) * style for style, weight in zip(styles, weights, strict=True))


def save_styles(path, styles, **metadata):
    """Write styles, {name: (14, 1280)}, to the safetensors file `path`, whole or not at all. metadata: what else it tells, in JSON types."""
    with atomic_write(path) as temporary:
        tensors = {name: style.contiguous() for name, style in styles.items()}
        save_file(tensors, temporary, metadata={"hwdiff": json.dumps({"format": FORMAT, "names": list(styles), **metadata})})


def load_styles(path=BUNDLED):
    """The `Styles` of a file, by default those that come with the package.

    Raises HwdiffError when the file is missing, damaged, or something else.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {}).get("hwdiff", "{}"))
            if metadata.get("format") != FORMAT:
                raise HwdiffError(f"{path}: not a file of styles of this version ({metadata.get('format')!r}, not {FORMAT!r})")
            return Styles({name: file.get_tensor(name).float() for name in metadata["names"]}, metadata)
    except (SafetensorError, OSError, ValueError) as error:
        raise HwdiffError(f"{path}: not a whole file of styles ({error}); install hwdiff again") from error
