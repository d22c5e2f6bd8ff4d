"""From texts to ink: what `hwdiff.sample` and `hwdiff write` do."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor

from hwdiff.data import tokenizer
from hwdiff.data.characters import Spelling, spell
from hwdiff.data.lines import MAX_POINTS, MAX_TOKENS
from hwdiff.diffusion.accents import draw_accents
from hwdiff.diffusion.alignment import alignment_of, is_late
from hwdiff.diffusion.samplers import (
    Callback,
    NoiseSource,
    Sampler,
    Step,
    find_sampler,
    guided,
    published_levels,
    schedule,
)
from hwdiff.diffusion.style_gallery import Styles, load_styles, mixed
from hwdiff.ink.images import ImageSource
from hwdiff.ink.ink import Ink
from hwdiff.model.config import DISTILLED, RIGHT_BOTTOM, STYLE_FEATURES
from hwdiff.model.unet import LENGTH_UNIT, UNet
from hwdiff.utils.errors import HwdiffError

# How a model writes by default, unless its metadata has other values under "writing". 16 points a character
# are enough for nearly all: of IAM's lines the median is 10.8, and 2.6 % have more than 16.
WRITING = {"guidance": 1.0, "points_per_character": 16.0}
# Per character, once a text needs more points than any line of the training has, or the model's own if fewer.
MIN_POINTS = 10
LEAST_POINTS = 32  # of a line in training, with its padding (`batches.BUCKET_UNIT`)
BATCH_SIZE = 64
MAX_NAMED = 10  # characters that cannot be written
_WARNED_OF = WeakSet()  # networks whose guidance, or a student's other steps, were warned of


class TextWarning(UserWarning):
    """What of a text is written otherwise than given, or not at all."""


@contextmanager
def no_text_warnings() -> Iterator[None]:
    """Within it nothing warns of a text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TextWarning)
        yield


class ImageExtractor(Protocol):
    """What gives the style features of an image; see `model.style_encoder.StyleExtractor`."""

    identity: dict[str, str]

    def of_image(self, source: ImageSource, padded: bool = True) -> Tensor: ...


