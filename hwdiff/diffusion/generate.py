"""From texts to ink: what `hwdiff.sample` and `hwdiff write` do."""

import warnings
from pathlib import Path

import numpy as np
import torch

from hwdiff.data import tokenizer
from hwdiff.data.batches import FULL_LENGTH
from hwdiff.diffusion.samplers import SAMPLERS, guided, levels
from hwdiff.diffusion.style_gallery import load_styles
from hwdiff.ink.ink import Ink
from hwdiff.model.unet import LENGTH_UNIT
from hwdiff.utils.errors import HwdiffError

# How a model writes where nothing else is asked for; one whose header has "writing" may have other values.
# 16 points a character are room for nearly all hands: people take 10.8 in the middle, one in fifty more than 16.
WRITING = {"guidance": 1.0, "points_per_character": 16.0}
MIN_POINTS = 10  # a character, in lines that would have more points than any line of the training
MAX_BATCH = 64
TRAINED_TOKENS = 50


@torch.inference_mode()
def sample(
    network,
    texts,
    style=None,
    sampler="eq12",
    steps=None,
    seed=0,
    length=None,
    style_extractor="bundled",
    end_tokens=1,
    padded_style=True,
    callback=None,
    guidance=None,
):
    """Write texts by hand.

    network: from `load_model`.   texts: a list of strings, or one.
    style: the name of one of `styles.load_styles()`, an image of a line in the hand to write in (path, PIL image or uint8 array), features
    (S, 1280), or (len(texts), S, 1280) for one hand a text; None for the model's default.
    sampler: "eq12", "eq9", "ddim", "dpm" or "fast", or a function like those in `samplers`.
    steps: network calls, or the signal levels to go through, (T + 1,) as `samplers.schedule` gives them; by default 60, fewer for "fast".
    seed: text i is written with seed + i; its ink depends on that, the text, the style and its length alone.
    length: points to write, a multiple of 8; by default `default_length`.
    style_extractor: for style images, the `StyleExtractor` of the training or what `load_style_extractor` takes.
    guidance: how closely the text is followed, see `samplers.guided`; 1 for the plain method, None for what the model is best at.
    end_tokens=2, padded_style=False: as in the authors' released inference.   callback(t, y, pen_up, attention): see `samplers`.
    Returns a list of `Ink`. Warns of characters that the alphabet lacks.
    Raises HwdiffError for a text in which nothing can be written, an unknown sampler, or a style that cannot be used.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    for text in texts:
        check_text(text)
    if not 0 <= seed < 2**63 - len(texts):
        raise HwdiffError(f"seed = {seed}: must be between 0 and 2^63 - 1")
    if isinstance(steps, int) and steps < 1:
        raise HwdiffError(f"steps = {steps}: must be at least 1")
    alpha_bar = (steps if isinstance(steps, torch.Tensor) else levels(sampler, steps)).to(torch.float32)
    if length is not None and (length < LENGTH_UNIT or length % LENGTH_UNIT):
        raise HwdiffError(f"length = {length}: must be a positive multiple of {LENGTH_UNIT}")
    if not callable(sampler) and sampler not in SAMPLERS:
        raise HwdiffError(f"sampler: no such sampler as {sampler!r}; choose one of {', '.join(SAMPLERS)}")
    step_through = sampler if callable(sampler) else SAMPLERS[sampler]
    settings = writing_settings(network)
    guidance = settings["guidance"] if guidance is None else guidance
    if not 0 <= guidance < 100:
        raise HwdiffError(f"guidance = {guidance}: must be at least 0 and below 100")
    device = next(network.parameters()).device
    styles = style_features(network, style, len(texts), style_extractor, padded_style)
    tokens = [tokenizer.encode(text, end_tokens) for text in texts]
    lengths = [length or default_length(text, settings["points_per_character"]) for text in texts]
    predict = guided(network, guidance)
    inks = [None] * len(texts)
    # Points that pad a line would be seen by the others (self-attention has no mask), so only lines of one length share a batch.
    for batch_length in sorted(set(lengths)):
        alike = [i for i in range(len(texts)) if lengths[i] == batch_length]
        for batch in (alike[start : start + MAX_BATCH] for start in range(0, len(alike), MAX_BATCH)):
            noise = seeded_noise([seed + i for i in batch], batch_length, device)
            text = torch.from_numpy(tokenizer.pad([tokens[i] for i in batch])).to(device)
            offsets, pen_up = step_through(predict, noise(None), text, styles[batch].to(device), alpha_bar, noise, callback=callback)
            for i, line_offsets, line_pen_up in zip(batch, offsets.cpu().numpy(), pen_up.cpu().numpy(), strict=True):
                inks[i] = Ink(line_offsets, line_pen_up[:, 0] > 0.5, texts[i]).trimmed()
    return inks


def writing_settings(network):
    """How the model of `network` writes where nothing else is asked for: {"guidance": ..., "points_per_character": ...}."""
    return {**WRITING, **network.metadata.get("writing", {})}


def default_length(text, points_per_character):
    """The points that `text` is given, a multiple of 8. The model is trained on lines of at most 488, and more are given to long texts only."""
    points = max(min(points_per_character * len(text), FULL_LENGTH), MIN_POINTS * len(text))
    return int(-(-points // LENGTH_UNIT) * LENGTH_UNIT)


def seeded_noise(seeds, length, device):
    """A noise source: each call gives (len(seeds), length, 2) standard normal draws, row by row from generators of their own.

    They are drawn on the CPU, so that a GPU writes the same ink.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def noise(t):
        return torch.stack([torch.randn(length, 2, generator=generator) for generator in generators]).to(device)

    return noise


