"""Distilling steps: a student takes one network evaluation where its teacher takes many.

The teacher writes by Eq. 12 in the paper's 60 steps; with guidance that is 120 evaluations. The student
visits a few of the 60 noise levels. At each it learns the clean ink (Eq. 10) that the teacher predicts at the
last level before the student's next one, when it walks there step by step from the same noisy ink. So it
learns the guidance (Meng et al. 2023) and, in the mean, what the steps do that it leaves out (after the
progressive distillation of Salimans & Ho 2022; here noise is put back at each step). No ink of people is
needed: the noisy ink is the teacher's own or the student's.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from hwdiff.data import tokenizer
from hwdiff.data.dataset import Dataset, style_lines
from hwdiff.data.style_features import StyleFeatures
from hwdiff.diffusion.generate import default_length, require_style_weights, writing_settings
from hwdiff.diffusion.process import STEPS, add_noise, alpha_bars
from hwdiff.diffusion.samplers import clean_ink, guided, sample_eq12
from hwdiff.model.checkpoint import save_model
from hwdiff.model.unet import UNet
from hwdiff.training.config import StepDistillationConfig
from hwdiff.training.distributed import Processes
from hwdiff.training.optimizers import BETAS, Ema
from hwdiff.training.run_dir import RunDirectory
from hwdiff.training.steps import Steps
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import lock_directory
from hwdiff.utils.interrupt import Stop
from hwdiff.utils.progress import Progress
from hwdiff.utils.tensors import fingerprint_of

POWER = 0.7  # of the levels: closer together in much noise than evenly in t
SIZES = range(6, 40, 4)  # characters of the texts of a batch, which are about alike
MAX_WEIGHT = 5.0  # of the clean ink's error, which else grows with signal over noise without bound
PEN_WEIGHT = 0.3
CLIP_NORM = 1.0
WARMUP = 50  # updates
MAX_OWN = 0.75  # fraction of lines that go on from the student's ink in the end, not from the teacher's


def student_levels(count: int) -> list[int]:
    """The levels t that a student of so many evaluations visits, of the paper's 60: 60, ..., 1."""
    places = np.linspace(1, 0, count) ** POWER
    levels = np.round(1 + (STEPS - 1) * places).astype(int)
    # Of many evaluations some would fall together.
    for number in range(1, count):
        levels[number] = min(levels[number], levels[number - 1] - 1)
    return [max(int(level), count - number) for number, level in enumerate(levels)]


def draw_texts(
    texts: Sequence[str], count: int, generator: np.random.Generator
) -> tuple[list[str], np.ndarray]:
    """Texts of about one length: whole consecutive words of some of `texts`, drawn at random.

    Returns the texts, and which of `texts` each is from (count,).
    """
    size = min(int(generator.choice(SIZES)), max(map(len, texts)))
    drawn, numbers = [], []
    for _ in range(1000 * count):
        number = int(generator.integers(len(texts)))
        words = texts[number].split()
        first = int(generator.integers(max(1, len(words))))
        text = " ".join(words[first:])
        while len(text) > size:
            text = text.rpartition(" ")[0]
        if text and size - 4 < len(text):
            drawn.append(text)
            numbers.append(number)
        if len(drawn) == count:
            return drawn, np.array(numbers)
    raise HwdiffError(f"the data have too few texts of {size} characters; take larger data")


