"""Style features: MobileNetV2 on the image of a line (section 3.2 of Luhman & Luhman 2020)."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from hwdiff.ink import images
from hwdiff.model.config import BOTH_SIDES, RIGHT_BOTTOM
from hwdiff.utils.arrays import require_honest_size
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.json_values import require
from hwdiff.utils.tensors import NoInitialWeights, fingerprint_of, load_tensors

BUNDLED = Path(__file__).parents[1] / "weights" / "style-encoder.safetensors"


class StyleExtractor(nn.Module):
    """MobileNetV2 1.0 without its head, frozen: images of lines to features (B, 14, 1280).

    state_dict: `features.*` in torchvision's names.
    padding: where the convolutions of stride 2 pad, which belongs to the weights: "both" sides as in
        torchvision's, or "right-bottom" as in all that come from Keras.
    name: what the weights are called in manifests.
    """

    def __init__(self, state_dict: Mapping[str, Tensor], padding: str, name: str):
        super().__init__()
        with NoInitialWeights():
            self.features = mobilenet_v2(weights=None).features
        self.load_state_dict({key: value for key, value in state_dict.items() if key.startswith("features.")})
        self.name, self.padding = name, padding
        self.fingerprint = fingerprint_of(self.state_dict(), padding)
        self.requires_grad_(False)
        self.eval()
        fold_batch_norms(self.features)
        if padding == RIGHT_BOTTOM:
            turn_kernels(self.features)
        self.to(memory_format=torch.channels_last)  # a third faster on a CPU

    @property
    def identity(self) -> dict[str, str]:
        """What a checkpoint records of the encoder of its training: {"name", "padding", "fingerprint"}."""
        return {"name": self.name, "padding": self.padding, "fingerprint": self.fingerprint}

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    @property
    def batch_size(self) -> int:
        """How many images to give it at a time. On a CPU larger batches fall out of the cache."""
        return 64 if self.device.type == "cuda" else 2

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode: the network is frozen, its batch norms with it."""
        return super().train(False)

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Tensor:
        """Images to features.

        pixels: (B, 96, W) uint8, W = 1400 in training.
        Returns (B, S, 1280) float32, S about W / 96, 14 at a width of 1400.
        """
        return pool(self.turned(self.features(self.turned(grey_input(pixels)))))

    def turned(self, maps: Tensor) -> Tensor:
        """`maps` (B, C, H, W), the input of `features` or a layer's output, turned if the kernels are."""
        return maps.flip(2, 3) if self.padding == RIGHT_BOTTOM else maps

    def of_image(self, source: images.ImageSource, padded: bool = True) -> Tensor:
        """Features of a line image, a scan, or a photo of some lines (`photos.handwriting_lines`).

        source: see `images.ImageSource`. Of a line wider than 1400 pixels at height 96 only the beginning is
            used, with a warning. Of several lines the features are averaged.
        padded: pad the image to 1400 pixels. Without, as in the authors' released inference, a narrower one
            gives fewer columns, at least one.
        Returns (S, 1280) float32 on the CPU, S = 14 if padded.
        Raises HwdiffError when there is no ink.
        """
        # Imported here, since it takes a second and only a user's pictures need it.
        from hwdiff.ink.photos import handwriting_lines

        name = images.name_of(source)
        lines = [images.normalise(line, name) for line in handwriting_lines(source, name)]
        for number, line in enumerate(lines, start=1):
            if line.shape[1] > images.MAX_WIDTH:
                which = f"line {number} is " if len(lines) > 1 else ""
                found = f"{which}{line.shape[1]} pixels wide at height 96"
                warnings.warn(f"{name}: {found}; only the first {images.MAX_WIDTH} are used", stacklevel=2)
        lines = [line[:, : images.MAX_WIDTH] for line in lines]
        longest = max(line.shape[1] for line in lines)
        width = images.MAX_WIDTH if padded else max(longest, images.HEIGHT)
        features = [self.of_line(images.pad_to_width(line, width, name)) for line in lines]
        return torch.stack(features).mean(dim=0)

    def of_line(self, line: np.ndarray) -> Tensor:
        """Features of a line image as it is.

        line: (96, W) uint8.
        Returns (S, 1280) float32 on the CPU, S = 14 where it was padded to 1400 pixels.
        """
        return self(torch.from_numpy(line)[None].to(self.device))[0].cpu()


def _pad_right_bottom(convolution, arguments):
    """TensorFlow's "same" padding for stride 2 and width 3: right and bottom, on both sides of odd sizes."""
    height, width = arguments[0].shape[-2:]
    return F.pad(arguments[0], (width % 2, 1, height % 2, 1))


