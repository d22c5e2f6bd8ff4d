"""From archives, one's own lines, or the built-in writers, to one dataset file."""

import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hwdiff.data import iam, recordings, synthetic
from hwdiff.data.dataset import BUILT_IN, FORMAT, SPLITS, Dataset, hash_fraction
from hwdiff.data.lines import Limits, Line, Report
from hwdiff.data.recordings import find_recordings, read_recordings
from hwdiff.utils.arrays import save_npz
from hwdiff.utils.errors import HwdiffError, require_choice

VALIDATION_FRACTION, TEST_FRACTION = 0.05, 0.10
PACKAGES = ("hwdiff", "numpy", "lxml", "pillow", "scipy", "hershey-fonts")  # of the versions in the manifest
SPLIT_SCHEMES = {
    "authors": {"trainset": "train", "testset_f": "train", "testset_t": "train", "testset_v": "test"},
    "official": {
        "trainset": "train",
        "testset_v": "validation",
        "testset_t": "validation",
        "testset_f": "test",
    },
}


def assign_splits(
    forms: Iterable[str],
    split_scheme: str,
    lists: dict[str, list[str]] | None,
) -> dict[str, str]:
    """Assign each form, whole, to a split.

    split_scheme: "authors", where 5 % of the training forms, chosen by hash, become the validation split;
        "official"; or "hash", which needs no lists.
    lists: {list name: [form, ...]} or None. Forms are compared exactly.
    Returns {form: "train" | "validation" | "test"}, without the forms that are in no list.
    Raises HwdiffError when the lists put a form into two splits.
    """
    if split_scheme == "hash":
        bounds = ((TEST_FRACTION, "test"), (TEST_FRACTION + VALIDATION_FRACTION, "validation"), (1, "train"))
        return {form: next(split for bound, split in bounds if hash_fraction(form) < bound) for form in forms}
    split_of = {}
    for name, split in SPLIT_SCHEMES[split_scheme].items():
        for form in lists[name]:
            if split_of.setdefault(form, split) != split:
                found = f"form {form} is in two splits ({split_of[form]} and {split}, from {name})"
                raise HwdiffError(f"split lists: {found}; correct the lists")
    if split_scheme == "authors":
        train = [form for form, split in split_of.items() if split == "train"]
        split_of.update({form: "validation" for form in train if hash_fraction(form) < VALIDATION_FRACTION})
    return {form: split_of[form] for form in forms if form in split_of}


@dataclass
class Prepared:
    """What `prepare` did: the manifest, and whether the file was there already with the same lines."""

    manifest: dict
    existed: bool


def prepare(
    source: str | Path | None,
    out: str | Path,
    split_scheme: str = "authors",
    limits: Limits | None = None,
    seed: int = 0,
    writers: int = synthetic.WRITERS,
    workers: int = -1,
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Write the dataset file `out`, from the IAM database, one's own lines, or the built-in writers.

    source: a folder that holds the database; one of InkML or JSON files (see `recordings`); or None for the
        built-in writers.
    split_scheme: "authors" or "official". Without the split lists it becomes "hash", as the manifest then
        says; the built-in writers are split by "writer", one's own lines by "form".
    limits: which lines are dropped.
    seed: of the built-in writers' styles and lines.
    writers: how many built-in writers write, five forms of eight lines each.
    workers: processes, -1 for one a core. The result is the same for any number.
    progress(n): called with the number of lines done since the last call.
    Raises HwdiffError when the source cannot be used, or `out` holds anything but a dataset of the same
    source and parameters.
    """
    limits, out = limits or Limits(), Path(out)
    if out.suffix.lower() != ".npz":
        raise HwdiffError(f"{out}: a dataset file must be named *.npz")
    require_choice("split scheme", split_scheme, SPLIT_SCHEMES)
    if not 0 <= seed < 2**32:
        raise HwdiffError(f"seed = {seed}: must be between 0 and 2^32 - 1")
    recorded = [] if source is None or iam.holds_strokes(source) else find_recordings(Path(source))
    if source is None:
        if not 1 <= writers <= synthetic.MAX_WRITERS:
            raise HwdiffError(f"writers = {writers}: must be between 1 and {synthetic.MAX_WRITERS}")
        split_scheme = "writer"
        fingerprints = {BUILT_IN: f"{writers} writers, version {synthetic.VERSION}, seed {seed}"}
    elif recorded:
        split_scheme, fingerprints = "form", recordings.fingerprints(recorded, Path(source))
    else:
        source = iam.Source(source)
        lists = source.split_lists()
        split_scheme = split_scheme if lists else "hash"
        fingerprints = source.fingerprints()
    if os.path.exists(out):
        manifest = Dataset(out, split_scheme=split_scheme, **asdict(limits)).manifest
        if manifest["sources"] != fingerprints:
            changed = sorted({name for name, _ in manifest["sources"].items() ^ fingerprints.items()})
            found = f"prepared from something else ({', '.join(changed)} differ)"
            raise HwdiffError(f"{out}: {found}; prepare another file, or delete it")
        return Prepared(manifest, existed=True)
    report = Report()
    if source is None:
        lines = synthetic.write_lines(
            seed, writers=writers, limits=limits, workers=workers, progress=progress
        )
        split_of = {line.form: synthetic.split_of_form(line.form) for line in lines}
    elif recorded:
        lines = read_recordings(Path(source), recorded, report, limits=limits, progress=progress)
        split_of = {line.form: recordings.split_of_form(line.form) for line in lines}
    else:
        lines = iam.read_lines(source, report, limits=limits, workers=workers, progress=progress)
        split_of = assign_splits({line.form for line in lines}, split_scheme, lists)
    for line in lines:
        if line.form not in split_of:
            report.leave_out("form that is in no split list", line.id)
    found, lines = lines, [line for line in lines if line.form in split_of]
    if not lines:
        raise HwdiffError(
            f"{source.path}: no form is in its split lists, such as {found[0].form}; correct them"
        )
    splits = [split_of[line.form] for line in lines]
    manifest = {
        "format": FORMAT,
        "parameters": {"split_scheme": split_scheme, **asdict(limits)},
        "sources": fingerprints,
        "counts": {"lines": len(lines), "forms": len({line.form for line in lines}), **Counter(splits)},
        "official_line_images": sum(line.image is not None for line in lines),
        "left_out": dict(report.left_out.most_common()),
        "left_out_examples": report.examples,
        "versions": {name: version(name) for name in PACKAGES},
    }
    return Prepared(write(out, lines, splits=splits, manifest=manifest), existed=False)


def write(path: str | Path, lines: Sequence[Line], *, splits: Sequence[str], manifest: dict) -> dict:
    """Write the dataset file `path`.

    splits: of each line.
    manifest: in JSON types.
    Returns the manifest as written, with the fingerprint of the lines.
    """
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
    if all(line.characters is not None for line in lines):
        arrays["characters"] = np.concatenate([line.characters for line in lines])
    # NumPy strips trailing NULs from texts, which no line has; trailing spaces stay.
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(name.encode() + str(array.dtype).encode() + np.ascontiguousarray(array).tobytes())
    manifest = {**manifest, "fingerprint": digest.hexdigest()}
    save_npz(path, {"manifest": np.array(json.dumps(manifest)), **arrays})
    return manifest


def _byte_planes(offsets):
    """(N, 2) int16 as (2, N, 2) uint8, low bytes before high ones: faster to compress, and smaller."""
    return np.moveaxis(np.ascontiguousarray(offsets, dtype="<i2").view(np.uint8).reshape(-1, 2, 2), -1, 0)
