"""Picture features by the Inception network of FID, with the weights that pytorch-fid publishes."""

import pickle
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from pytorch_fid import inception as fid
from torch import Tensor, nn
from torch.hub import load_state_dict_from_url

from hwdiff.evaluation.pictures import as_pictures, resize
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import sha256_of

INCEPTION_URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
FID_ADVICE = f"for FID give --inception-weights download, or a FILE fetched from {INCEPTION_URL}"
SIZE = 299  # of the network's pictures, in pixels
BATCH_SIZE = 32


class FidInception(nn.Module):
    """Inception v3 as FID uses it, from the picture to the last pooling.

    state: the weights of pytorch-fid's file, those of the classifier with them.
    """

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        # torchvision's network, but for the blocks that are others in TensorFlow's. pytorch-fid makes it
        # likewise, but cannot be given weights.
        network = fid._inception_v3(num_classes=1008, aux_logits=False, weights=None)
        network.Mixed_5b = fid.FIDInceptionA(192, pool_features=32)
        network.Mixed_5c = fid.FIDInceptionA(256, pool_features=64)
        network.Mixed_5d = fid.FIDInceptionA(288, pool_features=64)
        network.Mixed_6b = fid.FIDInceptionC(768, channels_7x7=128)
        network.Mixed_6c = fid.FIDInceptionC(768, channels_7x7=160)
        network.Mixed_6d = fid.FIDInceptionC(768, channels_7x7=160)
        network.Mixed_6e = fid.FIDInceptionC(768, channels_7x7=192)
        network.Mixed_7b = fid.FIDInceptionE_1(1280)
        network.Mixed_7c = fid.FIDInceptionE_2(2048)
        network.load_state_dict(state)
        network.fc = nn.Identity()  # the features are what the classifier sees
        self.network = network.requires_grad_(False)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (B, 3, 299, 299) from 0 to 1. Returns (B, 2048)."""
        return self.network(2 * pixels - 1)


def load_inception(weights: str | Path | None = None, device: str | torch.device = "cpu") -> FidInception:
    """The Inception network of FID, in eval mode.

    weights: a file with pytorch-fid's weights; None to download them.
    Raises HwdiffError when the weights are not available, or are others.
    """
    return FidInception(_download() if weights is None else _read(weights)).to(device)


def _download():
    try:
        return load_state_dict_from_url(INCEPTION_URL, map_location="cpu", check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise HwdiffError(
            f"FID: its weights cannot be downloaded ({error}); {FID_ADVICE}; "
            "or do without, on MobileNetV2 features"
        ) from error


def _read(path):
    wanted = re.search(r"-([0-9a-f]{8,})\.", INCEPTION_URL)[1]
    found = sha256_of(path)[: len(wanted)]
    if found != wanted:
        raise HwdiffError(
            f"{path}: not the weights of FID (their SHA-256 begins with {wanted}, this file's with {found}); "
            f"{FID_ADVICE}"
        )
    return torch.load(Path(path), map_location="cpu", weights_only=True)


def inception_features(
    pictures: Iterable[np.ndarray],
    network: FidInception,
) -> np.ndarray:
    """Features of pictures (n, H, W) uint8, resized to 299 x 299 with antialiasing.

    network: from `load_inception`.
    Returns (n, 2048) float64.
    """
    pictures, device, found = as_pictures(pictures), next(network.parameters()).device, []
    for start in range(0, len(pictures), BATCH_SIZE):
        batch = np.stack([resize(picture, SIZE, SIZE) for picture in pictures[start : start + BATCH_SIZE]])
        pixels = torch.from_numpy(batch).to(device)[:, None].expand(-1, 3, -1, -1) / 255
        with torch.inference_mode():
            found.append(network(pixels).double().cpu().numpy())
    return np.concatenate(found)
