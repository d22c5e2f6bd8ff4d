"""Training the recognizer: CTC on real lines that are bent, slanted, scaled, sped up and jittered."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwdiff.data.batches import training_order
from hwdiff.data.dataset import Dataset
from hwdiff.data.excerpts import Excerpts
from hwdiff.evaluation.error_rates import legibility
from hwdiff.evaluation.recognizer import (
    BLANK,
    Recognizer,
    RecognizerConfig,
    encode,
    features,
    load_recognizer,
    pad,
    save_recognizer,
)
from hwdiff.ink import strokes
from hwdiff.training.config import warmup_and_cosine
from hwdiff.training.distributed import Processes
from hwdiff.training.optimizers import Ema
from hwdiff.training.run_dir import RunDirectory
from hwdiff.training.steps import Steps
from hwdiff.utils.errors import require_choice
from hwdiff.utils.files import append_jsonl, lock_directory
from hwdiff.utils.interrupt import Stop
from hwdiff.utils.progress import Progress
from hwdiff.utils.settings import check_settings, setting

CLIP_NORM = 5.0


@dataclass(frozen=True)
class RecognizerTraining:
    """How a recognizer is trained.

    The learning rate of AdamW rises over `warmup` steps, then falls to 0 along a cosine.
    """

    steps: int = setting(10_000, "Training steps.", low=1)
    batch_size: int = setting(32, "Lines per batch.", low=1)
    learning_rate: float = setting(2e-3, "Highest learning rate.", above=0, below=1)
    warmup: int = setting(300, "Steps in which the learning rate rises to its highest.", low=1)
    weight_decay: float = setting(1e-2, "Weight decay of AdamW.", low=0)
    ema: float = setting(0.998, "Decay of the EMA of the weights, which is saved.", low=0, below=1)
    seed: int = setting(0, "Seed of the weights, the order and the variations.", low=0, below=2**63)
    save_every: int = setting(250, "Save the state every so many steps.", low=1)
    validate_every: int = setting(1000, "Compute the CER every so many steps; 0 for never.", low=0)
    network: RecognizerConfig = field(default_factory=RecognizerConfig)

    def __post_init__(self):
        check_settings(self)

    def learning_rate_at(self, step: int) -> float:
        """The learning rate at step 1, 2, ..., `steps`."""
        return self.learning_rate * warmup_and_cosine(step, self.warmup, self.steps)


PRESETS = {
    "smoke": RecognizerTraining(
        steps=20,
        batch_size=8,
        save_every=10,
        validate_every=20,
        ema=0.9,
        network=RecognizerConfig(c1=16, c2=24, c3=32, convolutions=1, hidden=24, layers=1),
    ),
    "full": RecognizerTraining(),
}


def preset(name: str, **changes: Any) -> RecognizerTraining:
    """The configuration of a preset, with some fields changed; those given as None stay.

    Raises HwdiffError for an unknown preset.
    """
    require_choice("preset", name, PRESETS)
    return replace(PRESETS[name], **{key: value for key, value in changes.items() if value is not None})


def vary(
    offsets: np.ndarray, pen_up: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A line as another writer might have written it.

    It varies in rotation by a few degrees, slant, width, gaps between strokes, speed (points are left out and
    put in), drifting size, and jitter.

    offsets: (N, 2), y upwards.
    pen_up: (N,) bool.
    Returns offsets and pen_up, perhaps of another number of points.
    """
    uniform, normal = generator.uniform, generator.normal
    offsets, pen_up = _change_speed(offsets.astype(np.float64), pen_up, generator)
    turn, slant = normal(0, 0.05), np.clip(normal(0, 0.25), -0.6, 0.6)
    offsets = offsets * np.exp(normal(0, (0.18, 0.08)))
    offsets[:, 0] += slant * offsets[:, 1]
    offsets = offsets @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    forward = pen_up & (offsets[:, 0] > 0)
    offsets[forward, 0] *= np.exp(normal(0, 0.2))
    phase = np.linspace(0, 2 * np.pi * uniform(0.5, 3), len(offsets)) + uniform(0, 2 * np.pi)
    larger, wider = uniform(0, 0.2) * np.sin(phase), uniform(0, 0.1) * np.cos(phase)
    offsets *= np.exp(larger[:, None] + wider[:, None] * (1, -1))
    letter = np.sqrt(np.mean(np.square(offsets[~pen_up]))) if not pen_up.all() else 1.0
    shake = normal(0, uniform(0, 0.12) * letter, offsets.shape)
    return offsets + np.diff(shake, axis=0, prepend=shake[:1]), pen_up


def _change_speed(offsets, pen_up, generator):
    """Leave out some of the points in which the pen hardly turns, and halve some of the offsets."""
    kept = np.ones(len(offsets), dtype=bool)
    here, after = offsets[:-1], offsets[1:]
    straight = np.einsum("ij,ij->i", here, after) > 0.8 * np.hypot(*here.T) * np.hypot(*after.T)
    drop = straight & ~pen_up[:-1] & ~pen_up[1:] & (generator.random(len(here)) < generator.uniform(0, 0.3))
    drop[1:] &= ~drop[:-1]
    kept[:-1] = ~drop
    offsets, pen_up = strokes.merge(offsets, pen_up, kept)
    halved = ~pen_up & (generator.random(len(offsets)) < generator.uniform(0, 0.2))
    counts = 1 + halved
    return np.repeat(offsets / counts[:, None], counts, axis=0), np.repeat(pen_up, counts)


