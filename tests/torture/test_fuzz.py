"""A few damaged files for every reader, files that grow when they are unpacked, and pickles.

Many more: `python -m tests.torture.fuzz`.
"""

import gzip
import io
import json
import os
import shutil
import signal
import tarfile
import time
import zipfile
import zlib

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hwdiff.data.dataset import Dataset
from hwdiff.data.preparation import prepare
from hwdiff.diffusion.style_gallery import load_styles
from hwdiff.evaluation.inception import load_inception
from hwdiff.evaluation.recognizer import ALPHABET, FORMAT, load_recognizer
from hwdiff.ink.images import read_image
from hwdiff.ink.ink import Ink
from hwdiff.model.checkpoint import load_model
from hwdiff.model.style_encoder import load_style_extractor
from hwdiff.utils.errors import HwdiffError
from tests.torture import fuzz
from tests.torture.fuzz import Case, cases_of, run
from tests.torture.mutations import BOMB
from tests.torture.readers import (
    READERS,
    Reader,
    make_database,
    make_reference,
    make_unpacked_database,
    read_database,
)

MEGABYTE = 2**20
ROOM = 200 * MEGABYTE  # for what is refused; each bomb would take more


def test_whole_files_are_read(tmp_path):
    outcomes = run([Case(reader) for reader in READERS], tmp_path)
    assert [str(outcome) for outcome in outcomes if outcome.kind != "read"] == []
    assert len(outcomes) == len(READERS)


def test_damaged_files_are_refused_or_read(tmp_path):
    outcomes = run(cases_of(READERS, 20_000, range(4 * len(READERS))), tmp_path)
    assert [str(outcome) for outcome in outcomes if outcome.is_finding] == []
    assert {outcome.kind for outcome in outcomes} == {"read", "refused"}


def _write_text(folder):
    (folder / "a.txt").write_text("a text")


def _fault(read, **limits):
    return Reader("fault", _write_text, read, **limits)


def _take(folder, file, out):
    # So often, since the tests before may have left some free, which the process has already.
    return [bytearray(250 * MEGABYTE) for _ in range(20)]


def _hide_taking(folder, file, out):
    try:
        _take(folder, file, out)
    except MemoryError as error:
        raise HwdiffError("not an image") from error


class _Payload:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _load_pickle(folder, file, out):
    torch.save(_Payload(out / "made"), out / "weights.pth")
    torch.load(out / "weights.pth", weights_only=False)


@pytest.mark.parametrize(
    ("read", "kind", "message"),
    [
        (lambda folder, file, out: {}["a"], "an exception", "KeyError: \"'a'\" at test_fuzz.py"),
        (lambda folder, file, out: time.sleep(60), "a hang", "more than 0.5 s"),
        (lambda folder, file, out: sum(range(10**11)), "a hang", "more than 0.5 s"),
        (lambda folder, file, out: os.kill(os.getpid(), signal.SIGKILL), "a death", "exit -9"),
        (lambda folder, file, out: os._exit(0), "a death", "exit 0"),
        (_take, "no memory", "MemoryError"),
        (_hide_taking, "no memory", "MemoryError"),
        (lambda folder, file, out: os.system("true"), "something done", "os.system"),
        (_load_pickle, "something done", "pickle.find_class"),
        (lambda folder, file, out: (folder.parent / "b").write_text(""), "something done", "open"),
        (lambda folder, file, out: os.mkdir(folder / "b"), "something done", "os.mkdir"),
        (lambda folder, file, out: file.rename(out / "moved"), "something done", "os.rename"),
        (lambda folder, file, out: Image.new("L", (8, 8)).save(out / "a.png"), "read", ""),
    ],
)
def test_the_harness_notices(tmp_path, read, kind, message):
    well = Reader("well", _write_text, lambda folder, file, out: None)
    cases = [Case(well), Case(_fault(read)), Case(well)]
    before, outcome, after = run(cases, tmp_path, seconds=0.5, memory=ROOM)
    assert (before.kind, outcome.kind, after.kind) == ("read", kind, "read")
    assert message in outcome.message
    assert outcome.is_finding == (kind != "read")


def test_the_harness_notices_a_changed_input(tmp_path):
    """Written by C code, of which Python knows nothing."""

    def change(folder, file, out):
        with h5py.File(folder / "new.h5", "w"):
            pass

    [outcome] = run([Case(_fault(change))], tmp_path)
    assert (outcome.kind, outcome.message) == ("a file changed", "new.h5")


