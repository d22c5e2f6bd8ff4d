"""Lines that users recorded themselves: a folder of InkML or JSON files, each one line with its text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hwdiff.data.characters import spell
from hwdiff.data.iam import MAX_FILE
from hwdiff.data.lines import NOTHING_TO_WRITE, Limits, Line, Report, within_limits
from hwdiff.ink import strokes
from hwdiff.ink.formats import UNREADABLE, parse_inkml, parse_json, printable
from hwdiff.ink.ink import TABLET_UNITS
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import files_below, sha256_of

PARSERS = {".inkml": parse_inkml, ".json": parse_json}
# Of IAM's lines the median has 21 points a character, as its tablet recorded them. More are thinned out.
POINTS_PER_CHARACTER = 21
LINES_PER_FORM, MIN_FORMS = 8, 5
MAX_EXTENT = 1e9  # in whatever unit


def find_recordings(folder: Path) -> list[Path]:
    """The InkML and JSON files below a folder, sorted."""
    return [path for path in files_below(folder) if path.suffix.lower() in PARSERS]


def fingerprints(paths: list[Path], folder: Path) -> dict[str, str]:
    """SHA-256 of each file: {path below the folder: hexadecimal}."""
    return {_name_of(path, folder): sha256_of(path) for path in paths}


def _name_of(path, folder):
    """The path below the folder. A name of a file may be bytes that are no text."""
    return path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()


def read_recordings(
    folder: Path,
    paths: list[Path],
    report: Report,
    *,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Line]:
    """The lines in some files.

    A file's first folder names the writer; files in none are of one writer. Of each writer up to eight lines,
    the next ones by name, make a form: they give one another their style. There are five forms at least, if
    there are so many lines.

    report: counts what is left out.
    progress(n): called with the number of files done since the last call.
    Raises HwdiffError when no line is left.
    """
    limits, found = limits or Limits(), {}
    for path in paths:
        name = _name_of(path, folder)
        try:
            if path.stat().st_size > MAX_FILE:
                raise ValueError("file of more than 32 MB")
            arrays = read_recording(path, limits)
            writer = name.partition("/")[0] if path.parent != folder else "./lines"  # no folder is called so
            found.setdefault(writer, []).append((name, *arrays))
        except ValueError as error:
            report.leave_out(str(error), name)
        if progress:
            progress(1)
    lines = []
    for writer, of_writer in found.items():
        size = min(LINES_PER_FORM, max(1, len(of_writer) // MIN_FORMS))
        for number, (name, text, *arrays) in enumerate(of_writer):
            lines.append(Line(name, f"{writer}-{number // size:03d}", text, *arrays))
    if not lines:
        left_out = dict(report.left_out) or "nothing, there is no file"
        raise HwdiffError(f"{folder}: no line that can be used; left out: {left_out}")
    return sorted(lines, key=lambda line: line.id)


def read_recording(path: Path, limits: Limits) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """The text of a file, and its offsets, pen_up and kept, which `Line` describes.

    It may be in any unit and drawn at any rate: it is brought to the size and the rate of IAM's lines.
    Raises ValueError with the reason when the line cannot be used.
    """
    try:
        parts, text = PARSERS[path.suffix.lower()](path.read_bytes())
    except OSError as error:
        raise ValueError("file that cannot be read") from error
    except UNREADABLE as error:
        raise ValueError("file that is no InkML or JSON of ink") from error
    spelling = spell(printable(text))
    text = " ".join(spelling.shown.split())  # as it will be written, with plain quotes and dashes
    if not text:
        raise ValueError("ink without a text (InkML: an annotation of the type truth)")
    if spelling.is_empty:
        raise ValueError(NOTHING_TO_WRITE)
    count = sum(map(len, parts))
    if count < 2:
        raise ValueError("strokes without extent")
    rate = min(1.0, POINTS_PER_CHARACTER * len(text) / count)
    parts = [_thinned(part, rate) for part in parts]
    points, first = np.concatenate(parts), strokes.stroke_starts(list(map(len, parts)))
    points = points - points[0]
    if np.abs(points).max() > MAX_EXTENT:
        raise ValueError("ink far longer than a line")
    # First roughly to the size, then exactly: before the points are merged their offsets are smaller.
    points = _scaled(points, np.diff(points, axis=0))
    offsets, pen_up = strokes.to_offsets(_whole(points), first)
    merged, _ = strokes.merge(offsets, pen_up, strokes.merge_collinear(offsets))
    return text, *within_limits(_whole(_scaled(points, merged)), first, text, limits=limits)


def _scaled(points, offsets):
    """Points at the size of IAM's lines, told by the standard deviation of offsets."""
    scale = strokes.scale_of(offsets)
    if not scale:
        raise ValueError("strokes without extent")
    return points * (TABLET_UNITS / scale)


def split_of_form(form: str) -> str:
    """The split of a form: of every five of a writer the fourth validates and the fifth tests."""
    return {3: "validation", 4: "test"}.get(int(form.rpartition("-")[2]) % 5, "train")


def _thinned(part, rate):
    """A stroke with fewer points, as if it had been recorded at a lower rate. Its ends stay."""
    if rate == 1 or len(part) < 3:
        return part
    wanted = np.linspace(0, len(part) - 1, max(2, round(rate * len(part))))
    return np.stack([np.interp(wanted, np.arange(len(part)), axis) for axis in part.T], axis=1)


def _whole(points):
    """Points in whole tablet units. Raises ValueError where these are too large."""
    if np.abs(points).max() > np.iinfo(np.int16).max:
        raise ValueError("ink far longer than a line")
    return points.round().astype(np.int64)
