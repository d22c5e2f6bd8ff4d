"""How a line was written, step by step: what the network saw, predicted and attended to."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hwdiff.diffusion.alignment import Alignment, alignment_of, is_late
from hwdiff.diffusion.generate import sample
from hwdiff.ink.ink import Ink
from hwdiff.model.unet import UNet
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write


@dataclass
class Trace:
    """A line and every step in which it was written.

    ink: the line, trimmed.
    length: the points that were written, before trimming.
    noisy: {t: the noisy offsets that the network saw, (length, 2) float32}.
    predicted: {t: the clean ink that it predicted at that step by Eq. 10, with its pen, not trimmed}.
    attention: {t: each block's attention to the text, (heads, M, L) float32}: M cells of length / M points
        each, L tokens, of which the last is the end. The last block is that of Fig. 4 of Luhman & Luhman
        (2020).
    """

    ink: Ink
    length: int = 0
    noisy: dict[int, np.ndarray] = field(default_factory=dict)
    predicted: dict[int, Ink] = field(default_factory=dict)
    attention: dict[int, list[np.ndarray]] = field(default_factory=dict)

    @property
    def steps(self) -> list[int]:
        """The steps t, the noisiest first."""
        return sorted(self.attention, reverse=True)

    def weights(self, t: int, block: int = -1) -> np.ndarray:
        """The attention (heads, M, L) of one block at step t.

        Raises HwdiffError when there is no such block or step.
        """
        if t not in self.attention:
            first, last = self.steps[0], self.steps[-1]
            raise HwdiffError(f"t = {t}: the line was written in steps from {first} to {last}")
        blocks = self.attention[t]
        if not -len(blocks) <= block < len(blocks):
            found = f"the network has {len(blocks)} blocks"
            raise HwdiffError(f"block = {block}: {found}, 0 is the first and -1 the last")
        return blocks[block]

    def save_attention(self, path: str | Path, steps: Sequence[int] = (55, 30, 5), block: int = -1) -> None:
        """Write the mean attention of a block's heads as CSV, a row for each step, cell and token.

        Its columns: t; first_point, of the cell; token; character, "" for the end; weight.
        Raises HwdiffError when there is no such step or block, or the file cannot be written.
        """
        maps = {t: self.weights(t, block).mean(axis=0) for t in steps}
        with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["t", "first_point", "token", "character", "weight"])
            for t, weights in maps.items():
                points = self.length // len(weights)
                for (cell, token), weight in np.ndenumerate(weights):
                    table.writerow(
                        [t, cell * points, token, self.ink.text[token : token + 1], f"{weight:.4f}"]
                    )


def trace(network: UNet, text: str, **options) -> Trace:
    """Write a text and keep all steps.

    options: of `hwdiff.sample`, except its callback.
    """
    kept = Trace(Ink(np.zeros((0, 2)), []))

    def callback(step):
        kept.length = step.y.shape[1]
        kept.noisy[step.t] = step.y[0].cpu().numpy()
        kept.predicted[step.t] = Ink(step.clean[0].cpu().numpy(), step.pen_up[0, :, 0].cpu() > 0.5, text)
        kept.attention[step.t] = [block[0].cpu().numpy() for block in step.attention]

    [ink] = sample(network, [text], callback=callback, **options)
    kept.ink = Ink(ink.offsets, ink.pen_up, ink.text)  # what the network wrote, without accents over it
    return kept


def alignment_of_trace(written: Trace, block: int = -1) -> Alignment | None:
    """The alignment of a trace by the attention of a block in the later half of the steps.

    None when nothing was written. Raises HwdiffError when there is no such block.
    """
    late = [t for t in written.steps if is_late(t, written.steps[0])]
    seen = sum(written.weights(t, block) for t in late)
    if not len(written.ink):
        return None
    return alignment_of(written.ink, seen, written.length)


def alignment_by_step(written: Trace, block: int = -1) -> list[dict[str, float]]:
    """How the alignment of a trace forms: scores of the attention at each step alone, the noisiest first.

    Returns {"t", "monotonicity", "sharpness", "agreement"} for each step, [] when nothing was written.
    agreement: the fraction of the cells that belong to the same character as at the last step.
    Raises HwdiffError when there is no such block.
    """
    if not len(written.ink):
        return []
    aligned = {t: alignment_of(written.ink, written.weights(t, block), written.length) for t in written.steps}
    last = aligned[written.steps[-1]].weights.argmax(axis=1)
    return [
        {
            "t": t,
            "monotonicity": one.monotonicity,
            "sharpness": one.sharpness,
            "agreement": float((one.weights.argmax(axis=1) == last).mean()),
        }
        for t, one in aligned.items()
    ]
