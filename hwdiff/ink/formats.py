"""Ink in files that other programs read and write: SVG, InkML, JSON, and IAM's line files.

Functions take or return strokes [(n, 2)], y downwards, and the text that they say.
"""

import json
from collections.abc import Sequence
from html import escape
from unicodedata import category

import numpy as np
from lxml import etree

from hwdiff.ink.strokes import stroke_starts
from hwdiff.utils import json_values

MAX_COORDINATE = 16_000  # tablet units: the board is about 9 000 wide, and differences must fit 16 bits
UNREADABLE = (ValueError, LookupError, TypeError, OverflowError, etree.XMLSyntaxError)  # what `parse_*` raise
_SAFE = {
    "resolve_entities": False,
    "load_dtd": False,
    "no_network": True,
    "remove_comments": True,  # of a text, lxml gives what is before them
    "remove_pis": True,
}
# Of SVG, what is drawn otherwise, and what hides paths.
_NOT_READ = ["line", "polygon", "circle", "ellipse", "use", "text", "image"]
_NOT_READ += ["symbol", "clipPath", "mask", "pattern", "marker"]
_POINT_X = etree.XPath("//Stroke/Point/@x", smart_strings=False)
_POINT_Y = etree.XPath("//Stroke/Point/@y", smart_strings=False)