def sample(
    network: UNet,
    texts: str | Sequence[str],
    style: ImageSource | Tensor | dict[str, float] | None = None,
    *,
    sampler: str | Sampler = "eq12",
    steps: int | None = None,
    alpha_bar: Tensor | None = None,
    seed: int | Sequence[int] = 0,
    guidance: float | None = None,
    style_guidance: float = 1.0,
    length: int | None = None,
    style_extractor: str | ImageExtractor = "bundled",
    end_tokens: int = 1,
    padded_style: bool = True,
    callback: Callback | None = None,
) -> list[Ink]:
    """Write texts as handwriting.

    network: from `load_model`.
    texts: a list of strings, or one.
    style: the name of one of `named_styles`; an image of a line of handwriting to imitate (a path, a PIL
        image or a uint8 array); features (S, 1280), or (len(texts), S, 1280) for a style for each text;
        several names and paths with weights, {"ada": 0.7, "line.png": 0.3}; None for the model's default.
    sampler: the name of one of `samplers.SAMPLERS`, or a function like those in `samplers`.
    steps: by default the paper's 60; for eq12 and a network of `training.step_distillation`, that network's
        own. A step is one network evaluation, with guidance two.
    alpha_bar: (T + 1,) signal levels, instead of `signal_levels`.
    seed: text i is written with seed + i; or the seeds of all texts. Its ink depends on its seed, the text,
        the style and its length alone; with a callback, or on a processor that rounds otherwise, a letter may
        differ.
    guidance: how closely to follow the text, see `samplers.guided`. 1 is the paper's method; None is what the
        model's metadata says.
    style_guidance: guidance by the style, in the same way. 1 is the paper's method.
    length: points to write, a multiple of 8; by default `default_length`.
    style_extractor: for style images, the `StyleExtractor` of the training, or its name or path for
        `load_style_extractor`.
    end_tokens: after each text; 2 as in the authors' released inference.
    padded_style: pad style images to 1400 pixels; False as in the authors' released inference.
    callback: called at each step of each batch, see `samplers.Step`.
    Returns an `Ink` for each text; accents that the alphabet lacks are drawn over their letters. Warns of
    characters that are written otherwise than given, or not at all.
    Raises HwdiffError for a text in which nothing can be written, an unknown sampler, or a style that cannot
    be used.
    """
    # Check the arguments, and fill in the defaults.
    texts = [texts] if isinstance(texts, str) else list(texts)
    spellings = [spell(text) for text in texts]
    for text, spelling in zip(texts, spellings, strict=True):
        check_text(text, spelling)
        if len(spelling.text) + 1 >= MAX_TOKENS:
            found = f"the model was trained on fewer than {MAX_TOKENS - 1}"
            advice = "break it into lines, as hwdiff write --file does"
            message = f"text of {len(spelling.text)} characters: {found}; {advice}"
            warnings.warn(message, TextWarning, stacklevel=2)
    settings = writing_settings(network)
    guidance = settings["guidance"] if guidance is None else guidance
    if steps is not None and alpha_bar is not None:
        raise HwdiffError("steps, alpha_bar: give one of them")
    counted = isinstance(seed, Integral)
    seeds = [int(seed) + i for i in range(len(texts))] if counted else list(map(int, seed))
    _check_numbers(len(texts), seeds, length, guidance, style_guidance, end_tokens)
    denoise = find_sampler(sampler)
    alpha_bar = (signal_levels(network, sampler, steps) if alpha_bar is None else alpha_bar).to(torch.float32)
    if len(alpha_bar) < 2:
        raise HwdiffError(f"alpha_bar: {len(alpha_bar)} signal levels; at least two are needed, for one step")
    _check_student(network, sampler, alpha_bar, guidance, style_guidance)
    _check_guidance(network, guidance, style_guidance)

    # Prepare what the network sees.
    styles = style_features(network, style, len(texts), style_extractor=style_extractor, padded=padded_style)
    tokens = [tokenizer.encode(spelling.text, end_tokens) for spelling in spellings]
    points = settings["points_per_character"]
    lengths = [length or default_length(spelling.text, points) for spelling in spellings]
    predict, device = guided(network, guidance, style_guidance), next(network.parameters()).device

    # Write, batch by batch.
    inks = [None] * len(texts)
    # Lines of one length in points and tokens, alike in whether the attention is looked at: without padding,
    # and computed in one way, a line comes out the same in any batch.
    kinds = [(lengths[i], len(tokens[i]), bool(spellings[i].accents)) for i in range(len(texts))]
    for batch in _batches(kinds):
        noise = seeded_noise([seeds[i] for i in batch], lengths[batch[0]], device)
        text = torch.from_numpy(np.stack([tokens[i] for i in batch])).to(device)
        arguments = (noise(None), text, styles[batch].to(device), alpha_bar, noise)
        seen = _LateAttention(callback)
        accented = bool(spellings[batch[0]].accents)
        with torch.inference_mode():
            offsets, pen_up = denoise(predict, *arguments, callback=seen if accented else callback)
        offsets, pen_up = offsets.cpu().numpy(), pen_up.cpu().numpy()[..., 0] > 0.5
        for row, i in enumerate(batch):
            ink = Ink(offsets[row], pen_up[row], spellings[i].text).trimmed()
            if spellings[i].accents and len(ink):
                aligned = alignment_of(ink, seen.weights[row].numpy(), lengths[i])
                ink = draw_accents(ink, aligned, spellings[i].accents)
            inks[i] = replace(ink, text=spellings[i].shown)
    return inks


class _LateAttention:
    """A callback that adds up the last block's attention over the later half of the steps.

    weights: (B, heads, M, L).
    """

    def __init__(self, callback: Callback | None):
        self.callback, self.weights, self.first = callback, 0, None

    def __call__(self, step: Step) -> None:
        self.first = self.first or step.t
        if is_late(step.t, self.first):
            self.weights = self.weights + step.attention[-1].cpu()
        if self.callback:
            self.callback(step)


def _check_numbers(count, seeds, length, guidance, style_guidance, end_tokens):
    """Raises HwdiffError when a number given to `sample` is out of its range. count: of the texts."""
    if len(seeds) != count:
        raise HwdiffError(f"seed: {len(seeds)} seeds for {count} texts; give one, or one for each text")
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise HwdiffError(f"seed = {seed}: must be between 0 and 2^63 - 1")
    if length is not None and (length < LENGTH_UNIT or length % LENGTH_UNIT):
        raise HwdiffError(f"length = {length}: must be a positive multiple of {LENGTH_UNIT}")
    for name, weight in (("guidance", guidance), ("style_guidance", style_guidance)):
        if not 0 <= weight < 100:
            raise HwdiffError(f"{name} = {weight}: must be at least 0 and below 100")
    if not 1 <= end_tokens <= 8:
        raise HwdiffError(f"end_tokens = {end_tokens}: must be between 1 and 8")


