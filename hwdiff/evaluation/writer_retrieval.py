"""Style: whether the hand that was asked for can be told from what was written in it, by style features alone."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import cholesky, solve_triangular

from hwdiff.ink import images
from hwdiff.model.style_encoder import FEATURES
from hwdiff.utils.errors import HwdiffError

DIRECTIONS = 64
SHRINKAGE = 1.0  # of the covariance within forms towards a multiple of the identity: far fewer lines than features are known
MIN_FORMS = 10


@dataclass
class Retrieval:
    """How often the right form was found. ranks: (n,) of the right form for each line, 1 for the first.   forms: how many there were."""

    ranks: np.ndarray
    forms: int

    def within(self, count=1):
        """Share of lines whose form was among the first `count`; by chance it is count / forms."""
        return float(np.mean(self.ranks <= count))


def line_features(inks, extractor):
    """Style features of inks, a list of `Ink`, each drawn like an official line image: (n, 14, 1280) float32.

    extractor: a `StyleExtractor`. What is too long for its image is cut off; an ink without extent is a blank one.
    """
    found = [np.zeros((0, *FEATURES), dtype=np.float32)]
    for start in range(0, len(inks), extractor.batch_size):
        pixels = np.stack([images.pad_to_width(_line_image(ink)) for ink in inks[start : start + extractor.batch_size]])
        found.append(extractor(torch.from_numpy(pixels).to(extractor.device)).float().cpu().numpy())
    return np.concatenate(found)


def _line_image(ink):
    try:
        return ink.line_image()[:, : images.MAX_WIDTH]
    except HwdiffError:
        return np.full((images.HEIGHT, 1), 255, dtype=np.uint8)


def descriptors(features):
    """What tells hands apart in style features (n, S, 1280): their mean and deviation over the columns, (n, 2560) float64."""
    features = np.asarray(features)
    if features.ndim != 3 or not len(features):
        raise HwdiffError(f"style: features of shape {features.shape}; (n, S, 1280) of at least one line are needed")
    if not np.isfinite(features).all():
        raise HwdiffError("style: features that are not finite")
    return np.concatenate((features.mean(axis=1, dtype=np.float64), features.std(axis=1, dtype=np.float64)), axis=1)


def place_between(features, first, second):
    """How far on the way from one hand to another lines lie: (n,), 1 where they are like the lines `first`, 0 where they are like `second`.

    features, first, second: style features (n, S, 1280), (m, S, 1280), (k, S, 1280), m and k at least 2; none of the lines in two of them.
    Measured along the line between the means of both. The means of one half of the lines give its direction, those of the other where it
    begins, and the other way about: with the same means for both, their noise would draw all places towards the middle.
    Raises HwdiffError when there is no way between them.
    """
    found, start, end = descriptors(features), _halves(second), _halves(first)
    ways = [one - other for one, other in zip(end, start, strict=True)]
    length = ways[0] @ ways[1]
    if not length > 0:
        raise HwdiffError("style: both hands are the same, as far as these lines tell, so nothing lies between them; write more lines of each")
    return ((found - start[0]) @ ways[1] + (found - start[1]) @ ways[0]) / (2 * length)


def _halves(features):
    known = descriptors(features)
    if len(known) < 2:
        raise HwdiffError("style: one line of a hand; two or more are needed")
    return known[::2].mean(axis=0), known[1::2].mean(axis=0)


@dataclass
class WriterStyles:
    """Where hands differ: what maps descriptors to directions in which forms lie apart while the lines of a form lie together.

    centre (2560,), spread (2560,): of the lines it was learnt from.   directions: (2560, k), k at most 64.
    """

    centre: np.ndarray
    spread: np.ndarray
    directions: np.ndarray

    @classmethod
    def learn(cls, features, forms):
        """Linear discriminants (Fisher 1936) of the forms (n,) of lines with style features (n, S, 1280), each weighted by its reliability.

        Raises HwdiffError for fewer than 10 forms, or when no form has two lines.
        """
        forms = _one_each(forms, features, "lines to learn hands from")
        names, member, counts = np.unique(forms, return_inverse=True, return_counts=True)
        if len(names) < MIN_FORMS or counts.max() < 2:
            raise HwdiffError(f"style: {len(forms)} lines of {len(names)} forms; hands are learnt from at least {MIN_FORMS}, with two lines or more")
        known = descriptors(features)
        centre, spread = known.mean(axis=0), known.std(axis=0) + 1e-6
        known = (known - centre) / spread
        means = _means(known, member, len(names))
        within = known - means[member]
        covariance = within.T @ within / len(known)
        covariance[np.diag_indices_from(covariance)] += SHRINKAGE * np.trace(covariance) / len(covariance)
        root = cholesky(covariance, lower=True)
        _, sizes, axes = np.linalg.svd(solve_triangular(root, (means - means.mean(axis=0)).T, lower=True).T, full_matrices=False)
        kept = min(DIRECTIONS, len(names) - 1)
        between = sizes[:kept] ** 2 / (len(names) - 1)
        weights = np.sqrt(between / (1 + between))
        return cls(centre, spread, solve_triangular(root, axes[:kept].T, lower=True, trans="T") * weights)

    def __call__(self, features):
        """Style features (n, S, 1280) in these directions: (n, k) float64."""
        return ((descriptors(features) - self.centre) / self.spread) @ self.directions


def retrieve(queries, query_forms, known, known_forms):
    """Look for the form of each line among the forms of known lines: the form with the nearest centre, by the cosine.

    queries (n, k), known (m, k): lines as `WriterStyles` sees them.   query_forms (n,), known_forms (m,): the form that each was to be like, or is of.
    The known lines must hold none of the lines that the queries are, nor those that gave them their style.
    Returns a `Retrieval`. Raises HwdiffError when a form asked for is not known.
    """
    query_forms, known_forms = _one_each(query_forms, queries, "lines"), _one_each(known_forms, known, "known lines")
    names, member = np.unique(known_forms, return_inverse=True)
    if len(names) < 2:
        raise HwdiffError(f"style: {len(names)} known forms; at least 2 are needed to tell them apart")
    missing = np.setdiff1d(query_forms, names)
    if len(missing):
        raise HwdiffError(f"style: no known lines of the form {missing[0]}; give some of each form that is asked for")
    likeness = _unit(queries) @ _unit(_means(known, member, len(names))).T
    right = likeness[np.arange(len(queries)), np.searchsorted(names, query_forms)]
    # A form that is just as like counts before the right one, so that a tie is no success.
    ranks = (likeness >= right[:, None]).sum(axis=1)
    return Retrieval(ranks, len(names))


def _one_each(forms, features, what):
    forms = np.asarray(forms)
    if len(forms) != len(features):
        raise HwdiffError(f"style: {len(forms)} forms for {len(features)} {what}; give one for each")
    return forms


def _means(vectors, member, count):
    sums = np.zeros((count, vectors.shape[1]))
    np.add.at(sums, member, vectors)
    return sums / np.bincount(member, minlength=count)[:, None]


def _unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
