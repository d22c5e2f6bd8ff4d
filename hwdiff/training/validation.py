"""The loss on lines that are held back from training, what it is held against, and how its terms pull."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from hwdiff.data.batches import Lines
from hwdiff.data.dataset import Dataset
from hwdiff.data.lines import MAX_POINTS
from hwdiff.diffusion import process
from hwdiff.model.unet import UNet
from hwdiff.training.config import TrainingConfig
from hwdiff.training.objective import Objective, draw
from hwdiff.utils.errors import HwdiffError

BATCH_SIZE = 24
PADDED_REPEATS = 4  # how many times a line is noised for the padded loss
NOISE_STEPS = (1, 5, 15, 30, 45, 60)  # t of the noise levels of the validation loss


@torch.inference_mode()
def validation_loss(
    network: UNet,
    lines: Lines,
    indices: np.ndarray,
    *,
    precision: str = "fp32",
) -> dict:
    """The loss of real points at fixed noise levels; that of padding is left out.

    The noise depends on the line and the noise level alone. The loss of a line also depends, by a few
    percent at most, on how far it is padded, that is on the longest of the 24 lines it goes with: attention
    sees the padding.

    indices: (n,) of the validation lines.
    precision: of the network's arithmetic, "fp32" or "bf16".
    Returns {"loss": mean over the levels, "stroke": {t: loss}, "pen": {t: loss, not weighted}}.
    """
    alpha_bar = process.alpha_bars()
    sums = {t: np.zeros(3) for t in NOISE_STEPS}
    for start in range(0, len(indices), BATCH_SIZE):
        some = indices[start : start + BATCH_SIZE]
        batch = lines.batch(some)
        device, length = batch.strokes.device, batch.strokes.shape[1]
        real = (torch.arange(length) < batch.lengths[:, None]).to(device)
        for t in NOISE_STEPS:
            # The noise, drawn at full length so that it does not depend on the batch.
            generators = [torch.Generator().manual_seed(1000 * int(index) + t) for index in some]
            noise = [torch.randn(MAX_POINTS, 2, generator=generator)[:length] for generator in generators]
            eps = torch.stack(noise).to(device)
            level = alpha_bar[t].sqrt().float().to(device).expand(len(some), 1, 1)
            noisy = process.add_noise(batch.strokes, level, eps)

            # The loss, summed over real points.
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                eps_predicted, logit, _ = network.predict(noisy, batch.text, level, batch.style)
            stroke, pen = process.point_losses(eps, eps_predicted.float(), batch.pen_up, logit.float())
            sums[t] += (stroke[real].sum().item(), pen[real].sum().item(), real.sum().item())
    stroke, pen = ({t: total[term] / total[2] for t, total in sums.items()} for term in (0, 1))
    losses = [stroke[t] + alpha_bar[t].item() * pen[t] for t in NOISE_STEPS]
    return {"loss": float(np.mean(losses)), "stroke": stroke, "pen": pen}


def linear_baseline(dataset: Dataset, indices: np.ndarray, *, neighbours: int = 16) -> dict[int, float]:
    """The strokes' loss of the best linear predictor of the noise, which knows neither text nor style.

    It sees each noisy offset with its neighbours. With the covariance S of such windows of clean offsets,
    noisy ones have alpha_bar S + (1 - alpha_bar) I, and what is left of the noise at the middle point is
    2 - (1 - alpha_bar) times the trace of that point's part of the inverse.

    indices: (n,) of the lines that S is taken of.
    neighbours: on either side.
    Returns {t: loss} for `NOISE_STEPS`. Raises HwdiffError when there are fewer windows than S has rows.
    """
    size = 2 * neighbours + 1
    lines = [dataset.strokes(int(index))[0] for index in indices]
    windows = [
        sliding_window_view(line, size, axis=0).reshape(-1, 2 * size) for line in lines if len(line) >= size
    ]
    if sum(map(len, windows)) < 2 * size:
        found = f"too few lines of {size} points or more among {len(lines)}"
        raise HwdiffError(f"{dataset.path}: {found}; give more or longer ones")
    covariance = np.cov(np.concatenate(windows).astype(np.float64), rowvar=False)
    middle = np.array([neighbours, size + neighbours])  # x and y of the middle point: the axes come first
    losses = {}
    for t in NOISE_STEPS:
        signal = process.alpha_bars()[t].item()
        inverse = np.linalg.inv(signal * covariance + (1 - signal) * np.eye(2 * size))
        losses[t] = float(2 - (1 - signal) * inverse[middle, middle].sum())
    return losses


def gradient_norms(
    network: UNet,
    lines: Lines,
    batches: Sequence[np.ndarray],
    *,
    seed: int = 0,
) -> dict[int, tuple[float, float]]:
    """How strongly each term of the loss pulls at the weights, by noise level.

    It is the norm of the gradient over all weights, for batches of which every line has the same noise level
    and nothing is dropped.

    batches: the (B,) indices of the lines of each.
    seed: of the noise.
    Returns {t: (stroke, pen)} for `NOISE_STEPS`, root mean squares over the batches, the pen's not weighted.
    """
    alpha_bar, weights = process.alpha_bars(), list(network.parameters())
    generator = torch.Generator().manual_seed(seed)
    squares = {t: np.zeros(2) for t in NOISE_STEPS}
    for indices in batches:
        batch = lines.batch(indices)
        eps = torch.randn(batch.strokes.shape, generator=generator).to(lines.device)
        for t in NOISE_STEPS:
            level = alpha_bar[t].sqrt().float().to(lines.device).expand(len(indices), 1, 1)
            noisy = process.add_noise(batch.strokes, level, eps)
            eps_predicted, logit, _ = network.predict(noisy, batch.text, level, batch.style)
            terms = process.loss_terms(eps, eps_predicted, batch.pen_up, logit, torch.ones_like(level))
            for place, term in enumerate(terms):
                gradients = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
                squares[t][place] += sum(g.square().sum().item() for g in gradients if g is not None)
    return {t: tuple(np.sqrt(total / len(batches)).tolist()) for t, total in squares.items()}


@torch.inference_mode()
def padded_loss(
    network: UNet,
    lines: Lines,
    indices: np.ndarray,
    *,
    seed: int = 0,
) -> tuple[float, float]:
    """The loss as it is usually logged: padding to 488 points counts, and noise levels are the released ones.

    indices: (n,) of the lines.
    seed: of noise levels and noise.
    Returns (stroke, pen), the pen's weighted with each line's alpha_bar.
    """
    config, alpha_bar = TrainingConfig(noise_levels="released"), process.alpha_bars().to(lines.device)
    objective = Objective(network, config.precision)
    generator = torch.Generator(lines.device).manual_seed(seed)
    total = torch.zeros(2, device=lines.device)
    for _ in range(PADDED_REPEATS):
        for start in range(0, len(indices), BATCH_SIZE):
            batch = lines.batch(indices[start : start + BATCH_SIZE], MAX_POINTS)
            draws = draw(batch.strokes.shape, batch.style.shape, config, alpha_bar, generator)
            noisy = process.add_noise(batch.strokes, draws.noise_level, draws.eps)
            wanted = (draws.eps, batch.pen_up, draws.pen_weight)
            terms = objective(noisy, batch.text, draws.noise_level, batch.style, *wanted)
            total += terms * len(noisy) / (PADDED_REPEATS * len(indices))
    return tuple(total.tolist())