def _check_student(network, sampler, alpha_bar, guidance, style_guidance):
    """Warns, once of a network, when a student writes otherwise than it has learnt."""
    levels = writing_settings(network).get("levels")
    if levels is None or network in _WARNED_OF:
        return
    is_own = torch.equal(alpha_bar, published_levels(levels).to(alpha_bar))
    if sampler != "eq12" or not is_own or guidance != 1 or style_guidance != 1:
        _WARNED_OF.add(network)
        learnt = f"it has learnt to write by eq12 in its own {len(levels)} steps without guidance"
        warnings.warn(f"this network is a student: {learnt}; otherwise take its teacher", stacklevel=3)


def _check_guidance(network, guidance, style_guidance):
    """Warns, once of a network, when it is guided and was never trained without what guides it."""
    if network in _WARNED_OF:
        return
    training = network.metadata.get("training") or {}
    for name, weight, trained in (
        ("guidance", guidance, training.get("drop_text")),
        ("style_guidance", style_guidance, training.get("drop_style")),
    ):
        if weight != 1 and trained == 0:
            _WARNED_OF.add(network)
            found = "this network never saw lines without what it guides by"
            warnings.warn(f"{name} = {weight:g}: {found}; 1 is the paper's method", stacklevel=3)


def _batches(kinds: Sequence[tuple]) -> Iterator[list[int]]:
    """The indices of the lines of each batch, at most 64 lines of one kind.   kinds: of each line."""
    for kind in sorted(set(kinds)):
        alike = [i for i, other in enumerate(kinds) if other == kind]
        yield from (alike[start : start + BATCH_SIZE] for start in range(0, len(alike), BATCH_SIZE))


def writing_settings(network: UNet) -> dict[str, Any]:
    """How a model writes by default: {"guidance": ..., "points_per_character": ...}.

    After a distillation of steps there are "levels" too: the t of the noise levels that it visits.
    """
    return {**WRITING, **network.metadata.get("writing", {})}


def signal_levels(network: UNet, sampler: str | Sampler = "eq12", steps: int | None = None) -> Tensor:
    """The signal levels (T + 1,) that a network writes with.

    Those of `steps`; without, the published. For eq12 after a distillation of steps the network's own,
    without `steps` or with as many.
    """
    own = writing_settings(network).get("levels")
    if sampler == "eq12" and own is not None and steps in (None, len(own)):
        return published_levels(own)
    return schedule() if steps is None else schedule(steps)


