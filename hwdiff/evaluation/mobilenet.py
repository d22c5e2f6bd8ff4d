"""Picture features by MobileNetV2, for where the weights of FID are not at hand."""

from collections.abc import Iterable

import numpy as np
import torch

from hwdiff.evaluation.pictures import as_pictures, resize
from hwdiff.ink import images
from hwdiff.model.style_encoder import StyleExtractor


def mobilenet_features(
    pictures: Iterable[np.ndarray],
    extractor: StyleExtractor,
) -> np.ndarray:
    """The mean over the columns of the style features of pictures (n, H, W) uint8.

    Pictures are resized to height 96 with antialiasing, and padded with white or cut to a width of 1400.
    Returns (n, 1280) float64.
    """
    pictures, found = as_pictures(pictures), []
    for start in range(0, len(pictures), extractor.batch_size):
        batch = np.stack([_line_image(picture) for picture in pictures[start : start + extractor.batch_size]])
        with torch.inference_mode():
            features = extractor(torch.from_numpy(batch).to(extractor.device)).mean(dim=1)
        found.append(features.double().cpu().numpy())
    return np.concatenate(found)


def _line_image(picture):
    resized = resize(picture, images.scaled_width(picture.shape), images.HEIGHT)
    return images.pad_to_width(resized[:, : images.MAX_WIDTH])
