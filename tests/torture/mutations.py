"""Ways to damage a file, drawn from a generator: any bytes, and what a file of its format can hold."""

import gzip
import io
import json
import re
import tarfile
import zlib
from pathlib import Path
from random import Random

import h5py
import numpy as np

NUMBERS = ("-1", "0", "1e999", "-1e999", "NaN", "1e30", "99999999999999999999", "0.5", "2147483648", "x")
VALUES = (
    *(None, True, "", "a", "../../outside.txt", "/outside.txt", "é\ud800", [], {}, [[]], {"a": 1}),
    *(-1, 0, 1, 0.5, 3, 10**9, 10**30, -(10**30), 1e308, float("nan"), float("inf"), "x" * 5000),
)
BOMB = (  # entities that grow to 10^9 letters
    b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
    + b"]>"
)
_NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE][-+]?\d+)?")


def mutate(path: Path, random: Random) -> None:
    """Damage the file `path`: three times of five as its format allows, or else any of its bytes."""
    change = FORMATS.get(path.suffix.lower(), of_bytes)
    content = path.read_bytes()
    if random.random() < 0.6:
        try:
            path.write_bytes(change(content, random))
            return
        except Exception:  # it is damaged already, and no longer of its format
            pass
    path.write_bytes(of_bytes(content, random))


def of_bytes(content: bytes, random: Random) -> bytes:
    """Bits flipped, the end cut off, or a chunk removed, doubled, swapped, zeroed, or replaced by noise."""
    if not content:
        return random.randbytes(20)
    start = random.randrange(len(content))
    if random.random() < 0.5:  # most formats say at their start what follows
        start = min(start, random.randrange(512))
    size = min(len(content) - start, 2 ** random.randrange(13))
    head, chunk, tail = content[:start], content[start : start + size], content[start + size :]
    kind = random.choice(("flip", "flip", "cut", "remove", "double", "swap", "zero", "noise", "empty"))
    if kind == "flip":
        found = bytearray(content)
        for _ in range(2 ** random.randrange(5)):
            place = min(len(found) - 1, start + random.randrange(64))
            found[place] ^= 1 << random.randrange(8)
        return bytes(found)
    if kind == "swap":
        other = random.randrange(len(tail) + 1)
        return head + tail[other : other + size] + tail[:other] + chunk + tail[other + size :]
    return {
        "cut": head,
        "remove": head + tail,
        "double": head + chunk * random.choice((2, 2, 100)) + tail,
        "zero": head + bytes(size) + tail,
        "noise": head + random.randbytes(size) + tail,
        "empty": b"",
    }[kind]


def of_text(content: bytes, random: Random) -> bytes:
    """Numbers replaced, lines or tags removed or doubled, or an XML bomb put in."""
    numbers = list(_NUMBER.finditer(content))
    if numbers and random.random() < 0.5:
        for _ in range(random.choice((1, 1, 5))):
            found = random.choice(numbers)
            content = content[: found.start()] + random.choice(NUMBERS).encode() + content[found.end() :]
            numbers = list(_NUMBER.finditer(content))
            if not numbers:
                break
        return content
    parts = re.split(rb"(?<=>)|(?<=\n)", content)
    place, kind = random.randrange(len(parts)), random.randrange(5)
    if kind == 0:
        del parts[place]
    elif kind == 1:
        parts.insert(place, parts[place] * random.choice((1, 1, 2000)))
    elif kind == 2:
        random.shuffle(parts)
    elif kind == 3:
        head, declaration, rest = content.rpartition(b"?>")
        return head + declaration + BOMB + re.sub(rb">", b">&j;", rest, count=1)
    else:
        return of_bytes(content, random)
    return b"".join(parts)


def of_value(value: object, random: Random) -> object:
    """A JSON value with one of its parts removed, doubled, renamed or replaced."""
    places = []

    def collect(one):
        for key in one if isinstance(one, dict) else range(len(one)):
            places.append((one, key))
            if isinstance(one[key], dict | list):
                collect(one[key])

    if isinstance(value, dict | list):
        collect(value)
    if not places or random.random() < 0.03:
        return random.choice(VALUES)
    for _ in range(random.choice((1, 1, 1, 4))):
        parent, key = random.choice(places)
        if key not in (parent if isinstance(parent, dict) else range(len(parent))):
            continue
        kind = random.randrange(6)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[random.choice(("a", "", "../b", key + " "))] = parent.pop(key)
        elif kind == 1:
            parent.extend([parent[key]] * random.choice((1, 1000)))
        elif kind == 2 and isinstance(parent[key], str):
            parent[key] = of_text(parent[key].encode("utf-8", "replace"), random).decode("utf-8", "replace")
        elif kind == 2 and isinstance(parent[key], int | float):
            parent[key] = random.choice((-1, 0, 2, 1.5)) * parent[key]
        else:
            parent[key] = random.choice(VALUES)
    return value


