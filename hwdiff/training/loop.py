"""Training the network: Algorithm 1 of Luhman & Luhman (2020) in a loop, in one process or several."""

import os
from contextlib import nullcontext
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from hwdiff.data.batches import Lines, bucket_length, training_order
from hwdiff.data.dataset import Dataset, style_lines
from hwdiff.data.excerpts import Excerpts
from hwdiff.data.lines import MAX_POINTS
from hwdiff.data.style_features import StyleFeatures
from hwdiff.diffusion import process
from hwdiff.diffusion.generate import require_style_weights, sample
from hwdiff.diffusion.texts import PAPER_TEXTS
from hwdiff.ink.plot import plot_inks, save_figure
from hwdiff.model.checkpoint import load_model, read_metadata, save_model
from hwdiff.model.unet import UNet
from hwdiff.training.config import TrainingConfig
from hwdiff.training.distributed import Processes
from hwdiff.training.objective import Draws, accumulate_gradients, draw, training_objective
from hwdiff.training.optimizers import Ema, clip_gradients, make_optimizers
from hwdiff.training.run_dir import RunDirectory, read_config
from hwdiff.training.steps import Steps
from hwdiff.training.validation import validation_loss
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import append_jsonl, lock_directory
from hwdiff.utils.interrupt import Stop
from hwdiff.utils.progress import Progress

# Fraction of a bucket's longest line. The network must learn to end a text in more room than it needs.
MAX_EXTRA_PADDING = 0.5
_PADDING_STREAM = 2  # of random numbers, beside those of excerpts and of the order of lines
VALIDATION_LINES = 48  # the first of the split, so by few writers: a run's log shows how it goes, no more
# The settings that may change when a run is resumed.
CHANGEABLE = (
    "learning_rate",
    "warmup",
    "cooldown",
    "excerpts",
    "excerpt_steps",
    "guided_attention",
    "drop_style",
    "drop_text",
    "precision",
    "ema",
    "save_every",
    "validate_every",
    "sample_every",
)


def start_from(network: UNet, path: str | Path, style_weights: dict[str, str]) -> None:
    """Give `network` the weights of the checkpoint `path`, its guidance and room for points, and its history.

    The history is whether guided attention or a teacher helped its training.

    style_weights: `StyleExtractor.identity` of the training.
    Raises HwdiffError when it is of another size, or was trained with other style weights.
    """
    weights = load_model(path, "cpu")
    if weights.config != network.config:
        found = f"its network is {weights.settings}, not {network.settings}"
        raise HwdiffError(f"init = {path}: {found}; give one of that size")
    require_style_weights(weights, style_weights)
    network.load_state_dict(weights.state_dict())
    writing = weights.metadata.get("writing", {})
    network.metadata = {
        "writing": {key: value for key, value in writing.items() if key != "levels"},
        "training": _largest(weights),
        **{key: value for key, value in weights.metadata.items() if key == "teacher"},
    }


def _largest(network, config=None, changes=()):
    """The largest weight of guided attention, and dropouts of text and style, that a network was ever trained
    with, as its metadata has them under "training".
    """
    found = {}
    for name in ("guided_attention", "drop_text", "drop_style"):
        values = [network.metadata.get("training", {}).get(name, 0.0)]
        values += [getattr(config, name)] if config else []
        for change in changes:
            values += [value or 0.0 for value in change.get(name, ())]
        found[name] = max(values)
    return found


def run_directory(
    path: str | Path,
    config: TrainingConfig,
    dataset: Dataset,
    style_weights: dict[str, str],
    device: torch.device,
) -> RunDirectory:
    """The directory of a run with these settings, at `path`.

    style_weights: the `StyleExtractor.identity` of its style features.
    """
    about = {"dataset": dataset.fingerprint, "style_weights": style_weights, "device": device.type}
    # Without an EMA the state has none either, from which one could go on.
    is_run = os.path.exists(Path(path) / "config.json")
    has_ema = config.ema and (not is_run or read_config(path).get("ema"))
    changeable = set(CHANGEABLE) - (set() if has_ema else {"ema"})
    return RunDirectory(path, {"kind": "network", **asdict(config), **about}, changeable=changeable)


