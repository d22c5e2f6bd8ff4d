"""What Table 1 and the comparison of samplers are measured with: model, dataset and recognizer, loaded and checked before the first line is written."""

from functools import partial

from hwdiff.data.dataset import Dataset
from hwdiff.data.style_features import StyleFeatures
from hwdiff.diffusion.generate import writing_settings
from hwdiff.diffusion.process import STEPS
from hwdiff.diffusion.samplers import levels, schedule
from hwdiff.evaluation.generation import regenerate_lines
from hwdiff.evaluation.geometry import LANDMARKS, REPETITIONS
from hwdiff.evaluation.measures import Measures, Sets
from hwdiff.evaluation.recognizer import BUNDLED, load_recognizer
from hwdiff.evaluation.table1 import table1
from hwdiff.evaluation.tables import PAPER_LINES
from hwdiff.model.checkpoint import load_model, path_of_model
from hwdiff.model.style_encoder import load_style_extractor
from hwdiff.utils.environment import environment
from hwdiff.utils.files import sha256_of

CPU_LINES = 60
TABLE1_ROWS = {"model (Eq. 12)": ("eq12", None), "ablation (Eq. 9)": ("eq9", None), "fast": ("fast", None)}


class Bench:
    """A model to be measured on a split of a dataset.

    data: a dataset file.   model, style_encoder, device: of `load_model` and `load_style_extractor`.   recognizer: a file, None for the bundled one.
    split: "train", as in the paper, "validation" or "test".   guidance: None for what the model is best at.
    lines: of each of both sets; by default 4500 on a GPU, else 60, or half the split.   inception_weights: of `Measures`.
    Raises HwdiffError when something cannot be loaded, or the split is too small.
    """

    def __init__(
        self,
        data,
        model="pretrained",
        split="train",
        lines=None,
        style_encoder="bundled",
        recognizer=None,
        inception_weights=None,
        guidance=None,
        device=None,
    ):
        self.split, self.dataset, self.network = split, Dataset(data), load_model(model, device)
        device = next(self.network.parameters()).device
        self.lines = lines or min(PAPER_LINES if device.type == "cuda" else CPU_LINES, len(self.dataset.split(split)) // 2)
        Sets.draw(self.dataset, split, self.lines, seed=0)  # tells at once, not after minutes, when there are too few lines
        self.recognizer = load_recognizer(recognizer or BUNDLED, device)
        self.features = StyleFeatures(self.dataset, load_style_extractor(style_encoder, device))
        self.inception_weights, self._measures = inception_weights, {}
        writing = writing_settings(self.network)
        self.guidance = writing["guidance"] if guidance is None else guidance
        self.settings = {
            "dataset": {"fingerprint": self.dataset.fingerprint, "parameters": self.dataset.manifest["parameters"]},
            "model": {"file": path_of_model(model).name, "sha256": sha256_of(path_of_model(model)), "step": self.network.metadata.get("step")},
            "writing": {**writing, "guidance": self.guidance},
            "recognizer": sha256_of(recognizer or BUNDLED),
            "style encoder": self.features.extractor.identity,
            "environment": environment(device),
        }

    def measures(self, repetitions=REPETITIONS):
        """The `Measures` of lines of the split. repetitions: of the Geometry Score."""
        if repetitions not in self._measures:
            landmarks = min(LANDMARKS, self.lines // 2)
            made = Measures(self.dataset, self.split, self.features, self.recognizer, self.inception_weights, landmarks, repetitions)
            self._measures[repetitions] = made
        return self._measures[repetitions]

    def table(self, rows=None, seeds=range(5), repetitions=REPETITIONS, canvases=True, folder=None, progress=None):
        """Measure what samplers write: a `Table`.

        rows: {row: (sampler, signal levels, or None for the sampler's own)}, by default those of the paper and "fast".
        repetitions: of the Geometry Score.   seeds, canvases, folder, progress: of `table1`.
        """
        walks = {row: (sampler, levels(sampler) if steps is None else steps) for row, (sampler, steps) in (rows or TABLE1_ROWS).items()}
        settings = {**self.settings, "rows": {row: {"sampler": sampler, "levels": steps.tolist()} for row, (sampler, steps) in walks.items()}}
        generators = {
            row: partial(regenerate_lines, self.network, self.dataset, self.features, sampler=sampler, steps=steps, guidance=self.guidance)
            for row, (sampler, steps) in walks.items()
        }
        return table1(self.measures(repetitions), self.split, self.lines, seeds, generators, settings, canvases, folder, progress)


BASE = f"eq12, {STEPS} steps"


def sampler_rows(samplers, counts, spacings):
    """Rows for `Bench.table`, of each of `samplers` with each of `counts` steps, at each of `spacings` of the noise levels.

    60 steps have the published levels whatever the spacing. The first row is BASE, Eq. 12 with 60 steps.
    Returns {row: (sampler, levels)}.
    """
    rows = {BASE: ("eq12", schedule())}
    for name in samplers:
        for count in counts:
            for spacing in ("",) if count == STEPS else spacings:
                rows[f"{name}, {count} steps{spacing and ', ' + spacing}"] = name, schedule(count, spacing or "log-snr")
    return rows


def fewest_steps(table):
    """What each row of a `Table` of `sampler_rows` is worse in than BASE, {row: measures, None where one seed cannot tell}; and which rows are so in
    nothing with the fewest steps."""
    worse = {row: table.worse(row, BASE) for row in table.settings["rows"] if row != BASE}
    steps = {row: len(table.settings["rows"][row]["levels"]) for row, found in worse.items() if found == []}
    return worse, [row for row, count in steps.items() if count == min(steps.values())]
