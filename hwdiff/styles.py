"""Styles by name: features of lines that the model itself drew, so that it writes in many hands without a picture of one."""

import json

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hwdiff.data import images
from hwdiff.errors import HwdiffError
from hwdiff.files import replacing
from hwdiff.writing import sample

FORMAT = "hwdiff styles 1"


def make_styles(network, features, names, extractor, text, seed=0, **options):
    """Let `network` write `text` in each of several hands, and take the style of what it wrote.

    features: (len(names), 14, 1280) of the hands.   extractor: the `StyleExtractor` that the network was trained with.
    options: of `sample`. Returns the inks, a list of `Ink`, and their styles, {name: (14, 1280) float16}.
    Raises HwdiffError when nothing was written in one of them.
    """
    inks, styles = sample(network, [text] * len(names), style=features, seed=seed, **options), {}
    for name, ink in zip(names, inks, strict=True):
        try:
            styles[name] = extractor.of_line(images.pad_to_width(ink.line_image())).half()
        except HwdiffError as error:
            raise HwdiffError(f"style {name}: nothing was written in it that could be drawn ({error}); choose another seed") from error
    return inks, styles


def save_styles(path, styles, **info):
    """Write styles, {name: (14, 1280)}, to the safetensors file `path`, whole or not at all. info: what else its header tells, in JSON types."""
    with replacing(path) as temporary:
        tensors = {name: style.contiguous() for name, style in styles.items()}
        save_file(tensors, temporary, metadata={"hwdiff": json.dumps({"format": FORMAT, "names": list(styles), **info})})


def load_styles(path):
    """The styles of the file `path`, {name: (14, 1280) float32}, in the order in which they were made.

    Raises HwdiffError when the file is missing, damaged, or something else.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("hwdiff", "{}"))
            if header.get("format") != FORMAT:
                raise HwdiffError(f"{path}: not a file of styles of this version ({header.get('format')!r}, not {FORMAT!r})")
            return {name: file.get_tensor(name).float() for name in header["names"]}
    except (SafetensorError, OSError, ValueError) as error:
        raise HwdiffError(f"{path}: not a whole file of styles ({error}); install hwdiff again") from error


def named_style(styles, name):
    """The style called `name`, (14, 1280). Raises HwdiffError, which tells the names, when there is none."""
    if name not in styles:
        raise HwdiffError(f"style: no such style as {name!r}; choose one of {', '.join(styles)}, or give a picture of a line of handwriting")
    return styles[name]
