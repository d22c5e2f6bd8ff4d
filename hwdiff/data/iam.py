"""The IAM On-Line Handwriting Database as it is downloaded: archives or the folders unpacked from them.

`read_lines` reads each line with its text, and counts in a `Report` what it left out and why. Nothing is
unpacked to disk.
"""

import gzip
import hashlib
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from joblib import delayed

from hwdiff.data.characters import spell
from hwdiff.data.lines import NOTHING_TO_WRITE, Limits, Line, Report, drawable_strokes, within_limits
from hwdiff.ink import images, strokes
from hwdiff.ink.formats import parse_points
from hwdiff.utils.arrays import most_bytes
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import files_below, sha256_of
from hwdiff.utils.parallel import in_parallel

LINE_NAME = re.compile(r"(?P<form>[a-z]\d\d-\d+[a-z]?)-(?P<number>\d+)")
SPLIT_LISTS = ("trainset", "testset_f", "testset_t", "testset_v")
MAX_FILE = 32 * 2**20  # bytes; the largest line file has about 0.2 MB
MAX_HEADERS = 2**20  # bytes of an archive from the end of one file to the next
LINES_PER_TASK = 200


def _find_part(folder, name):
    """The archives of a part of the database below a folder, and the folders unpacked from it."""
    patterns = (f"{name}*.tar.gz", f"{name}*.tgz", name)
    found = [path for pattern in patterns for path in sorted(folder.rglob(pattern))]
    return [*found, *([folder] if folder.name == name else [])]


def holds_strokes(folder: str | Path) -> bool:
    """Whether a folder holds the strokes of the database."""
    return bool(_find_part(Path(folder), "lineStrokes"))


class Source:
    """A folder that holds the database: the archives, or the folders unpacked from them, anywhere below it.

    Raises HwdiffError when there is no such folder, or the strokes or the texts are missing.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not os.path.isdir(self.path):
            advice = "give the one that holds lineStrokes-all.tar.gz and ascii-all.tar.gz"
            raise HwdiffError(f"{self.path}: no such folder; {advice}")
        self.strokes = self._find("lineStrokes", required=True)
        self.texts = self._find("ascii", required=True)
        self.images = self._find("lineImages", required=False)

    def _find(self, name, required):
        found = _find_part(self.path, name)
        if not found and required:
            advice = "docs/data.md says where to get them"
            raise HwdiffError(f"{self.path}: neither {name}-all.tar.gz nor a folder {name} in it; {advice}")
        return found[0] if found else None

    def split_lists(self) -> dict[str, list[str]] | None:
        """The forms of each split list as {list: [form, ...]}, or None without lists.

        The lists may be anywhere below the folder.

        Raises HwdiffError when only some of the four are there.
        """
        found = {}
        for name in SPLIT_LISTS:
            for path in sorted(self.path.rglob(f"{name}*")):
                if path.is_file() and path.stem == name:
                    found.setdefault(name, path)
        missing = [name for name in SPLIT_LISTS if name not in found]
        if found and missing:
            incomplete = f"split lists {', '.join(found)} without {', '.join(missing)}"
            raise HwdiffError(f"{self.path}: {incomplete}; add those, or remove all of them")
        for path in found.values():
            if path.stat().st_size > MAX_FILE:
                raise HwdiffError(f"{path}: a split list of more than 32 MB; replace it")
        lists = {name: _read_list(path) for name, path in found.items()}
        return lists or None

    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each archive, of each folder's files, and of the split lists: {name: hexadecimal}."""
        hashes = {
            path.name: _hash_files(path) if path.is_dir() else sha256_of(path)
            for path in (self.strokes, self.texts, self.images)
            if path
        }
        lists = json.dumps(self.split_lists()).encode()
        return {**hashes, "split lists": hashlib.sha256(lists).hexdigest()}


def _read_list(path):
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace").split()  # with or without a mark
    except OSError as error:
        raise HwdiffError(f"{path}: cannot be read ({error.strerror})") from error


