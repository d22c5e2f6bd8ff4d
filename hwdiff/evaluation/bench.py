"""What Table 1 is measured with: model, dataset and recognizer, checked before the first line is written."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from hwdiff.data.dataset import Dataset
from hwdiff.data.style_features import StyleFeatures
from hwdiff.diffusion.generate import writing_settings
from hwdiff.diffusion.samplers import find_sampler
from hwdiff.evaluation.generation import regenerate_lines
from hwdiff.evaluation.geometry import LANDMARKS, REPETITIONS
from hwdiff.evaluation.measures import Measures
from hwdiff.evaluation.protocol import table1
from hwdiff.evaluation.recognizer import BUNDLED, load_recognizer
from hwdiff.evaluation.sets import Sets
from hwdiff.evaluation.tables import PAPER_LINES, Table
from hwdiff.model.checkpoint import load_model, path_of_model
from hwdiff.model.style_encoder import load_style_extractor
from hwdiff.utils.environment import environment
from hwdiff.utils.files import sha256_of

CPU_LINES = 60


class Written(NamedTuple):
    """How the lines of a row are written.

    sampler: its name.   alpha_bar: None for the sampler's own levels.   guidance: None for the bench's.
    """

    sampler: str
    alpha_bar: Tensor | None = None
    guidance: float | None = None


Rows = dict[str, Written]
"""{row: how its lines are written}."""


class Bench:
    """A model to be measured on a split of a dataset.

    data: a dataset file.
    model, style_encoder, device: of `load_model` and `load_style_extractor`.
    split: "train", as in the paper, "validation" or "test".
    lines: of each of both sets; by default 4500 on a GPU, else 60, or half the split.
    recognizer: a file, None for the bundled one.
    inception_weights: of `Measures`.
    guidance: None for what the model's metadata says.
    Raises HwdiffError when something cannot be loaded, or the split is too small.
    """

    def __init__(
        self,
        data: str | Path,
        model: str | Path = "pretrained",
        split: str = "train",
        *,
        lines: int | None = None,
        style_encoder: str | Path = "bundled",
        recognizer: str | Path | None = None,
        inception_weights: str | Path | None = None,
        guidance: float | None = None,
        device: str | None = None,
    ):
        self.split, self.dataset, self.network = split, Dataset(data), load_model(model, device)
        device = next(self.network.parameters()).device
        most = PAPER_LINES if device.type == "cuda" else CPU_LINES
        self.lines = lines or min(most, len(self.dataset.split(split)) // 2)
        Sets.draw(
            self.dataset, split, count=self.lines, seed=0
        )  # fails at once, not after minutes, with too few lines
        self.recognizer = load_recognizer(recognizer or BUNDLED, device)
        self.features = StyleFeatures(self.dataset, load_style_extractor(style_encoder, device))
        self.inception_weights, self._measures = inception_weights, {}
        writing = writing_settings(self.network)
        self.guidance = writing["guidance"] if guidance is None else guidance
        file = path_of_model(model)
        self.settings = {
            "dataset": {
                "fingerprint": self.dataset.fingerprint,
                "parameters": self.dataset.manifest["parameters"],
            },
            "model": {
                "file": file.name,
                "sha256": sha256_of(file),
                "step": self.network.metadata.get("step"),
                "parameters": sum(weight.numel() for weight in self.network.parameters()),
                "guided_attention": self.network.metadata.get("training", {}).get("guided_attention", 0),
            },
            "writing": {**writing, "guidance": self.guidance},
            "recognizer": sha256_of(recognizer or BUNDLED),
            "style_encoder": self.features.extractor.identity,
            "environment": environment(device),
        }

    @property
    def table1_rows(self) -> Rows:
        """The paper's two, with its guidance of 1; the same with the bench's, if that is another; "fast"."""
        rows = {sampler: Written(sampler, guidance=1.0) for sampler in ("eq12", "eq9")}
        if self.guidance != 1:
            rows |= {f"{sampler}_guided": Written(sampler) for sampler in ("eq12", "eq9")}
        return {**rows, "fast": Written("fast")}

    def measures(self, repetitions: int = REPETITIONS) -> Measures:
        """The measures of lines of the split. repetitions: of the Geometry Score."""
        if repetitions not in self._measures:
            self._measures[repetitions] = Measures(
                self.dataset,
                self.split,
                features=self.features,
                recognizer=self.recognizer,
                inception_weights=self.inception_weights,
                landmarks=min(LANDMARKS, self.lines // 2),
                repetitions=repetitions,
            )
        return self._measures[repetitions]

    def table(
        self,
        rows: Rows | None = None,
        seeds: Sequence[int] = range(5),
        *,
        repetitions: int = REPETITIONS,
        canvases: bool = True,
        folder: Path | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Table:
        """Measure what samplers write.

        rows: by default `table1_rows`.
        repetitions: of the Geometry Score.
        seeds, canvases, folder, progress: of `table1`.
        """
        generators, levels = {}, {}
        for row, (sampler, alpha_bar, guidance) in (rows or self.table1_rows).items():
            alpha_bar = find_sampler(sampler).alpha_bar() if alpha_bar is None else alpha_bar
            guidance = self.guidance if guidance is None else guidance
            levels[row] = {"sampler": sampler, "levels": alpha_bar.tolist(), "guidance": guidance}
            options = {"sampler": sampler, "alpha_bar": alpha_bar, "guidance": guidance}
            generators[row] = partial(regenerate_lines, self.network, self.dataset, self.features, **options)
        return table1(
            self.measures(repetitions),
            self.split,
            count=self.lines,
            seeds=seeds,
            generators=generators,
            settings={**self.settings, "rows": levels},
            canvases=canvases,
            folder=folder,
            progress=progress,
        )
