"""The directory of a training run: what is in it, the state on disk, and when it may be resumed.

The network, the style encoder and the recognizer are all trained in such directories.
"""

import json
import os
import shutil
from collections.abc import Collection
from itertools import chain
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import atomic_write, truncate_jsonl, write_json
from hwdiff.utils.json_values import parse_json, require
from hwdiff.utils.tensors import load_metadata, load_tensors, save_tensors

FORMAT = "hwdiff run 1"
# What runs of the various kinds write: a directory that holds one of these is not new.
OVERWRITTEN = (
    "state.safetensors",
    "model.safetensors",
    "style.safetensors",
    "recognizer.safetensors",
    "metrics.jsonl",
    "validation.jsonl",
)
_ABOUT = {
    "what": "state of a run",
    "advice": "nothing can be resumed from it: start again in another directory",
}
_LARGEST = ("guided_attention?", "drop_text?", "drop_style?")  # of whose changes the largest counts
_CHANGE = {"after": int, **{name: [(float, None)] for name in _LARGEST}}
# Of settings, what is looked at whatever is trained.
_SETTINGS = {"kind?": (str, None), "steps?": int, "cooldown?": int, "changes?": [_CHANGE]}


class RunDirectory:
    """The directory of a training run.

    It holds config.json, the settings; state.safetensors, from which the run is resumed; metrics.jsonl, a
    line for each step; and validation.jsonl, a line for each validation. The loop may write more there.

    settings: what the run depends on, in JSON types; "kind" says what is trained.
    changeable: names of settings that may change when the run is resumed. Each change is recorded in the
        settings, with the step after which it holds.
    """

    def __init__(self, path: str | Path, settings: dict, *, changeable: Collection[str] = ()):
        self.path, self.changeable = Path(path), set(changeable)
        self.settings = json.loads(json.dumps(settings))  # tuples become lists, as in what is read back
        if self.changeable:
            self.settings["changes"] = []
        self.state = self.path / "state.safetensors"
        self.done, self.seconds, self.cpu_seconds = 0, 0.0, 0.0

    def find_step(self, resume: bool) -> int:
        """The last step that is done, 0 for a new run. Also kept as `done`. Nothing is written.

        Raises HwdiffError when the directory holds a run and `resume` is false, or when the run cannot be
        resumed with these settings.
        """
        if not os.path.exists(self.path / "config.json"):
            _refuse_to_overwrite(self.path)
            return 0
        if not resume:
            advice = "resume it with --resume, choose another directory or delete it"
            raise HwdiffError(f"{self.path}: holds a training run already; {advice}")
        saved = {"step": 0, "settings": read_config(self.path)}
        if self.state.exists():
            saved = load_metadata(self.state, FORMAT, **_ABOUT)
            about = {"what": f"the {_ABOUT['what']}", "advice": _ABOUT["advice"]}
            require(saved, {"step": _is_step, "settings": _SETTINGS}, name=self.state, **about)
        self.done, changes = saved["step"], saved["settings"].get("changes", [])
        for found in (read_config(self.path), saved["settings"]):
            changed = self._changed(found)
        if changed:
            changes = [*changes, {"after": self.done, **changed}]
        if self.changeable:
            self.settings["changes"] = changes
        return self.done

    def _refuse_other(self, found):
        advice = "run the same command again"
        raise HwdiffError(f"{self.path}: another process has saved {found} in it meanwhile; {advice}")

    def _changed(self, found):
        """What differs from the settings `found`: {setting: [in `found`, now]}.

        Raises HwdiffError when it is something that may not change.
        """
        kinds = found.get("kind"), self.settings["kind"]
        if len(set(kinds)) > 1:
            found = f"holds a run of another kind ({kinds[0]}, not {kinds[1]})"
            raise HwdiffError(f"{self.path}: {found}; choose another directory")
        if found.get("dataset") != self.settings.get("dataset"):
            of, given = (str(settings.get("dataset"))[:8] for settings in (found, self.settings))
            raise HwdiffError(f"{self.path}: trained on another dataset ({of}, not {given}); give that one")
        free, both = self.changeable | {"changes"}, (found, self.settings)
        cooldowns = [settings.get("steps", 0) - settings.get("cooldown", 0) for settings in both]
        if self.changeable and self.done <= min(cooldowns):
            free |= {"steps"}  # nothing done so far depends on their number
        fixed = [{key: value for key, value in some.items() if key not in free} for some in both]
        check_same(self.path, *fixed)
        return {
            key: [found.get(key), value]
            for key, value in self.settings.items()
            if key in free - {"changes"} and found.get(key) != value
        }

    def begin(self) -> None:
        """Write the settings, and cut the logs back to the last step that is done.

        Raises HwdiffError when another process has begun meanwhile.
        """
        if not self.done and self.state.exists():
            self._refuse_other("a state")
        write_json(self.path / "config.json", self.settings)
        truncate_jsonl(self.path / "validation.jsonl", self.done)
        last = truncate_jsonl(self.path / "metrics.jsonl", self.done) or {}
        about = {"what": "the log of a run", "advice": "delete it, to do without it"}
        require(last, {"seconds?": float, "cpu_seconds?": float}, name=self.path / "metrics.jsonl", **about)
        self.seconds, self.cpu_seconds = last.get("seconds", 0.0), last.get("cpu_seconds", 0.0)

    def save(
        self,
        step: int,
        modules: dict[str, nn.Module],
        optimizers: dict[str, Optimizer],
        generator: torch.Generator,
    ) -> None:
        """Write the state after `step`, whole or not at all.

        Save it after everything else of the step: what is interrupted before that is done again.

        modules, optimizers: by the names under which their weights, moments and step counts are kept.
        generator: whose state is kept too.
        """
        state = {}
        for name, module in modules.items():
            state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
        for name, optimizer in optimizers.items():
            for number, moments in optimizer.state_dict()["state"].items():
                state |= {f"{name}.{number}.{key}": value for key, value in moments.items()}
        state["generator"] = generator.get_state()
        state = {name: value.detach().cpu().clone() for name, value in state.items()}
        save_tensors(self.state, state, {"format": FORMAT, "step": step, "settings": self.settings})

    def load(
        self,
        modules: dict[str, nn.Module],
        optimizers: dict[str, Optimizer],
        generator: torch.Generator,
    ) -> None:
        """Put the saved state back into what `save` took it from. Raises HwdiffError when it does not fit."""
        saved, state = load_tensors(self.state, FORMAT, **_ABOUT)
        if saved["step"] != self.done:
            self._refuse_other(f"step {saved['step']}")
        try:
            for name, module in modules.items():
                module.load_state_dict({key: state[f"{name}.{key}"] for key in module.state_dict()})
            for name, optimizer in optimizers.items():
                own = {key: value for key, value in state.items() if key.startswith(f"{name}.")}
                _load_optimizer(optimizer, own)
            generator.set_state(state["generator"])
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, KeyError, IndexError, ValueError, TypeError) as error:
            found = f"its tensors do not fit its metadata ({str(error).splitlines()[0]})"
            raise HwdiffError(f"{self.state}: {found}; start again in another directory") from error