def check_text(text):
    """Warn of the characters of `text` that the alphabet lacks. Raises HwdiffError when nothing in it can be written."""
    unknown = tokenizer.unknown_characters(text)
    if not any(character not in unknown and character != " " for character in text):
        raise HwdiffError(f"text {text!r}: nothing in it can be written; the alphabet is a-z A-Z 0-9 . ? ! , ' \" - and blank")
    if unknown:
        warnings.warn(f"text {text!r}: the model cannot write {' '.join(map(repr, unknown))}; it will leave a gap or guess", stacklevel=3)
    if len(text) + 1 >= TRAINED_TOKENS:
        warnings.warn(f"text of {len(text)} characters: the model was trained on fewer than {TRAINED_TOKENS - 1}; break it into lines", stacklevel=3)


def style_features(network, style, count, style_extractor="bundled", padded=True):
    """Style features (count, S, 1280) from whatever `sample` takes as style.

    Raises HwdiffError when they cannot be had, or the extractor's weights are not those that the model was trained with.
    """
    if style is None:
        features = network.default_style
        if features is None:
            raise HwdiffError("style: this model has no default style; give an image of a line of handwriting")
    elif isinstance(style, torch.Tensor) or (isinstance(style, np.ndarray) and style.shape[-1] == 1280 and style.dtype.kind == "f"):
        features = torch.as_tensor(style)
    elif isinstance(style, str) and not Path(style).suffix and not Path(style).exists():
        styles = load_styles()
        require_style_weights(network, styles.metadata["style_weights"])
        features = styles[style]
    else:
        from hwdiff.model.style_encoder import load_style_extractor  # torchvision takes seconds to load, and the model's own style needs none

        extractor = load_style_extractor(style_extractor) if isinstance(style_extractor, str) else style_extractor
        require_style_weights(network, extractor.identity)
        features = extractor.of_image(style, padded)
    features = features.float()
    if features.ndim == 2:
        features = features.expand(count, -1, -1)
    if features.ndim != 3 or features.shape[0] != count or features.shape[2] != 1280 or not features.shape[1] or not features.isfinite().all():
        raise HwdiffError(f"style: features of shape {tuple(features.shape)}; finite ones of shape (S, 1280) or ({count}, S, 1280) are needed")
    return features


def require_style_weights(network, given):
    """Raises HwdiffError when style features come from other weights than those that the model of `network` was trained on.

    given: the `StyleExtractor.identity` of those that they come from.
    """
    trained = network.metadata.get("style_weights")
    if not network.metadata and given["name"] == "hwdiff, distilled":
        warnings.warn("the authors' models were trained with ImageNet's features; give Keras's weights with --style-encoder FILE", stacklevel=4)
    elif not network.metadata and given["padding"] != "right-bottom":
        warnings.warn("the authors' models were trained with Keras's style weights, which pad right and bottom; these pad both sides", stacklevel=4)
    if trained and trained["fingerprint"] != given["fingerprint"]:
        raise HwdiffError(
            f"style weights: {given['name']} ({given['fingerprint'][:8]}), but the model was trained with {trained['name']} "
            f"({trained['fingerprint'][:8]}); give those with --style-encoder"
        )
