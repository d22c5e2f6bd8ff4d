"""The whole way from a dataset to samples in one call, step after step."""

import os
from pathlib import Path

import numpy as np
import torch

from hwdiff.data.batches import batch_order
from hwdiff.data.dataset import Dataset
from hwdiff.data.line_images import LineImages
from hwdiff.data.style_features import StyleFeatures
from hwdiff.diffusion.generate import sample
from hwdiff.diffusion.texts import PAPER_TEXTS
from hwdiff.ink.plot import plot_inks, save_figure
from hwdiff.model.checkpoint import load_model
from hwdiff.model.style_encoder import load_style_extractor
from hwdiff.model.unet import UNet
from hwdiff.training import distillation, loop
from hwdiff.training.config import TrainingConfig
from hwdiff.training.figures import plot_loss, read_metrics
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.interrupt import Stop
from hwdiff.utils.progress import Progress

REPORTED = {"Eq. 12": ("eq12", 60), "Eq. 9": ("eq9", 60), "DPM-Solver++, 20 steps": ("dpm", 20)}


def run_chain(
    data: str | Path,
    out: str | Path,
    config: TrainingConfig,
    preset: str,
    teacher: str | Path | None,
    distillation_steps: int | None,
    device: str | torch.device,
    stop: Stop,
) -> str | None:
    """Draw line images, distil the style encoder, compute style features, train, and draw samples.

    What is done already is not done again.

    data: a dataset file.
    out: the directory of the encoder, the training run and the figures.
    preset: whose name `config` has; it chooses the distillation's preset too.
    teacher: of the distillation; None to use the bundled encoder instead.
    distillation_steps: of its first part, instead of the preset's.
    stop: looked at in and between steps, except while line images are drawn, which takes a minute.
    Returns the name of the step in which it was stopped, or None at the end.
    Raises HwdiffError when there are fewer lines than a batch needs, a teacher for a network that starts
    from others, or a run in `out` that cannot be resumed.
    """
    # These would end the training, after an hour of distillation.
    out, dataset = Path(out), Dataset(data)
    batch_order(dataset.lengths[dataset.needed_split("train")], config.batch_size, config.seed, epoch=0)
    if teacher and config.init:
        found = f"training starts from {config.init}, which has a style encoder of its own"
        raise HwdiffError(f"teacher: {found}; leave the teacher out, or choose another preset")
    if os.path.exists(out / "training" / "config.json"):
        encoder = out / "encoder" / "style.safetensors" if teacher else "bundled"
        if teacher and not os.path.exists(encoder):
            found = "holds a training that was given no teacher"
            raise HwdiffError(f"{out}: {found}; leave the teacher out, or choose another directory")
        identity = load_style_extractor(encoder, device).identity
        loop.run_directory(out / "training", config, dataset, identity, torch.device(device)).find_step(True)
    with Progress("drawing line images", len(dataset), unit="lines") as progress:
        lines = LineImages(dataset, progress=progress.update)
    if stop.reason:
        return "line images"

    encoder = "bundled"
    if teacher:
        settings = distillation.preset("smoke" if preset == "smoke" else "paper", distillation_steps)
        extractor = load_style_extractor(teacher, device)
        with Progress("distilling the encoder", settings.all_steps) as progress:
            encoder = distillation.distil(
                settings,
                [(lines, dataset.needed_split("train"))],
                extractor,
                out / "encoder",
                resume=True,
                stop=stop,
                progress=progress,
            )
        if encoder is None:
            return "encoder"

    features = StyleFeatures(dataset, load_style_extractor(encoder, device), line_images=lines)
    compute_features(features, stop)
    if stop.reason:
        return "style features"

    with Progress("training", config.steps) as progress:
        _, reached = loop.train(
            config, dataset, features, out / "training", device, resume=True, stop=stop, progress=progress
        )
    if reached < config.steps:
        return "training"

    report_run(out / "training", load_model(out / "training" / "model.safetensors", device), out / "figures")
    return None


def compute_features(features: StyleFeatures, stop: Stop) -> None:
    """Compute the style features that are missing, with progress, until `stop` says to stop."""
    everything = np.arange(len(features.dataset))
    with Progress("computing style features", len(features.missing(everything)), unit="lines") as progress:
        features.compute(everything, progress.update, stop)


def report_run(run: str | Path, network: UNet, out: str | Path, seed: int = 0) -> None:
    """Draw the loss of a run and what its network writes.

    run: its directory.
    network: from its checkpoint.
    out: the directory for loss.png and for samples.png, the paper's texts by three samplers.
    seed: of the samples.
    """
    save_figure(plot_loss(read_metrics(run)), Path(out) / "loss.png")
    columns = [
        sample(network, PAPER_TEXTS, sampler=sampler, steps=steps, seed=seed)
        for sampler, steps in REPORTED.values()
    ]
    title = f"after {network.metadata['step']} training steps; from left to right: {'; '.join(REPORTED)}"
    page = plot_inks(
        [ink for row in zip(*columns, strict=True) for ink in row], columns=len(columns), title=title
    )
    save_figure(page, Path(out) / "samples.png")