def train(
    config: TrainingConfig,
    dataset: Dataset,
    style_features: StyleFeatures,
    out: str | Path,
    device: str | torch.device,
    *,
    resume: bool = False,
    stop: Stop | None = None,
    compiled: bool | None = None,
    progress: Progress | None = None,
) -> tuple[UNet, int]:
    """Train a network in the directory `out`, a `RunDirectory` with model.safetensors and samples/.

    On a CPU a run that was resumed gives the same weights, bit for bit, as one that was never stopped, if it
    has as many processes and threads. (A GPU adds in any order.) Several processes (`distributed.launch`)
    share each batch.

    style_features: of the dataset.
    resume: from the state in `out`, if there is one.
    stop: looked at between steps.
    compiled: compile the step; by default on a GPU only.
    progress: told of each step.
    Returns the network to write with, that is its EMA if there is one, and the step reached.
    Raises HwdiffError when `out` holds a run that cannot be resumed, or the loss is no longer finite.
    """
    device, processes = torch.device(device), Processes(torch.device(device))
    style_weights = style_features.extractor.identity
    about = {"dataset": dataset.fingerprint, "style_weights": style_weights}
    directory = run_directory(out, config, dataset, style_weights, device)

    # Find where the run stands. An error in settings or data shows before anything is written.
    done = directory.find_step(resume)
    if processes.mean(torch.tensor(float(done), device=device)).item() != done:
        raise HwdiffError(f"{directory.path}: the processes do not see the same state; let them share a disk")
    train_lines, validation_lines = dataset.split("train"), dataset.split("validation")[:VALIDATION_LINES]
    excerpts = Excerpts(dataset, config.seed)
    order = training_order(
        excerpts,
        train_lines,
        config.batch_size,
        seed=config.seed,
        done=done,
        bucketed=config.padding == "bucket",
        fraction=config.excerpts_at,
    )
    order = chain([next(order)], order)
    processes.wait()
    with lock_directory(directory.path) if processes.first else nullcontext():
        # Prepare the data.
        guides = excerpts if config.guided_attention else None
        lines = Lines(dataset, style_features, style_lines(dataset.forms, config.own_style), device, guides)
        alpha_bar = process.alpha_bars().to(device)

        # Make the network and what trains it, or load the state of both.
        generator = torch.Generator(device).manual_seed(config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)  # initial weights
            network = UNet(config.model).to(device).train()
        if config.init and not done:
            start_from(network, config.init, style_weights)
        elif config.init:
            network.metadata = read_metadata(directory.path / "model.safetensors")
        about |= {key: network.metadata[key] for key in ("writing", "teacher") if network.metadata.get(key)}
        # What a checkpoint says of its training holds for all of it.
        about["training"] = {**asdict(config), **_largest(network, config, directory.settings["changes"])}
        network.default_style = style_features[train_lines[:1]][0]
        ema = Ema(network, config.ema) if config.ema else None
        sampling_network = ema.module if ema else network
        optimizers = make_optimizers(network, config, processes)
        modules = {"network": network, **({"ema": ema} if ema else {})}
        if done:
            directory.load(modules, optimizers, generator)
        objective = training_objective(network, config, processes, compiled)

        if processes.first:
            directory.begin()
        every = (config.save_every, config.validate_every, config.sample_every)
        steps = Steps(directory, config.steps, every=every, processes=processes, stop=stop, progress=progress)
        for step in steps:
            # Take this process's part of the batch. What is random is drawn for all of it.
            indices, spans = next(order)
            length = MAX_POINTS
            if config.padding == "bucket":
                length = bucket_length(spans[:, 1] - spans[:, 0], _extra_padding(config.seed, step))
            part = processes.part(len(indices))
            batch = lines.batch(indices[part], length, spans[part])
            shapes = (len(indices), length, 2), (len(indices), *batch.style.shape[1:])
            draws = draw(*shapes, config, alpha_bar, generator)

            # Algorithm 1: take a gradient step on the loss.
            network.zero_grad()
            draws = Draws(*(drawn[part] for drawn in draws))
            terms = accumulate_gradients(objective, batch, draws, config.precision)
            norm = clip_gradients(network, config.clipping)
            learning_rate = config.learning_rate_at(step)
            for optimizer in optimizers.values():
                optimizer.param_groups[0]["lr"] = learning_rate
                optimizer.step()

            # Update the EMA.
            if ema:
                ema.update_parameters(network)

            # Log, validate, draw and save.
            stroke, pen, *attention = terms
            values = {"loss": stroke + pen, "stroke": stroke, "pen": pen, "gradient_norm": norm}
            if attention:
                values["attention"] = attention[0]
            steps.log(values, learning_rate=learning_rate)
            if not processes.first:
                continue
            if steps.due(config.validate_every) and len(validation_lines):
                row = validation_loss(sampling_network, lines, validation_lines, precision=config.precision)
                append_jsonl(directory.path / "validation.jsonl", [{"step": step, **row}])
            if steps.due(config.sample_every):
                _write_samples(sampling_network, directory.path / "samples" / f"step-{step:06d}", step)
            if steps.due(config.save_every) or steps.stopping:
                path = directory.path / "model.safetensors"
                save_model(sampling_network, path, step=step, **about)
                directory.save(step, modules, optimizers, generator)
        processes.wait()
    sampling_network.metadata = {**about, "step": steps.step}
    return sampling_network.eval(), steps.step


def _extra_padding(seed, step):
    return MAX_EXTRA_PADDING * np.random.default_rng((seed, step, _PADDING_STREAM)).random()


def _write_samples(network, path, step):
    inks = sample(network, PAPER_TEXTS, sampler="dpm", steps=20, seed=0)
    page = plot_inks(inks, columns=2, title=f"after {step} training steps, DPM-Solver++ in 20 steps")
    for suffix in (".svg", ".png"):
        save_figure(page, path.with_suffix(suffix))
