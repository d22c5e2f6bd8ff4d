"""Training the recognizer: CTC on real lines that are bent, slanted, scaled, sped up and jittered."""

import time
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hwdiff.data.excerpts import Excerpts
from hwdiff.evaluation.error_rates import legibility
from hwdiff.evaluation.recognizer import BLANK, Recognizer, RecognizerConfig, encode, features, load_recognizer, pad, save_recognizer
from hwdiff.ink import strokes
from hwdiff.training.loop import training_order
from hwdiff.training.optimizers import make_ema
from hwdiff.training.run_dir import check_same, load_state, read_metadata, save_state
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import append_jsonl, lock_directory, truncate_jsonl
from hwdiff.utils.interrupt import Stop

FORMAT = "hwdiff recognizer training 1"
CLIP_NORM = 5.0


@dataclass(frozen=True)
class RecognizerTraining:
    """How a recognizer is trained: AdamW, whose learning rate rises over `warmup` steps and falls to 0 along a cosine until the last.

    ema: decay of the moving ema of the weights, which is what is saved.   validate_every: steps from one error rate on the validation
    split to the next; 0 for none.
    """

    steps: int = 10_000
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup: int = 300
    weight_decay: float = 1e-2
    ema: float = 0.998
    seed: int = 0
    save_every: int = 250
    validate_every: int = 1000
    network: RecognizerConfig = field(default_factory=RecognizerConfig)

    def __post_init__(self):
        for name, lowest in {"steps": 1, "batch_size": 1, "save_every": 1, "validate_every": 0, "warmup": 1}.items():
            if getattr(self, name) < lowest:
                raise HwdiffError(f"{name} = {getattr(self, name)}: must be at least {lowest}")
        if not 0 < self.learning_rate < 1:
            raise HwdiffError(f"learning_rate = {self.learning_rate}: must be between 0 and 1")
        if not 0 <= self.seed < 2**63:
            raise HwdiffError(f"seed = {self.seed}: must be between 0 and 2^63 - 1")

    def learning_rate_at(self, step):
        """The learning rate at step 1, 2, ..., `steps`."""
        return self.learning_rate * min(step / self.warmup, 0.5 + 0.5 * cos(pi * (step - 1) / self.steps))


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


def preset(name, **changes):
    """The configuration of a preset with some fields changed; those given as None stay. Raises HwdiffError for an unknown preset."""
    if name not in PRESETS:
        raise HwdiffError(f"preset: no such preset of the recognizer as {name!r}; choose one of {', '.join(PRESETS)}")
    return replace(PRESETS[name], **{key: value for key, value in changes.items() if value is not None})


