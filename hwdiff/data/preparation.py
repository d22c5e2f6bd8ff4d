"""From archives, or the built-in writers, to one dataset file."""

import hashlib
import json
import zlib
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hwdiff.data import iam, synthetic
from hwdiff.data.dataset import BUILT_IN, FORMAT, PARTS, Dataset, hash_share
from hwdiff.data.lines import Limits, Report
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import replacing

VALIDATION_SHARE, TEST_SHARE = 0.05, 0.10
SPLITS = {
    "authors": {"trainset": "train", "testset_f": "train", "testset_t": "train", "testset_v": "test"},
    "official": {"trainset": "train", "testset_v": "validation", "testset_t": "validation", "testset_f": "test"},
}


def part_of_forms(forms, split, lists):
    """Assign each form, whole, to a part: {form: "train" | "validation" | "test"}; forms in no list are missing from it.

    split: "authors" (5 % of the training forms, chosen by hash, become the validation part), "official", or "hash", which needs no lists.
    lists: {list name: [form, ...]} or None. Forms are compared exactly.
    Raises HwdiffError when the lists put a form into two parts.
    """
    if split == "hash":
        bounds = ((TEST_SHARE, "test"), (TEST_SHARE + VALIDATION_SHARE, "validation"), (1, "train"))
        return {form: next(part for bound, part in bounds if hash_share(form) < bound) for form in forms}
    part_of = {}
    for name, part in SPLITS[split].items():
        for form in lists[name]:
            if part_of.setdefault(form, part) != part:
                raise HwdiffError(f"split lists: form {form} is in two parts ({part_of[form]} and {part}, from {name}); mend the lists")
    if split == "authors":
        part_of.update({form: "validation" for form, part in part_of.items() if part == "train" and hash_share(form) < VALIDATION_SHARE})
    return {form: part_of[form] for form in forms if form in part_of}


@dataclass
class Prepared:
    """What `prepare` did: the manifest, and whether the file stood there already with the same content."""

    manifest: dict
    existed: bool


def prepare(source, out, split="authors", limits=None, seed=0, workers=-1, progress=None):
    """Read the IAM database below `source`, or let the built-in writers write, and write the dataset file `out`.

    source: a folder, or None for the built-in writers, whose hands and lines `seed` draws.   split: "authors" or "official"; without
    the split lists it becomes "hash", as the manifest then says; built-in writers are split by "writer".
    Raises HwdiffError when the source cannot be used, or `out` holds something else than a dataset of the same parameters.
    """
    limits, out = limits or Limits(), Path(out)
    if out.suffix != ".npz":
        raise HwdiffError(f"{out}: a dataset file must be named *.npz")
    if split not in SPLITS:
        raise HwdiffError(f"split: no such split as {split!r}; choose one of {', '.join(SPLITS)}")
    if not 0 <= seed < 2**32:
        raise HwdiffError(f"seed = {seed}: must be between 0 and 2^32 - 1")
    if source is None:
        split, fingerprints = "writer", {BUILT_IN: f"version {synthetic.VERSION}, seed {seed}"}
    else:
        source = iam.Source(source)
        lists = source.split_lists()
        split = split if lists else "hash"
        fingerprints = source.fingerprints()
    if out.exists():
        manifest = Dataset(out, split=split, **asdict(limits)).manifest
        if manifest["sources"] != fingerprints:
            changed = sorted(name for name, _ in manifest["sources"].items() ^ fingerprints.items())
            raise HwdiffError(f"{out}: prepared from other files ({', '.join(dict.fromkeys(changed))} differ); prepare another file, or delete it")
        return Prepared(manifest, existed=True)
    report = Report()
    if source is None:
        lines = synthetic.write_lines(seed, limits, workers, progress)
        part_of = {line.form: synthetic.part_of_form(line.form) for line in lines}
    else:
        lines = iam.read_lines(source, report, limits, workers, progress)
        part_of = part_of_forms({line.form for line in lines}, split, lists)
    for line in lines:
        if line.form not in part_of:
            report.leave_out("form that is in no split list", line.id)
    lines = [line for line in lines if line.form in part_of]
    parts = [part_of[line.form] for line in lines]
    manifest = {
        "format": FORMAT,
        "parameters": {"split": split, **asdict(limits)},
        "sources": fingerprints,
        "counts": {"lines": len(lines), "forms": len({line.form for line in lines}), **Counter(parts)},
        "official line images": sum(line.image is not None for line in lines),
        "left out": dict(report.left_out.most_common()),
        "left out, for example": report.examples,
        "versions": {name: version(name) for name in ("hwdiff", "numpy", "lxml", "pillow", "scipy", "hershey-fonts")},
    }
    return Prepared(write(out, lines, parts, manifest), existed=False)


def write(path, lines, parts, manifest):
    """Write lines (a list of `Line`), the part of each and the manifest as one dataset file. Returns the manifest as written."""
    image_blobs = [b"" if line.image is None else zlib.compress(line.image.tobytes(), 6) for line in lines]
    arrays = {
        "ids": np.array([line.id for line in lines]),
        "forms": np.array([line.form for line in lines]),
        "texts": np.array([line.text for line in lines]),
        "parts": np.array([PARTS.index(part) for part in parts], dtype=np.uint8),
        "starts": np.cumsum([0, *(len(line.offsets) for line in lines)]),
        "offsets": _byte_planes(np.concatenate([line.offsets for line in lines])),
        "pen_up": np.packbits(np.concatenate([line.pen_up for line in lines])),
        "kept": np.packbits(np.concatenate([line.kept for line in lines])),
        "image_starts": np.cumsum([0, *map(len, image_blobs)]),
        "images": np.frombuffer(b"".join(image_blobs), dtype=np.uint8),
    }
    # NumPy strips trailing blanks from no text, but it does strip trailing NULs, which no line has.
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(name.encode() + str(array.dtype).encode() + np.ascontiguousarray(array).tobytes())
    manifest = {**manifest, "content": digest.hexdigest()}
    with replacing(path) as temporary:
        np.savez_compressed(temporary, manifest=np.array(json.dumps(manifest)), **arrays)
    return manifest


def _byte_planes(offsets):
    """(N, 2) int16 as (2, N, 2) uint8, all low bytes before all high ones: they compress twice as fast, and better."""
    return np.moveaxis(np.ascontiguousarray(offsets, dtype="<i2").view(np.uint8).reshape(-1, 2, 2), -1, 0)
