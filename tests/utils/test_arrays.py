import zipfile

import numpy as np
import pytest

from hwdiff.utils.arrays import UNREADABLE, load_npz


def test_arrays_come_back(tmp_path):
    arrays = {
        "a": np.arange(5),
        "b": np.array("text"),
        "c": np.zeros((2, 0, 3)),
        "d": np.ones((3, 2), order="F"),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found = load_npz(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (9,), }",  # longer than it is
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,",
        b"(" * 900,
    ],
)
def test_headers_that_promise_something_else_are_refused(tmp_path, header):
    header = header.ljust(118) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(UNREADABLE):
        load_npz(tmp_path / "a.npz")


def test_other_ways_to_pack_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", b"")
    with pytest.raises(ValueError, match="in a way that NumPy does not write"):
        load_npz(tmp_path / "a.npz")
