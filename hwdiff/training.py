"""Training: Algorithm 1 of Luhman & Luhman (2020) in a loop, in one process or several, that can be stopped and resumed at any step."""

import json
import os
import time
from collections import namedtuple
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from hwdiff import diffusion
from hwdiff.checkpoint import save_model
from hwdiff.data import tokenizer
from hwdiff.data.batches import FULL_LENGTH, Lines, batch_order, bucket_length
from hwdiff.data.dataset import style_lines
from hwdiff.errors import HwdiffError
from hwdiff.figures import plot_inks, save_figure
from hwdiff.files import replacing
from hwdiff.model.writer import DiffusionWriter, ModelConfig
from hwdiff.runs import Stop, append_rows, check_same, cut_rows, holding, load_state, read_header, save_state
from hwdiff.writing import PAPER_TEXTS, sample

FORMAT = "hwdiff training state 1"
CLIP_NORM = 100.0
STYLE_DROPOUT = 0.3  # of single features, Fig. 10
CPU_LINES = 24  # activations of more lines at a time cost a CPU a third of its speed
GPU_LOG_STEPS = 50  # a GPU is asked for its losses this seldom: asking makes it wait
BETAS = (0.9, 0.98)
HELD_OUT_LINES = 48
HELD_OUT_STEPS = (1, 5, 15, 30, 45, 60)  # t of the noise levels at which the held-out loss is taken
_CHOICES = {
    "precision": ("fp32", "bf16"),
    "padding": ("full", "bucket"),
    "noise_levels": ("paper", "released"),
    "pen_weight": ("paper", "released"),
    "clipping": ("all", "each"),
}