def batch_of(
    dataset: Dataset, indices: Sequence[int], generator: np.random.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lines of a dataset for CTC.

    indices: (B,) of the lines.
    generator: for `vary`; None for the lines as they are.
    Returns features (B, N, 8); targets (sum of their lengths,) int64; the targets' lengths (B,); and the
    lengths (B,) of the ink at half the points' rate.
    """
    lines = [dataset.strokes(index) for index in indices]
    if generator is not None:
        lines = [vary(*line, generator) for line in lines]
    seen = [features(*line)[0] for line in lines]
    targets = [encode(dataset.texts[index]) for index in indices]
    target_lengths = [len(target) for target in targets]
    lengths = [-(-len(line) // 2) for line in seen]
    targets = torch.from_numpy(np.concatenate(targets))
    return pad(seen), targets, torch.tensor(target_lengths), torch.tensor(lengths)


def train_recognizer(
    config: RecognizerTraining,
    dataset: Dataset,
    out: str | Path,
    device: str | torch.device,
    *,
    resume: bool = False,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> int:
    """Train a recognizer in the directory `out`, a `RunDirectory` with recognizer.safetensors.

    After the last step it is tested on the test split; the error rates go into the metadata of
    recognizer.safetensors. On a CPU a run that was resumed gives the same weights, bit for bit, as one that
    was never stopped, if it has as many threads.

    resume: from the state in `out`, if there is one.
    stop: looked at between steps.
    progress: told of each step.
    Returns the step reached.
    Raises HwdiffError when `out` holds another run, or the loss is no longer finite.
    """
    device = torch.device(device)
    about = {"dataset": dataset.fingerprint}
    directory = RunDirectory(out, {"kind": "recognizer", **asdict(config), **about, "device": device.type})
    done = directory.find_step(resume)
    lines = {split: dataset.split(split) for split in ("train", "validation", "test")}
    forms = {split: sorted(set(dataset.forms[lines[split]].tolist())) for split in ("train", "validation")}
    metadata = {"training": asdict(config), **about, "forms": forms}
    path = directory.path / "recognizer.safetensors"
    excerpts = Excerpts(dataset, config.seed)
    order = training_order(excerpts, lines["train"], config.batch_size, seed=config.seed, done=done)
    order = chain([next(order)], order)  # an error in the data shows before anything is written
    with lock_directory(directory.path), torch.random.fork_rng([device] if device.type == "cuda" else []):
        # Make the network and what trains it, or load the state of both.
        torch.manual_seed(config.seed)
        recognizer = Recognizer(config.network).to(device).train()
        ema = Ema(recognizer, config.ema)
        options = {"lr": 0.0, "betas": (0.9, 0.98), "weight_decay": config.weight_decay, "fused": True}
        optimizer = torch.optim.AdamW(recognizer.parameters(), **options)
        generator = torch.Generator().manual_seed(config.seed)
        modules = {"recognizer": recognizer, "ema": ema}
        if done:
            directory.load(modules, {"optimizer": optimizer}, generator)

        directory.begin()
        every, processes = (config.save_every, config.validate_every), Processes(device)
        steps = Steps(directory, config.steps, every=every, processes=processes, stop=stop, progress=progress)
        for step in steps:
            # Make the batch. One random number decides how its lines vary, and what is dropped out.
            drawn = int(torch.randint(2**62, (), generator=generator))
            torch.manual_seed(drawn)
            batch = batch_of(dataset, next(order)[0], np.random.default_rng(drawn))
            seen, targets, target_lengths, lengths = batch

            # Take a gradient step on CTC's loss per character.
            found = recognizer(seen.to(device)).transpose(0, 1)
            ctc = {"blank": BLANK, "reduction": "sum", "zero_infinity": True}
            loss = F.ctc_loss(found, targets.to(device), lengths, target_lengths, **ctc) / len(targets)
            optimizer.param_groups[0]["lr"] = config.learning_rate_at(step)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(recognizer.parameters(), CLIP_NORM)
            optimizer.step()

            # Update the EMA.
            ema.update_parameters(recognizer)

            # Log, validate and save.
            steps.log({"loss": loss, "gradient_norm": norm})
            if steps.due(config.validate_every) and len(lines["validation"]):
                row = _error_rates(dataset, lines["validation"], ema.module)
                append_jsonl(directory.path / "validation.jsonl", [{"step": step, **row}])
            if steps.due(config.save_every) or steps.stopping:
                save_recognizer(ema.module, path, **metadata, step=step)
                directory.save(step, modules, {"optimizer": optimizer}, generator)

        # Test it as it will be used, in half precision.
        if steps.step == config.steps and len(lines["test"]):
            tested = _error_rates(dataset, lines["test"], load_recognizer(path, device))
            save_recognizer(ema.module, path, **metadata, step=steps.step, test=tested)
    return steps.step


def _error_rates(dataset, indices, recognizer):
    inks = [dataset.ink(index) for index in indices]
    return legibility(inks, recognizer.eval(), groups=dataset.forms[indices]).summary()