def set_padding(features: nn.Module, padding: str) -> None:
    """Set where the convolutions of stride 2 of MobileNetV2's `features` pad; in torchvision both sides."""
    for module in features.modules():
        if padding == RIGHT_BOTTOM and isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            module.padding = (0, 0)
            module.register_forward_pre_hook(_pad_right_bottom)


def turn_kernels(features: nn.Module) -> None:
    """Turn the kernels of MobileNetV2's `features` by 180 degrees, for images that are turned, too.

    Of padding on both sides of an even size, a convolution of stride 2 reaches only that on the left and
    above; turned back, that is the right and the bottom. So no map is copied to pad it, which took nearly
    half of the time on a CPU.
    """
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.flip(2, 3)


def grey_input(pixels: Tensor) -> Tensor:
    """What MobileNetV2 sees of pixels (B, 96, W): (B, 3, 96, W) float32 from -1 (ink) to 1 (paper)."""
    x = pixels.float().unsqueeze(1) / 127.5 - 1
    return x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def pool(maps: Tensor) -> Tensor:
    """Feature maps (B, 1280, 3, W / 32) to style features (B, W / 96, 1280)."""
    return F.avg_pool2d(maps, 3, stride=3).flatten(2).transpose(1, 2)


def fold_batch_norms(module: nn.Module) -> None:
    """Put each batch norm into the convolution before it: three times faster on a CPU."""
    for (name, layer), (next_name, next_layer) in pairwise(list(module.named_children())):
        if isinstance(layer, nn.Conv2d) and isinstance(next_layer, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(layer, next_layer))
            setattr(module, next_name, nn.Identity())
    for child in module.children():
        fold_batch_norms(child)


def load_style_extractor(
    weights: str | Path = "bundled", device: str | torch.device = "cpu"
) -> StyleExtractor:
    """Load a style encoder.

    weights: "bundled", the one that comes with the package, distilled from the ImageNet network
        (`hwdiff.training.distillation`); "imagenet", torchvision's IMAGENET1K_V1, which torchvision downloads
        once; or a file, `.safetensors` in torchvision's names (its metadata may say `padding`: "both" or
        "right-bottom") or torchvision's own `.pth`.
    Raises HwdiffError when the weights are not available or something else.
    """
    if weights == "imagenet":
        published = MobileNet_V2_Weights.IMAGENET1K_V1
        try:
            state = published.get_state_dict(progress=False, check_hash=True, weights_only=True)
            padding, name = BOTH_SIDES, "torchvision IMAGENET1K_V1"
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise HwdiffError(
                f"style encoder imagenet: {published.url} cannot be downloaded ({error}); "
                "use the bundled one (--style-encoder bundled), "
                "or fetch that file on another machine and give it with --style-encoder FILE"
            ) from error
    else:
        state, padding, name = _read_weights(BUNDLED if weights == "bundled" else weights)
    try:
        extractor = StyleExtractor(state, padding, name)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise HwdiffError(
            f"{weights}: not MobileNetV2 1.0 in torchvision's names ({reason}); "
            "give the weights of torchvision.models.mobilenet_v2"
        ) from error
    return extractor.to(device)


def _read_weights(path):
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as error:
        advice = "give the file of the MobileNetV2 weights"
        raise HwdiffError(f"{path}: cannot be read ({error.strerror}); {advice}") from error
    if start[8:9] == b"{":
        about = {"what": "safetensors file", "advice": "copy or download it again"}
        metadata, state = load_tensors(path, **about)
        wanted = {"padding?": str, "source?": str}
        require(metadata, wanted, name=path, what="weights with metadata in texts", advice=about["advice"])
        stated = metadata.get("padding", BOTH_SIDES)
        one_sided = "right" in stated and "bottom" in stated and "left" not in stated
        return state, RIGHT_BOTTOM if one_sided else BOTH_SIDES, metadata.get("source", Path(path).name)
    try:
        if zipfile.is_zipfile(path):
            require_honest_size(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here; what it advises for a pickle would run it
        raise HwdiffError(
            f"{path}: neither safetensors nor torchvision's weights file, and nothing in it was run; "
            "download it again"
        ) from error
    named = isinstance(state, dict) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        found = f"holds a {type(state).__name__}, not named weights"
        raise HwdiffError(f"{path}: {found}; give torchvision's mobilenet_v2 weights file")
    return state, BOTH_SIDES, "torchvision IMAGENET1K_V1"
