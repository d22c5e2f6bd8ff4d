"""What Table 1 and the comparison of samplers are measured with: model, dataset and reader, loaded and checked before the first line is written."""

from functools import partial

from hwdiff.data.dataset import Dataset
from hwdiff.data.style_features import StyleFeatures
from hwdiff.diffusion.generate import writing_settings
from hwdiff.diffusion.process import STEPS
from hwdiff.diffusion.samplers import levels, schedule
from hwdiff.evaluation.generation import written_anew
from hwdiff.evaluation.geometry import LANDMARKS, REPETITIONS
from hwdiff.evaluation.measures import Measures, Sets
from hwdiff.evaluation.recognizer import BUNDLED, load_reader
from hwdiff.evaluation.table1 import table1
from hwdiff.evaluation.tables import PAPER_LINES
from hwdiff.model.checkpoint import load_model, path_of_model
from hwdiff.model.style_encoder import load_style_extractor
from hwdiff.utils.environment import environment
from hwdiff.utils.files import sha256_of

CPU_LINES = 60
TABLE1_ROWS = {"model (Eq. 12)": ("eq12", None), "ablation (Eq. 9)": ("eq9", None), "fast": ("fast", None)}


class Bench:
    """A model to be measured on a part of a dataset.

    data: a dataset file.   model, style_encoder, device: of `load_model` and `load_style_extractor`.   reader: a file, None for the bundled one.
    part: "train", as in the paper, "validation" or "test".   guidance: None for what the model is best at.
    lines: of each of both sets; by default 4500 on a GPU, else 60, or half the part.   inception_weights: of `Measures`.
    Raises HwdiffError when something cannot be loaded, or the part is too small.
    """

    def __init__(
        self,
        data,
        model="pretrained",
        part="train",
        lines=None,
        style_encoder="bundled",
        reader=None,
        inception_weights=None,
        guidance=None,
        device=None,
    ):
        self.part, self.dataset, self.network = part, Dataset(data), load_model(model, device)
        device = next(self.network.parameters()).device
        self.lines = lines or min(PAPER_LINES if device.type == "cuda" else CPU_LINES, len(self.dataset.part(part)) // 2)
        Sets.draw(self.dataset, part, self.lines, seed=0)  # tells at once, not after minutes, when there are too few lines
        self.reader = load_reader(reader or BUNDLED, device)
        self.features = StyleFeatures(self.dataset, load_style_extractor(style_encoder, device))
        self.inception_weights, self._measures = inception_weights, {}
        writing = writing_settings(self.network)
        self.guidance = writing["guidance"] if guidance is None else guidance
        self.settings = {
            "dataset": {"content": self.dataset.content, "parameters": self.dataset.manifest["parameters"]},
            "model": {"file": path_of_model(model).name, "sha256": sha256_of(path_of_model(model)), "step": self.network.info.get("step")},
            "writing": {**writing, "guidance": self.guidance},
            "reader": sha256_of(reader or BUNDLED),
            "style encoder": self.features.extractor.identity,
            "environment": environment(device),
        }

    def measures(self, repetitions=REPETITIONS):
        """The `Measures` of lines of the part. repetitions: of the Geometry Score."""
        if repetitions not in self._measures:
            landmarks = min(LANDMARKS, self.lines // 2)
            made = Measures(self.dataset, self.part, self.features, self.reader, self.inception_weights, landmarks, repetitions)
            self._measures[repetitions] = made
        return self._measures[repetitions]

    def table(self, rows=None, seeds=range(5), repetitions=REPETITIONS, canvases=True, folder=None, progress=None):
        """Measure what samplers write: a `Table`.

        rows: {row: (sampler, signal levels, or None for the sampler's own)}, by default those of the paper and "fast".
        repetitions: of the Geometry Score.   seeds, canvases, folder, progress: of `table1`.
        """
        walks = {row: (sampler, levels(sampler) if steps is None else steps) for row, (sampler, steps) in (rows or TABLE1_ROWS).items()}
        settings = {**self.settings, "rows": {row: {"sampler": sampler, "levels": steps.tolist()} for row, (sampler, steps) in walks.items()}}
        writers = {
            row: partial(written_anew, self.network, self.dataset, self.features, sampler=sampler, steps=steps, guidance=self.guidance)
            for row, (sampler, steps) in walks.items()
        }
        return table1(self.measures(repetitions), self.part, self.lines, seeds, writers, settings, canvases, folder, progress)


BASE = f"eq12, {STEPS} calls"


def sampler_rows(samplers, counts, spacings):
    """Rows for `Bench.table`, of each of `samplers` with each of `counts` network calls, at each of `spacings` of the noise levels.

    60 calls have the published levels whatever the spacing. The first row is BASE, Eq. 12 with 60 calls.
    Returns {row: (sampler, levels)}.
    """
    rows = {BASE: ("eq12", schedule())}
    for name in samplers:
        for count in counts:
            for spacing in ("",) if count == STEPS else spacings:
                rows[f"{name}, {count} calls{spacing and ', ' + spacing}"] = name, schedule(count, spacing or "log-snr")
    return rows


def fewest_calls(table):
    """What each row of a `Table` of `sampler_rows` is worse in than BASE, {row: measures, None where one seed cannot tell}; and which rows are so in
    nothing with the fewest calls."""
    worse = {row: table.worse(row, BASE) for row in table.settings["rows"] if row != BASE}
    calls = {row: len(table.settings["rows"][row]["levels"]) for row, found in worse.items() if found == []}
    return worse, [row for row, count in calls.items() if count == min(calls.values())]
