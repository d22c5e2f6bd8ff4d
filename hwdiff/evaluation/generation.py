"""A dataset's lines written anew by a model: the same texts, in the styles of the same hands, to be set against the real ones."""

import warnings

import numpy as np

from hwdiff.data.dataset import style_lines
from hwdiff.diffusion.generate import require_style_weights, sample
from hwdiff.utils.errors import HwdiffError


def subsample_lines(dataset, split, count=None):
    """Numbers of lines of a split, evenly spread over it: all, or at most `count`. Raises HwdiffError when the split is empty."""
    indices = dataset.split(split)
    if not len(indices):
        raise HwdiffError(f"{dataset.path}: has no lines in the split {split}")
    if count is not None and count < len(indices):
        indices = indices[np.linspace(0, len(indices) - 1, count).round().astype(int)]
    return indices


def styles_of(network, dataset, features, indices):
    """The styles that the lines `indices` (n,) of a dataset are written in, those of other lines of their forms: (n, 14, 1280) float32.

    features: `StyleFeatures` of the dataset.
    Raises HwdiffError when they come from other weights than those that the model was trained with.
    """
    require_style_weights(network, features.extractor.identity)
    return features[style_lines(dataset.forms)[indices]]


def regenerate_lines(network, dataset, features, indices, seed=0, **options):
    """The lines `indices` (n,) of a dataset as the model writes them: a list of `Ink`.

    seed: line i is written with seed + i.   options: of `sample`.   The rest as in `styles_of`.
    Of characters that the alphabet lacks nothing is said: people wrote these texts.
    """
    styles = styles_of(network, dataset, features, indices)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="text .*")
        return sample(network, [str(text) for text in dataset.texts[indices]], style=styles, seed=seed, **options)