class _Unpacked:
    """What an archive unpacks to, as a stream for `tarfile`, which takes the sizes that it reads on trust.

    `expect(size)` allows for the file that follows. Whatever exceeds that, or is far larger in all than such
    archives are, is refused before it is held in memory.
    """

    def __init__(self, path, stream):
        self.path, self.stream, self.total, self.most = path, stream, 0, most_bytes(path)
        self.allowed = MAX_HEADERS

    def expect(self, size):
        if self.total + size > self.most:
            self._refuse()
        self.allowed = self.total + size + MAX_HEADERS

    def read(self, size):
        content = self.stream.read(size)
        self.total += len(content)
        if self.total > self.most:
            self._refuse()
        if self.total > self.allowed:
            raise HwdiffError(f"{self.path}: has a header of more than 1 MB; download it again")
        return content

    def _refuse(self):
        found = f"would unpack to more than {self.most:,} bytes, far more than such archives do"
        raise HwdiffError(f"{self.path}: {found}; download it again")


def read_files(path: Path, suffix: str, report: Report) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files with `suffix` in an archive or below a folder, in its order.

    report: counts those that are left out.
    Raises HwdiffError when an archive is truncated or damaged, or unpacks to far more than its size promises.
    """
    if path.is_dir():
        for file in files_below(path):
            if not file.name.endswith(suffix):
                continue
            name = str(file.relative_to(path))
            if file.stat().st_size > MAX_FILE:
                report.leave_out("file of more than 32 MB", name)
                continue
            try:
                content = file.read_bytes()
            except OSError as error:
                raise HwdiffError(f"{file}: cannot be read ({error.strerror})") from error
            yield name, content
        return
    members = 0
    try:
        with gzip.open(path) as packed:
            stream = _Unpacked(path, packed)
            archive = tarfile.open(fileobj=stream, mode="r|")  # noqa: SIM115 (it holds no file)
            for member in archive:
                members += 1
                stream.expect(member.size)
                if not member.name.endswith(suffix) or not member.isfile():
                    continue
                if ".." in PurePosixPath(member.name).parts or member.name.startswith("/"):
                    report.leave_out("archive member with a path that climbs out", member.name)
                elif member.size > MAX_FILE:
                    report.leave_out("file of more than 32 MB", member.name)
                else:
                    yield member.name, archive.extractfile(member).read()
            stream.allowed = stream.most
            while stream.read(2**20):  # to the end, where gzip checks that the archive is complete
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError) as error:
        found = f"damaged or cut short after {members} members ({error})"
        raise HwdiffError(f"{path}: {found}; download it again") from error


def _hash_files(folder):
    digest = hashlib.sha256()
    for file in files_below(folder):
        digest.update(os.fsencode(f"{file.relative_to(folder)}\0{sha256_of(file)}\n"))
    return digest.hexdigest()


def read_transcripts(source: Source, report: Report) -> dict[str, str]:
    """The text of every line, as {line id: text}.

    report: counts what is left out.
    """
    texts = {}
    for name, content in read_files(source.texts, ".txt", report):
        form = PurePosixPath(name).stem
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            report.leave_out("transcript that is not UTF-8 text", name)
            continue
        # Line k after `CSR:` and an empty line belongs to the line file that ends in -k.
        _, found, corrected = text.replace("\r\n", "\n").partition("CSR:")
        lines = corrected.rstrip("\n").split("\n")[1:]
        if lines and not lines[0].strip():
            del lines[0]
        if not found or not lines:
            report.leave_out("transcript without lines after CSR:", name)
            continue
        texts.update({f"{form}-{number:02d}": line for number, line in enumerate(lines, start=1)})
    return texts


def preprocess(
    content: bytes,
    text: str,
    *,
    limits: Limits,
    image: bytes | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """One line file and its text to the arrays of a `Line`.

    content: of the line file.
    image: the content of the official line image.
    Returns offsets, pen_up, kept and image, which `Line` describes.
    Raises ValueError with the reason when the line is dropped.
    """
    points, first = parse_points(content)
    if image is not None:
        try:
            image = images.normalise(images.read_image(image))
        except HwdiffError as error:
            raise ValueError("line image that cannot be read") from error
    return (*within_limits(points, first, text, limits=limits, image=image), image)


def _preprocess_all(tasks, limits):
    results = []
    for content, text, image in tasks:
        try:
            results.append(preprocess(content, text, limits=limits, image=image))
        except ValueError as error:
            results.append(str(error))
    return results


def read_lines(
    source: Source,
    report: Report,
    *,
    limits: Limits | None = None,
    workers: int = -1,
    progress: Callable[[int], None] | None = None,
) -> list[Line]:
    """Read and preprocess the whole database.

    report: counts what is left out.
    workers: processes, -1 for one a core. The result is the same for any number.
    progress(n): called with the number of line files done since the last call.
    Returns the lines, sorted by id.
    Raises HwdiffError when an archive is damaged or no line is left.
    """
    limits = limits or Limits()
    texts = read_transcripts(source, report)
    official = dict(_line_images(source, report))
    names, lines, seen = [], [], set()

    def tasks():
        batch = []
        for name, content in read_files(source.strokes, ".xml", report):
            line_id = _line_id(name)
            if not line_id:
                report.leave_out("line file whose name is no line id", name)
            elif line_id in seen:
                report.leave_out("line file that comes twice", name)
            elif line_id not in texts:
                report.leave_out("line file without a text line", name)
            elif not texts[line_id].strip():
                report.leave_out("empty text", name)
            elif spell(texts[line_id]).is_empty:
                report.leave_out(NOTHING_TO_WRITE, name)
            else:
                names.append((line_id, line_id.rpartition("-")[0]))
                batch.append((content, texts[line_id], official.pop(line_id, None)))
            seen.add(line_id)
            if len(batch) == LINES_PER_TASK:
                yield delayed(_preprocess_all)(batch, limits)
                batch = []
        if batch:
            yield delayed(_preprocess_all)(batch, limits)

    done = 0
    for results in in_parallel(tasks(), workers):
        for result in results:
            line_id, form = names[done]
            done += 1
            if isinstance(result, str):
                report.leave_out(result, line_id)
            else:
                lines.append(Line(line_id, form, texts[line_id], *result))
        if progress:
            progress(len(results))
    forms = {form for _, form in names}
    for line_id in sorted(texts.keys() - seen):
        form = line_id.rpartition("-")[0]
        if form in forms and texts[line_id].strip():
            report.leave_out("text line without a line file", line_id)
    for form in sorted({line_id.rpartition("-")[0] for line_id in texts} - forms):
        report.leave_out("transcript of a form without line files", form)
    if not lines:
        left_out = dict(report.left_out) or "nothing, there is no line file"
        raise HwdiffError(f"{source.strokes}: no line that can be used; left out: {left_out}")
    return sorted(lines, key=lambda line: line.id)


def _line_images(source, report):
    """(line id, file content) of the official line images, where there are any."""
    if source.images is None:
        return
    for name, content in read_files(source.images, ".tif", report):
        if line_id := _line_id(name):
            yield line_id, content


def _line_id(name):
    """The id of the line in a file, such as "a01-000u-01"; None if the name tells none."""
    match = LINE_NAME.fullmatch(PurePosixPath(name).stem)
    return match and f"{match['form']}-{int(match['number']):02d}"


def read_pairs(source: Source, report: Report) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The official line images, each with the one drawn from its line's strokes.

    report: counts what is left out.
    Returns {line id: (official, drawn)}, both (96, W) uint8.
    Raises HwdiffError when the source has no line image, or none of a line that can be drawn.
    """
    official, pairs = dict(_line_images(source, report)), {}
    if not official:
        where = "lineImages-all.tar.gz, or a folder lineImages"
        raise HwdiffError(f"{source.path}: no line images in it ({where}), so there is nothing to compare")
    for name, content in read_files(source.strokes, ".xml", report):
        line_id = _line_id(name)
        if line_id in official:
            try:
                points, first = parse_points(content)
                drawn = images.draw_line(drawable_strokes(*strokes.to_offsets(points, first)))
                scan = images.read_image(official[line_id], line_id)
                pair = images.normalise(scan, line_id), images.normalise(drawn, line_id)
                if max(image.shape[1] for image in pair) > images.MAX_WIDTH:
                    raise ValueError(f"line image of more than {images.MAX_WIDTH} pixels in width")
                pairs[line_id] = pair
            except (ValueError, HwdiffError) as error:
                report.leave_out(str(error), name)
    if not pairs:
        found = dict(report.left_out) or "no image of a line whose strokes are there"
        raise HwdiffError(f"{source.path}: nothing to compare; left out: {found}")
    return pairs
