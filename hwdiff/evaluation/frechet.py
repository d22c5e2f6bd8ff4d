"""Distances between sets of images of lines: the Fréchet distance (Heusel et al. 2017) and the kernel distance (Bińkowski et al. 2018).

Only a Fréchet distance on the features of the standard Inception network may be called FID; on others it is named after them.
"""

import hashlib
import pickle
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch
from urllib.error import URLError

import numpy as np
import torch
from PIL import Image
from torch.hub import load_state_dict_from_url

from hwdiff.ink import images
from hwdiff.utils.errors import HwdiffError

KERNEL_SUBSETS, KERNEL_SUBSET = 100, 1000


@dataclass(frozen=True)
class Canvas:
    """What lines are drawn on for a distance of images, real and generated ones alike; the paper leaves the size open ("M x N").

    width, height: in pixels.   scale: pixels to a standard deviation of the offsets.   pen: its width in pixels.
    A line stands in the middle, its first letter at the left margin; ink beyond the edge is cut off.
    """

    width: int = 1200
    height: int = 120
    scale: float = 5.0
    pen: float = 2.0

    def draw(self, ink):
        """An `Ink` as (height, width) uint8, black on white; an empty one is blank."""
        strokes = [stroke * (self.scale, -self.scale) for stroke in ink.strokes()]
        if not strokes:
            return np.full((self.height, self.width), 255, dtype=np.uint8)
        points = np.concatenate(strokes)
        margin = 2 * self.pen
        shift = (margin - points[:, 0].min(), self.height / 2 - (points[:, 1].min() + points[:, 1].max()) / 2)
        return np.asarray(images.draw_strokes([stroke + shift for stroke in strokes], (self.height, self.width), self.pen))


INCEPTION_URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
FID_ADVICE = f"for FID give --inception-weights download, or a FILE fetched from {INCEPTION_URL}"


def as_pictures(pictures):
    """pictures as (n, H, W) uint8. Raises HwdiffError when there are none, or they are of several sizes, colours or other numbers."""
    pictures = list(pictures)
    kinds = {(np.shape(picture), str(np.asarray(picture).dtype)) for picture in pictures}
    if len(kinds) != 1 or [(len(shape), kind) for shape, kind in kinds] != [(2, "uint8")] or 0 in np.shape(pictures[0]):
        found = ", ".join(f"{shape} of {kind}" for shape, kind in sorted(kinds)) or "none"
        raise HwdiffError(f"pictures: {found}; at least one is needed, all of one size (H, W), in greys from 0 to 255 (uint8)")
    return np.stack(pictures)


