"""From texts to ink: what `hwdiff.sample` and `hwdiff write` do."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from hwdiff.data import tokenizer
from hwdiff.data.batches import FULL_LENGTH
from hwdiff.diffusion.samplers import Callback, NoiseSource, Sampler, find_sampler, guided
from hwdiff.diffusion.style_gallery import load_styles
from hwdiff.ink.ink import Ink
from hwdiff.model.unet import LENGTH_UNIT, UNet
from hwdiff.utils.errors import HwdiffError

# How a model writes where nothing else is asked for. One whose metadata has "writing" may have other values.
# 16 points a character are room for nearly all writers: the median is 10.8, and one in fifty takes more than 16.
WRITING = {"guidance": 1.0, "points_per_character": 16.0}
MIN_POINTS = 10  # a character, in lines that would have more points than any line of the training
BATCH_SIZE = 64
TRAINED_TOKENS = 50


@torch.inference_mode()
def sample(
    network: UNet,
    texts: str | Sequence[str],
    style: str | Path | Image | np.ndarray | Tensor | None = None,
    *,
    sampler: str | Sampler = "eq12",
    steps: int | None = None,
    alpha_bar: Tensor | None = None,
    seed: int = 0,
    guidance: float | None = None,
    length: int | None = None,
    style_extractor="bundled",
    end_tokens: int = 1,
    padded_style: bool = True,
    callback: Callback | None = None,
) -> list[Ink]:
    """Write texts by hand.

    network: from `load_model`.   texts: a list of strings, or one.
    style: the name of one of `load_styles()`; an image of a line in the handwriting to imitate (path, PIL image or uint8
        array); features (S, 1280), or (len(texts), S, 1280) for one style a text; None for the model's default.
    sampler: the name of one of `samplers.SAMPLERS`, or a function like those in `samplers`.
    steps: how many; by default the sampler's, 60 or fewer. A step is one network evaluation, with guidance two.
    alpha_bar: (T + 1,) the signal levels to go through, instead of the sampler's own for `steps`.
    seed: text i is written with seed + i. Its ink depends on that, the text, the style and its length alone.
    guidance: how closely the text is followed, see `samplers.guided`; 1 is the paper's method, None what the model's
        metadata says.
    length: points to write, a multiple of 8; by default `default_length`.
    style_extractor: for style images, the `StyleExtractor` of the training or what `load_style_extractor` takes.
    end_tokens=2, padded_style=False: as in the authors' released inference.
    Warns of characters that the alphabet lacks. Raises HwdiffError for a text in which nothing can be written, an unknown
    sampler, or a style that cannot be used.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    for text in texts:
        check_text(text)
    if not 0 <= seed < 2**63 - len(texts):
        raise HwdiffError(f"seed = {seed}: must be between 0 and 2^63 - 1")
    if isinstance(steps, Tensor):  # TEMPORARY
        steps, alpha_bar = None, steps
    if steps is not None and alpha_bar is not None:
        raise HwdiffError("steps, alpha_bar: give one of them")
    if length is not None and (length < LENGTH_UNIT or length % LENGTH_UNIT):
        raise HwdiffError(f"length = {length}: must be a positive multiple of {LENGTH_UNIT}")
    chosen, settings = find_sampler(sampler), writing_settings(network)
    alpha_bar = (chosen.alpha_bar(steps) if alpha_bar is None else alpha_bar).to(torch.float32)
    guidance = settings["guidance"] if guidance is None else guidance
    if not 0 <= guidance < 100:
        raise HwdiffError(f"guidance = {guidance}: must be at least 0 and below 100")
    device = next(network.parameters()).device
    styles = style_features(network, style, len(texts), style_extractor, padded_style)
    tokens = [tokenizer.encode(text, end_tokens) for text in texts]
    lengths = [length or default_length(text, settings["points_per_character"]) for text in texts]
    predict = guided(network, guidance)
    inks = [None] * len(texts)
    # Points that pad a line would be seen by the others (self-attention has no mask): a batch has lines of one length.
    for batch_length in sorted(set(lengths)):
        alike = [i for i in range(len(texts)) if lengths[i] == batch_length]
        for batch in (alike[start : start + BATCH_SIZE] for start in range(0, len(alike), BATCH_SIZE)):
            noise = seeded_noise([seed + i for i in batch], batch_length, device)
            text = torch.from_numpy(tokenizer.pad([tokens[i] for i in batch])).to(device)
            style = styles[batch].to(device)
            offsets, pen_up = chosen.sampler(
                predict, noise(None), text, style, alpha_bar, noise, callback=callback
            )
            for i, line_offsets, line_pen_up in zip(
                batch, offsets.cpu().numpy(), pen_up.cpu().numpy(), strict=True
            ):
                inks[i] = Ink(line_offsets, line_pen_up[:, 0] > 0.5, texts[i]).trimmed()
    return inks


