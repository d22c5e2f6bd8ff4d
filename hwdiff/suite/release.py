"""From a training run to the files that come with the package.

They are the weights in half precision, and a gallery of styles that the model drew itself.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from hwdiff.diffusion.generate import named_styles, require_style_weights, sample, writing_settings
from hwdiff.diffusion.style_gallery import save_styles
from hwdiff.diffusion.texts import PAGE_TEXTS, PAPER_TEXTS, STYLE_TEXT, TRIAL_TEXTS
from hwdiff.evaluation.error_rates import edits_of, legibility, recognize
from hwdiff.evaluation.recognizer import load_recognizer
from hwdiff.ink import images
from hwdiff.ink.ink import Ink
from hwdiff.ink.plot import plot_inks
from hwdiff.model.checkpoint import path_of_gallery, save_model
from hwdiff.model.style_encoder import StyleExtractor
from hwdiff.model.unet import UNet
from hwdiff.utils.errors import HwdiffError

NAMES = ("ada", "boris", "clara", "dmitri", "emil", "freya", "gita", "hugo", "ines", "jonas", "kira", "leo")
CANDIDATES = 60
LEGIBLE_FRACTION = 0.4  # of the candidates: the most legible, of which those that differ most are chosen


def drawn_styles(
    network: UNet,
    features: Tensor,
    extractor: StyleExtractor,
    *,
    text: str = STYLE_TEXT,
    seed: int = 0,
    **options,
) -> tuple[list[Ink], Tensor]:
    """Let a network write `text` in several styles, and take the style of what it wrote.

    features: (n, 14, 1280) of the styles to write in.
    extractor: the one that the network was trained with.
    options: of `sample`.
    Returns the inks and their styles (n, 14, 1280) float16.
    Raises HwdiffError when one holds nothing that could be drawn.
    """
    inks, styles = sample(network, [text] * len(features), style=features, seed=seed, **options), []
    for number, ink in enumerate(inks):
        try:
            styles.append(extractor.of_line(images.pad_to_width(ink.line_image())).half())
        except HwdiffError as error:
            raise HwdiffError(
                f"style {number}: nothing was written in it that could be drawn ({error}); "
                "choose another seed"
            ) from error
    return inks, torch.stack(styles)


def choose_styles(
    network: UNet,
    candidates: Tensor,
    names: Sequence[str],
    *,
    seed: int = 0,
    **options,
) -> dict[str, Tensor]:
    """Choose styles that write legibly and differ.

    The model writes `TRIAL_TEXTS` in each, and the fraction `LEGIBLE_FRACTION` with the lowest character
    error rates is kept. Of these the best is chosen first, and then always the one that is least like those
    chosen already (cosine of the mean over the columns). The first name goes to the chosen style with the
    lowest rate on `STYLE_TEXT` with seed 0: it becomes the model's default.

    candidates: (n, 14, 1280).
    names: of the styles to choose.
    options: of `sample`.
    Returns {name: (14, 1280)}.
    Raises HwdiffError when there are too few candidates.
    """
    if len(candidates) * LEGIBLE_FRACTION < len(names):
        raise HwdiffError(f"styles: {len(candidates)} candidates are too few for {len(names)} names")
    rates = _trial_rates(network, candidates, seed, options)
    left = np.argsort(rates, kind="stable")[: int(len(candidates) * LEGIBLE_FRACTION)].tolist()

    means = candidates.float().mean(dim=1)
    directions = F.normalize(means - candidates.float().mean(dim=(0, 1)), dim=1)
    chosen = [left.pop(0)]
    while len(chosen) < len(names):
        likeness = (directions[left] @ directions[chosen].T).max(dim=1).values
        chosen.append(left.pop(int(likeness.argmin())))

    shown = [sample(network, STYLE_TEXT, style=candidates[number], **options)[0] for number in chosen]
    edits, characters = edits_of(shown, _judge(network)).T
    first = int(np.argmin(edits / characters))
    chosen.insert(0, chosen.pop(first))
    return {name: candidates[number] for name, number in zip(names, chosen, strict=True)}


def _trial_rates(network, styles, seed, options):
    """The character error rates (n,) of `TRIAL_TEXTS` in styles (n, 14, 1280)."""
    texts = [text for _ in styles for text in TRIAL_TEXTS]
    repeated = styles.repeat_interleave(len(TRIAL_TEXTS), dim=0)
    inks = sample(network, texts, style=repeated, seed=seed, **options)
    edits, characters = edits_of(inks, _judge(network)).reshape(len(styles), -1, 2).sum(axis=1).T
    return edits / characters


def _is_teachers_default(network, style):
    is_student = "levels" in writing_settings(network)
    return is_student and network.default_style is not None and torch.equal(network.default_style, style)


def _judge(network):
    """The bundled recognizer, where `network` is."""
    return load_recognizer(device=next(network.parameters()).device)


def release(
    network: UNet,
    name: str,
    out: str | Path,
    writing: dict[str, float],
    *,
    features: Tensor | None = None,
    extractor: StyleExtractor | None = None,
    seed: int = 0,
    **options,
) -> str:
    """Write `NAME.safetensors` into a folder, and `NAME-styles.safetensors` if it gets styles of its own.

    network: from `load_model`.
    out: the folder.
    writing: how it will write where nothing else is asked for, see `generate.writing_settings`; what is not
        given stays as it is.
    features: (n, 14, 1280) of lines by people, for styles of its own: those of what it writes in them. None
        of people's is kept. Without, it takes its `named_styles`, and as its default the one in which it
        writes `TRIAL_TEXTS` most legibly; a student keeps its teacher's default.
    extractor: the one that the network was trained with, for styles of its own.
    options: of `sample`, for the styles.
    Returns the name of its default style.
    `network` has its metadata and its default style from here on.
    Raises HwdiffError when it was trained with other style weights, or is to have none of its own where
    another's are.
    """
    for setting, number in writing.items():
        most = 100 if setting == "guidance" else 1000
        if not 0 < number < most:
            raise HwdiffError(f"{setting} = {number}: must be above 0 and below {most}")
    if os.path.exists(Path(out) / "config.json"):
        raise HwdiffError(f"{out}: holds a training run, whose checkpoint might be replaced; choose another")
    path = Path(out) / f"{name}.safetensors"
    if features is None and path_of_gallery(path).exists():
        found = "its styles would be taken for those of this network"
        raise HwdiffError(f"{path_of_gallery(path)}: {found}; delete it, or choose another name")
    network.metadata = {**network.metadata, "writing": {**network.metadata.get("writing", {}), **writing}}
    kept = ("step", "training", "teacher", "dataset", "style_weights", "writing")
    metadata = {key: value for key, value in network.metadata.items() if key in kept}
    if init := metadata.get("training", {}).get("init"):  # of the folders of who releases it nothing is told
        metadata["training"] = {**metadata["training"], "init": Path(init).name}
    if features is None:
        styles = named_styles(network, "give --data FILE and those weights with --style-encoder")
        default = next((name for name in styles if _is_teachers_default(network, styles[name])), None)
        if default is None:
            rates = _trial_rates(network, torch.stack(list(styles.values())), seed, options)
            default = list(styles)[int(rates.argmin())]
    else:
        require_style_weights(network, extractor.identity)
        _, candidates = drawn_styles(network, features, extractor, seed=seed, **options)
        styles = choose_styles(network, candidates, NAMES, seed=seed, **options)
        default = next(iter(styles))
        about = {name: metadata.get(name) for name in ("step", "dataset")}
        about |= {"text": STYLE_TEXT, "seed": seed}
        metadata["style_weights"] = extractor.identity
        save_styles(path_of_gallery(path), styles, style_weights=extractor.identity, drawn_by=about)
    network.default_style = styles[default].float()
    save_model(network, path, half=True, **metadata)
    return default


def sample_pages(
    network: UNet,
    seed: int = 0,
    **options,
) -> Iterator[tuple[str, Figure]]:
    """Draw pages of samples, each line under its text, its style and what the recognizer reads in it.

    texts: those of the paper's Fig. 11 and 14, pangrams, digits, punctuation, capitals, short and long lines,
        in one style after another.
    seeds: one text three times in each of eight styles.
    sampler-eq12, sampler-eq9: the paper's texts by Eq. 12 and by Eq. 9.

    options: of `sample`.
    Yields (name, figure).
    """
    styles, judge = named_styles(network), _judge(network)
    names = list(styles)

    def page(texts, names, title, columns=2, **more):
        stacked = torch.stack([styles[name] for name in names])
        inks = sample(network, texts, style=stacked, seed=seed, **options, **more)
        captions = [
            f"{text}   [{name}; read: {recognition.text}]"
            for text, name, recognition in zip(texts, names, recognize(inks, judge), strict=True)
        ]
        rate = legibility(inks, judge)
        return plot_inks(
            inks, columns, f"{title}; character error rate of the recognizer {rate.cer}", captions
        )

    cycled = [names[number % len(names)] for number in range(len(PAGE_TEXTS))]
    yield "texts", page(PAGE_TEXTS, cycled, "Texts of all kinds, Eq. 12")
    eight = [name for name in names[:8] for _ in range(3)]
    yield "seeds", page([STYLE_TEXT] * len(eight), eight, "Eight styles, three seeds each", columns=3)
    texts = [text for text in PAPER_TEXTS for _ in range(3)]
    twelve = (names * 3)[: len(texts)]
    for sampler, equation in (("eq12", "Eq. 12"), ("eq9", "Eq. 9")):
        title = f"The paper's texts by {equation}"
        yield f"sampler-{sampler}", page(texts, twelve, title, columns=3, sampler=sampler)