def of_json(content: bytes, random: Random) -> bytes:
    """Valid JSON with other values, or a number in it replaced, or brackets nested 100 000 deep."""
    if random.random() < 0.05:
        return b"[" * 100_000
    try:
        return json.dumps(of_value(json.loads(content), random)).encode()
    except ValueError:
        return of_text(content, random)


def of_jsonl(content: bytes, random: Random) -> bytes:
    """As `of_json`, one of the lines."""
    lines = content.splitlines(keepends=True)
    place = random.randrange(len(lines))
    lines[place] = of_json(lines[place], random) + random.choice((b"\n", b"\n", b"\n", b""))
    return b"".join(lines)


def of_safetensors(content: bytes, random: Random) -> bytes:
    """Another header, in its tensors or in the JSON that it holds as a text, or the tensors' bytes."""
    size = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    about, kind = header.get("__metadata__", {}), random.randrange(5)
    if kind == 0:
        header = of_value(header, random)
    elif kind == 1 and "hwdiff" not in about:
        header["__metadata__"] = of_value(about, random)
    elif kind in (1, 2, 3) and "hwdiff" in about:
        about["hwdiff"] = of_json(about["hwdiff"].encode(), random).decode("utf-8", "replace")
    elif kind == 4:
        rest = of_bytes(rest, random)
        rest = (rest + bytes(len(content)))[: len(content) - 8 - size]
    else:
        name = random.choice([name for name in header if name != "__metadata__"])
        header[name]["dtype"] = random.choice(("F64", "F32", "F16", "I64", "U8", "BOOL", "I32", "BF16"))
        header[name]["shape"] = random.choice(([], [1], [2**62, 4], header[name]["shape"][::-1]))
    packed = json.dumps(header).encode()
    return len(packed).to_bytes(8, "little") + packed + rest


def of_array(array: np.ndarray, random: Random) -> np.ndarray:
    """An array of another shape or type, or with other values."""
    kind = random.randrange(8)
    if kind == 0:
        return array[: random.randrange(len(array) + 1)] if array.ndim else array[None]
    if kind == 1:
        types = ("f8", "f4", "c16", "i8", "u1", "u8", "?", "U3", "M8[s]", "V5")
        try:
            return array.astype(random.choice(types))
        except (ValueError, TypeError):
            return np.zeros(array.shape, dtype="V5")
    if kind == 2:
        return array.reshape(random.choice(((-1,), (1, *array.shape), (*array.shape, 1))))
    if kind == 3:
        return np.array([{"an": "object"}], dtype=object)
    if kind == 4:
        return np.concatenate((array, array)) if array.ndim else array
    if kind == 5:
        return np.zeros((random.choice((0, 1, 7)), *array.shape[1:]), dtype=array.dtype)
    changed = array.copy().reshape(-1)
    if array.dtype.kind in "iuf" and changed.size:
        ends = np.finfo if array.dtype.kind == "f" else np.iinfo
        numbers = (0, 1, 100, ends(array.dtype).max, ends(array.dtype).min)
        for _ in range(random.choice((1, 3, changed.size))):
            changed[random.randrange(changed.size)] = random.choice(numbers)
    elif array.dtype.kind == "U" and changed.size:
        changed[random.randrange(changed.size)] = random.choice(("", "a" * 99, "\0", "../x", "é"))
    return changed.reshape(array.shape)


def of_npz(content: bytes, random: Random) -> bytes:
    """One of the arrays changed or left out, or the JSON in one."""
    with np.load(io.BytesIO(content)) as file:
        arrays = {name: file[name] for name in file.files}
    name = random.choice(list(arrays))
    if random.random() < 0.1:
        del arrays[name]
    elif arrays[name].ndim == 0 and arrays[name].dtype.kind == "U" and random.random() < 0.8:
        arrays[name] = np.array(of_json(str(arrays[name]).encode(), random).decode("utf-8", "replace"))
    else:
        arrays[name] = of_array(arrays[name], random)
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()


