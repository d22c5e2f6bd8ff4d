"""A dataset's lines written again by a model: the same texts, in the styles of the same forms."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hwdiff.data.dataset import Dataset, style_lines
from hwdiff.data.style_features import StyleFeatures
from hwdiff.diffusion.generate import no_text_warnings, require_style_weights, sample, writing_settings
from hwdiff.ink.ink import Ink
from hwdiff.model.checkpoint import path_of_model
from hwdiff.model.unet import UNet
from hwdiff.utils.files import sha256_of


def subsample_lines(dataset: Dataset, split: str, count: int | None = None) -> np.ndarray:
    """Numbers of lines of a split, evenly spread over it: all, or at most `count`.

    Raises HwdiffError when the split is empty.
    """
    indices = dataset.needed_split(split)
    if count is not None and count < len(indices):
        indices = indices[np.linspace(0, len(indices) - 1, count).round().astype(int)]
    return indices


def training_of(network: UNet) -> dict[str, Any]:
    """What a measurement records of how its network was trained."""
    training = network.metadata.get("training", {})
    is_student = "levels" in writing_settings(network)
    return {
        "step": network.metadata.get("step"),  # of a student a batch of its distillation
        "planned": None if is_student else training.get("steps"),
        **({"init": Path(training["init"]).name} if training.get("init") else {}),
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "guided_attention": training.get("guided_attention", 0),
        "distilled": "teacher" in network.metadata,
        "student": is_student,
    }


def record_of(network: UNet, model: str | Path) -> dict[str, Any]:
    """What a measurement records of its network. model: what it was loaded from."""
    file = path_of_model(model)
    return {"file": file.name, "sha256": sha256_of(file), **training_of(network)}


def styles_of(network: UNet, dataset: Dataset, features: StyleFeatures, indices: np.ndarray) -> Tensor:
    """The styles that lines are written in, those of other lines of their forms.

    features: of the dataset.
    indices: (n,) the lines.
    Returns (n, 14, 1280) float32.
    Raises HwdiffError when the features come from other weights than those that the model was trained with.
    """
    require_style_weights(network, features.extractor.identity)
    return features[style_lines(dataset.forms)[indices]]


def lines_of_others(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    """For each line one of another form of its split, half-way through the list of the forms from its own.

    A person's forms follow one another in that list, so it is most likely by another person.

    indices: (n,) the lines.
    Returns (n,) int. A split of one form gives its own lines.
    """
    others = np.zeros(len(indices), dtype=int)
    for split in np.unique(dataset.splits[indices]):
        members = {}
        for line in dataset.split(str(split)).tolist():
            members.setdefault(dataset.forms[line], []).append(line)
        forms = sorted(members)
        for number in np.flatnonzero(dataset.splits[indices] == split):
            own = dataset.forms[indices[number]]
            other = members[forms[(forms.index(own) + len(forms) // 2) % len(forms)]]
            others[number] = other[members[own].index(indices[number]) % len(other)]
    return others


def regenerate_lines(
    network: UNet,
    dataset: Dataset,
    features: StyleFeatures,
    indices: np.ndarray,
    seed: int | Sequence[int] = 0,
    *,
    foreign_styles: bool = False,
    **options,
) -> list[Ink]:
    """Lines of a dataset as the model writes them.

    features: of the dataset.
    indices: (n,) the lines.
    seed, options: of `sample`.
    foreign_styles: write in the styles of `lines_of_others`, as a control of what is said of styles.
    Does not warn of characters that the alphabet lacks: people wrote these texts. Raises HwdiffError as
    `styles_of` does.
    """
    in_styles_of = lines_of_others(dataset, indices) if foreign_styles else indices
    styles = styles_of(network, dataset, features, in_styles_of)
    with no_text_warnings():
        return sample(
            network, [str(text) for text in dataset.texts[indices]], style=styles, seed=seed, **options
        )
