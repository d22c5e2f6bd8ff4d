"""Files written whole or not at all, JSONL logs, locked directories, and fingerprints of files."""

import fcntl
import glob
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.json_values import misfit, parse_json

_PARTIAL = ".partial-"  # what the names of files begin with that are not yet whole


@contextmanager
def atomic_write(path: str | Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` at the end of the block: nobody ever sees half a file.

    The folders of `path` are made. If the block fails, what was at `path` stays as it was. What a killed
    process left of the same file is deleted.

    replace: False to leave what another process may have put at `path` meanwhile.
    Raises HwdiffError when the folder cannot be made or written, or when the disk is full.
    """
    path = Path(path)
    if os.path.islink(path):
        path = Path(os.path.realpath(path))  # the link stays, and its target is replaced
    if is_special(path):
        raise HwdiffError(f"{path}: is no regular file and cannot be replaced by one; choose another path")
    handle = temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f"{_PARTIAL}{path.stem[:40]}-"  # names may not be much longer
        _delete_left_over(path.parent, prefix)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)  # released when this process ends, however it does
        yield Path(temporary)
        os.chmod(temporary, _mode(path))  # mkstemp makes files that only their owner can read
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())  # or a power cut could leave an empty file in the old one's place
        if replace or not _linked(temporary, path):
            os.replace(temporary, path)
            temporary = None
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as the latter
        reason = getattr(error, "strerror", None) or error
        raise HwdiffError(
            f"{path}: cannot be written ({reason}); free some space or choose another path"
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all. Raises HwdiffError as `atomic_write` does."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: object) -> None:
    """Write something in JSON types, whole or not at all. Raises HwdiffError as `atomic_write` does."""
    # In file names that are no UTF-8 there are surrogates, which JSON knows as escapes.
    text = json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")
    with atomic_write(path) as temporary:
        temporary.write_bytes(text)


def is_special(path: str | Path) -> bool:
    """Whether something is at `path` that is neither a file nor a folder, such as a device or a pipe."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _mode(path):
    """The permissions of a file at `path`, or of a new one."""
    with suppress(OSError):
        return stat.S_IMODE(os.stat(path).st_mode) | 0o600
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _linked(temporary, path):
    """Whether there is a file at `path` now: the temporary one, or one that was there before."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # some file systems have no links
        return False
    return True


def _delete_left_over(folder, prefix):
    """Delete temporary files that no process holds any more."""
    for path in folder.glob(f"{glob.escape(prefix)}*"):
        try:
            # A new one is not locked for a moment.
            if time.time() - path.stat().st_mtime < 1:
                continue
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except OSError:  # held by a process that writes, or gone
            continue


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of the file at `path`, in hexadecimal. Raises HwdiffError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise HwdiffError(f"{path}: cannot be read ({error.strerror})") from error


def append_jsonl(path: str | Path, rows: Iterable[dict]) -> None:
    """Append rows, dictionaries in JSON types, to the log `path`, one a line.

    Raises HwdiffError when it cannot be written.
    """
    try:
        with open(path, "a") as log:
            log.write("".join(json.dumps(row) + "\n" for row in rows))
    except OSError as error:
        advice = "what was saved is kept; free some space, then --resume"
        raise HwdiffError(f"{path}: cannot be written ({error.strerror}); {advice}") from error


def read_jsonl(path: str | Path) -> list[dict]:
    """The rows of a log, without the last if it was cut short.

    Raises HwdiffError, naming the line, when one is not as `append_jsonl` writes them.
    """
    rows = []
    for number, line in enumerate(Path(path).read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            continue
        try:
            rows.append(parse_json(line))
            wrong = misfit(rows[-1], {"step": int})
        except ValueError as error:
            wrong = error
        if wrong:
            advice = "delete that line, or the file, to do without it"
            raise HwdiffError(f"{path}: line {number} is no row of a log ({wrong}); {advice}")
    return rows


def truncate_jsonl(path: Path, step: int) -> dict | None:
    """Cut a log back to the rows up to step `step`, from which a run is resumed.

    Returns the last of them, or None.
    Raises HwdiffError when the log is damaged.
    """
    rows = [row for row in read_jsonl(path) if row["step"] <= step] if path.exists() else []
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows[-1] if rows else None


@contextmanager
def lock_directory(folder: Path) -> Iterator[None]:
    """Lock the folder of a run against other processes, and delete temporary files that a killed one left.

    Raises HwdiffError when another process holds the lock, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise HwdiffError(
            f"{folder}: cannot be the folder of a run ({error.strerror}); choose another"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            advice = "wait for it, or choose another folder"
            raise HwdiffError(f"{folder}: another process is at work in it; {advice}") from error
        except OSError:  # some file systems have no locks
            pass
        _delete_left_over(folder, _PARTIAL)
        yield
    finally:
        os.close(handle)


def json_fingerprint(content: object) -> str:
    """SHA-256 of something in JSON types."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def tree_fingerprint(path: str | Path) -> str:
    """SHA-256 of a file, or of the names and contents of the `files_below` a folder."""
    path = Path(path)
    if path.is_file():
        return sha256_of(path)
    files = [file for file in files_below(path) if "__pycache__" not in file.parts]
    return json_fingerprint([[file.relative_to(path).as_posix(), sha256_of(file)] for file in files])


def files_below(folder: str | Path) -> list[Path]:
    """The files in a folder and in those in it, sorted, without hidden ones and copies that editors leave.

    Links to folders are followed, each folder once.
    """
    found, seen = [], set()
    for top, folders, files in os.walk(folder, followlinks=True):
        place = os.path.realpath(top)
        folders[:] = [] if place in seen else sorted(name for name in folders if not name.startswith("."))
        if place not in seen:
            found += [
                Path(top, name) for name in files if not name.startswith(".") and not name.endswith("~")
            ]
        seen.add(place)
    return sorted(path for path in found if path.is_file())