def load_inception(weights=None, device="cpu"):
    """The Inception network of FID. weights: a file with pytorch-fid's weights; None to let it download them.

    Raises HwdiffError when the weights cannot be had, or are others.
    """
    from pytorch_fid import inception

    state = None
    if weights is not None:
        content = _read(weights)
        wanted = re.search(r"-([0-9a-f]{8,})\.", INCEPTION_URL)[1]
        if (found := hashlib.sha256(content).hexdigest()[: len(wanted)]) != wanted:
            raise HwdiffError(f"{weights}: not the weights of FID (their SHA-256 begins with {wanted}, this file's with {found}); {FID_ADVICE}")
        state = torch.load(Path(weights), map_location="cpu", weights_only=True)
    try:
        # pytorch-fid has no other way to be handed the weights.
        with patch.object(inception, "load_state_dict_from_url", partial(_given, state) if state else _download):
            network = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]], resize_input=False)
    except (URLError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise HwdiffError(f"FID: its weights cannot be downloaded ({error}); {FID_ADVICE}; or do without, on MobileNetV2 features") from error
    return network.to(device).eval()


def inception_features(pictures, network, progress=None):
    """Features of pictures (n, H, W) uint8 by the Inception network of FID: (n, 2048) float64.

    network: from `load_inception`. Pictures are resized to 299 x 299 with antialiasing.   progress(count): pictures done since the last call.
    """
    pictures, device, found = as_pictures(pictures), next(network.parameters()).device, []
    for start in range(0, len(pictures), 32):
        resized = np.stack([_resize(picture, 299, 299) for picture in pictures[start : start + 32]])
        with torch.inference_mode():
            pixels = torch.from_numpy(resized).to(device)[:, None].expand(-1, 3, -1, -1) / 255
            found.append(network(pixels)[0].flatten(1).double().cpu().numpy())
        if progress:
            progress(len(resized))
    return np.concatenate(found)


def mobilenet_features(pictures, extractor, progress=None):
    """Features of pictures (n, H, W) uint8 by MobileNetV2, the mean over the columns of style features: (n, 1280) float64. No FID comes of them.

    extractor: a `StyleExtractor`. Pictures are resized to height 96 with antialiasing, and padded with white or cut to a width of 1400.
    progress(count): pictures done since the last call.
    """
    pictures, batch_size, found = as_pictures(pictures), extractor.batch_size, []
    for start in range(0, len(pictures), batch_size):
        resized = [_resize(picture, images.scaled_width(picture.shape), images.HEIGHT) for picture in pictures[start : start + batch_size]]
        padded = np.stack([images.pad_to_width(picture[:, : images.MAX_WIDTH]) for picture in resized])
        with torch.inference_mode():
            found.append(extractor(torch.from_numpy(padded).to(extractor.device)).mean(dim=1).double().cpu().numpy())
        if progress:
            progress(len(padded))
    return np.concatenate(found)


def _resize(picture, width, height):
    # PIL's bilinear filter widens with the reduction, so that thin lines grey instead of vanishing.
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


def _download(url, *arguments, **options):
    return load_state_dict_from_url(url, *arguments, **{**options, "check_hash": True})


def _given(state, *arguments, **options):
    return state


def _read(path):
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise HwdiffError(f"{path}: cannot be read ({error.strerror}); give the file of pytorch-fid's Inception weights") from error


def as_features(features, name="features"):
    """features as (n, d) float64. Raises HwdiffError when they are not at least two rows of finite numbers."""
    features = np.asarray(features)
    if features.ndim != 2 or features.dtype.kind not in "fiu" or not features.shape[1]:
        raise HwdiffError(f"{name}: an array of shape {features.shape} and type {features.dtype}; numbers of shape (n, d) are needed")
    if len(features) < 2:
        raise HwdiffError(f"{name}: {len(features)} lines; at least 2 are needed for a distance")
    features = features.astype(np.float64)
    if not np.isfinite(features).all():
        raise HwdiffError(f"{name}: holds numbers that are not finite")
    return features


def _pair(first, second):
    first, second = as_features(first, "first set"), as_features(second, "second set")
    if first.shape[1] != second.shape[1]:
        raise HwdiffError(f"sets of different width: {first.shape[1]} and {second.shape[1]} features; compute both with the same network")
    return first, second


def frechet_distance(first, second):
    """Fréchet distance of two Gaussians with the means and covariances of features (n, d) and (m, d): Heusel et al. 2017, Eq. 6.

    The trace of the root of both covariances' product is the sum of the roots of the eigenvalues of a symmetric matrix,
    all in float64. With few lines it is biased upwards: compare only numbers of the same n and m.
    """
    first, second = _pair(first, second)
    mean = np.square(first.mean(axis=0) - second.mean(axis=0)).sum()
    roots = [_root(features) for features in (first, second)]
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return float(mean + sum(np.square(root).sum() for root in roots) - 2 * shared)


def _root(features):
    """R with R^T R the covariance of features (n, d): min(n, d) rows."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.linalg.qr(centred, mode="r") if len(centred) > centred.shape[1] else centred


def kernel_distance(first, second, subset=KERNEL_SUBSET, subsets=KERNEL_SUBSETS, seed=0):
    """Kernel distance (KID) of features (n, d) and (m, d): the squared maximum mean discrepancy, unbiased, with the kernel (x y / d + 1)^3.

    Over `subsets` pairs of random subsets of at most `subset` lines, as is usual; returns (mean, standard deviation).
    Where both sets are no larger than a subset there is but one pair, and the deviation is that of the jackknife over lines.
    """
    first, second = _pair(first, second)
    size = min(subset, len(first), len(second))
    generator = np.random.default_rng(seed)
    if size == len(first) == len(second):
        kernels = _kernels(first, second)
        left_out = [_discrepancy(*_without(kernels, number)) for number in range(size)] if size > 2 else [np.nan]
        return _discrepancy(*kernels), float(np.sqrt((size - 1) * np.var(left_out)))
    found = []
    for _ in range(subsets):
        some = [features[generator.choice(len(features), size, replace=False)] for features in (first, second)]
        found.append(_discrepancy(*_kernels(*some)))
    return float(np.mean(found)), float(np.std(found))


def _kernels(x, y):
    return tuple((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))


def _without(kernels, number):
    return tuple(np.delete(np.delete(kernel, number, axis=0), number, axis=1) for kernel in kernels)


def _discrepancy(xx, yy, xy):
    n = len(xx)
    return float(((xx.sum() - np.trace(xx)) + (yy.sum() - np.trace(yy))) / (n * (n - 1)) - 2 * xy.mean())