def default_length(text: str, points_per_character: float) -> int:
    """The points to write for `text`, a multiple of 8.

    Networks are trained on 32 to 488 points. Only texts that need more get more.
    """
    least = min(points_per_character, MIN_POINTS)
    points = max(LEAST_POINTS, min(points_per_character * len(text), MAX_POINTS), least * len(text))
    return int(-(-points // LENGTH_UNIT) * LENGTH_UNIT)


def seeded_noise(seeds: Sequence[int], length: int, device: torch.device) -> NoiseSource:
    """A noise source of (len(seeds), length, 2), each row from a generator of its own.

    It is drawn on the CPU, so that a GPU writes the same ink.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def noise(t):
        like = {"dtype": torch.float32, "device": "cpu"}  # whatever the defaults are
        rows = [torch.randn(length, 2, generator=generator, **like) for generator in generators]
        return torch.stack(rows).to(device)

    return noise


def check_text(text: str, spelling: Spelling) -> None:
    """Warn of what in `text` is written otherwise than given, or not at all.

    Raises HwdiffError when nothing in it can be written.
    """
    name = f"text {text if len(text) < 60 else text[:50] + '...'!r}"
    if spelling.is_empty:
        alphabet = "a-z A-Z 0-9 . ? ! , ' \" - and space"
        raise HwdiffError(f"{name}: nothing in it can be written; the alphabet is {alphabet}")
    if spelling.accented:
        found = " ".join(spelling.accented)
        message = f"{name}: the accents of {found} are drawn over the model's letters"
        warnings.warn(message, TextWarning, stacklevel=3)
    if spelling.replaced:
        found = ", ".join(f"{plain} for {character}" for character, plain in spelling.replaced.items())
        warnings.warn(f"{name}: written with {found}", TextWarning, stacklevel=3)
    if spelling.unknown:
        found = f"the model cannot write {unwritable(text, spelling)}"
        warnings.warn(f"{name}: {found}; it will leave a gap or guess", TextWarning, stacklevel=3)


def unwritable(text: str, spelling: Spelling) -> str:
    """What in `text` cannot be written, and where: "'€' (character 3)"; in several lines with the line."""
    places, lines = [], text.count("\n")
    for place, character in spelling.unknown[:MAX_NAMED]:
        line, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
        where = f"line {line}, character {column}" if lines else f"character {column}"
        places.append(f"{character!r} ({where})")
    more = len(spelling.unknown) - MAX_NAMED
    return ", ".join(places) + (f" and {more} more" if more > 0 else "")


def style_features(
    network: UNet,
    style: ImageSource | Tensor | dict[str, float] | None,
    count: int,
    *,
    style_extractor: str | ImageExtractor = "bundled",
    padded: bool = True,
) -> Tensor:
    """Style features (count, S, 1280) from whatever `sample` takes as style.

    count: of the texts.
    style_extractor, padded: for images, as in `sample`.
    Raises HwdiffError when the style cannot be used, or comes from other style weights than the model was
    trained with.
    """
    if isinstance(style, dict):
        how = {"style_extractor": style_extractor, "padded": padded}
        parts = [style_features(network, one, 1, **how)[0] for one in style]
        return mixed(parts, list(style.values())).expand(count, -1, -1)
    is_array = isinstance(style, np.ndarray) and style.shape[-1] == STYLE_FEATURES and style.dtype.kind == "f"
    if style is None:
        features = network.default_style
        if features is None:
            advice = "give an image of a line of handwriting"
            raise HwdiffError(f"style: this model has no default style; {advice}")
    elif isinstance(style, Tensor) or is_array:
        features = torch.as_tensor(style)
    elif is_style_name(style):
        features = named_styles(network, "give a picture of handwriting and those weights")[style]
    else:
        # torchvision takes seconds to load, and only images need it.
        from hwdiff.model.style_encoder import load_style_extractor

        extractor = style_extractor
        if isinstance(extractor, str):
            extractor = load_style_extractor(extractor)
        require_style_weights(network, extractor.identity)
        features = extractor.of_image(style, padded)
    features = features.float()
    if features.ndim == 2:
        features = features.expand(count, -1, -1)
    fits = features.ndim == 3 and features.shape[0] == count and features.shape[2] == STYLE_FEATURES
    if not (fits and features.shape[1] and features.isfinite().all()):
        wanted = f"finite ones of shape (S, 1280) or ({count}, S, 1280) are needed"
        raise HwdiffError(f"style: features of shape {tuple(features.shape)}; {wanted}")
    return features


def is_style_name(style: object) -> bool:
    """Whether what is given as a style is the name of one, and no picture."""
    return isinstance(style, str) and not Path(style).suffix and not os.path.isfile(style)


def named_styles(network: UNet, advice: str = "") -> Styles:
    """The named styles of `network`: those that came with it, else those of `load_styles()`.

    advice: what to do without them.
    Raises HwdiffError when it was trained with other style weights than theirs.
    """
    styles = load_styles(network.gallery) if network.gallery else load_styles()
    advice = f"the named styles do not fit it{'; ' if advice else ''}{advice}"
    require_style_weights(network, styles.metadata["style_weights"], advice)
    return styles


def require_style_weights(
    network: UNet, given: dict[str, str], advice: str = "give those with --style-encoder"
) -> None:
    """Raises HwdiffError when style features come from other weights than `network` was trained with.

    given: the `StyleExtractor.identity` of the weights that they come from.
    advice: what the error says to do.
    """
    trained = network.metadata.get("style_weights")
    if not network.metadata and given["name"] == DISTILLED:
        warnings.warn(
            "the authors' models were trained with ImageNet's features; "
            "give Keras's weights with --style-encoder FILE",
            stacklevel=4,
        )
    elif not network.metadata and given["padding"] != RIGHT_BOTTOM:
        warnings.warn(
            "the authors' models were trained with Keras's style weights, "
            "which pad right and bottom; these pad both sides",
            stacklevel=4,
        )
    if trained and trained["fingerprint"] != given["fingerprint"]:
        ours, theirs = (f"{some['name']} ({some['fingerprint'][:8]})" for some in (given, trained))
        raise HwdiffError(f"style weights: {ours}, but the model was trained with {theirs}; {advice}")
