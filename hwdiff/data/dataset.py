"""The prepared dataset: strokes, texts, splits and a manifest in a compressed `.npz` file without pickle."""

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hwdiff.data import tokenizer
from hwdiff.data.lines import drawable_strokes
from hwdiff.ink import images, strokes
from hwdiff.ink.ink import Ink
from hwdiff.utils.arrays import UNREADABLE, load_npz
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.json_values import misfit, parse_json

FORMAT = "hwdiff dataset 2"
BUILT_IN = "built-in writers"  # the source of datasets by them
SPLITS = ("train", "validation", "test")
BATCH_SIZE = 4096  # that are checked, so that large datasets take little more memory than they hold
# Of the manifest, what is used later.
_MANIFEST = {
    "parameters": {"split_scheme": str, "max_points": int, "max_tokens": int, "max_image_width": int},
    "sources": {"*": str},
    "counts": {"lines": int, "forms": int, "*": int},
    "left_out": {"*": int},
    "left_out_examples": {"*": [str]},
    "fingerprint": str,
}


def hash_fraction(name: str) -> float:
    """A number in [0, 1) that depends on `name` alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def style_lines(forms: Sequence[str] | np.ndarray, own_style: bool = False) -> np.ndarray:
    """For each line the index of the line whose image gives its style, each used once.

    It is another line of the same form, the next in an order drawn by hash of the form. A lone line gets
    itself.

    forms: (n,) form of each line.
    own_style: shuffle a form's lines instead, as the authors' released program does: a line may get itself.
    Returns (n,) int32.
    """
    members = {}
    for index, form in enumerate(forms):
        members.setdefault(form, []).append(index)
    style = np.zeros(len(forms), dtype=np.int32)
    for form, indices in members.items():
        order = sorted(indices, key=lambda index: hash_fraction(f"{form}/{index - indices[0]}"))
        style[indices if own_style else order] = order if own_style else np.roll(order, -1)
    return style


def _from_byte_planes(planes):
    return np.ascontiguousarray(np.moveaxis(planes, 0, -1)).reshape(-1, 4).view("<i2")


def _require(path, manifest, parameters):
    for name, wanted in parameters.items():
        found = manifest["parameters"].get(name)
        if found != wanted:
            advice = "prepare another file with hwdiff prepare"
            raise HwdiffError(f"{path}: prepared with {name} = {found}, but {wanted} is asked for; {advice}")


def _misfit(arrays, manifest):
    """What in the arrays of a dataset file would fail when it is used; None if all fits."""
    points = arrays["offsets"].shape[1] if getattr(arrays.get("offsets"), "ndim", 0) == 3 else 0
    lines = manifest["counts"]["lines"]
    packed = (-(-points // 8),)
    wanted = {
        "ids": ("U", (lines,)),
        "forms": ("U", (lines,)),
        "texts": ("U", (lines,)),
        "parts": ("u1", (lines,)),
        "starts": ("i8", (lines + 1,)),
        "offsets": ("u1", (2, points, 2)),
        "pen_up": ("u1", packed),
        "kept": ("u1", packed),
        "image_starts": ("i8", (lines + 1,)),
        "images": ("u1", np.shape(arrays.get("images"))[:1]),
        **({"characters": ("i2", (points,))} if "characters" in arrays else {}),
    }
    for name, (kind, shape) in wanted.items():
        if name not in arrays:
            return f"{name} is missing"
        array = arrays[name]
        if array.shape != shape or (array.dtype.kind != kind and array.dtype != np.dtype(kind)):
            return f"{name} is {array.dtype} {array.shape}, not {kind} {shape}"
    starts, ends = arrays["starts"][:-1], arrays["starts"][1:]
    if not lines or starts[0] or ends[-1] != points or not (starts < ends).all():
        return f"starts does not part {points} points into {lines} lines"
    image_starts = arrays["image_starts"]
    if image_starts[0] or image_starts[-1] != len(arrays["images"]) or (np.diff(image_starts) < 0).any():
        return "image_starts does not fit images"
    if arrays["parts"].max() >= len(SPLITS):
        return f"parts has {arrays['parts'].max()}, which is no split"
    kept = np.unpackbits(arrays["kept"], count=points).astype(bool)
    if not kept[ends - 1].all():
        return "a line whose last point is not kept"
    for first in range(0, lines, BATCH_SIZE):
        last = min(first + BATCH_SIZE, lines)
        span = slice(starts[first], ends[last - 1])
        some = {name: arrays[name][first:last] for name in ("ids", "texts")}
        some["starts"] = arrays["starts"][first : last + 1] - span.start
        some["offsets"] = arrays["offsets"][:, span]
        if "characters" in arrays:
            some["characters"] = arrays["characters"][span]
        if wrong := _misfit_of_lines(some, manifest["parameters"], kept[span]):
            return wrong
    return None


def _misfit_of_lines(arrays, limits, kept):
    """As `_misfit`, of what some lines are: neither empty nor beyond the limits they were prepared with."""
    starts = arrays["starts"][:-1]
    offsets = _from_byte_planes(arrays["offsets"]).astype(np.int64)
    merged = np.add.reduceat(offsets, np.concatenate(([0], np.flatnonzero(kept)[:-1] + 1)))
    counts = np.add.reduceat(kept.astype(np.int64), starts)
    first = np.concatenate(([0], np.cumsum(counts)[:-1]))
    flat = np.minimum.reduceat(merged.min(axis=1), first) == np.maximum.reduceat(merged.max(axis=1), first)
    if flat.any():
        return f"line {arrays['ids'][flat.argmax()]} has no extent"
    # The path goes on from line to line, from the point before each line's first.
    path = np.concatenate((np.zeros((1, 2), dtype=np.int64), np.cumsum(offsets, axis=0)))
    low, high = (ends(path[starts], ends.reduceat(path[1:], starts)) for ends in (np.minimum, np.maximum))
    # Hardly any line needs a close look.
    large = ((high - low) * images.PIXELS_PER_UNIT + images.PEN_ROOM + 2).prod(axis=1) > images.MAX_PIXELS
    for index in np.flatnonzero(large):
        width, height = images.canvas_size(high[index] - low[index])
        if width * height > images.MAX_PIXELS:
            return f"line {arrays['ids'][index]} takes {width} x {height} pixels"
    if counts.max() > limits["max_points"]:
        return f"line {arrays['ids'][counts.argmax()]} has {counts.max()} points"
    lengths = np.char.str_len(arrays["texts"])
    if lengths.max() + 1 >= limits["max_tokens"]:
        return f"line {arrays['ids'][lengths.argmax()]} has a text of {lengths.max()} characters"
    if "characters" in arrays:
        characters, end = arrays["characters"], np.repeat(lengths, np.diff(arrays["starts"]))
        if (characters < 0).any() or (characters >= end).any():
            return "characters names some that the texts do not have"
    return None


class Dataset:
    """A prepared dataset file, read into memory.

    Lines are numbered 0, 1, ...; `ids`, `forms`, `texts`, `splits` and `lengths` (in points) have one entry
    for each.

    path: written by `prepare`.
    parameters: what it must have been prepared with, for instance split_scheme="authors".
    Raises HwdiffError when the file is missing, damaged, something else, or was prepared with other
    parameters.
    """

    def __init__(self, path: str | Path, **parameters: object):
        self.path = Path(path)
        try:
            arrays = load_npz(self.path)
            self.manifest = parse_json(str(arrays.pop("manifest")))
        except FileNotFoundError as error:
            advice = f"make it with hwdiff prepare --source DIR --out {path}"
            raise HwdiffError(f"{path}: no such file; {advice}") from error
        except UNREADABLE as error:
            advice = "make it again with hwdiff prepare"
            raise HwdiffError(f"{path}: not a whole dataset file ({error}); {advice}") from error
        if not isinstance(self.manifest, dict) or self.manifest.get("format") != FORMAT:
            found = self.manifest.get("format") if isinstance(self.manifest, dict) else None
            raise HwdiffError(
                f"{path}: its format is {found!r}, but this version reads {FORMAT!r}; prepare it again"
            )
        if wrong := misfit(self.manifest, _MANIFEST, "manifest") or _misfit(arrays, self.manifest):
            advice = "make it again with hwdiff prepare"
            raise HwdiffError(f"{path}: not a whole dataset file ({wrong}); {advice}")
        _require(path, self.manifest, parameters)
        self.ids, self.forms, self.texts = arrays["ids"], arrays["forms"], arrays["texts"]
        self.splits = np.array(SPLITS)[arrays["parts"]]
        self._starts, self._offsets = arrays["starts"], _from_byte_planes(arrays["offsets"])
        self._pen_up, self._kept = (
            np.unpackbits(arrays[name], count=len(self._offsets)).astype(bool) for name in ("pen_up", "kept")
        )
        self._image_starts, self._images = arrays["image_starts"], arrays["images"]
        self._characters = arrays.get("characters")
        self.lengths = np.add.reduceat(self._kept, self._starts[:-1], dtype=np.int64)
        self._assert_splits_share_no_form()

    def _assert_splits_share_no_form(self):
        split_of = {}
        for form, split in zip(self.forms, self.splits, strict=True):
            if split_of.setdefault(form, split) != split:
                found = f"form {form} is in two splits, {split_of[form]} and {split}"
                raise HwdiffError(f"{self.path}: {found}; prepare it again")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the lines: what caches and checkpoints remember of the dataset."""
        return self.manifest["fingerprint"]

    @property
    def of_people(self) -> bool:
        """Whether the lines were written by people, not by the built-in writers."""
        return BUILT_IN not in self.manifest["sources"]

    def split(self, name: str) -> np.ndarray:
        """Indices of the lines of a split: "train", "validation" or "test"."""
        return np.flatnonzero(self.splits == name)

    def needed_split(self, name: str) -> np.ndarray:
        """As `split`. Raises HwdiffError when the split is empty."""
        indices = self.split(name)
        if not len(indices):
            raise HwdiffError(f"{self.path}: has no lines in the split {name}; prepare more lines")
        return indices

    def recorded(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The line before its points were merged.

        Returns offsets (N, 2) int64 in tablet units, y upwards, pen_up (N,) bool, and kept (N,) bool.
        """
        span = slice(self._starts[index], self._starts[index + 1])
        return self._offsets[span].astype(np.int64), self._pen_up[span], self._kept[span]

    def strokes(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """What the model is to draw.

        Returns offsets (N, 2) float32 of standard deviation 1, y upwards, and pen_up (N,) bool. The first
        offset always counts as a pen-up move, as in the authors' data.
        """
        offsets, pen_up = strokes.merge(*self.recorded(index))
        pen_up[0] = True
        return (offsets / strokes.scale_of(offsets)).astype(np.float32), pen_up

    def characters(self, index: int) -> np.ndarray | None:
        """The number in the text of the character that each point was written for, (N,) int16, as `strokes`.

        None where it is not known, as of people's lines.
        """
        if self._characters is None:
            return None
        _, _, kept = self.recorded(index)
        return self._characters[self._starts[index] : self._starts[index + 1]][kept]

    def ink(self, index: int) -> Ink:
        """The line as an `Ink` with its text."""
        return Ink(*self.strokes(index), str(self.texts[index]))

    def index_of(self, line_id: str) -> int:
        """The number of the line called `line_id`. Raises HwdiffError when there is none."""
        [found] = np.nonzero(self.ids == line_id)
        if not len(found):
            ends = f"its first is {self.ids[0]}, its last {self.ids[-1]}"
            raise HwdiffError(f"{self.path}: no line {line_id!r} in it; {ends}")
        return int(found[0])

    def tokens(self, index: int) -> np.ndarray:
        """Tokens of the line's text with its end token, (L,) int64."""
        return tokenizer.encode(self.texts[index])

    def line_image(self, index: int) -> np.ndarray:
        """The image of the line, (96, W) uint8: the official one, or drawn from the strokes."""
        start, end = self._image_starts[index : index + 2]
        if end > start:
            return self._unpacked(index, self._images[start:end].tobytes())
        offsets, pen_up, _ = self.recorded(index)
        return images.normalise(images.draw_line(drawable_strokes(offsets, pen_up)), str(self.ids[index]))

    def _unpacked(self, index, content):
        """The pixels of an official image. No more are unpacked than it may have."""
        most = images.HEIGHT * min(self.manifest["parameters"]["max_image_width"], images.MAX_SCALED_WIDTH)
        try:
            pixels = zlib.decompressobj().decompress(content, most + 1)
        except zlib.error as error:
            pixels, found = b"", error
        else:
            found = f"{len(pixels):,} pixels"
        if not pixels or len(pixels) % images.HEIGHT or len(pixels) > most:
            advice = "prepare it again"
            raise HwdiffError(f"{self.path}: the image of {self.ids[index]} is damaged ({found}); {advice}")
        return np.frombuffer(pixels, dtype=np.uint8).reshape(images.HEIGHT, -1)
