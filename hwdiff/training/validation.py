"""The loss on lines that are not trained on."""

import numpy as np
import torch
from torch import nn

from hwdiff.data.batches import FULL_LENGTH
from hwdiff.diffusion import process
from hwdiff.training.config import TrainingConfig
from hwdiff.training.objective import Objective, draw

BATCH_SIZE = 24
NOISE_STEPS = (1, 5, 15, 30, 45, 60)  # t of the noise levels at which the held-out loss is taken


@torch.inference_mode()
def validation_loss(network, lines, indices, precision="fp32"):
    """The loss on lines that are not trained on, real points only, at fixed noise levels with fixed noise.

    lines: `Lines`.   indices: (n,) of the lines. The noise depends on the line and the noise level alone.
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
            generators = [torch.Generator().manual_seed(1000 * int(index) + t) for index in some]
            eps = torch.stack(
                [torch.randn(FULL_LENGTH, 2, generator=generator)[:length] for generator in generators]
            ).to(device)
            level = alpha_bar[t].sqrt().float().to(device).expand(len(some), 1, 1)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                eps_predicted, logit, _ = network.predict(
                    process.add_noise(batch.strokes, level, eps), batch.text, level, batch.style
                )
            stroke = (eps - eps_predicted.float()).square().sum(dim=-1)[real].sum().item()
            pen = (
                nn.functional.binary_cross_entropy_with_logits(logit.float(), batch.pen_up, reduction="none")[
                    ..., 0
                ][real]
                .sum()
                .item()
            )
            sums[t] += (stroke, pen, real.sum().item())
    stroke, pen = ({t: total[term] / total[2] for t, total in sums.items()} for term in (0, 1))
    return {
        "loss": float(np.mean([stroke[t] + alpha_bar[t].item() * pen[t] for t in NOISE_STEPS])),
        "stroke": stroke,
        "pen": pen,
    }


@torch.inference_mode()
def padded_loss(network, lines, indices, repeats=4, seed=0):
    """The loss as it is usually logged: lines padded to 488 points, which count, and noise levels of the released program.

    lines: `Lines`.   indices: (n,) of the lines, each of which is noised `repeats` times.
    Returns (stroke, pen weighted with abar of each line).
    """
    config, alpha_bar = TrainingConfig(noise_levels="released"), process.alpha_bars().to(lines.device)
    objective, generator = (
        Objective(network, config.precision),
        torch.Generator(lines.device).manual_seed(seed),
    )
    total = torch.zeros(2, device=lines.device)
    for _ in range(repeats):
        for start in range(0, len(indices), BATCH_SIZE):
            batch = lines.batch(indices[start : start + BATCH_SIZE], FULL_LENGTH)
            draws = draw(batch.strokes.shape, batch.style.shape, config, alpha_bar, generator)
            noisy = process.add_noise(batch.strokes, draws.noise_level, draws.eps)
            terms = objective(
                noisy, batch.text, draws.noise_level, batch.style, draws.eps, batch.pen_up, draws.pen_weight
            )
            total += terms * len(noisy) / (repeats * len(indices))
    return tuple(total.tolist())
