"""Form retrieval: whether features of a line tell in which style it was to be written.

The archives name forms, not writers: what is looked for is the form that the style came from. With the style
features that the network was conditioned on this is circular, with hand-made ones it is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import cholesky, solve_triangular
from scipy.spatial.distance import pdist

from hwdiff.ink import images
from hwdiff.ink.ink import Ink
from hwdiff.model.config import STYLE_SHAPE
from hwdiff.model.style_encoder import StyleExtractor
from hwdiff.utils.errors import HwdiffError

DIRECTIONS = 64
# Of the covariance within forms towards a multiple of the identity: there are far fewer lines than style
# features.
SHRINKAGE = 1.0
MIN_FORMS = 10
MAX_DEVIATION = 4  # of a feature in distances: one that hardly varies would outweigh the rest where it does


def line_features(inks: Sequence[Ink], extractor: StyleExtractor) -> np.ndarray:
    """Style features of inks, each drawn like an official line image.

    What is too long for its image is cut off. An ink without extent gives a blank image.
    Returns (n, 14, 1280) float32.
    """
    found = [np.zeros((0, *STYLE_SHAPE), dtype=np.float32)]
    for start in range(0, len(inks), extractor.batch_size):
        batch = inks[start : start + extractor.batch_size]
        pixels = np.stack([images.pad_to_width(_line_image(ink)) for ink in batch])
        found.append(extractor(torch.from_numpy(pixels).to(extractor.device)).float().cpu().numpy())
    return np.concatenate(found)


def _line_image(ink):
    try:
        return ink.line_image()[:, : images.MAX_WIDTH]
    except HwdiffError:
        return np.full((images.HEIGHT, 1), 255, dtype=np.uint8)


def descriptors(features: np.ndarray) -> np.ndarray:
    """What tells writer styles apart in style features: their mean and deviation over the columns.

    features: (n, S, 1280).
    Returns (n, 2560) float64. Raises HwdiffError when there are none, or they are not finite.
    """
    features = np.asarray(features)
    if features.ndim != 3 or not len(features):
        raise HwdiffError(
            f"style: features of shape {features.shape}; (n, S, 1280) of at least one line are needed"
        )
    if not np.isfinite(features).all():
        raise HwdiffError("style: features that are not finite")
    mean, deviation = features.mean(axis=1, dtype=np.float64), features.std(axis=1, dtype=np.float64)
    return np.concatenate((mean, deviation), axis=1)


def place_between(features: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How far on the way from one style to another lines lie.

    features: (n, S, 1280) of the lines.
    first, second: (m, S, 1280) and (k, S, 1280) of lines in both styles, m and k at least 2. No line may be
        in two of them.
    Returns (n,): 1 where a line is like the lines `first`, 0 where it is like `second`.
    Raises HwdiffError when there is no way between them.
    """
    # The means of one half of the lines give the direction, those of the other where it begins, and the other
    # way about: with the same means for both, their noise would draw all places towards the middle.
    found, start, end = descriptors(features), _halves(second), _halves(first)
    ways = [one - other for one, other in zip(end, start, strict=True)]
    length = ways[0] @ ways[1]
    if not length > 0:
        raise HwdiffError(
            "style: both styles are the same, as far as these lines tell, so nothing lies between them; "
            "write more lines of each"
        )
    return ((found - start[0]) @ ways[1] + (found - start[1]) @ ways[0]) / (2 * length)


def _halves(features):
    known = descriptors(features)
    if len(known) < 2:
        raise HwdiffError("style: one line of a style; two or more are needed")
    return known[::2].mean(axis=0), known[1::2].mean(axis=0)


