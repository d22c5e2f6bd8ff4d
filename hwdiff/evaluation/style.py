"""Style: whether the hand that was asked for can be told from what was written in it, by style features alone."""

from dataclasses import dataclass

import numpy as np

from hwdiff.errors import HwdiffError


@dataclass
class Retrieval:
    """How often the right form was found. ranks: (n,) of the right form for each line, 1 for the first.   forms: how many there were."""

    ranks: np.ndarray
    forms: int

    def within(self, count=1):
        """Share of lines whose form was among the first `count`; by chance it is count / forms."""
        return float(np.mean(self.ranks <= count))


def descriptors(features):
    """What tells hands apart in style features (n, S, 1280): their mean and deviation over the columns, (n, 2560) float64."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 3 or not len(features):
        raise HwdiffError(f"style: features of shape {features.shape}; (n, S, 1280) of at least one line are needed")
    if not np.isfinite(features).all():
        raise HwdiffError("style: features that are not finite")
    return np.concatenate((features.mean(axis=1), features.std(axis=1)), axis=1)


def retrieve(queries, query_forms, known, known_forms):
    """Look for the form of each line among the forms of known lines: the form with the nearest centre, by the cosine after standardising.

    queries (n, S, 1280), known (m, S, 1280): style features.   query_forms (n,), known_forms (m,): the form that each was to be like, or is of.
    The known lines must hold none of the lines that the queries are, nor those that gave them their style.
    Returns a `Retrieval`. Raises HwdiffError when a form asked for is not known.
    """
    query_forms, known_forms = np.asarray(query_forms), np.asarray(known_forms)
    if len(query_forms) != len(queries) or len(known_forms) != len(known):
        raise HwdiffError(f"style: {len(query_forms)} and {len(known_forms)} forms for {len(queries)} and {len(known)} lines; give one for each")
    names, member = np.unique(known_forms, return_inverse=True)
    if len(names) < 2:
        raise HwdiffError(f"style: {len(names)} known forms; at least 2 are needed to tell them apart")
    missing = np.setdiff1d(query_forms, names)
    if len(missing):
        raise HwdiffError(f"style: no known lines of the form {missing[0]}; give some of each form that is asked for")
    known, queries = descriptors(known), descriptors(queries)
    centre, spread = known.mean(axis=0), known.std(axis=0) + 1e-6
    known, queries = (known - centre) / spread, (queries - centre) / spread
    centres = np.stack([known[member == form].mean(axis=0) for form in range(len(names))])
    likeness = _directions(queries) @ _directions(centres).T
    right = likeness[np.arange(len(queries)), np.searchsorted(names, query_forms)]
    # A form that is just as like counts before the right one, so that a tie is no success.
    ranks = (likeness >= right[:, None]).sum(axis=1)
    return Retrieval(ranks, len(names))


def _directions(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