def test_the_command_names_a_finding_and_fails(monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "READERS", (_fault(lambda folder, file, out: 1 / 0),))
    assert fuzz.main(["--count", "2", "--seed", "5"]) == 1
    printed = capsys.readouterr().out
    assert "fault: seed 5 case 1: an exception: ZeroDivisionError: 'division by zero' at test_fuzz" in printed
    assert printed.splitlines()[-1] == "2 cases, 2 findings"
    monkeypatch.setattr(fuzz, "READERS", (_fault(lambda folder, file, out: None),))
    assert fuzz.main(["--count", "2"]) == 0


def test_a_case_is_damaged_the_same_every_time(tmp_path):
    cases = cases_of(READERS[2:4], 3, range(2, 4))
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        cases[0].reader.make(folder)
        fuzz.damage(cases[0], folder)
    first, second = (fuzz._content_of(tmp_path / str(number)) for number in range(2))
    assert first == second


def _archive_bomb(folder, *, pax=0, member=0, tail=0):
    """The database with an archive of line files that is small, but for its zeros."""
    make_database(folder)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a01/a01-000/a01-000u-01.xml")
        info.size = member * MEGABYTE
        info.pax_headers = {"comment": "\0" * (pax * MEGABYTE)} if pax else {}
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    content = gzip.compress(packed.getvalue() + bytes(tail * MEGABYTE), 1)
    (folder / "lineStrokes-all.tar.gz").write_bytes(content)


def _image_archive_bomb(folder):
    make_database(folder)
    (folder / "lineImages" / "a01-000u-02.tif").write_bytes(_png(9_000, 9_000))


def _png(width, height):
    """A black picture, whose rows are never all in memory."""

    def chunk(name, data):
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    size, packer = width.to_bytes(4, "big") + height.to_bytes(4, "big"), zlib.compressobj(1)
    rows = b"".join([*(packer.compress(bytes(1 + width)) for _ in range(height)), packer.flush()])
    head = chunk(b"IHDR", size + b"\x08\x00\x00\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _png_bomb(folder):
    (folder / "a.png").write_bytes(_png(9_000, 9_000))


def _prepare(folder):
    make_unpacked_database(folder / "source")
    prepare(folder / "source", folder / "lines.npz", workers=1)
    shutil.rmtree(folder / "source")
    with np.load(folder / "lines.npz") as file:
        return {name: file[name] for name in file.files}


def _npz_bomb(folder):
    more = np.zeros(250 * MEGABYTE, dtype=np.uint8)
    np.savez_compressed(folder / "lines.npz", **_prepare(folder), more=more)


def _npz_with_a_lie(folder):
    with zipfile.ZipFile(folder / "lines.npz", "w") as archive, archive.open("manifest.npy", "w") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (2**40,)}
        np.lib.format.write_array_header_1_0(file, header)


def _dataset_with_an_image_bomb(folder):
    arrays = _prepare(folder)
    arrays["images"] = np.frombuffer(zlib.compress(bytes(250 * MEGABYTE), 1), dtype=np.uint8)
    arrays["image_starts"][1:] = len(arrays["images"])
    np.savez_compressed(folder / "lines.npz", **arrays)


def _hdf5_bomb(folder):
    """Zeros that are nowhere written, and that a filter would make."""
    make_reference(folder)
    with h5py.File(folder / "reference.h5", "r+") as file:
        groups = [file[name] for name in file.attrs["layer_names"]]
        group = next(group for group in groups if len(group.attrs["weight_names"]))
        name = group.attrs["weight_names"][0]
        del group[name]
        group.create_dataset(name, (10**9,), "f4", chunks=(10**6,), compression="gzip")


def _wide_checkpoint(folder):

    about = {"format": "hwdiff checkpoint 1", "model": {"c1": 4096, "c2": 4092, "c3": 4096, "num_layers": 64}}
    save_file({"a": torch.zeros(1)}, folder / "wide.safetensors", metadata={"hwdiff": json.dumps(about)})


def _wide_recognizer(folder):

    about = {"format": FORMAT, "alphabet": ALPHABET, "network": {"hidden": 4096, "layers": 64}}
    save_file({"a": torch.zeros(1)}, folder / "wide.safetensors", metadata={"hwdiff": json.dumps(about)})