def writing_settings(network: UNet) -> dict[str, float]:
    """How a model writes where nothing else is asked for: {"guidance": ..., "points_per_character": ...}."""
    return {**WRITING, **network.metadata.get("writing", {})}


def default_length(text: str, points_per_character: float) -> int:
    """The points that `text` is given, a multiple of 8.

    Networks are trained on lines of at most 488. Only long texts are given more.
    """
    points = max(min(points_per_character * len(text), FULL_LENGTH), MIN_POINTS * len(text))
    return int(-(-points // LENGTH_UNIT) * LENGTH_UNIT)


def seeded_noise(seeds: Sequence[int], length: int, device: torch.device) -> NoiseSource:
    """A noise source of (len(seeds), length, 2): each row comes from a generator of its own.

    They are drawn on the CPU, so that a GPU writes the same ink.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def noise(t):
        return torch.stack([torch.randn(length, 2, generator=generator) for generator in generators]).to(
            device
        )

    return noise


def check_text(text: str) -> None:
    """Warn of characters of `text` that the alphabet lacks. Raises HwdiffError when nothing in it can be written."""
    unknown = tokenizer.unknown_characters(text)
    if not any(character not in unknown and character != " " for character in text):
        raise HwdiffError(
            f"text {text!r}: nothing in it can be written; the alphabet is a-z A-Z 0-9 . ? ! , ' \" - and space"
        )
    if unknown:
        warnings.warn(
            f"text {text!r}: the model cannot write {' '.join(map(repr, unknown))}; it will leave a gap or guess",
            stacklevel=3,
        )
    if len(text) + 1 >= TRAINED_TOKENS:
        warnings.warn(
            f"text of {len(text)} characters: the model was trained on fewer than {TRAINED_TOKENS - 1}; break it into lines",
            stacklevel=3,
        )


def style_features(
    network: UNet, style, count: int, style_extractor="bundled", padded: bool = True
) -> Tensor:
    """Style features (count, S, 1280) from whatever `sample` takes as style.

    Raises HwdiffError when there are none, or the extractor's weights are not those that the model was trained with.
    """
    if style is None:
        features = network.default_style
        if features is None:
            raise HwdiffError(
                "style: this model has no default style; give an image of a line of handwriting"
            )
    elif isinstance(style, torch.Tensor) or (
        isinstance(style, np.ndarray) and style.shape[-1] == 1280 and style.dtype.kind == "f"
    ):
        features = torch.as_tensor(style)
    elif isinstance(style, str) and not Path(style).suffix and not Path(style).exists():
        styles = load_styles()
        require_style_weights(network, styles.metadata["style_weights"])
        features = styles[style]
    else:
        from hwdiff.model.style_encoder import (
            load_style_extractor,
        )  # torchvision takes seconds to load, and the model's own style needs none

        extractor = (
            load_style_extractor(style_extractor) if isinstance(style_extractor, str) else style_extractor
        )
        require_style_weights(network, extractor.identity)
        features = extractor.of_image(style, padded)
    features = features.float()
    if features.ndim == 2:
        features = features.expand(count, -1, -1)
    if (
        features.ndim != 3
        or features.shape[0] != count
        or features.shape[2] != 1280
        or not features.shape[1]
        or not features.isfinite().all()
    ):
        raise HwdiffError(
            f"style: features of shape {tuple(features.shape)}; finite ones of shape (S, 1280) or ({count}, S, 1280) are needed"
        )
    return features


def require_style_weights(network: UNet, given: dict) -> None:
    """Raises HwdiffError when style features come from other weights than those that the model of `network` was trained on.

    given: the `StyleExtractor.identity` of those that they come from.
    """
    trained = network.metadata.get("style_weights")
    if not network.metadata and given["name"] == "hwdiff, distilled":
        warnings.warn(
            "the authors' models were trained with ImageNet's features; give Keras's weights with --style-encoder FILE",
            stacklevel=4,
        )
    elif not network.metadata and given["padding"] != "right-bottom":
        warnings.warn(
            "the authors' models were trained with Keras's style weights, which pad right and bottom; these pad both sides",
            stacklevel=4,
        )
    if trained and trained["fingerprint"] != given["fingerprint"]:
        raise HwdiffError(
            f"style weights: {given['name']} ({given['fingerprint'][:8]}), but the model was trained with {trained['name']} "
            f"({trained['fingerprint'][:8]}); give those with --style-encoder"
        )
