"""Drawing the sets of lines that Table 1 compares, one pair of sets for each seed."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hwdiff.data.dataset import Dataset, style_lines
from hwdiff.ink.ink import Ink
from hwdiff.utils.errors import HwdiffError

KNOWN_PER_FORM = 4  # lines of a form among which its style is looked for


@dataclass
class Sets:
    """Two disjoint sets of lines, and the lines among which styles are looked for.

    Lines are numbered as in the dataset.
    first: (n,) what is compared with.
    second: (n,) whose texts and styles are written.
    known: (k,) at most 4 lines of each form; none is to be found itself, nor gave a line of `second` its
        style (but perhaps its foreign one).
    seed: by which they were drawn.
    """

    first: np.ndarray
    second: np.ndarray
    known: np.ndarray
    seed: int

    @classmethod
    def draw(cls, dataset: Dataset, split: str, *, count: int, seed: int) -> "Sets":
        """Draw two sets of `count` lines of a split.

        Raises HwdiffError when the split has fewer than twice as many, or for sets of one line.
        """
        lines = dataset.split(split)
        if count < 2 or 2 * count > len(lines):
            raise HwdiffError(
                f"{dataset.path}: two sets of {count} lines of the split {split} are asked for, "
                f"which has {len(lines)}; sets of 2 or more"
            )
        order = np.random.default_rng((seed, 1)).permutation(lines)
        first, second = np.sort(order[:count]), np.sort(order[count : 2 * count])
        gave_style = style_lines(dataset.forms)[second]
        left = np.setdiff1d(lines, np.concatenate((second, gave_style)))
        return cls(first, second, _first_of_each_form(left, dataset.forms[left]), seed)


def _first_of_each_form(lines, forms):
    _, member = np.unique(forms, return_inverse=True)
    order = np.argsort(member, kind="stable")
    starts = np.searchsorted(member[order], member[order])
    return np.sort(lines[order][np.arange(len(lines)) - starts < KNOWN_PER_FORM])


def real_inks(dataset: Dataset, indices: Iterable[int]) -> list[Ink]:
    """The lines of a dataset as people wrote them, trimmed as generated ones are."""
    return [dataset.ink(index).trimmed() for index in indices]
