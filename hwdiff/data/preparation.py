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
from hwdiff.data.dataset import BUILT_IN, FORMAT, SPLITS, Dataset, hash_fraction
from hwdiff.data.lines import Limits, Report
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write

VALIDATION_FRACTION, TEST_FRACTION = 0.05, 0.10
SPLIT_SCHEMES = {
    "authors": {"trainset": "train", "testset_f": "train", "testset_t": "train", "testset_v": "test"},
    "official": {"trainset": "train", "testset_v": "validation", "testset_t": "validation", "testset_f": "test"},
}


def assign_splits(forms, split_scheme, lists):
    """Assign each form, whole, to a split: {form: "train" | "validation" | "test"}; forms in no list are missing from it.

    split_scheme: "authors" (5 % of the training forms, chosen by hash, become the validation split), "official", or "hash", which needs no lists.
    lists: {list name: [form, ...]} or None. Forms are compared exactly.
    Raises HwdiffError when the lists put a form into two splits.
    """
    if split_scheme == "hash":
        bounds = ((TEST_FRACTION, "test"), (TEST_FRACTION + VALIDATION_FRACTION, "validation"), (1, "train"))
        return {form: next(split for bound, split in bounds if hash_fraction(form) < bound) for form in forms}
    split_of = {}
    for name, split in SPLIT_SCHEMES[split_scheme].items():
        for form in lists[name]:
            if split_of.setdefault(form, split) != split:
                raise HwdiffError(f"split lists: form {form} is in two splits ({split_of[form]} and {split}, from {name}); mend the lists")
    if split_scheme == "authors":
        split_of.update({form: "validation" for form, split in split_of.items() if split == "train" and hash_fraction(form) < VALIDATION_FRACTION})
    return {form: split_of[form] for form in forms if form in split_of}


@dataclass
class Prepared:
    """What `prepare` did: the manifest, and whether the file stood there already with the same content."""

    manifest: dict
    existed: bool


def prepare(source, out, split_scheme="authors", limits=None, seed=0, workers=-1, progress=None):
    """Read the IAM database below `source`, or let the built-in writers write, and write the dataset file `out`.

    source: a folder, or None for the built-in writers, whose hands and lines `seed` draws.   split_scheme: "authors" or "official"; without
    the split lists it becomes "hash", as the manifest then says; built-in writers are split by "writer".
    Raises HwdiffError when the source cannot be used, or `out` holds something else than a dataset of the same parameters.
    """
    limits, out = limits or Limits(), Path(out)
    if out.suffix != ".npz":
        raise HwdiffError(f"{out}: a dataset file must be named *.npz")
    if split_scheme not in SPLIT_SCHEMES:
        raise HwdiffError(f"split_scheme: no such split scheme as {split_scheme!r}; choose one of {', '.join(SPLIT_SCHEMES)}")
    if not 0 <= seed < 2**32:
        raise HwdiffError(f"seed = {seed}: must be between 0 and 2^32 - 1")
    if source is None:
        split_scheme, fingerprints = "writer", {BUILT_IN: f"version {synthetic.VERSION}, seed {seed}"}
    else:
        source = iam.Source(source)
        lists = source.split_lists()
        split_scheme = split_scheme if lists else "hash"
        fingerprints = source.fingerprints()
    if out.exists():
        manifest = Dataset(out, split_scheme=split_scheme, **asdict(limits)).manifest
        if manifest["sources"] != fingerprints:
            changed = sorted(name for name, _ in manifest["sources"].items() ^ fingerprints.items())
            raise HwdiffError(f"{out}: prepared from other files ({', '.join(dict.fromkeys(changed))} differ); prepare another file, or delete it")
        return Prepared(manifest, existed=True)
    report = Report()
    if source is None:
        lines = synthetic.write_lines(seed, limits, workers, progress)
        split_of = {line.form: synthetic.split_of_form(line.form) for line in lines}
    else:
        lines = iam.read_lines(source, report, limits, workers, progress)
        split_of = assign_splits({line.form for line in lines}, split_scheme, lists)
    for line in lines:
        if line.form not in split_of:
            report.leave_out("form that is in no split list", line.id)
    lines = [line for line in lines if line.form in split_of]
    splits = [split_of[line.form] for line in lines]
    manifest = {
        "format": FORMAT,
        "parameters": {"split_scheme": split_scheme, **asdict(limits)},
        "sources": fingerprints,
        "counts": {"lines": len(lines), "forms": len({line.form for line in lines}), **Counter(splits)},
        "official line images": sum(line.image is not None for line in lines),
        "left out": dict(report.left_out.most_common()),
        "left out, for example": report.examples,
        "versions": {name: version(name) for name in ("hwdiff", "numpy", "lxml", "pillow", "scipy", "hershey-fonts")},
    }
    return Prepared(write(out, lines, splits, manifest), existed=False)


def write(path, lines, splits, manifest):
    """Write lines (a list of `Line`), the split of each and the manifest as one dataset file. Returns the manifest as written."""
    image_blobs = [b"" if line.image is None else zlib.compress(line.image.tobytes(), 6) for line in lines]
    arrays = {
        "ids": np.array([line.id for line in lines]),
        "forms": np.array([line.form for line in lines]),
        "texts": np.array([line.text for line in lines]),
        "parts": np.array([SPLITS.index(split) for split in splits], dtype=np.uint8),
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
    manifest = {**manifest, "fingerprint": digest.hexdigest()}
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, manifest=np.array(json.dumps(manifest)), **arrays)
    return manifest


def _byte_planes(offsets):
    """(N, 2) int16 as (2, N, 2) uint8, all low bytes before all high ones: they compress twice as fast, and better."""
    return np.moveaxis(np.ascontiguousarray(offsets, dtype="<i2").view(np.uint8).reshape(-1, 2, 2), -1, 0)