def distil_steps(
    config: StepDistillationConfig,
    teacher: UNet,
    dataset: Dataset,
    style_features: StyleFeatures,
    out: str | Path,
    *,
    resume: bool = False,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> int:
    """Train a student of `teacher` in the directory `out`, a `RunDirectory` with model.safetensors.

    On a CPU a run that was resumed gives the same weights, bit for bit, as one that was never stopped, if it
    has as many threads.

    dataset, style_features: texts and styles of the training split are used, no ink.
    resume: from the state in `out`, if there is one.
    stop: looked at between batches.
    progress: told of each batch.
    Returns the batches done. Raises HwdiffError when `out` holds a run that cannot be resumed, or the loss is
    no longer finite.
    """
    require_style_weights(teacher, style_features.extractor.identity)
    device = next(teacher.parameters()).device
    writing = writing_settings(teacher)
    guidance = writing["guidance"] if config.guidance is None else config.guidance
    settings = {
        "kind": "steps",
        **asdict(config),
        "guidance": guidance,
        "points_per_character": writing["points_per_character"],
        "teacher": fingerprint_of(teacher.state_dict()),
        "dataset": dataset.fingerprint,
        "device": device.type,
    }
    directory = RunDirectory(out, settings)
    done = directory.find_step(resume)
    indices = dataset.needed_split("train")
    texts, styles = [str(text) for text in dataset.texts[indices]], style_lines(dataset.forms)[indices]
    levels, alpha_bar = student_levels(config.evaluations), alpha_bars().float().to(device)
    about = {
        **({"training": teacher.metadata["training"]} if "training" in teacher.metadata else {}),
        "dataset": dataset.fingerprint,
        "style_weights": style_features.extractor.identity,
        "teacher": settings["teacher"],
        "writing": {**writing, "guidance": 1.0, "levels": levels},
    }

    # Make the student and what trains it.
    student = copy.deepcopy(teacher).train()
    teacher = guided(copy.deepcopy(teacher).eval().requires_grad_(False), guidance)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.0, betas=BETAS, fused=True)
    ema = Ema(student, config.ema)
    generator = torch.Generator(device).manual_seed(config.seed)
    modules = {"student": student, "ema": ema}

    def noise_like(y, t=None):
        return torch.randn(y.shape, generator=generator, device=device)

    def noise_level(t):
        return alpha_bar[t].sqrt().expand(config.batch_size, 1, 1)

    def precision():
        return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")

    with lock_directory(directory.path):
        if done:
            directory.load(modules, {"optimizer": optimizer}, generator)
        directory.begin()
        every = (config.save_every,)
        steps = Steps(
            directory, config.batches, every=every, processes=Processes(device), stop=stop, progress=progress
        )
        for step in steps:
            # Draw texts, the styles of their lines, and the noise to begin with.
            drawn, numbers = draw_texts(texts, config.batch_size, np.random.default_rng((config.seed, step)))
            text = torch.from_numpy(tokenizer.pad([tokenizer.encode(one) for one in drawn])).to(device)
            style = style_features[styles[numbers]].to(device)
            length = max(default_length(one, writing["points_per_character"]) for one in drawn)

            y, losses = noise_like(torch.empty(len(drawn), length, 2, device=device)), []
            own_fraction = min(MAX_OWN, 2 * step / config.batches)
            own = torch.rand(len(drawn), 1, 1, generator=generator, device=device) < own_fraction
            for number, t in enumerate(levels):
                then = levels[number + 1] if t > 1 else 0

                # What the teacher says at the last level before the student's next: Eq. 12 with these levels.
                walked = torch.cat((alpha_bar[:1], alpha_bar[then + 1 : t + 1]))
                with torch.no_grad(), precision():
                    target, pen_up = sample_eq12(teacher, y, text, style, walked, partial(noise_like, y))

                # A gradient step of the student towards it.
                with precision():
                    eps, pen_logit, _ = student.predict(y, text, noise_level(t), style)
                found = clean_ink(y, eps, alpha_bar[t])
                weight = (1 / (1 - alpha_bar[t])).clamp(max=MAX_WEIGHT)  # 1 + signal over noise
                pen_loss = F.binary_cross_entropy_with_logits(pen_logit, pen_up)
                loss = weight * (found - target).square().mean() + PEN_WEIGHT * alpha_bar[t] * pen_loss
                student.zero_grad()
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(student.parameters(), CLIP_NORM)
                update = (step - 1) * len(levels) + number
                rising, falling = (update + 1) / WARMUP, 2 * (1 - update / (config.batches * len(levels)))
                optimizer.param_groups[0]["lr"] = config.learning_rate * min(1, rising, falling)
                optimizer.step()
                ema.update_parameters(student)
                losses.append(loss.detach())
                if then:
                    y = add_noise(torch.where(own, found.detach(), target), noise_level(then), noise_like(y))

            # Log and save.
            steps.log({"loss": torch.stack(losses).mean(), "gradient_norm": norm})
            if steps.due(config.save_every) or steps.stopping:
                save_model(ema.module, directory.path / "model.safetensors", step=step, **about)
                directory.save(step, modules, {"optimizer": optimizer}, generator)
    return steps.step
