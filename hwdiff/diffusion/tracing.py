"""A line as it was written, step by step: what the network attended to."""

from dataclasses import dataclass, field

import numpy as np

from hwdiff.diffusion.generate import sample
from hwdiff.ink.ink import Ink
from hwdiff.utils.errors import HwdiffError


@dataclass
class Trace:
    """ink: the line, trimmed.   length: the points that were written, those of the padding too.

    attention: {t: a list of each block's attention to the text, (heads, M, L) float32}: M cells of length / M points, L tokens, the last the end.
    The last block is that of Fig. 4 of Luhman & Luhman (2020).
    """

    ink: Ink
    length: int = 0
    attention: dict = field(default_factory=dict)

    @property
    def steps(self):
        """The steps t, the noisiest first."""
        return sorted(self.attention, reverse=True)

    def weights(self, t, block=-1):
        """The attention (heads, M, L) of one block at step t. Raises HwdiffError when there is no such block or step."""
        if t not in self.attention:
            raise HwdiffError(
                f"t = {t}: the line was written in steps from {self.steps[0]} to {self.steps[-1]}"
            )
        blocks = self.attention[t]
        if not -len(blocks) <= block < len(blocks):
            raise HwdiffError(
                f"block = {block}: the network has {len(blocks)} blocks, 0 is the first and -1 the last"
            )
        return blocks[block]


def trace(network, text, **options):
    """Write a text and keep all steps: a `Trace`. options: of `hwdiff.sample`, except its callback."""
    kept = Trace(Ink(np.zeros((0, 2)), []))

    def callback(t, y, pen_up, attention):
        kept.length = y.shape[1]
        kept.attention[t] = [block[0].cpu().numpy() for block in attention]

    [kept.ink] = sample(network, [text], callback=callback, **options)
    return kept
