"""Training: Algorithm 1 of Luhman & Luhman (2020) in a loop, in one process or several, that can be stopped and resumed at any step."""

import time
from collections import namedtuple
from contextlib import ExitStack, nullcontext
from itertools import chain

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from hwdiff import diffusion
from hwdiff.checkpoint import load_model
from hwdiff.data import tokenizer
from hwdiff.data.batches import FULL_LENGTH, Lines, batch_order, bucket_length
from hwdiff.data.dataset import style_lines
from hwdiff.data.excerpts import Excerpts
from hwdiff.errors import HwdiffError
from hwdiff.figures import plot_inks, save_figure
from hwdiff.model.writer import DiffusionWriter
from hwdiff.muon import Muon, matrices_and_rest
from hwdiff.processes import Processes
from hwdiff.recipes import TrainingConfig
from hwdiff.run_folder import RunFolder
from hwdiff.runs import Stop, append_rows, holding, load_state
from hwdiff.writing import PAPER_TEXTS, sample

CLIP_NORM = 100.0
STYLE_DROPOUT = 0.3  # of single features, Fig. 10
CPU_POINTS = {"fp32": 24 * 320, "bf16": 48 * 320}  # activations of more points at a time are slower on a CPU
GPU_LOG_STEPS = 50  # a GPU is asked for its losses this seldom: asking makes it wait
BETAS = (0.9, 0.98)
ATTENTION_WINDOW = 1.5  # standard deviation in characters: so much letters of one word differ in their number of points
MOST_EXTRA_PADDING = 0.5  # of the longest line in a bucket: who writes must know where the text ends in more room than it needs
LONGEST_STEP = 60.0  # seconds
HELD_OUT_LINES = 48
HELD_OUT_AT_ONCE = 24
HELD_OUT_STEPS = (1, 5, 15, 30, 45, 60)  # t of the noise levels at which the held-out loss is taken


class Objective(nn.Module):
    """The terms of Algorithm 1's loss of lines that were noised already, as a module that can be compiled and shared among processes.

    guided_attention: weight of a third term, see `attention_off_place`; 0 for none, as in the paper.
    """

    def __init__(self, network, precision, guided_attention=0.0):
        super().__init__()
        self.network, self.precision, self.guided_attention = network, precision, guided_attention

    def forward(self, noisy, text, noise_level, style, eps, pen_up, pen_weight, places=None):
        """Shapes as in `DiffusionWriter`, `diffusion.loss_terms` and `Batch`. Returns (2,) or (3,): stroke, pen and attention."""
        every = "all" if self.guided_attention else False
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            eps_predicted, pen_logit, attention = self.network.predict(noisy, text, noise_level, style, every)
        terms = diffusion.loss_terms(eps, eps_predicted.float(), pen_up, pen_logit.float(), pen_weight)
        if self.guided_attention:
            terms = (*terms, self.guided_attention * sum(attention_off_place(weights, places) for weights in attention) / len(attention))
        return torch.stack(terms)


