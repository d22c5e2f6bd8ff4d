"""Distilling steps: a student writes in a few network evaluations, its teacher in 120.

The student visits a few of the paper's 60 noise levels, by Eq. 12 without guidance. At most of them it learns
by distribution matching (Yin et al. 2024, DMD and DMD2). Its clean ink (Eq. 10) gets noise of any level. The
teacher, with guidance, predicts clean ink from that, and so does a critic: a copy of the teacher that learns
to denoise the student's ink. The student's ink moves by the difference, towards ink that the teacher finds
more probable (DMD's gradient; its regression and DMD2's adversary are left out). Its pen learns from the
teacher's, of the same noisy ink. A student that imitates single lines of its teacher learns their mean; this
one learns to write lines like them. In its last steps, with little noise left, the mean is the line: there it
learns what the teacher predicts with guidance (Meng et al. 2023). No ink of people is needed: the noisy ink
is the student's own.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from hwdiff.data import tokenizer
from hwdiff.data.dataset import Dataset, style_lines
from hwdiff.data.style_features import StyleFeatures
from hwdiff.diffusion.generate import default_length, require_style_weights, writing_settings
from hwdiff.diffusion.process import STEPS, add_noise, alpha_bars
from hwdiff.diffusion.samplers import clean_ink, guided
from hwdiff.model.checkpoint import save_model
from hwdiff.model.unet import UNet
from hwdiff.training.config import StepDistillationConfig
from hwdiff.training.distributed import Processes
from hwdiff.training.optimizers import Ema
from hwdiff.training.run_dir import RunDirectory
from hwdiff.training.steps import Steps
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import lock_directory
from hwdiff.utils.interrupt import Stop
from hwdiff.utils.progress import Progress
from hwdiff.utils.tensors import fingerprint_of

POWER = 0.7  # of the first levels: closer together in much noise than evenly in t
LITTLE_NOISE = 16  # at this t and below the student predicts what the teacher does
SIZES = range(6, 40, 4)  # characters of the texts of a batch, which are about alike
PEN_WEIGHT = 0.3
CLIP_NORM = 1.0
WARMUP = 50  # updates
# The critic has to keep up with the student.
CRITIC_UPDATES = 2  # for one of the student
CRITIC_RATE = 2.0  # times the student's learning rate
BETAS = (0.0, 0.99)  # of Adam, without momentum: the critic changes from one update to the next
MIN_SCALE = 1e-3  # of the ink's distance from what the teacher predicts, by which its way is divided


def student_levels(count: int) -> list[int]:
    """The levels t that a student of so many evaluations visits, of the paper's 60: 60, ..., 1.

    The last quarter of them, or one, has little noise.
    """
    last = max(1, count // 4)
    first = 1 + (STEPS - 1) * np.linspace(1, 0, count)[:-last] ** POWER
    return [round(t) for t in (*first, *np.linspace(1, LITTLE_NOISE, last)[::-1])]


def draw_texts(
    texts: Sequence[str], count: int, generator: np.random.Generator
) -> tuple[list[str], np.ndarray]:
    """Texts of about one length: whole consecutive words of some of `texts`, drawn at random.

    Returns the texts, and which of `texts` each is from (count,). Raises HwdiffError when they have no words.
    """
    sizes, longest = list(SIZES), max(map(len, texts))
    while sizes:
        size = int(generator.choice(sizes))
        sizes.remove(size)
        if drawn := _draw_of_size(texts, min(size, longest), count, generator):
            return drawn
    raise HwdiffError("the data have too few words; take larger data")


def _draw_of_size(texts, size, count, generator):
    """`draw_texts` of at most `size` characters, and at most 3 fewer; None where there are hardly any."""
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
    return None


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
    has as many threads. Of each batch metrics.jsonl has the critic's loss ("loss"), how far the ink predicted
    by critic and teacher lies apart ("difference"), how far in little noise the student's noise lies from the
    teacher's ("guided_loss", squared), the pen's loss, and the student's norm of the gradient and last
    learning rate.

    teacher: no student itself, since it must denoise at all levels.
    dataset, style_features: texts and styles of the training split are used, no ink.
    resume: from the state in `out`, if there is one.
    stop: looked at between batches.
    progress: told of each batch.
    Returns the batches done. Raises HwdiffError when the teacher is a student, `out` holds a run that cannot
    be resumed, or the loss is no longer finite.
    """
    require_style_weights(teacher, style_features.extractor.identity)
    device = next(teacher.parameters()).device
    writing = writing_settings(teacher)
    if "levels" in writing:
        raise HwdiffError("the teacher is a student itself, which writes in few steps only; give its teacher")
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

    # Make the student, its critic, and what trains them.
    student, critic = copy.deepcopy(teacher), copy.deepcopy(teacher)
    teacher = guided(teacher, guidance)
    ema = Ema(student, config.ema)
    generator = torch.Generator(device).manual_seed(config.seed)
    modules = {"student": student, "critic": critic, "ema": ema}
    optimizers = {
        f"{name}_optimizer": torch.optim.Adam(modules[name].parameters(), lr=0.0, betas=BETAS, fused=True)
        for name in ("student", "critic")
    }

    def noise_like(y):
        return torch.randn(y.shape, generator=generator, device=device)

    def noised(ink):
        """Ink with noise of any level: the noisy ink, the noise, and alpha_bar (B, 1, 1)."""
        t = torch.randint(1, STEPS + 1, (len(ink), 1, 1), generator=generator, device=device)
        eps = noise_like(ink)
        return add_noise(ink, alpha_bar[t].sqrt(), eps), eps, alpha_bar[t]

    def precision():
        return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")

    def update(name, loss, learning_rate):
        optimizer = optimizers[f"{name}_optimizer"]
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(modules[name].parameters(), CLIP_NORM)
        optimizer.param_groups[0]["lr"] = learning_rate
        optimizer.step()
        return norm

    with lock_directory(directory.path):
        if done:
            directory.load(modules, optimizers, generator)
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
            y = noise_like(torch.empty(len(drawn), length, 2, device=device))

            matched, predicted, student_seen = [], [], []
            for number, t in enumerate(levels):
                updates = (step - 1) * len(levels) + number
                rising, falling = (updates + 1) / WARMUP, 2 * (1 - updates / (config.batches * len(levels)))
                learning_rate = config.learning_rate * min(1, rising, falling)
                noise_level = alpha_bar[t].sqrt().expand(len(y), 1, 1)
                with precision():
                    eps, pen_logit, _ = student.predict(y, text, noise_level, style)
                clean = clean_ink(y, eps, alpha_bar[t])
                ink = clean.detach()

                if t <= LITTLE_NOISE:
                    # The student predicts what the teacher does.
                    with torch.no_grad(), precision():
                        eps_of_teacher, pen_up, _ = teacher(y, text, noise_level, style, attention=False)
                    signal = alpha_bar[t].expand_as(noise_level)
                    loss = F.mse_loss(eps, eps_of_teacher)
                    predicted.append(loss.detach())
                else:
                    # The critic learns to denoise the student's ink.
                    for _ in range(CRITIC_UPDATES):
                        noisy, noise, signal = noised(ink)
                        with precision():
                            found, _, _ = critic.predict(noisy, text, signal.sqrt(), style)
                        critic_loss = F.mse_loss(found, noise)
                        update("critic", critic_loss, CRITIC_RATE * learning_rate)

                    # The student's ink moves from what the critic predicts towards what the teacher does.
                    noisy, _, signal = noised(ink)
                    with torch.no_grad(), precision():
                        eps_of_critic, _, _ = critic(noisy, text, signal.sqrt(), style, attention=False)
                        eps_of_teacher, pen_up, _ = teacher(
                            noisy, text, signal.sqrt(), style, attention=False
                        )
                    wanted = clean_ink(noisy, eps_of_teacher / config.temperature, signal)
                    difference = wanted - clean_ink(noisy, eps_of_critic, signal)
                    scale = (ink - wanted).abs().mean((1, 2), keepdim=True).clamp(min=MIN_SCALE)
                    loss = F.mse_loss(clean, ink + difference / scale) / 2
                    matched.append(torch.stack((critic_loss.detach(), difference.abs().mean())))
                pen_loss = F.binary_cross_entropy_with_logits(pen_logit, pen_up, weight=signal)
                norm = update("student", loss + PEN_WEIGHT * alpha_bar[t] * pen_loss, learning_rate)
                ema.update_parameters(student)
                student_seen.append(torch.stack((pen_loss.detach(), norm)))
                if t > 1:
                    y = add_noise(ink, alpha_bar[levels[number + 1]].sqrt(), noise_like(y))

            # Log and save.
            means = [torch.stack(one).mean(dim=0).flatten() for one in (matched, predicted, student_seen)]
            names = ("loss", "difference", "guided_loss", "pen_loss", "gradient_norm")
            values = dict(zip(names, torch.cat(means), strict=True))
            steps.log(values, learning_rate=learning_rate)
            if steps.due(config.save_every) or steps.stopping:
                save_model(ema.module, directory.path / "model.safetensors", step=step, **about)
                directory.save(step, modules, optimizers, generator)
    return steps.step
