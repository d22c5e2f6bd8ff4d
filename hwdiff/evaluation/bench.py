"""What Table 1 is measured with: model, dataset and recognizer, checked before the first line is written."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hwdiff.data.dataset import Dataset
from hwdiff.data.style_features import StyleFeatures
from hwdiff.diffusion.generate import require_style_weights, signal_levels, writing_settings
from hwdiff.diffusion.samplers import network_evaluations
from hwdiff.evaluation.diversity import Diversity, measure_diversity
from hwdiff.evaluation.generation import record_of, regenerate_lines
from hwdiff.evaluation.geometry import REPETITIONS
from hwdiff.evaluation.measures import Measures
from hwdiff.evaluation.protocol import table1, write_row
from hwdiff.evaluation.recognizer import BUNDLED, load_recognizer
from hwdiff.evaluation.sets import Sets
from hwdiff.evaluation.tables import GROUND_TRUTH, PAPER_LINES, Table
from hwdiff.evaluation.written import Generator
from hwdiff.ink.ink import Ink
from hwdiff.model.checkpoint import load_model, path_of_model
from hwdiff.model.style_encoder import load_style_extractor
from hwdiff.model.unet import UNet
from hwdiff.utils.environment import environment
from hwdiff.utils.errors import HwdiffError, require_choice
from hwdiff.utils.files import sha256_of
from hwdiff.utils.progress import Progress
from hwdiff.utils.tensors import fingerprint_of

CPU_LINES = 60
# Pairs of rows of Table 1 that are compared, the first less the second; those that there are.
COMPARED = (
    ("eq12", GROUND_TRUTH),
    ("eq9", GROUND_TRUTH),
    ("eq12_guided", GROUND_TRUTH),
    ("eq9_guided", GROUND_TRUTH),
    ("student", GROUND_TRUTH),
    ("eq9", "eq12"),
    ("eq9_guided", "eq12_guided"),
    ("eq12_guided", "eq12"),
    ("eq12", "eq12_foreign"),
)


class RowSettings(NamedTuple):
    """How the lines of a row are written.

    sampler: its name.   alpha_bar: None for `signal_levels`.   guidance: None for the bench's.
    foreign_styles: as in `regenerate_lines`.
    student: written by the model's student, at its own levels, with its own guidance.
    """

    sampler: str
    alpha_bar: Tensor | None = None
    guidance: float | None = None
    foreign_styles: bool = False
    student: bool = False


Rows = dict[str, RowSettings]
"""{row: how its lines are written}."""

STUDENT = RowSettings("eq12", student=True)
STUDENTS = {"pretrained": "fast"}  # of the bundled models


def table1_rows(guidance: float, student: bool = False) -> Rows:
    """The paper's two, with its guidance of 1; the same with a model's own, if that is another; its student.

    Eq. 12 with guidance 1 in foreign styles shows how often form retrieval finds a form by its text alone.

    student: whether there is one.
    """
    rows = {sampler: RowSettings(sampler, guidance=1.0) for sampler in ("eq12", "eq9")}
    rows["eq12_foreign"] = RowSettings("eq12", guidance=1.0, foreign_styles=True)
    if guidance != 1:
        rows |= {f"{sampler}_guided": RowSettings(sampler) for sampler in ("eq12", "eq9")}
    return rows | ({"student": STUDENT} if student else {})


def chosen_rows(rows: Rows, names: Sequence[str] | None) -> Rows:
    """Those of `rows` that are named, all for None. Raises HwdiffError for a name that is not among them."""
    if names is None:
        return rows
    for name in names or [""]:
        require_choice("row", name, rows)
    return {name: rows[name] for name in rows if name in names}


def table1_evaluations(
    network: UNet, names: Sequence[str] | None = None, *, student: UNet | None = None
) -> int:
    """How often networks are evaluated for a line of some rows together (NFE), with their own guidance.

    names: of `chosen_rows`.
    """
    rows = chosen_rows(table1_rows(writing_settings(network)["guidance"], student is not None), names)
    total = 0
    for row in rows.values():
        chosen = student if row.student else network
        guidance = writing_settings(chosen)["guidance"] if row.guidance is None else row.guidance
        total += network_evaluations(len(signal_levels(chosen, row.sampler)) - 1, guidance)
    return total


def compared_rows(rows: Rows) -> list[tuple[str, str]]:
    """The pairs of Table 1's rows whose differences are noted."""
    there = {GROUND_TRUTH, *rows}
    student = ("student", "eq12_guided" if "eq12_guided" in there else "eq12")
    return [pair for pair in (*COMPARED, student) if there.issuperset(pair)]


