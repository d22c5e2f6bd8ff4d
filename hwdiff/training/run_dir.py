"""The folder of a training run: what is in it, its state on disk, and when it may be resumed."""

import json
import shutil
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hwdiff.model.checkpoint import save_model
from hwdiff.model.config import ModelConfig
from hwdiff.training.config import TrainingConfig
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write, truncate_jsonl

FORMAT = "hwdiff training state 1"
# What may change when a run is gone on with; each change is kept in the configuration, with the step after which it holds.
CHANGEABLE = {
    *("learning_rate", "warmup", "cooldown", "excerpts", "excerpt_steps", "guided_attention", "drop_style", "drop_text", "precision"),
    *("save_every", "validate_every", "sample_every"),
}
NOT_OF_CONFIG = ("dataset", "style_weights", "device", "changes")


def save_state(path, metadata, modules, optimizers, generator):
    """Write the state of a run, whole or not at all: safetensors with `metadata`, in JSON, beside it.

    modules: {name: Module}.   optimizers: {name: Optimizer}, their moments and step counts.   generator: a torch.Generator.
    Raises HwdiffError when it cannot be written; what stood at `path` stays.
    """
    state = {f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        for number, moments in optimizer.state_dict()["state"].items():
            state |= {f"{name}.{number}.{key}": tensor for key, tensor in moments.items()}
    state["generator"] = generator.get_state()
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with atomic_write(path) as temporary:
        save_file(state, temporary, metadata={"hwdiff": json.dumps(metadata)})


def read_metadata(path, fmt):
    """The metadata of a state file of the format `fmt`. Raises HwdiffError when the file is missing, cut short or of another format."""
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {}).get("hwdiff", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise HwdiffError(f"{path}: not a whole state of a run ({error}); nothing can be resumed from it: start again in another folder") from error
    if metadata.get("format") != fmt:
        raise HwdiffError(f"{path}: format {metadata.get('format')!r}, but this version reads {fmt!r}; use the version that wrote it")
    return metadata


def load_state(path, modules, optimizers, generator):
    """Put the state that `save_state` wrote back into modules, optimizers and generator. Raises HwdiffError when it does not fit them."""
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        for name, module in modules.items():
            module.load_state_dict({key: state[f"{name}.{key}"] for key in module.state_dict()})
        for name, optimizer in optimizers.items():
            weights, moments = [weight for group in optimizer.param_groups for weight in group["params"]], {}
            for entry in [entry for entry in state if entry.startswith(f"{name}.")]:
                _, number, key = entry.split(".")
                weight = weights[int(number)]
                # The fused Adam goes through memory in order: moments must lie there as their weights do (channels_last).
                tensor = torch.empty_like(weight).copy_(state[entry]) if state[entry].shape == weight.shape else state[entry]
                moments.setdefault(int(number), {})[key] = tensor
            optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        generator.set_state(state["generator"])
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, RuntimeError, KeyError, IndexError, ValueError) as error:
        raise HwdiffError(f"{path}: its content does not fit its metadata ({str(error).splitlines()[0]}); start again in another folder") from error


def check_same(path, found, wanted):
    """Raises HwdiffError naming what differs between a run's settings, dictionaries `found` (of the run at `path`) and `wanted`."""
    keys = [key for key in dict.fromkeys(chain(found, wanted)) if found.get(key) != wanted.get(key)]
    if keys:
        differences = ", ".join(f"{key} = {found.get(key)!r}, not {wanted.get(key)!r}" for key in keys)
        raise HwdiffError(f"{path}: cannot be resumed with other settings: it has {differences}; give the same, or another folder")


class RunFolder:
    """The folder of a training run: config.json, state.safetensors (to resume), model.safetensors (to write with), metrics.jsonl,
    validation.jsonl and samples/. Only the first process writes to it."""

    def __init__(self, path, config, dataset, style_weights, device):
        self.path, self.config = Path(path), config
        self.settings = {**asdict(config), "dataset": dataset.fingerprint, "style_weights": style_weights, "device": device.type}
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
        metadata = read_metadata(self.state, FORMAT) if self.state.exists() else {"step": 0, "settings": read_config(self.path)}
        for found in (read_config(self.path), metadata["settings"]):
            changed = self._changed(found, metadata["step"])
        self.settings["changes"] = metadata["settings"].get("changes", []) + ([{"after": metadata["step"], **changed}] if changed else [])
        return metadata["step"]

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
        with atomic_write(self.path / "config.json") as path:
            path.write_text(json.dumps(self.settings, indent=1))
        truncate_jsonl(self.path / "validation.jsonl", done)
        last = truncate_jsonl(self.path / "metrics.jsonl", done)
        return (last["seconds"], last.get("cpu_seconds", 0.0)) if last else (0.0, 0.0)

    def save(self, step, modules, optimizers, generator, network):
        """The state comes last: whatever is interrupted before it is done again."""
        metadata = {"training": asdict(self.config), "dataset": self.settings["dataset"], "style_weights": self.settings["style_weights"]}
        save_model(network, self.path / "model.safetensors", step=step, **metadata)
        save_state(self.state, {"format": FORMAT, "step": step, "settings": self.settings}, modules, optimizers, generator)


def branch(run, out):
    """Copy the run in the folder `run` to the new folder `out`, to be gone on with there. Raises HwdiffError when it has no saved state."""
    run, out = Path(run), Path(out)
    read_config(run)
    read_metadata(run / "state.safetensors", FORMAT)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("metrics.jsonl", "validation.jsonl", "state.safetensors", "config.json"):  # the last makes it a run
            if (run / name).exists():
                with atomic_write(out / name) as path:
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
