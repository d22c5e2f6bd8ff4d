"""Training: Algorithm 1 of Luhman & Luhman (2020) in a loop, in one process or several, that can be stopped and resumed at any step."""

import time
from contextlib import ExitStack
from itertools import chain

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from hwdiff.data.batches import FULL_LENGTH, Lines, batch_order, bucket_length
from hwdiff.data.dataset import style_lines
from hwdiff.data.excerpts import Excerpts
from hwdiff.diffusion import process
from hwdiff.diffusion.generate import sample
from hwdiff.diffusion.texts import PAPER_TEXTS
from hwdiff.ink.plot import plot_inks, save_figure
from hwdiff.model.checkpoint import load_model
from hwdiff.model.unet import DiffusionWriter
from hwdiff.training.distributed import Processes
from hwdiff.training.objective import Draws, Objective, accumulate_gradients, compiled_objective, draw
from hwdiff.training.optimizers import clip_gradients, make_optimizers, moving_average
from hwdiff.training.run_dir import RunFolder, load_state
from hwdiff.training.validation import held_out_loss
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import append_rows, holding
from hwdiff.utils.interrupt import Stop

GPU_LOG_STEPS = 50  # a GPU is asked for its losses this seldom: asking makes it wait
MOST_EXTRA_PADDING = 0.5  # of the longest line in a bucket: who writes must know where the text ends in more room than it needs
LONGEST_STEP = 60.0  # seconds
HELD_OUT_LINES = 48


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
        alpha_bar = process.alpha_bars().to(device)
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