def parse_points(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The points of a line file of IAM.

    Returns points (N, 2) int64 in tablet units, y downwards, and first (N,) bool, True where a stroke begins.
    Raises ValueError, with the reason as a report counts it, for anything but well-formed XML with whole
    coordinates in range.
    """
    try:
        root = etree.fromstring(content, etree.XMLParser(**_SAFE, collect_ids=False, remove_blank_text=True))
    except etree.XMLSyntaxError as error:
        raise ValueError("XML that is not well-formed") from error
    if root.getroottree().docinfo.doctype:
        raise ValueError("XML with a document type (entities are not read)")
    lengths = [len(stroke) for stroke in root.iter("Stroke") if len(stroke)]
    xs, ys = _POINT_X(root), _POINT_Y(root)
    if not len(xs) == len(ys) == sum(lengths):
        raise ValueError("point without whole x and y")
    try:
        xs, ys = list(map(int, xs)), list(map(int, ys))
    except ValueError as error:
        raise ValueError("point without whole x and y") from error
    if max(map(abs, xs + ys), default=0) > MAX_COORDINATE:
        raise ValueError(f"coordinate beyond {MAX_COORDINATE} tablet units")
    points = np.array((xs, ys)).T
    if len(points) < 2 or not np.ptp(points, axis=0).any():
        raise ValueError("strokes without extent")
    return points, stroke_starts(lengths)


def parse_svg(content: bytes) -> tuple[list[np.ndarray], str]:
    """The strokes and the title of an SVG document of polylines, or of paths of straight lines (M and L).

    Raises ValueError or etree.XMLSyntaxError for anything else.
    """
    root = etree.fromstring(content, etree.XMLParser(**_SAFE))
    strokes, elements = [], list(root.iter("{*}path", "{*}polyline"))
    if not elements:
        raise ValueError("an SVG without path or polyline")
    if others := {
        etree.QName(other).localname for other in root.iter(*(f"{{*}}{name}" for name in _NOT_READ))
    }:
        raise ValueError(f"an SVG with {', '.join(sorted(others))}; only paths and polylines are read")
    for element in elements:
        around = (element, *element.iterancestors())
        if any(etree.QName(node).localname == "defs" for node in around):
            continue  # not drawn where it stands
        if any("transform" in node.attrib for node in around):
            raise ValueError("an SVG with transforms, which are not read")
        if etree.QName(element).localname == "polyline":
            parts = [element.attrib["points"]]
        else:
            path = element.attrib["d"]
            if others := {letter for letter in path if letter.isalpha()} - set("MLe"):
                raise ValueError(f"a path with {', '.join(sorted(others))}; only M and L are read")
            parts = [part.replace("L", " ") for part in path.split("M")[1:]]
        for part in parts:
            stroke = np.array(part.replace(",", " ").split(), dtype=float).reshape(-1, 2)
            # A dot is written as two points, so that it can be seen.
            is_dot = len(stroke) == 2 and (stroke[0] == stroke[1]).all()
            strokes.append(stroke[:1] if is_dot else stroke)
    return _checked([stroke for stroke in strokes if len(stroke)]), root.findtext("{*}title", "")


def printable(text: str) -> str:
    """A text without what XML cannot hold: control characters, lone surrogates, unassigned code points.

    Tabs and ends of lines become spaces.
    """
    kept = (" " if one.isspace() and category(one) == "Cc" else one for one in text)
    return "".join(one for one in kept if category(one) not in ("Cc", "Cs", "Cn"))


def to_inkml(strokes: Sequence[np.ndarray], text: str) -> str:
    """An InkML document (W3C 2011) in its default trace format: a trace for each stroke, x and y decimal.

    The text is an annotation of the type "truth", as usual in data for recognizers.
    """
    traces = (", ".join(f"{x:.6f} {y:.6f}" for x, y in stroke) for stroke in strokes)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ink xmlns="http://www.w3.org/2003/InkML">\n'
        f'<annotation type="truth">{escape(text, quote=False)}</annotation>\n'
        + "".join(f"<trace>{trace}</trace>\n" for trace in traces)
        + "</ink>\n"
    )


def parse_inkml(content: bytes) -> tuple[list[np.ndarray], str]:
    """The strokes of an InkML document and its text: the annotation "truth", if there is one.

    Of other channels than X and Y nothing is kept. Values must be written out: differences (' and ") are not
    read. Raises ValueError or etree.XMLSyntaxError for anything else.
    """
    root = etree.fromstring(content, etree.XMLParser(**_SAFE))
    if etree.QName(root).localname != "ink":
        raise ValueError("no InkML document")
    names = [channel.attrib.get("name") for channel in root.iterfind(".//{*}traceFormat/{*}channel")]
    names = names or ["X", "Y"]
    if not {"X", "Y"} <= set(names):
        raise ValueError("a trace format without X and Y")
    columns = [names.index("X"), names.index("Y")]
    strokes = []
    for trace in root.iter("{*}trace"):
        if trace.attrib.get("type") == "penUp":
            continue
        points = [point.split() for point in (trace.text or "").split(",") if point.strip()]
        if any(len(point) < len(names) for point in points):
            raise ValueError("a point with too few values, or with differences, which are not read")
        strokes.append(np.array([[float(point[column]) for column in columns] for point in points]))
    truth = (note.text or "" for note in root.iterfind("{*}annotation[@type='truth']"))
    return _checked([stroke for stroke in strokes if len(stroke)]), next(truth, "")


def to_json(strokes: Sequence[np.ndarray], text: str) -> str:
    """A JSON object: "text", and "strokes", a list of [[x, y], ...]."""
    return json.dumps({"text": text, "strokes": [stroke.tolist() for stroke in strokes]}, ensure_ascii=False)


def parse_json(content: bytes) -> tuple[list[np.ndarray], str]:
    """The strokes and the text of a JSON object as `to_json` writes it.

    Raises ValueError, LookupError, TypeError or OverflowError for anything else.
    """
    found = json_values.parse_json(content)
    strokes = [np.array(stroke, dtype=float) for stroke in found["strokes"] if len(stroke)]
    if any(stroke.ndim != 2 or stroke.shape[1] != 2 for stroke in strokes):
        raise ValueError("a point that is not [x, y]")
    text = found.get("text") or ""
    if not isinstance(text, str):
        raise ValueError("a text that is no string")
    return _checked(strokes), text


def _checked(strokes):
    if not all(np.isfinite(stroke).all() for stroke in strokes):
        raise ValueError("coordinates that are not finite numbers")
    return strokes