@dataclass(frozen=True)
class TrainingConfig:
    """A training run, whole. The defaults are the paper's; where the authors' released program differs, "released" or "each" is its form.

    learning_rate: None for the published schedule, or one that is reached after `warmup` steps and stays, or with `anneal` falls to 0
    along a cosine until the last step.   precision: of the network's arithmetic, "fp32" or "bf16".
    padding: "full" pads every line to 488 points as the authors do; "bucket" batches lines of like length and pads to the longest.
    clipping: gradients to norm 100, of "all" weights together or of "each" on its own.
    own_style: a line's style image may be that of the line itself, as in the released program.
    drop_style, drop_text: share of the lines that are trained without style (zeros) or text (the end alone), for guidance.
    ema: decay of the moving average of the weights, which is what is saved for writing; 0 for the weights themselves.
    save_every, held_out_every, sample_every: steps from one saved state, held-out loss or page of samples to the next; 0 for none of the
    latter two.
    """

    steps: int = 60_000
    batch_size: int = 96
    learning_rate: float | None = None
    warmup: int = 0
    anneal: bool = False
    precision: str = "fp32"
    padding: str = "full"
    noise_levels: str = "paper"
    pen_weight: str = "paper"
    clipping: str = "all"
    own_style: bool = False
    drop_style: float = 0.0
    drop_text: float = 0.0
    ema: float = 0.0
    seed: int = 0
    save_every: int = 1000
    held_out_every: int = 1000
    sample_every: int = 10_000
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise HwdiffError(f"{name} = {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        for name, lowest in {"steps": 1, "batch_size": 1, "save_every": 1, "held_out_every": 0, "sample_every": 0, "warmup": 0}.items():
            if getattr(self, name) < lowest:
                raise HwdiffError(f"{name} = {getattr(self, name)}: must be at least {lowest}")
        for name in ("drop_style", "drop_text", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise HwdiffError(f"{name} = {getattr(self, name)}: must be at least 0 and below 1")
        if not 0 <= self.seed < 2**63:
            raise HwdiffError(f"seed = {self.seed}: must be between 0 and 2^63 - 1")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise HwdiffError(f"learning_rate = {self.learning_rate}: must be between 0 and 1")
        if self.learning_rate is None and (self.warmup or self.anneal):
            raise HwdiffError("warmup and anneal: the published schedule has its own; give a learning_rate with them")

    def learning_rate_at(self, step):
        """The learning rate at step 1, 2, ..., `steps`."""
        if self.learning_rate is None:
            return diffusion.learning_rate(step)
        rate = self.learning_rate * min(1, step / max(1, self.warmup))
        return rate * (0.5 + 0.5 * cos(pi * (step - 1) / self.steps)) if self.anneal else rate


PRESETS = {
    "smoke": TrainingConfig(
        steps=100,
        batch_size=16,
        learning_rate=1e-3,
        padding="bucket",
        ema=0.99,
        save_every=50,
        held_out_every=50,
        sample_every=0,
        model=ModelConfig(c1=32, c2=48, c3=64, num_layers=1),
    ),
    "small": TrainingConfig(
        steps=30_000,
        batch_size=32,
        learning_rate=1e-3,
        warmup=500,
        anneal=True,
        padding="bucket",
        ema=0.999,
        save_every=250,
        model=ModelConfig(c1=64, c2=96, c3=128),
    ),
    "paper": TrainingConfig(),
}


def preset(name, **changes):
    """The configuration of a preset with some fields changed; those given as None stay. Raises HwdiffError for an unknown preset."""
    if name not in PRESETS:
        raise HwdiffError(f"preset: no such preset as {name!r}; choose one of {', '.join(PRESETS)}")
    return changed(PRESETS[name], **changes)


def changed(config, **changes):
    """`config` with some fields changed, those of its model too; those given as None stay. Raises HwdiffError for an unknown field."""
    changes = {key: value for key, value in changes.items() if value is not None}
    of_model = {item.name for item in fields(ModelConfig)}
    unknown = changes.keys() - {item.name for item in fields(TrainingConfig)} - of_model
    if unknown:
        raise HwdiffError(f"training: no such setting as {', '.join(sorted(unknown))}")
    model = replace(config.model, **{key: value for key, value in changes.items() if key in of_model})
    return replace(config, model=model, **{key: value for key, value in changes.items() if key not in of_model})


def config_of_run(run):
    """The TrainingConfig of the run in the folder `run`. Raises HwdiffError when it has none that this version can read."""
    settings = {key: value for key, value in read_config(run).items() if key not in ("dataset", "style_weights", "device")}
    try:
        return TrainingConfig(**{**settings, "model": ModelConfig(**settings["model"])})
    except (KeyError, TypeError) as error:
        raise HwdiffError(f"{run}: config.json is not one of this version ({error}); use the version that wrote it") from error


class Objective(nn.Module):
    """The two terms of Algorithm 1's loss of lines that were noised already, as a module that can be compiled and shared among processes."""

    def __init__(self, network, precision):
        super().__init__()
        self.network, self.precision = network, precision

    def forward(self, noisy, text, noise_level, style, eps, pen_up, pen_weight):
        """Shapes as in `DiffusionWriter` and `diffusion.loss_terms`. Returns (2,): stroke and pen."""
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            eps_predicted, pen_logit, _ = self.network.predict(noisy, text, noise_level, style)
        return torch.stack(diffusion.loss_terms(eps, eps_predicted.float(), pen_up, pen_logit.float(), pen_weight))


def compiled_objective(objective, device, graphs=True):
    """`objective` compiled, once for each length of batches, on a GPU as CUDA graphs unless graphs=False."""
    torch._dynamo.config.recompile_limit = 64  # there are up to 16 lengths, and 8 is the default, after which nothing more is compiled
    return torch.compile(objective, dynamic=False, mode="reduce-overhead" if graphs and torch.device(device).type == "cuda" else None)


Draws = namedtuple("Draws", "noise_level eps pen_weight kept_features kept_style kept_text")


def draw(shape, style_shape, config, alpha_bar, generator):
    """All that is random in a step of Algorithm 1, for the whole batch, on the generator's device.

    shape: (B, N, 2) of the strokes.   style_shape: (B, S, 1280).
    Drawn for the whole, it is the same however the batch is then divided, into pieces or among processes.
    """
    count, device = shape[0], generator.device

    def chance(*size):
        return torch.rand(size, generator=generator, device=device)

    noise_level = diffusion.draw_noise_levels(count, alpha_bar, generator, config.noise_levels)
    eps = torch.randn(shape, generator=generator, device=device)
    kept_features = (chance(*style_shape) >= STYLE_DROPOUT).to(eps.dtype) / (1 - STYLE_DROPOUT)
    kept_style, kept_text = chance(count, 1, 1) >= config.drop_style, chance(count, 1) >= config.drop_text
    return Draws(noise_level, eps, diffusion.pen_weights(noise_level, config.pen_weight), kept_features, kept_style, kept_text)


def accumulate_gradients(objective, batch, draws):
    """Algorithm 1 for one batch: noise it, predict, and add the loss's gradients to those of the network.

    objective: an `Objective`, perhaps compiled or in DistributedDataParallel.   draws: the rows of `draw`'s that belong to the batch.
    The batch goes through the network in pieces (on a CPU of 24 lines), which changes nothing but speed.
    Returns the loss's two terms (2,): stroke and pen, of this batch.
    """
    noisy = diffusion.add_noise(batch.strokes, draws.noise_level, draws.eps)
    style = batch.style * draws.kept_features * draws.kept_style
    # Without its text a line is taught as an empty one, whose only token is the end.
    empty = torch.zeros_like(batch.text)
    empty[:, 0] = tokenizer.END
    text = torch.where(draws.kept_text, batch.text, empty)
    size = CPU_LINES if noisy.device.type == "cpu" else len(noisy)
    arguments = (noisy, text, draws.noise_level, style, draws.eps, batch.pen_up, draws.pen_weight)
    pieces = list(zip(*(tensor.split(size) for tensor in arguments), strict=True))
    total = 0
    for number, piece in enumerate(pieces, start=1):
        # Processes exchange gradients once, after the last piece.
        shared = isinstance(objective, DistributedDataParallel) and number < len(pieces)
        with objective.no_sync() if shared else nullcontext():
            terms = objective(*piece) * (len(piece[0]) / len(noisy))
            terms.sum().backward()
        total = total + terms.detach()
    return total


def clip_gradients(network, clipping):
    """Clip gradients to norm 100, of all together or of each weight on its own. Returns the norm of all before clipping."""
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    norm = torch.nn.utils.get_total_norm(gradients.values())
    if clipping == "all":
        torch.nn.utils.clip_grads_with_norm_(network.parameters(), CLIP_NORM, norm)
        return norm
    for name, gradient in gradients.items():
        # The authors keep scale and shift as two weights.
        for piece in gradient.chunk(2) if "scale_shift" in name else (gradient,):
            piece.mul_((CLIP_NORM / (piece.norm() + 1e-6)).clamp(max=1))
    return norm


def training_order(lengths, config, done=0):
    """Endless batches of positions in `lengths` (n,), epoch after epoch, from that of step `done` + 1 on: a function of seed and step alone.

    Raises HwdiffError when there are fewer lines than make one batch.
    """
    epoch, at = divmod(done, max(1, len(lengths) // config.batch_size))
    while True:
        yield from batch_order(lengths, config.batch_size, config.seed, epoch, bucketed=config.padding == "bucket")[at:]
        epoch, at = epoch + 1, 0


def moving_average(network, decay):
    """A moving average of the weights of `network`; in the first steps, when they change fast, its decay is lower: (1 + n) / (10 + n)."""

    @torch.no_grad()
    def update(averages, weights, _):
        count = int(average.n_averaged)  # on the CPU, unlike the copy that is handed in, for which one would wait
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + count) / (10 + count)))

    average = AveragedModel(network, multi_avg_fn=update)
    return average


@torch.inference_mode()
def held_out_loss(network, lines, indices, config):
    """The loss on lines that are not trained on, real points only, at fixed noise levels with fixed noise.

    lines: `Lines`.   indices: (n,) of the lines. The noise depends on the line and the noise level alone.
    Returns {"held_out": mean over the levels, "stroke": {t: loss}, "pen": {t: loss, not weighted}}.
    """
    alpha_bar = diffusion.alpha_bars()
    sums = {t: np.zeros(3) for t in HELD_OUT_STEPS}
    for start in range(0, len(indices), CPU_LINES):
        some = indices[start : start + CPU_LINES]
        batch = lines.batch(some)
        device, length = batch.strokes.device, batch.strokes.shape[1]
        real = (torch.arange(length) < batch.lengths[:, None]).to(device)
        for t in HELD_OUT_STEPS:
            generators = [torch.Generator().manual_seed(1000 * int(index) + t) for index in some]
            eps = torch.stack([torch.randn(FULL_LENGTH, 2, generator=generator)[:length] for generator in generators]).to(device)
            level = alpha_bar[t].sqrt().float().to(device).expand(len(some), 1, 1)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                eps_predicted, logit, _ = network.predict(diffusion.add_noise(batch.strokes, level, eps), batch.text, level, batch.style)
            stroke = (eps - eps_predicted.float()).square().sum(dim=-1)[real].sum().item()
            pen = nn.functional.binary_cross_entropy_with_logits(logit.float(), batch.pen_up, reduction="none")[..., 0][real].sum().item()
            sums[t] += (stroke, pen, real.sum().item())
    stroke, pen = ({t: total[term] / total[2] for t, total in sums.items()} for term in (0, 1))
    return {"held_out": float(np.mean([stroke[t] + alpha_bar[t].item() * pen[t] for t in HELD_OUT_STEPS])), "stroke": stroke, "pen": pen}


def first_process():
    """Whether this process is the one, among those that torchrun started, that writes files and talks."""
    return int(os.environ.get("RANK", 0)) == 0


class Processes:
    """This process among those that train together (torchrun's WORLD_SIZE and RANK); alone where there are no others."""

    def __init__(self, device):
        self.count, self.rank, self.first = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0)), first_process()
        self.device = device
        if self.count > 1:
            if device.type == "cuda":
                torch.cuda.set_device(device)
                dist.init_process_group("nccl", device_id=device)
            else:
                dist.init_process_group("gloo")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.count > 1:
            dist.destroy_process_group()

    def share(self, count):
        """The slice of a batch of `count` lines that is this process's."""
        return slice(self.rank * count // self.count, (self.rank + 1) * count // self.count)

    def mean(self, tensor):
        """The mean of a tensor over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
            tensor /= self.count
        return tensor

    def any(self, flag):
        """Whether `flag` is true in any process."""
        return bool(self.mean(torch.tensor(float(flag), device=self.device)).item()) if self.count > 1 else flag

    def wait(self):
        if self.count > 1:
            dist.barrier()


class RunFolder:
    """The folder of a training run: config.json, state.safetensors (to resume), model.safetensors (to write with), metrics.jsonl,
    held_out.jsonl and samples/. Only the first process writes to it."""

    def __init__(self, path, config, dataset, style_weights, device):
        self.path, self.config = Path(path), config
        self.settings = {**asdict(config), "dataset": dataset.content, "style_weights": style_weights, "device": device.type}
        self.state = self.path / "state.safetensors"

    def step_to_resume(self, resume):
        """The step of the saved state, 0 if there is none. Raises HwdiffError when the folder holds a run that must not be gone on with."""
        if not (self.path / "config.json").exists():
            if self.state.exists():
                raise HwdiffError(f"{self.path}: holds the state of some other run; choose another folder")
            return 0
        if not resume:
            raise HwdiffError(f"{self.path}: holds a training run already; go on with --resume, choose another folder or delete it")
        self._check(read_config(self.path))
        if not self.state.exists():
            return 0
        header = read_header(self.state, FORMAT)
        self._check(header["settings"])
        return header["step"]

    def _check(self, found):
        wanted = json.loads(json.dumps(self.settings))
        if found.get("dataset") != wanted["dataset"]:
            raise HwdiffError(
                f"{self.path}: trained on another dataset ({str(found.get('dataset'))[:8]}, not {wanted['dataset'][:8]}); give that one"
            )
        if not self.config.anneal and wanted["steps"] > found.get("steps", 0):
            found = {**found, "steps": wanted["steps"]}  # longer is no other run, when the learning rate does not depend on it
        check_same(self.path, found, wanted)

    def begin(self, done):
        """Write the configuration and cut the logs back to step `done`. Returns the seconds of training until then."""
        with replacing(self.path / "config.json") as path:
            path.write_text(json.dumps(self.settings, indent=1))
        cut_rows(self.path / "held_out.jsonl", done)
        last = cut_rows(self.path / "metrics.jsonl", done)
        return last["seconds"] if last else 0.0

    def save(self, step, modules, optimizer, generator, network):
        """The state comes last: whatever is interrupted before it is done again."""
        information = {"training": asdict(self.config), "dataset": self.settings["dataset"], "style_weights": self.settings["style_weights"]}
        save_model(network, self.path / "model.safetensors", step=step, **information)
        save_state(self.state, {"format": FORMAT, "step": step, "settings": self.settings}, modules, optimizer, generator)


def read_config(run):
    """The settings of the run in the folder `run`, a dictionary. Raises HwdiffError when there are none."""
    path = Path(run) / "config.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise HwdiffError(f"{path}: no configuration of a training run ({error}); give the folder that hwdiff train wrote") from error


def train(config, dataset, style_features, out, device, resume=False, stop=None, compiled=None, progress=None):
    """Train a network in the folder `out`; see `RunFolder` for what it leaves there.

    dataset: a `Dataset`.   style_features: `StyleFeatures` of it.   resume: go on from the state in `out` where there is one; on
    a CPU the weights come out the same, bit for bit, as those of a run that was never stopped (a GPU adds in any order).
    stop: a `Stop`, looked at between steps.   compiled: compile the step; by default on a GPU.   progress: a `runs.Progress`.
    Under torchrun several processes share each batch. Each line of `metrics.jsonl` is one step: step, loss, stroke, pen, gradient norm,
    learning rate, seconds of training.
    Returns (network for writing, step reached). Raises HwdiffError when `out` holds a run that cannot be gone on with, or the loss is no
    longer finite.
    """
    device, stop = torch.device(device), stop or Stop()
    folder = RunFolder(out, config, dataset, style_features.extractor.identity, device)
    train_lines, held_out = dataset.part("train"), dataset.part("validation")[:HELD_OUT_LINES]
    with Processes(device) as processes, ExitStack() as held:
        if config.batch_size % processes.count:
            raise HwdiffError(f"batch_size = {config.batch_size}: cannot be divided among {processes.count} processes")
        done = folder.step_to_resume(resume)
        if processes.mean(torch.tensor(float(done), device=device)).item() != done:
            raise HwdiffError(f"{folder.path}: the processes do not see the same state; let them share a disk")
        order = training_order(dataset.lengths[train_lines], config, done)
        order = chain([next(order)], order)  # whatever is wrong with the data shows before anything is written
        processes.wait()
        if processes.first:
            held.enter_context(holding(folder.path))
        lines = Lines(dataset, style_features, style_lines(dataset.forms, config.own_style), device)
        torch.manual_seed(config.seed)  # initial weights
        generator = torch.Generator(device).manual_seed(config.seed)
        network = DiffusionWriter(config.model).to(device).train()
        network.default_style = style_features[train_lines[:1]][0]
        average = moving_average(network, config.ema) if config.ema else None
        for_writing = average.module if average else network
        optimizer = torch.optim.Adam(network.parameters(), lr=0.0, betas=BETAS, fused=True)
        modules = {"network": network, **({"average": average} if average else {})}
        if done:
            load_state(folder.state, modules, optimizer, generator)
        objective = Objective(network, config.precision)
        if compiled if compiled is not None else device.type == "cuda":
            objective = compiled_objective(objective, device, graphs=processes.count == 1)
        if processes.count > 1:
            objective = DistributedDataParallel(objective, gradient_as_bucket_view=True)
        alpha_bar = diffusion.alpha_bars().to(device)
        before = folder.begin(done) if processes.first else 0.0
        start, pending = time.perf_counter(), []
        log_steps = GPU_LOG_STEPS if device.type == "cuda" else 1

        def flush():
            """Log the steps since the last call; a loss that is not finite ends the run before anything of it is saved. Returns the last loss."""
            rows, failure = [], None
            for (step, rate, seconds), values in zip([row for row, _ in pending], torch.stack([terms for _, terms in pending]).tolist(), strict=True):
                stroke, pen, norm = values
                if not np.isfinite(values).all():
                    found = f"the loss is {stroke + pen} and the gradient {norm}"
                    failure = HwdiffError(f"{folder.path}: {found} at step {step}; the last saved state is kept; try a lower learning rate")
                    break
                metrics = {"step": step, "loss": stroke + pen, "stroke": stroke, "pen": pen, "gradient_norm": norm}
                rows.append({**metrics, "learning_rate": rate, "seconds": round(before + seconds, 3)})
            pending.clear()
            if processes.first:
                append_rows(folder.path / "metrics.jsonl", rows)
            if failure:
                raise failure
            return rows[-1]["loss"]

        for step in range(done + 1, config.steps + 1):
            indices = train_lines[next(order)]
            length = FULL_LENGTH if config.padding == "full" else bucket_length(dataset.lengths[indices])
            share = processes.share(len(indices))
            batch = lines.batch(indices[share], length)
            draws = draw((len(indices), length, 2), (len(indices), *batch.style.shape[1:]), config, alpha_bar, generator)
            rate = config.learning_rate_at(step)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            terms = accumulate_gradients(objective, batch, Draws(*(drawn[share] for drawn in draws)))
            norm = clip_gradients(network, config.clipping)
            optimizer.step()
            if average:
                average.update_parameters(network)
            pending.append(((step, rate, time.perf_counter() - start), torch.cat((processes.mean(terms), norm[None]))))
            saving, judging, drawing = (
                every and (step % every == 0 or step == config.steps) for every in (config.save_every, config.held_out_every, config.sample_every)
            )
            # Several processes must agree to stop, for which they have to meet; one alone looks at every step.
            note, stopping = None, processes.count == 1 and stop.reason is not None
            if saving or judging or drawing or stopping or step % log_steps == 0:
                note = f"loss {flush():.3f}"
                stopping = processes.any(stop.reason is not None)
                if processes.first:
                    if judging and len(held_out):
                        append_rows(folder.path / "held_out.jsonl", [{"step": step, **held_out_loss(for_writing, lines, held_out, config)}])
                    if drawing:
                        _write_samples(for_writing, folder.path / "samples" / f"step-{step:06d}.png", step)
                    if saving or stopping:
                        folder.save(step, modules, optimizer, generator, for_writing)
            if progress and processes.first:
                progress.reach(step, note)
            done = step
            if stopping:
                break
        processes.wait()
    return for_writing.eval(), done


def _write_samples(network, path, step):
    inks = sample(network, PAPER_TEXTS, sampler="dpm", steps=20, seed=0)
    save_figure(plot_inks(inks, columns=2, title=f"after {step} training steps, DPM-Solver++ in 20 steps"), path)
