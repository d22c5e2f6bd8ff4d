import fcntl
import json
import os
import stat
import time

import pytest

from hwdiff import HwdiffError
from hwdiff.utils.files import (
    atomic_write,
    files_below,
    lock_directory,
    sha256_of,
    tree_fingerprint,
    write_json,
    write_text,
)


def partial(folder, name, age=10.0):
    """A temporary file such as a killed process leaves, some seconds old."""
    path = folder / name
    path.write_text("half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    with pytest.raises(KeyError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert [one.name for one in path.parent.iterdir()] == ["file.txt"]
    assert path.read_text() == "whole"
    with (
        pytest.raises(HwdiffError, match=r"file\.txt/file\.txt: cannot be written"),
        atomic_write(path / "file.txt"),
    ):
        pass


def test_a_link_stays_and_what_is_no_file_is_not_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "disk" / "file.txt")
    for content in ("first", "second"):
        with atomic_write(tmp_path / "link.txt") as temporary:
            temporary.write_text(content)
        assert (tmp_path / "disk" / "file.txt").read_text() == content
    assert (tmp_path / "link.txt").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(HwdiffError, match="pipe: is no regular file"),
        atomic_write(tmp_path / "pipe"),
    ):
        raise AssertionError("it was not refused at once")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("x" * 300, "loop/file"):
        with (
            pytest.raises(HwdiffError, match="cannot be written"),
            atomic_write(tmp_path / name) as temporary,
        ):
            temporary.write_text("")


def test_hidden_files_and_copies_of_editors_are_no_part_of_a_folder(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "code.py").write_text("1")
    before = tree_fingerprint(tmp_path)
    (tmp_path / "part" / ".code.py.swp").write_text("2")
    (tmp_path / "part" / "code.py~").write_text("0")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "code.py").write_text("3")
    assert tree_fingerprint(tmp_path) == before
    (tmp_path / "part" / "more.py").write_text("4")
    assert tree_fingerprint(tmp_path) != before


def test_links_to_folders_are_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.txt").write_text("1")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "part").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "here")  # a circle
    assert files_below(tmp_path / "here") == [tmp_path / "here" / "part" / "a.txt"]
    before = tree_fingerprint(tmp_path / "here")
    (tmp_path / "disk" / "a.txt").write_text("2")
    assert tree_fingerprint(tmp_path / "here") != before


def test_a_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "diary.txt"
    write_text(path, "a")
    for mode, then in ((0o600, 0o600), (0o604, 0o604), (0o444, 0o644)):  # it can be written again
        path.chmod(mode)
        write_text(path, "b")
        assert stat.S_IMODE(path.stat().st_mode) == then


def test_json_may_tell_of_a_name_that_is_no_text(tmp_path):
    write_json(tmp_path / "a.json", {"name": "é\udce9"})
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"name": "é\udce9"}


def test_what_a_killed_process_left_is_deleted_and_nothing_else(tmp_path):
    old = partial(tmp_path, ".partial-table-abc123.csv")
    of_another_file = partial(tmp_path, ".partial-figure-abc123.png")
    new = partial(tmp_path, ".partial-table-def456.csv", age=-60)
    held = partial(tmp_path, ".partial-table-ghi789.csv")
    with open(held) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with atomic_write(tmp_path / "table.csv") as temporary:
            temporary.write_text("whole")
    assert not old.exists()
    assert all(path.exists() for path in (of_another_file, new, held))


def test_two_processes_may_write_one_file(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_write(path) as first:
        first.write_text("first")
        os.utime(first, (time.time() - 10,) * 2)
        with atomic_write(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert [one.name for one in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("has_links", [True, False])
def test_what_another_process_wrote_meanwhile_can_be_kept(tmp_path, monkeypatch, has_links):
    path = tmp_path / "file.txt"
    if not has_links:
        monkeypatch.setattr(os, "link", _refuse)
    for content in ("first", "second"):
        with atomic_write(path, replace=False) as temporary:
            temporary.write_text(content)
            assert path.exists() == (content == "second")
    assert path.read_text() == ("first" if has_links else "second")
    assert [one.name for one in tmp_path.iterdir()] == ["file.txt"]


def _refuse(*paths):
    raise PermissionError


def test_a_file_that_cannot_be_hashed_is_named(tmp_path):
    with pytest.raises(HwdiffError, match=r"none\.txt: cannot be read \(No such file"):
        sha256_of(tmp_path / "none.txt")


def test_a_lock_leaves_what_another_process_is_writing(tmp_path):
    left_over = partial(tmp_path, ".partial-table-abc123.csv")
    with atomic_write(tmp_path / "a.svg") as temporary:
        temporary.write_text("whole")
        os.utime(temporary, (time.time() - 10,) * 2)
        with lock_directory(tmp_path):
            assert not left_over.exists()
    assert (tmp_path / "a.svg").read_text() == "whole"


def test_a_folder_is_used_on_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_directory(tmp_path):
        pass


def test_names_may_be_long(tmp_path):
    path = tmp_path / ("a" * 250 + ".svg")
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"
