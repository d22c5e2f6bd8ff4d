"""Whether attention finds the letters in ink: boundaries told from it, against those that are known.

Only the built-in writers' lines are known letter by letter. The network sees such a line noised to step t,
and its attention to the text is read at each point. Nothing is generated.
"""

from collections.abc import Sequence

import numpy as np
import torch

from hwdiff.data.batches import Lines
from hwdiff.data.dataset import Dataset, style_lines
from hwdiff.data.style_features import StyleFeatures
from hwdiff.diffusion import process
from hwdiff.diffusion.alignment import Alignment, alignment_of, boundaries_of, letters_of
from hwdiff.model.unet import LENGTH_UNIT, UNet
from hwdiff.utils.errors import HwdiffError


def true_boundaries(characters: np.ndarray, text: str) -> np.ndarray:
    """Where each letter but the first begins, in points: (number of letters - 1,).

    characters: (N,) of `Dataset.characters`. Dots and crossbars, which come later, count for nothing.
    """
    return np.searchsorted(np.maximum.accumulate(characters), letters_of(text)[1:])


def alignment_to_real(
    network: UNet,
    dataset: Dataset,
    features: StyleFeatures,
    index: int,
    *,
    t: int,
    block: int = -1,
    seed: int = 0,
) -> Alignment:
    """The attention of a real line to its text: the network sees it noised to step t. Nothing is generated.

    features: of the dataset.
    index: of the line.
    t: of the noise level, 1 to 60.
    block: whose attention, -1 for the last, that of Fig. 4.
    """
    return _alignment(network, dataset, _lines(dataset, features), index, t=t, block=block, seed=seed)


def _lines(dataset, features):
    # In a GPU's memory they would need the style features of the whole dataset.
    return Lines(dataset, features, style_lines(dataset.forms), "cpu")


@torch.inference_mode()
def _alignment(network, dataset, lines, index, *, t, block, seed):
    device, batch = next(network.parameters()).device, lines.batch(np.array([index]))
    level = process.alpha_bars()[t].sqrt().float().view(1, 1, 1)
    eps = torch.randn(batch.strokes.shape, generator=torch.Generator().manual_seed(seed))
    noisy = process.add_noise(batch.strokes, level, eps)
    inputs = (part.to(device) for part in (noisy, batch.text, level, batch.style))
    _, _, attention = network(*inputs, attention="all")
    return alignment_of(dataset.ink(index), attention[block][0].cpu().numpy(), noisy.shape[1])


def boundary_errors(
    network: UNet,
    dataset: Dataset,
    features: StyleFeatures,
    indices: Sequence[int],
    *,
    t: int,
    block: int = -1,
    seed: int = 0,
) -> list[np.ndarray]:
    """How far boundaries told from attention are from the true ones, in points, for each of some lines.

    Arguments as of `alignment_to_real`; line i of `indices` is noised with seed + i.
    Raises HwdiffError when the dataset does not know its letters.
    """
    lines, errors = _lines(dataset, features), []
    for number, index in enumerate(map(int, indices)):
        characters = _known_characters(dataset, index)
        aligned = _alignment(network, dataset, lines, index, t=t, block=block, seed=seed + number)
        found = boundaries_of(aligned, len(characters))
        errors.append(np.abs(found - true_boundaries(characters, aligned.text)))
    return errors


def even_boundary_errors(dataset: Dataset, index: int) -> np.ndarray:
    """How far letters spread evenly over a line's points are from the true ones, in points.

    That is what the length of the text alone tells: the least that attention must beat.

    index: of the line.
    Returns (number of letters - 1,). Raises HwdiffError when the dataset does not know its letters.
    """
    text, characters = dataset.texts[index], _known_characters(dataset, index)
    found = letters_of(text)[1:] / len(text) * len(characters)
    return np.abs(found - true_boundaries(characters, text))


def perfect_boundary_errors(dataset: Dataset, index: int) -> np.ndarray:
    """How far boundaries lie from the true ones by perfect attention, in points.

    That is, when each cell of the last block attends to the character of most of its points.

    index: of the line.
    Returns (number of letters - 1,). Raises HwdiffError when the dataset does not know its letters.
    """
    text, characters = dataset.texts[index], _known_characters(dataset, index)
    cells = np.array_split(characters, range(LENGTH_UNIT, len(characters), LENGTH_UNIT))
    weights = np.array([np.bincount(cell, minlength=len(text)) for cell in cells])
    sharp = np.eye(len(text))[weights.argmax(axis=1)]
    found = boundaries_of(Alignment(text, LENGTH_UNIT, sharp), len(characters))
    return np.abs(found - true_boundaries(characters, text))


def _known_characters(dataset, index):
    """`Dataset.characters`, which must be known."""
    characters = dataset.characters(index)
    if characters is None:
        advice = "take those of the built-in writers"
        raise HwdiffError(f"{dataset.path}: its lines are not known letter by letter; {advice}")
    return characters
