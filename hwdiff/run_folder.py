"""The folder of a training run: what is in it, and when it may be gone on with."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from hwdiff.checkpoint import save_model
from hwdiff.errors import HwdiffError
from hwdiff.files import replacing
from hwdiff.model.writer import ModelConfig
from hwdiff.recipes import TrainingConfig
from hwdiff.runs import check_same, cut_rows, read_header, save_state

FORMAT = "hwdiff training state 1"
# What may change when a run is gone on with; each change is kept in the configuration, with the step after which it holds.
CHANGEABLE = {
    *("learning_rate", "warmup", "cooldown", "excerpts", "excerpt_steps", "guided_attention", "drop_style", "drop_text", "precision"),
    *("save_every", "held_out_every", "sample_every"),
}
NOT_OF_CONFIG = ("dataset", "style_weights", "device", "changes")


class RunFolder:
    """The folder of a training run: config.json, state.safetensors (to resume), model.safetensors (to write with), metrics.jsonl,
    held_out.jsonl and samples/. Only the first process writes to it."""

    def __init__(self, path, config, dataset, style_weights, device):
        self.path, self.config = Path(path), config
        self.settings = {**asdict(config), "dataset": dataset.content, "style_weights": style_weights, "device": device.type}
        self.settings = json.loads(json.dumps(self.settings))
        self.state = self.path / "state.safetensors"

    def step_to_resume(self, resume):
        """The step of the saved state, 0 if there is none. Raises HwdiffError when the folder holds a run that must not be gone on with."""
        if not (self.path / "config.json").exists():
            if self.state.exists():
                raise HwdiffError(f"{self.path}: holds the state of some other run; choose another folder")
            return 0
        if not resume:
            raise HwdiffError(f"{self.path}: holds a training run already; go on with --resume, choose another folder or delete it")
        header = read_header(self.state, FORMAT) if self.state.exists() else {"step": 0, "settings": read_config(self.path)}
        for found in (read_config(self.path), header["settings"]):
            changed = self._changed(found, header["step"])
        self.settings["changes"] = header["settings"].get("changes", []) + ([{"after": header["step"], **changed}] if changed else [])
        return header["step"]

    def _changed(self, found, step):
        """{setting: [of the run at `step` with the settings `found`, now]}. Raises HwdiffError for what may not change."""
        wanted = self.settings
        if found.get("dataset") != wanted["dataset"]:
            raise HwdiffError(
                f"{self.path}: trained on another dataset ({str(found.get('dataset'))[:8]}, not {wanted['dataset'][:8]}); give that one"
            )
        found = {key: value for key, value in found.items() if key != "changes"}
        free = CHANGEABLE
        if all(step <= settings.get("steps", 0) - settings.get("cooldown", 0) for settings in (found, wanted)):
            free = free | {"steps"}  # nothing that was done depends on it
        check_same(self.path, *({key: value for key, value in settings.items() if key not in free | {"changes"}} for settings in (found, wanted)))
        return {key: [found.get(key), wanted[key]] for key in wanted if key in free and found.get(key) != wanted[key]}

    def begin(self, done):
        """Write the configuration and cut the logs back to step `done`. Returns the seconds of training until then, and the CPU seconds."""
        with replacing(self.path / "config.json") as path:
            path.write_text(json.dumps(self.settings, indent=1))
        cut_rows(self.path / "held_out.jsonl", done)
        last = cut_rows(self.path / "metrics.jsonl", done)
        return (last["seconds"], last.get("cpu_seconds", 0.0)) if last else (0.0, 0.0)

    def save(self, step, modules, optimizers, generator, network):
        """The state comes last: whatever is interrupted before it is done again."""
        information = {"training": asdict(self.config), "dataset": self.settings["dataset"], "style_weights": self.settings["style_weights"]}
        save_model(network, self.path / "model.safetensors", step=step, **information)
        save_state(self.state, {"format": FORMAT, "step": step, "settings": self.settings}, modules, optimizers, generator)


def branch(run, out):
    """Copy the run in the folder `run` to the new folder `out`, to be gone on with there. Raises HwdiffError when it has no saved state."""
    run, out = Path(run), Path(out)
    read_config(run)
    read_header(run / "state.safetensors", FORMAT)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("metrics.jsonl", "held_out.jsonl", "state.safetensors", "config.json"):  # the last makes it a run
            if (run / name).exists():
                with replacing(out / name) as path:
                    shutil.copyfile(run / name, path)
    except OSError as error:
        raise HwdiffError(f"{out}: cannot be the folder of a run ({error.strerror}); choose another") from error


def read_config(run):
    """The settings of the run in the folder `run`, a dictionary. Raises HwdiffError when there are none."""
    path = Path(run) / "config.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise HwdiffError(f"{path}: no configuration of a training run ({error}); give the folder that hwdiff train wrote") from error


def config_of_run(run):
    """The TrainingConfig of the run in the folder `run`. Raises HwdiffError when it has none that this version can read."""
    settings = {key: value for key, value in read_config(run).items() if key not in NOT_OF_CONFIG}
    try:
        return TrainingConfig(**{**settings, "model": ModelConfig(**settings["model"])})
    except (KeyError, TypeError) as error:
        raise HwdiffError(f"{run}: config.json is not one of this version ({error}); use the version that wrote it") from error
