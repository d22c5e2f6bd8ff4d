"""Training: Algorithm 1 of Luhman & Luhman (2020) in a loop, in one process or several, that can be stopped and resumed at any step."""

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
from hwdiff.model.unet import UNet
from hwdiff.training.distributed import Processes
from hwdiff.training.objective import Draws, Objective, accumulate_gradients, compiled_objective, draw
from hwdiff.training.optimizers import clip_gradients, make_ema, make_optimizers
from hwdiff.training.run_dir import RunFolder, load_state
from hwdiff.training.step_log import StepLog
from hwdiff.training.validation import validation_loss
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import append_jsonl, lock_directory
from hwdiff.utils.interrupt import Stop

GPU_LOG_STEPS = 50  # a GPU is asked for its losses this seldom: asking makes it wait
MAX_EXTRA_PADDING = 0.5  # of the longest line in a bucket: who writes must know where the text ends in more room than it needs
VALIDATION_LINES = 48


def training_order(excerpts, lines, batch_size, seed, done=0, bucketed=True, fraction=lambda step: 0.0):
    """Endless batches, epoch after epoch, from that of step `done` + 1 on: a function of the arguments alone.

    excerpts: `Excerpts` of the dataset.   lines: (n,) numbers of the lines.   bucketed: see `batch_order`.
    fraction: of the lines of which only an excerpt is trained on, by step; that of an epoch's beginning holds for all of it.
    Yields (lines (B,), spans (B, 4)). Raises HwdiffError when there are fewer lines than make one batch.
    """
    epoch_steps = max(1, len(lines) // batch_size)
    epoch, at = divmod(done, epoch_steps)
    while True:
        spans = excerpts.of_epoch(epoch, fraction(epoch * epoch_steps))[lines]
        for batch in batch_order(spans[:, 1] - spans[:, 0], batch_size, seed, epoch, bucketed)[at:]:
            yield lines[batch], spans[batch]
        epoch, at = epoch + 1, 0


def start_from(network, path):
    """Give `network` the weights of the checkpoint `path`. Raises HwdiffError when it is of another size."""
    weights = load_model(path, "cpu")
    if weights.config != network.config:
        raise HwdiffError(f"init = {path}: its network is {weights.settings}, not {network.settings}; give one of that size")
    network.load_state_dict(weights.state_dict())


def train(config, dataset, style_features, out, device, resume=False, stop=None, compiled=None, progress=None):
    """Train a network in the folder `out`; see `RunFolder` for what it leaves there, and `StepLog` for what it logs.

    dataset: a `Dataset`.   style_features: `StyleFeatures` of it.   resume: go on from the state in `out` where there is one; on
    a CPU the weights come out the same, bit for bit, as those of a run that was never stopped (a GPU adds in any order).
    stop: a `Stop`, looked at between steps.   compiled: compile the step; by default on a GPU.   progress: a `Progress`.
    Several processes (`distributed.launch`) share each batch.
    Returns (network for writing, step reached). Raises HwdiffError when `out` holds a run that cannot be resumed, or the loss is no
    longer finite.
    """
    device, stop, processes = torch.device(device), stop or Stop(), Processes(torch.device(device))
    folder = RunFolder(out, config, dataset, style_features.extractor.identity, device)
    with ExitStack() as held:
        # Where the run stands. Whatever is wrong with settings or data shows before anything is written.
        done = folder.step_to_resume(resume)
        if processes.mean(torch.tensor(float(done), device=device)).item() != done:
            raise HwdiffError(f"{folder.path}: the processes do not see the same state; let them share a disk")
        train_lines, validation_lines = dataset.split("train"), dataset.split("validation")[:VALIDATION_LINES]
        excerpts = Excerpts(dataset, config.seed)
        order = training_order(excerpts, train_lines, config.batch_size, config.seed, done, config.padding == "bucket", config.excerpts_at)
        order = chain([next(order)], order)
        processes.wait()
        if processes.first:
            held.enter_context(lock_directory(folder.path))

        # The data.
        guides = excerpts if config.guided_attention else None
        lines = Lines(dataset, style_features, style_lines(dataset.forms, config.own_style), device, guides)
        alpha_bar = process.alpha_bars().to(device)

        # The network, what trains it, and the state of both.
        torch.manual_seed(config.seed)  # initial weights
        generator = torch.Generator(device).manual_seed(config.seed)
        network = UNet(config.model).to(device).train()
        if config.init and not done:
            start_from(network, config.init)
        network.default_style = style_features[train_lines[:1]][0]
        ema = make_ema(network, config.ema) if config.ema else None
        for_writing = ema.module if ema else network
        optimizers = make_optimizers(network, config, processes)
        modules = {"network": network, **({"ema": ema} if ema else {})}
        if done:
            load_state(folder.state, modules, optimizers, generator)
        objective = Objective(network, config.precision, config.guided_attention)
        if compiled if compiled is not None else device.type == "cuda":
            objective = compiled_objective(objective, device, graphs=processes.count == 1)
        if processes.count > 1:
            objective = DistributedDataParallel(objective, gradient_as_bucket_view=True)

        log = StepLog(folder.path, *(folder.begin(done) if processes.first else (0.0, 0.0)), processes)
        log_steps = GPU_LOG_STEPS if device.type == "cuda" else 1
        for step in range(done + 1, config.steps + 1):
            # This process's part of the batch. What is random is drawn for the whole of it.
            indices, spans = next(order)
            length = FULL_LENGTH if config.padding == "full" else bucket_length(spans[:, 1] - spans[:, 0], _extra_padding(config.seed, step))
            part = processes.part(len(indices))
            batch = lines.batch(indices[part], length, spans[part])
            draws = draw((len(indices), length, 2), (len(indices), *batch.style.shape[1:]), config, alpha_bar, generator)

            # Algorithm 1: a gradient step on its loss.
            network.zero_grad()
            terms = accumulate_gradients(objective, batch, Draws(*(drawn[part] for drawn in draws)), config.precision)
            norm = clip_gradients(network, config.clipping)
            learning_rate = config.learning_rate_at(step)
            for optimizer in optimizers.values():
                optimizer.param_groups[0]["lr"] = learning_rate
                optimizer.step()

            # Update the EMA.
            if ema:
                ema.update_parameters(network)

            # Log, judge, draw and save. Several processes must meet to agree on stopping; one alone looks at every step.
            log.add(step, learning_rate, terms, norm)
            saving, judging, drawing = (
                every and (step % every == 0 or step == config.steps) for every in (config.save_every, config.validate_every, config.sample_every)
            )
            note, stopping = None, processes.count == 1 and stop.reason is not None
            if saving or judging or drawing or stopping or step % log_steps == 0:
                note = f"loss {log.flush():.3f}"
                stopping = processes.any(stop.reason is not None)
                if processes.first:
                    if judging and len(validation_lines):
                        append_jsonl(
                            folder.path / "validation.jsonl",
                            [{"step": step, **validation_loss(for_writing, lines, validation_lines, config.precision)}],
                        )
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
    return MAX_EXTRA_PADDING * np.random.default_rng((seed, step)).random()


def _write_samples(network, path, step):
    inks = sample(network, PAPER_TEXTS, sampler="dpm", steps=20, seed=0)
    page = plot_inks(inks, columns=2, title=f"after {step} training steps, DPM-Solver++ in 20 steps")
    for suffix in (".svg", ".png"):
        save_figure(page, path.with_suffix(suffix))