def vary(offsets, pen_up, generator):
    """A line as another hand might have written it: (offsets, pen_up) of perhaps another number of points.

    Rotation by a few degrees, slant, width, gaps between strokes, speed (points left out and put in), drifting size, and jitter.
    offsets: (N, 2), y upwards.   pen_up: (N,) bool.
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
    offsets *= np.exp(uniform(0, 0.2) * np.sin(phase)[:, None] + uniform(0, 0.1) * np.cos(phase)[:, None] * (1, -1))
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


def batch_of(dataset, indices, generator=None):
    """Lines of a dataset for CTC: features (B, N, 8), targets (sum of lengths,) int64, their lengths (B,), and lengths of the ink at half rate (B,).

    generator: a NumPy Generator to vary the lines with; None for the lines as they are.
    """
    lines = [dataset.strokes(index) for index in indices]
    if generator is not None:
        lines = [vary(*line, generator) for line in lines]
    seen = [features(*line)[0] for line in lines]
    targets = [encode(dataset.texts[index]) for index in indices]
    lengths = torch.tensor([len(target) for target in targets])
    return pad(seen), torch.from_numpy(np.concatenate(targets)), lengths, torch.tensor([-(-len(line) // 2) for line in seen])


def train_recognizer(config, dataset, out, device, resume=False, stop=None, progress=None):
    """Train a recognizer on the dataset's training split, in the folder `out`: state.safetensors, metrics.jsonl, validation.jsonl, recognizer.safetensors.

    After the last step it reads the test split, and `recognizer.safetensors` tells its error rate there.
    resume: go on from the folder's state where it has one; on a CPU the weights come out the same, bit for bit, as those of a run that
    was never stopped.   stop: a `Stop`, looked at between steps.   progress(step, note): called after each step.
    Returns the step reached. Raises HwdiffError when `out` holds another run, or the loss is no longer finite.
    """
    out, device, stop = Path(out), torch.device(device), stop or Stop()
    train_lines, validation_lines = dataset.split("train"), dataset.split("validation")
    settings = {**asdict(config), "dataset": dataset.fingerprint, "device": device.type}
    forms = {split: sorted(set(dataset.forms[dataset.split(split)].tolist())) for split in ("train", "validation")}
    metadata = {"training": asdict(config), "dataset": dataset.fingerprint, "forms": forms}
    state, done = out / "state.safetensors", 0
    if state.exists():
        if not resume:
            raise HwdiffError(f"{out}: holds a training of a recognizer already; go on with --resume, or choose another folder")
        saved = read_metadata(state, FORMAT)
        check_same(out, saved["settings"], settings)
        done = saved["step"]
    order = training_order(Excerpts(dataset, config.seed), train_lines, config.batch_size, config.seed, done)
    order = chain([next(order)], order)  # whatever is wrong with the data shows before anything is written
    with lock_directory(out), torch.random.fork_rng():
        torch.manual_seed(config.seed)
        recognizer = Recognizer(config.network).to(device).train()
        ema = make_ema(recognizer, config.ema)
        optimizer = torch.optim.AdamW(recognizer.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True)
        generator = torch.Generator().manual_seed(config.seed)
        modules = {"recognizer": recognizer, "ema": ema}
        if done:
            load_state(state, modules, {"optimizer": optimizer}, generator)
        truncate_jsonl(out / "validation.jsonl", done)
        last_row = truncate_jsonl(out / "metrics.jsonl", done)
        before, start = last_row["seconds"] if last_row else 0, time.perf_counter()
        for step in range(done + 1, config.steps + 1):
            drawn = int(torch.randint(2**62, (), generator=generator))  # what varies the lines, and dropout
            torch.manual_seed(drawn)
            seen, targets, target_lengths, lengths = batch_of(dataset, next(order)[0], np.random.default_rng(drawn))
            read = recognizer(seen.to(device)).transpose(0, 1)
            loss = F.ctc_loss(read, targets.to(device), lengths, target_lengths, BLANK, reduction="sum", zero_infinity=True) / len(targets)
            optimizer.param_groups[0]["lr"] = config.learning_rate_at(step)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(recognizer.parameters(), CLIP_NORM)
            optimizer.step()
            ema.update_parameters(recognizer)
            ended, last, note = stop.reason, step == config.steps, None
            saving = ended or last or step % config.save_every == 0
            if saving or step % 20 == 0:
                if not torch.isfinite(loss + norm):
                    found = f"the loss is {loss.item()} and the gradient {norm.item()}"
                    raise HwdiffError(f"{out}: {found} at step {step}; the last saved state is kept; try a lower learning rate")
                seconds = round(before + time.perf_counter() - start, 1)
                append_jsonl(out / "metrics.jsonl", [{"step": step, "loss": loss.item(), "gradient_norm": norm.item(), "seconds": seconds}])
                note = f"loss {loss.item():.3f} a character"
            if len(validation_lines) and config.validate_every and (last or step % config.validate_every == 0):
                append_jsonl(out / "validation.jsonl", [{"step": step, **_legibility_of(dataset, "validation", ema.module)}])
            if saving:
                save_recognizer(ema.module, out / "recognizer.safetensors", **metadata, step=step)
                save_state(state, {"format": FORMAT, "step": step, "settings": settings}, modules, {"optimizer": optimizer}, generator)
            if progress:
                progress(step, note)
            done = step
            if ended:
                break
        if done == config.steps and len(dataset.split("test")):
            # As it will be used: in half precision.
            tested = _legibility_of(dataset, "test", load_recognizer(out / "recognizer.safetensors", device))
            save_recognizer(ema.module, out / "recognizer.safetensors", **metadata, step=done, test=tested)
    return done


def _legibility_of(dataset, split, recognizer):
    indices = dataset.split(split)
    return legibility([dataset.ink(index) for index in indices], recognizer.eval(), groups=dataset.forms[indices]).summary()