def _pth_bomb(folder):
    """Weights as torch saves them, but packed."""
    torch.save({"a": torch.zeros(60 * MEGABYTE)}, folder / "plain.pth")
    with (
        zipfile.ZipFile(folder / "plain.pth") as plain,
        zipfile.ZipFile(folder / "a.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    (folder / "plain.pth").unlink()


def _load_network(folder, file, out):
    load_model(file, "cpu")


def _read_dataset(folder, file, out):
    Dataset(file).line_image(0)


BOMBS = {
    "member": (lambda folder: _archive_bomb(folder, member=250), read_database, "would unpack to more than"),
    "pax header": (lambda folder: _archive_bomb(folder, pax=250), read_database, "header of more than 1 MB"),
    "tail": (lambda folder: _archive_bomb(folder, tail=250), read_database, "would unpack to more than"),
    "npz": (_npz_bomb, _read_dataset, "it would unpack to"),
    "npz header": (_npz_with_a_lie, _read_dataset, "not as long as its header says"),
    "official image": (_dataset_with_an_image_bomb, _read_dataset, "the image of a01-000u-01 is damaged"),
    "png": (
        _png_bomb,
        lambda folder, file, out: read_image(file),
        "9000 x 9000 pixels, more than",
    ),
    "hdf5": (_hdf5_bomb, _load_network, "numbers; 50,000,000 at most are expected"),
    "checkpoint": (_wide_checkpoint, _load_network, "its weights do not fit its metadata"),
    "recognizer": (_wide_recognizer, lambda folder, file, out: load_recognizer(file), "do not fit"),
    "pth": (_pth_bomb, lambda folder, file, out: load_style_extractor(file), "nothing in it was run"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_fill_the_memory_is_refused_by_its_size(tmp_path, name):
    """With 200 MB at most, since each would take more, though the files are small."""
    make, read, message = BOMBS[name]
    [outcome] = run([Case(Reader(name, make, read))], tmp_path, memory=ROOM)
    assert outcome.kind == "refused", str(outcome)
    assert message in outcome.message
    assert sum(path.stat().st_size for path in (tmp_path / "seeds").rglob("*.*")) < 12 * MEGABYTE


def test_a_line_image_that_would_fill_the_memory_is_left_out(tmp_path):
    reader = Reader("line image", _image_archive_bomb, _read_without_an_image)
    [outcome] = run([Case(reader)], tmp_path, memory=ROOM)
    assert outcome.kind == "read", str(outcome)


def _read_without_an_image(folder, file, out):

    manifest = prepare(folder, out / "lines.npz", workers=1).manifest
    assert manifest["left_out"]["line image that cannot be read"] == 1


@pytest.mark.parametrize("suffix", [".svg", ".inkml", ".xml"])
def test_entities_are_not_expanded(tmp_path, suffix):
    body = {
        ".svg": b"<svg><title>&j;</title><path d='M0 0 L1 1 L2 0'/></svg>",
        ".inkml": b"<ink><annotation type='truth'>&j;</annotation><trace>0 0, 1 1, 2 0</trace></ink>",
        ".xml": b"<a>&j;<Stroke><Point x='0' y='0'/><Point x='9' y='9'/></Stroke></a>",
    }[suffix]

    def read(folder, file, out):
        assert len(Ink.load(file).text) < 100

    reader = Reader("entities", lambda folder: (folder / f"a{suffix}").write_bytes(BOMB + body), read)
    [outcome] = run([Case(reader)], tmp_path, memory=ROOM)
    assert outcome.kind in ("read", "refused"), str(outcome)


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.pth", "a.h5", "a.npy"])
def test_a_pickle_is_never_loaded(tmp_path, name):
    path, made = tmp_path / name, tmp_path / "made"
    if path.suffix in (".npz", ".npy"):
        holding = np.array([_Payload(made)], dtype=object)
        np.savez(path, manifest=holding) if path.suffix == ".npz" else np.save(path, holding)
    else:
        torch.save({"features.0.0.weight": _Payload(made)}, path)
    for read in (
        Dataset,
        load_model,
        load_style_extractor,
        load_recognizer,
        load_styles,
        load_inception,
        read_image,
        Ink.load,
    ):
        with pytest.raises(HwdiffError):
            read(path)
    assert not made.exists()
    # The payload is a real one.
    content = io.BytesIO(path.read_bytes())
    if path.suffix in (".npz", ".npy"):
        found = np.load(content, allow_pickle=True)
        assert path.suffix == ".npy" or len(found["manifest"])
    else:
        torch.load(content, weights_only=False)
    assert made.exists()