@dataclass
class WriterStyles:
    """Where writer styles differ: directions in which forms lie apart while the lines of a form lie together.

    centre, spread: (d,) mean and deviation of the features that it was learnt from; infinite where they never
        vary.
    directions: (d, k), k at most 64.
    """

    centre: np.ndarray
    spread: np.ndarray
    directions: np.ndarray

    @classmethod
    def learn(cls, features: np.ndarray, forms: Sequence | np.ndarray) -> "WriterStyles":
        """Linear discriminants (Fisher 1936) of forms, each weighted by its reliability.

        features: (n, d) of lines, such as `descriptors`.
        forms: (n,) the form of each line.
        Raises HwdiffError for fewer than 10 forms, or when no form has two lines.
        """
        forms = _one_each(forms, features, "lines to learn styles from")
        names, member, counts = np.unique(forms, return_inverse=True, return_counts=True)
        if len(names) < MIN_FORMS or counts.max() < 2:
            found = f"{len(forms)} lines of {len(names)} forms"
            raise HwdiffError(
                f"style: {found}; styles are learnt from at least {MIN_FORMS}, with two lines or more"
            )
        centre, spread = features.mean(axis=0), features.std(axis=0)
        spread = np.where(spread > 1e-6, spread, np.inf)  # what never varies tells nothing
        known = (features - centre) / spread

        # Whiten by the covariance within forms.
        means = _means(known, member, len(names))
        within = known - means[member]
        covariance = within.T @ within / len(known)
        covariance[np.diag_indices_from(covariance)] += SHRINKAGE * np.trace(covariance) / len(covariance)
        root = cholesky(covariance, lower=True)
        whitened = solve_triangular(root, (means - means.mean(axis=0)).T, lower=True).T

        # The axes along which the means of forms differ most.
        _, sizes, axes = np.linalg.svd(whitened, full_matrices=False)
        kept = min(DIRECTIONS, len(names) - 1)
        between = sizes[:kept] ** 2 / (len(names) - 1)
        weights = np.sqrt(between / (1 + between))
        return cls(centre, spread, solve_triangular(root, axes[:kept].T, lower=True, trans="T") * weights)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Features (n, d) in these directions: (n, k) float64."""
        return ((features - self.centre) / self.spread) @ self.directions

    def distances(self, features: np.ndarray) -> np.ndarray:
        """How far apart each two lines are, in deviations of each feature.

        features: (n, d).
        Returns (n (n - 1) / 2,). Between the lines learnt from the root mean square would be 1, if all
        features varied and none was beyond `MAX_DEVIATION`.
        """
        deviations = np.clip((features - self.centre) / self.spread, -MAX_DEVIATION, MAX_DEVIATION)
        return pdist(deviations) / np.sqrt(2 * features.shape[1])


def retrieve(
    queries: np.ndarray,
    query_forms: Sequence | np.ndarray,
    *,
    known: np.ndarray,
    known_forms: Sequence | np.ndarray,
) -> np.ndarray:
    """Look for the form of each line among those of known lines, the one with the nearest mean by the cosine.

    queries, known: (n, k) and (m, k), lines as `WriterStyles` sees them. No known line may be among the
        queries, or have given one of them its style.
    query_forms: (n,) the form that each was to be like.   known_forms: (m,).
    Returns the rank of the right form for each line (n,), 1 for the first.
    Raises HwdiffError when a form asked for is not known.
    """
    query_forms = _one_each(query_forms, queries, "lines")
    known_forms = _one_each(known_forms, known, "known lines")
    names, member = np.unique(known_forms, return_inverse=True)
    if len(names) < 2:
        raise HwdiffError(f"style: {len(names)} known forms; at least 2 are needed to tell them apart")
    missing = np.setdiff1d(query_forms, names)
    if len(missing):
        raise HwdiffError(
            f"style: no known lines of the form {missing[0]}; give some of each form that is asked for"
        )
    likeness = _unit(queries) @ _unit(_means(known, member, len(names))).T
    right = likeness[np.arange(len(queries)), np.searchsorted(names, query_forms)]
    # A form that is just as like counts before the right one, so that a tie is no success.
    return (likeness >= right[:, None]).sum(axis=1)


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
