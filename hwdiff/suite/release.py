"""From a training run to what comes with the package: the weights in half precision, and a gallery of styles that the model itself drew."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from hwdiff.diffusion.generate import sample
from hwdiff.diffusion.style_gallery import load_styles, save_styles
from hwdiff.diffusion.texts import PAGE_TEXTS, PAPER_TEXTS, STYLE_TEXT, TRIAL_TEXTS
from hwdiff.evaluation.error_rates import legibility, recognize
from hwdiff.ink import images
from hwdiff.ink.plot import plot_inks
from hwdiff.model.checkpoint import save_model
from hwdiff.utils.errors import HwdiffError

NAMES = ("ada", "boris", "clara", "dmitri", "emil", "freya", "gita", "hugo", "ines", "jonas", "kira", "leo")
CANDIDATES = 60
LEGIBLE_FRACTION = 0.4  # of the candidates, those that write most legibly, of which those that differ most are taken


def drawn_styles(network, features, extractor, text=STYLE_TEXT, seed=0, **options):
    """Let `network` write `text` in each of several hands, and take the style of what it wrote.

    features: (n, 14, 1280) of the hands.   extractor: the `StyleExtractor` that the network was trained with.   options: of `sample`.
    Returns the inks, a list of `Ink`, and their styles (n, 14, 1280) float16. Raises HwdiffError when one holds nothing that could be drawn.
    """
    inks, styles = sample(network, [text] * len(features), style=features, seed=seed, **options), []
    for number, ink in enumerate(inks):
        try:
            styles.append(extractor.of_line(images.pad_to_width(ink.line_image())).half())
        except HwdiffError as error:
            raise HwdiffError(f"hand {number}: nothing was written in it that could be drawn ({error}); choose another seed") from error
    return inks, torch.stack(styles)


def choose_styles(network, candidates, names, recognizer=None, seed=0, **options):
    """Of styles (n, 14, 1280), those that write legibly and differ: {name: (14, 1280)}.

    The model writes five texts in each, a recognizer reads them, the best two fifths are kept; of those the most legible is taken, and
    then always the one that is least like those that are taken already (cosine of the mean over the columns). The first name goes to the one
    in which the first text, written with seed 0, is read best: the model's default writes it so.
    Raises HwdiffError when there are too few.
    """
    if len(candidates) * LEGIBLE_FRACTION < len(names):
        raise HwdiffError(f"styles: {len(candidates)} candidates are too few for {len(names)} names")
    texts = [text for _ in candidates for text in TRIAL_TEXTS]
    inks = sample(network, texts, style=candidates.repeat_interleave(len(TRIAL_TEXTS), dim=0), seed=seed, **options)
    tries = [inks[start : start + len(TRIAL_TEXTS)] for start in range(0, len(inks), len(TRIAL_TEXTS))]
    rates = np.array([legibility(some, recognizer, resamples=0).cer.value for some in tries])
    left = np.argsort(rates, kind="stable")[: int(len(candidates) * LEGIBLE_FRACTION)].tolist()
    directions = F.normalize(candidates.float().mean(dim=1) - candidates.float().mean(dim=(0, 1)), dim=1)
    chosen = [left.pop(0)]
    while len(chosen) < len(names):
        likeness = (directions[left] @ directions[chosen].T).max(dim=1).values
        chosen.append(left.pop(int(likeness.argmin())))
    shown = [sample(network, STYLE_TEXT, style=candidates[number], **options) for number in chosen]
    first = int(np.argmin([legibility(inks, recognizer, resamples=0).cer.value for inks in shown]))
    chosen.insert(0, chosen.pop(first))
    return {name: candidates[number] for name, number in zip(names, chosen, strict=True)}


def release(network, features, out, extractor, writing, recognizer=None, seed=0, **options):
    """Write `small.safetensors` and `small-styles.safetensors` into the folder `out`.

    network: from `load_model`.   features: (n, 14, 1280) of people's hands; none of them is kept, only styles of what the model wrote in them.
    writing: how it will write where nothing else is asked for, see `writing.writing_settings`.   options: of `sample`, for the styles.
    Returns the names of the styles. The first is the model's default style.
    """
    network.metadata = {**network.metadata, "writing": writing}
    _, candidates = drawn_styles(network, features, extractor, seed=seed, **options)
    styles = choose_styles(network, candidates, NAMES, recognizer=recognizer, seed=seed, **options)
    network.default_style = next(iter(styles.values())).float()
    metadata = {key: value for key, value in network.metadata.items() if key in ("step", "training", "dataset", "style_weights", "writing")}
    save_model(network, Path(out) / "small.safetensors", half=True, **metadata)
    drawn_by = {"text": STYLE_TEXT, "seed": seed, "step": network.metadata["step"], "dataset": network.metadata["dataset"]}
    save_styles(Path(out) / "small-styles.safetensors", styles, style_weights=network.metadata["style_weights"], drawn_by=drawn_by)
    return list(styles)


def sample_pages(network, seed=0, recognizer=None, **options):
    """Pages of what a model writes, each line under its text, its style and what the recognizer reads in it: yields (name, figure).

    texts: those of the paper's Fig. 11 and 14, pangrams, figures, punctuation, capitals, short and long lines, in one style after another.
    seeds: one text three times in each of eight styles.   samplers: Eq. 12 beside Eq. 9.   options: of `sample`.
    """
    styles = load_styles()
    names = list(styles)

    def page(texts, names, title, columns=2, **more):
        inks = sample(network, texts, style=torch.stack([styles[name] for name in names]), seed=seed, **options, **more)
        recognitions = [recognition.text for recognition in recognize(inks, recognizer)]
        rate = legibility(inks, recognizer)
        captions = [f"{text}   [{name}; read: {recognition}]" for text, name, recognition in zip(texts, names, recognitions, strict=True)]
        return plot_inks(inks, columns, f"{title}; character error rate of the recognizer {rate.cer}", captions)

    cycled = [names[number % len(names)] for number in range(len(PAGE_TEXTS))]
    yield "texts", page(PAGE_TEXTS, cycled, "Texts of all kinds, Eq. 12")
    eight = [name for name in names[:8] for _ in range(3)]
    yield "seeds", page([STYLE_TEXT] * len(eight), eight, "Eight styles, three seeds each", columns=3)
    for sampler, equation in (("eq12", "Eq. 12"), ("eq9", "Eq. 9")):
        texts = [text for text in PAPER_TEXTS for _ in range(3)]
        yield f"sampler-{sampler}", page(texts, (names * 3)[: len(texts)], f"The paper's texts by {equation}", columns=3, sampler=sampler)