def of_npy(content: bytes, random: Random) -> bytes:
    """Another array, or a header that says so."""
    if random.random() < 0.5:
        return of_text(content[:128], random) + content[128:]
    packed = io.BytesIO()
    np.save(packed, of_array(np.load(io.BytesIO(content)), random))
    return packed.getvalue()


def of_archive(content: bytes, random: Random) -> bytes:
    """A member of another content, name or kind, left out or twice; packed again, and that damaged."""
    members = []
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive:
            members.append((member, archive.extractfile(member).read()))
    place = random.randrange(len(members))
    member, inner = members[place]
    kind = random.randrange(10)
    if kind < 4:
        inner = of_text(inner, random)
    elif kind == 4:
        inner = of_bytes(inner, random)
    elif kind == 5:
        names = (
            "../../outside.xml",
            "/outside.xml",
            "a/" * 200 + "b.xml",
            "",
            "a01-000u-99999999.xml",
            "é\n.xml",
        )
        member.name = random.choice((*names, random.choice(members)[0].name))
    elif kind == 6:
        member.type = random.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE))
        member.linkname = random.choice(("/etc/passwd", "../../outside.xml", member.name))
        inner = b""
    elif kind == 7:
        members.append((member, inner))
    elif kind == 8:
        member.pax_headers = {"size": random.choice(NUMBERS), "a" * 3000: "b" * 70_000}
    members[place] = member, inner
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, inner in members if kind != 9 else members[:place] + members[place + 1 :]:
            member.size = len(inner)
            archive.addfile(member, io.BytesIO(inner))
    plain = packed.getvalue()
    return gzip.compress(of_bytes(plain, random) if random.random() < 0.2 else plain, 1)


def of_hdf5(content: bytes, random: Random) -> bytes:
    """A dataset of another shape or type, left out, or an attribute changed."""
    packed, names = io.BytesIO(content), []
    with h5py.File(packed, "r+") as file:
        file.visit(names.append)
        name = random.choice(names)
        kind = random.randrange(6)
        group = file[name] if isinstance(file[name], h5py.Group) else file[name].parent
        if kind == 0:
            del file[name]
        elif kind == 1:
            attribute = random.choice([*file.attrs, *group.attrs])
            holder = file if attribute in file.attrs else group
            holder.attrs[attribute] = random.choice((1, "a", np.zeros(3), [b"a", b"b"], [0.5], b"\xff"))
        elif kind == 2:
            del file[name]
            file[name] = h5py.SoftLink("/" + random.choice(names))
        elif isinstance(file[name], h5py.Dataset):
            changed = of_array(file[name][()], random)
            del file[name]
            try:
                file[name] = changed
            except TypeError:
                file[name] = "a text"
        else:
            file.attrs["layer_names"] = random.sample(list(file.attrs["layer_names"]), 1) * 3
    return packed.getvalue()


def of_png(content: bytes, random: Random) -> bytes:
    """A chunk changed, with its checksum put right."""
    place, chunks = 8, []
    while place < len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += 12 + size
    number = random.randrange(len(chunks))
    name, data = chunks[number]
    if name == b"IHDR" and random.random() < 0.5:
        place = random.randrange(2) * 4
        data = (
            data[:place]
            + random.choice((0, 1, 9000, 60_000, 2**31 - 1)).to_bytes(4, "big")
            + data[place + 4 :]
        )
    else:
        data = of_bytes(data, random)
    chunks[number] = name, data
    packed = content[:8]
    for name, data in chunks:
        check = zlib.crc32(name + data).to_bytes(4, "big")
        packed += len(data).to_bytes(4, "big") + name + data + check
    return packed


FORMATS = {
    ".gz": of_archive,
    ".npz": of_npz,
    ".npy": of_npy,
    ".safetensors": of_safetensors,
    ".h5": of_hdf5,
    ".png": of_png,
    ".json": of_json,
    ".ipynb": of_json,
    ".jsonl": of_jsonl,
    **dict.fromkeys((".xml", ".svg", ".inkml", ".txt"), of_text),
}
