"""Reading ink from files of other programs."""

import numpy as np
from lxml import etree

MAX_COORDINATE = 16_000  # tablet units: the board is about 9 000 wide, and differences must fit 16 bits
_SAFE = {"resolve_entities": False, "load_dtd": False, "no_network": True}
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
    first = np.zeros(len(points), dtype=bool)
    first[np.cumsum([0, *lengths[:-1]])] = True
    return points, first