class Bench:
    """A model to be measured on a split of a dataset.

    data: a dataset file.
    model, style_encoder, device: of `load_model` and `load_style_extractor`.
    split: "train", as in the paper, "validation" or "test".
    lines: of each of both sets; by default 4500 on a GPU, else 60, or half the split.
    recognizer: a file, None for the bundled one.
    inception_weights: of `Measures`.
    guidance: None for what the model's metadata says.
    student: of `load_model`, a network of `training.step_distillation` whose teacher the model is.
    Raises HwdiffError when something cannot be loaded, or the student is another's.
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
        student: str | Path | None = None,
        device: str | None = None,
    ):
        self.split, self.dataset, self.network = split, Dataset(data), load_model(model, device)
        device = next(self.network.parameters()).device
        most = PAPER_LINES if device.type == "cuda" else CPU_LINES
        self.lines = lines or min(most, len(self.dataset.split(split)) // 2)
        self.recognizer = load_recognizer(recognizer, device)
        self.features = StyleFeatures(self.dataset, load_style_extractor(style_encoder, device))
        self.inception_weights, self._measures = inception_weights, {}
        writing = writing_settings(self.network)
        self.guidance = writing["guidance"] if guidance is None else guidance
        self.student = None if student is None else load_model(student, device)
        if self.student is not None:
            require_style_weights(self.student, self.features.extractor.identity)
            self._student = record_of(self.student, student)
            if self.student.metadata.get("teacher") != fingerprint_of(self.network.state_dict()):
                raise HwdiffError(
                    f"{path_of_model(student)}: not a student of {path_of_model(model)}; "
                    "give the model that hwdiff distil-steps was given"
                )
        self.settings = {
            "dataset": {
                "fingerprint": self.dataset.fingerprint,
                "parameters": self.dataset.manifest["parameters"],
            },
            "model": record_of(self.network, model),
            "writing": {**writing, "guidance": self.guidance},
            "recognizer": sha256_of(recognizer or BUNDLED),
            "style_encoder": self.features.extractor.identity,
            "environment": environment(device),
        }

    @property
    def _workers(self):
        """Processes that write: on a CPU as many as PyTorch would use threads, which wait for one another."""
        is_cpu = next(self.network.parameters()).device.type == "cpu"
        return torch.get_num_threads() if is_cpu else 1

    @property
    def table1_rows(self) -> Rows:
        """`table1_rows` with the bench's guidance and student."""
        return table1_rows(self.guidance, self.student is not None)

    @property
    def diversity_rows(self) -> Rows:
        """Those of `table1_rows` whose diversity is measured: Eq. 12 and Eq. 9 in the styles asked for."""
        return {row: how for row, how in table1_rows(self.guidance).items() if not how.foreign_styles}

    def measures(self, repetitions: int = REPETITIONS) -> Measures:
        """The measures of lines of the split. repetitions: of the Geometry Score."""
        if repetitions not in self._measures:
            self._measures[repetitions] = Measures(
                self.dataset,
                self.split,
                features=self.features,
                recognizer=self.recognizer,
                inception_weights=self.inception_weights,
                repetitions=repetitions,
            )
        return self._measures[repetitions]

    def writer(self, written: RowSettings) -> Generator:
        """What writes the lines of a row."""
        options, network = self._options(written), self.student if written.student else self.network
        return partial(regenerate_lines, network, self.dataset, self.features, **options)

    def _options(self, written):
        network, own = self.network, self.guidance
        if written.student:
            network, own = self.student, writing_settings(self.student)["guidance"]
        alpha_bar = written.alpha_bar
        return {
            **({"foreign_styles": True} if written.foreign_styles else {}),
            "sampler": written.sampler,
            "alpha_bar": signal_levels(network, written.sampler) if alpha_bar is None else alpha_bar,
            "guidance": own if written.guidance is None else written.guidance,
        }

    def _settings(self, rows):
        """What values of rows depend on, in JSON types."""
        about = {}
        for row, written in rows.items():
            options = self._options(written)
            levels = options.pop("alpha_bar").tolist()
            about[row] = {
                **options,
                "levels": levels,
                **({"model": self._student} if written.student else {}),
            }
        return {**self.settings, "rows": about}

    def table(
        self,
        rows: Rows | None = None,
        seeds: Sequence[int] = range(5),
        *,
        compared: Sequence[tuple[str, str]] | None = None,
        repetitions: int = REPETITIONS,
        canvases: bool = True,
        folder: Path | None = None,
    ) -> Table:
        """Measure what samplers write, and show the progress.

        rows, compared: by default `table1_rows` and the `compared_rows` of the rows.
        repetitions: of the Geometry Score.
        seeds, canvases, folder: of `table1`.
        Raises HwdiffError when the split is too small.
        """
        # Fails at once, not after minutes, with too few lines.
        Sets.draw(self.dataset, self.split, count=self.lines, seed=0)
        rows = self.table1_rows if rows is None else rows
        if compared is None:
            compared = compared_rows(rows)
        total = len(seeds) * (len(rows) + 2) * self.lines  # of real lines there are two rows
        with Progress(f"evaluating on {self.split}", total, "lines") as progress:
            return table1(
                self.measures(repetitions),
                self.split,
                count=self.lines,
                seeds=seeds,
                generators={row: self.writer(written) for row, written in rows.items()},
                compared=compared,
                settings=self._settings(rows),
                canvases=canvases,
                folder=folder,
                workers=self._workers,
                progress=progress.update,
            )

    def write(self, row: str, sets: Sets, folder: Path) -> list[Ink]:
        """The lines of one of `table1_rows`; with the folder of a `table` of these sets, those measured."""
        settings, generate = self._settings(self.table1_rows), self.writer(self.table1_rows[row])
        inks, _ = write_row(row, sets, self.dataset, generate, settings, folder=folder, workers=self._workers)
        return inks

    def diversity(
        self,
        indices: np.ndarray,
        repeats: int,
        seed: int = 0,
        *,
        progress: Callable[[str], None] | None = None,
    ) -> Diversity:
        """How much lines of one text in one style differ, by Eq. 12 and by Eq. 9.

        indices: (n,) lines of the dataset, whose texts and styles are taken.
        repeats: how often each is written, each time from other noise.   seed: of the noise.
        progress: of `measure_diversity`.
        """
        rows = self.diversity_rows
        return measure_diversity(
            next(iter(self._measures.values()), None) or self.measures(),  # whatever their repetitions
            indices,
            repeats,
            seed,
            generators={row: self.writer(written) for row, written in rows.items()},
            settings={**self._settings(rows), "split": self.split},
            progress=progress,
        )