def attention_off_place(attention, places):
    """How far the attention to the text is from where each point should look: the mean of -log of the share within a Gaussian window.

    attention: (B, heads, M, L).   places: (B, N) as in `Batch`, N a multiple of M. Where a place is uncertain nothing is asked.
    In the manner of the guided attention of Tachibana et al. (2018), with the places of words instead of a diagonal.
    """
    step = places.shape[1] // attention.shape[2]
    places = places[:, step // 2 :: step, None]
    known = places.isfinite()
    window = torch.exp(-((torch.arange(attention.shape[3], device=places.device) - places.nan_to_num()) ** 2) / (2 * ATTENTION_WINDOW**2))
    share = (attention.float().mean(dim=1) * window).sum(dim=-1, keepdim=True)
    return -((share + 1e-3).log() * known).sum() / known.sum().clamp(min=1)


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


def accumulate_gradients(objective, batch, draws, precision="fp32"):
    """Algorithm 1 for one batch: noise it, predict, and add the loss's gradients to those of the network.

    objective: an `Objective`, perhaps compiled or in DistributedDataParallel.   draws: the rows of `draw`'s that belong to the batch.
    The batch goes through the network in pieces (on a CPU of at most `CPU_POINTS`), which changes nothing but speed.
    Returns the loss's terms of this batch, (2,): stroke and pen; with guided attention a third one.
    """
    noisy = diffusion.add_noise(batch.strokes, draws.noise_level, draws.eps)
    style = batch.style * draws.kept_features * draws.kept_style
    text = torch.where(draws.kept_text, batch.text, tokenizer.without_text(batch.text))
    count = -(-noisy.shape[0] * noisy.shape[1] // CPU_POINTS[precision]) if noisy.device.type == "cpu" else 1
    size = -(-len(noisy) // count)
    places = noisy.new_full(noisy.shape[:2], torch.nan) if batch.places is None else batch.places.where(draws.kept_text, torch.nan)
    arguments = (noisy, text, draws.noise_level, style, draws.eps, batch.pen_up, draws.pen_weight, places)
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


def training_order(excerpts, lines, batch_size, seed, done=0, bucketed=True, share=lambda step: 0.0):
    """Endless batches, epoch after epoch, from that of step `done` + 1 on: a function of the arguments alone.

    excerpts: `Excerpts` of the dataset.   lines: (n,) numbers of the lines.   bucketed: see `batch_order`.
    share: of the lines of which only an excerpt is trained on, by step; that of an epoch's beginning holds for all of it.
    Yields (lines (B,), spans (B, 4)). Raises HwdiffError when there are fewer lines than make one batch.
    """
    epoch_steps = max(1, len(lines) // batch_size)
    epoch, at = divmod(done, epoch_steps)
    while True:
        spans = excerpts.of_epoch(epoch, share(epoch * epoch_steps))[lines]
        for batch in batch_order(spans[:, 1] - spans[:, 0], batch_size, seed, epoch, bucketed)[at:]:
            yield lines[batch], spans[batch]
        epoch, at = epoch + 1, 0


class Clock:
    """Seconds of training over all the stretches of a run. A pause is none: a step counts for a minute at most."""

    def __init__(self, seconds):
        self.seconds, self._last, self._cpu = seconds, time.perf_counter(), time.process_time()

    def tick(self):
        """A step is done. Returns the CPU seconds of this process since the last one."""
        last, self._last = self._last, time.perf_counter()
        cpu, self._cpu = self._cpu, time.process_time()
        self.seconds += min(self._last - last, LONGEST_STEP)
        return self._cpu - cpu


def start_from(network, path):
    """Give `network` the weights of the checkpoint `path`. Raises HwdiffError when it is of another size."""
    weights = load_model(path, "cpu")
    if weights.config != network.config:
        raise HwdiffError(f"init = {path}: its network is {weights.settings}, not {network.settings}; give one of that size")
    network.load_state_dict(weights.state_dict())


def make_optimizers(network, config, processes):
    """The optimizers of a run by the name that its state keeps them under; their learning rate is set at each step."""
    if config.optimizer == "adam":
        return {"optimizer": torch.optim.Adam(network.parameters(), lr=0.0, betas=BETAS, fused=True)}
    matrices, rest = matrices_and_rest(network)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    muon = Muon(matrices, lr=0.0, dtype=dtype, rank=processes.rank, count=processes.count)
    return {"muon": muon, "optimizer": torch.optim.Adam(rest, lr=0.0, betas=BETAS, fused=True)}


def moving_average(network, decay):
    """A moving average of the weights of `network`; in the first steps, when they change fast, its decay is lower: (1 + n) / (10 + n)."""

    @torch.no_grad()
    def update(averages, weights, _):
        count = int(average.n_averaged)  # on the CPU, unlike the copy that is handed in, for which one would wait
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + count) / (10 + count)))

    average = AveragedModel(network, multi_avg_fn=update)
    return average


@torch.inference_mode()
def held_out_loss(network, lines, indices, precision="fp32"):
    """The loss on lines that are not trained on, real points only, at fixed noise levels with fixed noise.

    lines: `Lines`.   indices: (n,) of the lines. The noise depends on the line and the noise level alone.
    Returns {"held_out": mean over the levels, "stroke": {t: loss}, "pen": {t: loss, not weighted}}.
    """
    alpha_bar = diffusion.alpha_bars()
    sums = {t: np.zeros(3) for t in HELD_OUT_STEPS}
    for start in range(0, len(indices), HELD_OUT_AT_ONCE):
        some = indices[start : start + HELD_OUT_AT_ONCE]
        batch = lines.batch(some)
        device, length = batch.strokes.device, batch.strokes.shape[1]
        real = (torch.arange(length) < batch.lengths[:, None]).to(device)
        for t in HELD_OUT_STEPS:
            generators = [torch.Generator().manual_seed(1000 * int(index) + t) for index in some]
            eps = torch.stack([torch.randn(FULL_LENGTH, 2, generator=generator)[:length] for generator in generators]).to(device)
            level = alpha_bar[t].sqrt().float().to(device).expand(len(some), 1, 1)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                eps_predicted, logit, _ = network.predict(diffusion.add_noise(batch.strokes, level, eps), batch.text, level, batch.style)
            stroke = (eps - eps_predicted.float()).square().sum(dim=-1)[real].sum().item()
            pen = nn.functional.binary_cross_entropy_with_logits(logit.float(), batch.pen_up, reduction="none")[..., 0][real].sum().item()
            sums[t] += (stroke, pen, real.sum().item())
    stroke, pen = ({t: total[term] / total[2] for t, total in sums.items()} for term in (0, 1))
    return {"held_out": float(np.mean([stroke[t] + alpha_bar[t].item() * pen[t] for t in HELD_OUT_STEPS])), "stroke": stroke, "pen": pen}


@torch.inference_mode()
def padded_loss(network, lines, indices, repeats=4, seed=0):
    """The loss as it is usually logged: lines padded to 488 points, which count, and noise levels of the released program.

    lines: `Lines`.   indices: (n,) of the lines, each of which is noised `repeats` times.
    Returns (stroke, pen weighted with abar of each line).
    """
    config, alpha_bar = TrainingConfig(noise_levels="released"), diffusion.alpha_bars().to(lines.device)
    objective, generator = Objective(network, config.precision), torch.Generator(lines.device).manual_seed(seed)
    total = torch.zeros(2, device=lines.device)
    for _ in range(repeats):
        for start in range(0, len(indices), HELD_OUT_AT_ONCE):
            batch = lines.batch(indices[start : start + HELD_OUT_AT_ONCE], FULL_LENGTH)
            draws = draw(batch.strokes.shape, batch.style.shape, config, alpha_bar, generator)
            noisy = diffusion.add_noise(batch.strokes, draws.noise_level, draws.eps)
            terms = objective(noisy, batch.text, draws.noise_level, batch.style, draws.eps, batch.pen_up, draws.pen_weight)
            total += terms * len(noisy) / (repeats * len(indices))
    return tuple(total.tolist())


def train(config, dataset, style_features, out, device, resume=False, stop=None, compiled=None, progress=None):
    """Train a network in the folder `out`; see `RunFolder` for what it leaves there.

    dataset: a `Dataset`.   style_features: `StyleFeatures` of it.   resume: go on from the state in `out` where there is one; on
    a CPU the weights come out the same, bit for bit, as those of a run that was never stopped (a GPU adds in any order).
    stop: a `Stop`, looked at between steps.   compiled: compile the step; by default on a GPU.   progress: a `runs.Progress`.
    Several processes (`processes.launch`) share each batch. Each line of `metrics.jsonl` is one step: step, loss, stroke, pen, gradient
    norm, learning rate, seconds of training until then and CPU seconds of all processes together.
    Returns (network for writing, step reached). Raises HwdiffError when `out` holds a run that cannot be gone on with, or the loss is no
    longer finite.
    """
    device, stop = torch.device(device), stop or Stop()
    folder = RunFolder(out, config, dataset, style_features.extractor.identity, device)
    train_lines, held_out = dataset.part("train"), dataset.part("validation")[:HELD_OUT_LINES]
    with ExitStack() as held:
        processes = Processes(device)
        done = folder.step_to_resume(resume)
        if processes.mean(torch.tensor(float(done), device=device)).item() != done:
            raise HwdiffError(f"{folder.path}: the processes do not see the same state; let them share a disk")
        excerpts = Excerpts(dataset, config.seed)
        order = training_order(excerpts, train_lines, config.batch_size, config.seed, done, config.padding == "bucket", config.excerpts_at)
        order = chain([next(order)], order)  # whatever is wrong with the data shows before anything is written
        processes.wait()
        if processes.first:
            held.enter_context(holding(folder.path))
        guides = excerpts if config.guided_attention else None
        lines = Lines(dataset, style_features, style_lines(dataset.forms, config.own_style), device, guides)
        torch.manual_seed(config.seed)  # initial weights
        generator = torch.Generator(device).manual_seed(config.seed)
        network = DiffusionWriter(config.model).to(device).train()
        if config.init and not done:
            start_from(network, config.init)
        network.default_style = style_features[train_lines[:1]][0]
        average = moving_average(network, config.ema) if config.ema else None
        for_writing = average.module if average else network
        optimizers = make_optimizers(network, config, processes)
        modules = {"network": network, **({"average": average} if average else {})}
        if done:
            load_state(folder.state, modules, optimizers, generator)
        objective = Objective(network, config.precision, config.guided_attention)
        if compiled if compiled is not None else device.type == "cuda":
            objective = compiled_objective(objective, device, graphs=processes.count == 1)
        if processes.count > 1:
            objective = DistributedDataParallel(objective, gradient_as_bucket_view=True)
        alpha_bar = diffusion.alpha_bars().to(device)
        seconds, cpu_seconds = folder.begin(done) if processes.first else (0.0, 0.0)
        clock, pending = Clock(seconds), []
        log_steps = GPU_LOG_STEPS if device.type == "cuda" else 1

        def flush():
            """Log the steps since the last call; a loss that is not finite ends the run before anything of it is saved. Returns the last loss."""
            nonlocal cpu_seconds
            rows, failure = [], None
            losses = torch.stack([values for _, values in pending]).tolist()
            for ((step, rate, seconds), _), (*values, cpu) in zip(pending, losses, strict=True):
                stroke, pen, *attention, norm = values
                if not np.isfinite(values).all():
                    found = f"the loss is {stroke + pen + sum(attention)} and the gradient {norm}"
                    failure = HwdiffError(f"{folder.path}: {found} at step {step}; the last saved state is kept; try a lower learning rate")
                    break
                cpu_seconds += processes.count * cpu
                metrics = {"step": step, "loss": stroke + pen, "stroke": stroke, "pen": pen, "gradient_norm": norm}
                if attention:
                    metrics["attention"] = attention[0]
                rows.append({**metrics, "learning_rate": rate, "seconds": round(seconds, 3), "cpu_seconds": round(cpu_seconds, 3)})
            pending.clear()
            if processes.first:
                append_rows(folder.path / "metrics.jsonl", rows)
            if failure:
                raise failure
            return rows[-1]["loss"]

        for step in range(done + 1, config.steps + 1):
            indices, spans = next(order)
            length = FULL_LENGTH if config.padding == "full" else bucket_length(spans[:, 1] - spans[:, 0], _extra_padding(config.seed, step))
            share = processes.part(len(indices))
            batch = lines.batch(indices[share], length, spans[share])
            draws = draw((len(indices), length, 2), (len(indices), *batch.style.shape[1:]), config, alpha_bar, generator)
            rate = config.learning_rate_at(step)
            network.zero_grad()
            terms = accumulate_gradients(objective, batch, Draws(*(drawn[share] for drawn in draws)), config.precision)
            norm = clip_gradients(network, config.clipping)
            for optimizer in optimizers.values():
                optimizer.param_groups[0]["lr"] = rate
                optimizer.step()
            if average:
                average.update_parameters(network)
            cpu = torch.tensor(clock.tick(), device=device)
            pending.append(((step, rate, clock.seconds), processes.mean(torch.cat((terms, norm[None], cpu[None])))))
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
                        append_rows(folder.path / "held_out.jsonl", [{"step": step, **held_out_loss(for_writing, lines, held_out, config.precision)}])
                    if drawing:
                        _write_samples(for_writing, folder.path / "samples" / f"step-{step:06d}", step)
                    if saving or stopping:
                        folder.save(step, modules, optimizers, generator, for_writing)
            if progress and processes.first:
                progress.reach(step, note)
            done = step
            if stopping:
                break
        processes.wait()
    return for_writing.eval(), done


def _extra_padding(seed, step):
    return MOST_EXTRA_PADDING * np.random.default_rng((seed, step)).random()


def _write_samples(network, path, step):
    inks = sample(network, PAPER_TEXTS, sampler="dpm", steps=20, seed=0)
    page = plot_inks(inks, columns=2, title=f"after {step} training steps, DPM-Solver++ in 20 steps")
    for suffix in (".svg", ".png"):
        save_figure(page, path.with_suffix(suffix))