def _refuse_to_overwrite(path):
    """Raises HwdiffError when the directory `path`, which has no config.json, holds files of some run."""
    for name in OVERWRITTEN:
        if os.path.exists(path / name):
            found = f"holds {name} without the config.json of its run; it would be overwritten"
            raise HwdiffError(f"{path}: {found}; choose another directory")


def _load_optimizer(optimizer, state):
    weights, moments = [weight for group in optimizer.param_groups for weight in group["params"]], {}
    for name, value in state.items():
        _, number, key = name.split(".")
        weight = weights[int(number)]
        if value.shape == weight.shape:
            # The fused Adam goes through memory in order: moments must lie as their weights (channels_last).
            value = torch.empty_like(weight).copy_(value)
        elif value.ndim:
            raise ValueError(f"{name} is {tuple(value.shape)}, its weight {tuple(weight.shape)}")
        moments.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def check_same(path: str | Path, found: dict, wanted: dict) -> None:
    """Raises HwdiffError, naming the differences, when a run has other settings than are wanted now.

    path: of the run.
    found: its settings.
    """
    keys = [key for key in dict.fromkeys(chain(found, wanted)) if found.get(key) != wanted.get(key)]
    if keys:
        differences = ", ".join(f"{key} = {found.get(key)!r}, not {wanted.get(key)!r}" for key in keys)
        advice = "give the same, or another directory"
        raise HwdiffError(f"{path}: cannot be resumed with other settings: it has {differences}; {advice}")


def _saved_settings(run):
    return load_metadata(run / "state.safetensors", FORMAT, **_ABOUT).get("settings")


def branch(run: str | Path, out: str | Path) -> None:
    """Copy the run in the directory `run` to the directory `out`, to be resumed there.

    Raises HwdiffError when `run` has no saved state, or `out` cannot be written or holds files of another.
    """
    run, out = Path(run), Path(out)
    read_config(run)
    settings = _saved_settings(run)
    # A copy that was interrupted has the state of this run, and is made again.
    begun = os.path.exists(out / "state.safetensors") and _saved_settings(out) == settings
    if not begun and os.path.exists(out / "config.json"):
        raise HwdiffError(f"{out}: holds another run; choose another directory")
    if not begun:
        _refuse_to_overwrite(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Logs may go further than the state, should the run go on meanwhile. The last file makes it a run.
        for name in (
            "state.safetensors",
            "model.safetensors",
            "metrics.jsonl",
            "validation.jsonl",
            "config.json",
        ):
            if (run / name).exists():
                with atomic_write(out / name) as path:
                    shutil.copyfile(run / name, path)
    except OSError as error:
        found = f"cannot be the directory of a run ({error.strerror})"
        raise HwdiffError(f"{out}: {found}; choose another") from error


def read_config(run: str | Path) -> dict:
    """The settings of the run in the directory `run`. Raises HwdiffError when there are none."""
    path = Path(run) / "config.json"
    try:
        settings = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        found = f"no configuration of a training run ({error})"
        raise HwdiffError(f"{path}: {found}; give the directory of one") from error
    about = {"what": "the configuration of a training run", "advice": "give the directory of one"}
    require(settings, _SETTINGS, name=path, **about)
    return settings


def _is_step(value):
    return type(value) is int and 0 <= value < 2**63
