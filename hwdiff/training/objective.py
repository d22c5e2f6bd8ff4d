"""Algorithm 1 of Luhman & Luhman (2020): its loss, its random draws, and the gradients of a batch."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hwdiff.data import tokenizer
from hwdiff.data.batches import Batch
from hwdiff.diffusion import process
from hwdiff.training.config import TrainingConfig
from hwdiff.training.distributed import Processes

STYLE_DROPOUT = 0.3  # of single features, Fig. 10
CPU_POINTS = {"fp32": 24 * 320, "bf16": 48 * 320}  # with more points at a time a CPU is slower
# Standard deviation in characters: places are about this uncertain, since letters differ in their number
# of points.
ATTENTION_WINDOW = 1.5


class Objective(nn.Module):
    """The loss of Algorithm 1 for lines that are noised already.

    It is a module, so that it can be compiled and shared among processes.

    network: a `UNet`.
    precision: of its arithmetic, "fp32" or "bf16".
    guided_attention: weight of a third term, see `guided_attention_loss`; 0 for none, as in the paper.
    """

    def __init__(self, network: nn.Module, precision: str, guided_attention: float = 0.0):
        super().__init__()
        self.network, self.precision, self.guided_attention = network, precision, guided_attention

    def forward(
        self,
        noisy: torch.Tensor,
        text: torch.Tensor,
        noise_level: torch.Tensor,
        style: torch.Tensor,
        eps: torch.Tensor,
        pen_up: torch.Tensor,
        pen_weight: torch.Tensor,
        places: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The terms of the loss. Shapes are those of `UNet`, `process.loss_terms` and `Batch`.

        Returns (2,) or (3,): stroke, pen and, if guided, attention.
        """
        every = "all" if self.guided_attention else False
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            eps_predicted, pen_logit, attention = self.network.predict(noisy, text, noise_level, style, every)
        terms = process.loss_terms(eps, eps_predicted.float(), pen_up, pen_logit.float(), pen_weight)
        if self.guided_attention:
            total = sum(guided_attention_loss(weights, places) for weights in attention)
            terms = (*terms, self.guided_attention * total / len(attention))
        return torch.stack(terms)


def guided_attention_loss(attention: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """How far the points' attention to the text is from where their words are.

    It is the mean of -log of the fraction of the attention within a Gaussian window, after the guided
    attention of Tachibana et al. (2018), with the places of words instead of a diagonal. It is taken over the
    points of each line and then over the lines, so that it does not depend on how a batch is divided.

    attention: (B, heads, M, L).
    places: (B, N) as in `Batch`, N a multiple of M. Points whose place is uncertain (NaN) do not count.
    """
    step = places.shape[1] // attention.shape[2]
    places = places[:, step // 2 :: step, None]
    known = places.isfinite()
    distance = torch.arange(attention.shape[3], device=places.device) - places.nan_to_num()
    window = torch.exp(-(distance**2) / (2 * ATTENTION_WINDOW**2))
    fraction = (attention.float().mean(dim=1) * window).sum(dim=-1, keepdim=True)
    of_lines = ((fraction + 1e-3).log() * known).sum(dim=(1, 2)) / known.sum(dim=(1, 2)).clamp(min=1)
    return -of_lines.mean()


def compiled_objective(objective: Objective, device: str | torch.device, graphs: bool = True) -> Callable:
    """`objective`, to be compiled once for each length of batches.

    graphs: on a GPU, as CUDA graphs.
    """
    # There are up to 16 lengths. By default nothing more is compiled after 8.
    torch._dynamo.config.recompile_limit = 64
    mode = "reduce-overhead" if graphs and torch.device(device).type == "cuda" else None
    return torch.compile(objective, dynamic=False, mode=mode)


def training_objective(
    network: nn.Module,
    config: TrainingConfig,
    processes: Processes,
    compiled: bool | None = None,
) -> Callable[..., torch.Tensor]:
    """The `Objective` of a run, compiled and shared among its processes where that applies.

    compiled: None to compile it on a GPU only.
    """
    objective, device = Objective(network, config.precision, config.guided_attention), processes.device
    if compiled or (compiled is None and device.type == "cuda"):
        objective = compiled_objective(objective, device, graphs=processes.count == 1)
    if processes.count > 1:
        objective = DistributedDataParallel(objective, gradient_as_bucket_view=True)
    return objective


class Draws(NamedTuple):
    """All that is random in a step of Algorithm 1, for B lines.

    noise_level: (B, 1, 1), sqrt(alpha_bar).
    eps: (B, N, 2) standard normal.
    pen_weight: (B, 1, 1), see `process.pen_weights`.
    kept_features: (B, S, 1280), by which style features are multiplied: 0 where they are dropped.
    kept_style: (B, 1, 1) bool, whether the line keeps its style.
    kept_text: (B, 1) bool, whether the line keeps its text.
    """

    noise_level: torch.Tensor
    eps: torch.Tensor
    pen_weight: torch.Tensor
    kept_features: torch.Tensor
    kept_style: torch.Tensor
    kept_text: torch.Tensor


def draw(
    shape: tuple[int, int, int],
    style_shape: tuple[int, int, int],
    config: TrainingConfig,
    alpha_bar: torch.Tensor,
    generator: torch.Generator,
) -> Draws:
    """All that is random in a step of Algorithm 1, on the generator's device.

    It is drawn for the whole batch, so that it does not depend on how the batch is then divided.

    shape: (B, N, 2) of the strokes.
    style_shape: (B, S, 1280).
    alpha_bar: (T + 1,) the published signal levels.
    """
    count, device = shape[0], generator.device

    def chance(*size):
        return torch.rand(size, generator=generator, device=device)

    noise_level = process.draw_noise_levels(count, alpha_bar, generator, variant=config.noise_levels)
    eps = torch.randn(shape, generator=generator, device=device)
    kept_features = (chance(*style_shape) >= STYLE_DROPOUT).to(eps.dtype) / (1 - STYLE_DROPOUT)
    kept_style, kept_text = chance(count, 1, 1) >= config.drop_style, chance(count, 1) >= config.drop_text
    pen_weight = process.pen_weights(noise_level, config.pen_weight)
    return Draws(noise_level, eps, pen_weight, kept_features, kept_style, kept_text)


def accumulate_gradients(
    objective: Callable[..., torch.Tensor],
    batch: Batch,
    draws: Draws,
    precision: str = "fp32",
) -> torch.Tensor:
    """Algorithm 1 for one batch: noise it, predict the noise, and add the loss's gradients to the network's.

    On a CPU the batch goes through the network in pieces of at most `CPU_POINTS`, which only changes the
    speed.

    objective: an `Objective`, perhaps compiled or in DistributedDataParallel.
    draws: for the lines of the batch.
    precision: the objective's.
    Returns the terms of the loss of this batch as `Objective` does.
    """
    # What the network sees: Eq. 6, and the dropout.
    noisy = process.add_noise(batch.strokes, draws.noise_level, draws.eps)
    style = batch.style * draws.kept_features * draws.kept_style
    text = torch.where(draws.kept_text, batch.text, tokenizer.without_text(batch.text))
    places = noisy.new_full(noisy.shape[:2], torch.nan)
    if batch.places is not None:
        places = batch.places.where(draws.kept_text, torch.nan)

    # The gradients of its loss, Eq. 13 and 14, piece by piece.
    count = -(-noisy.shape[0] * noisy.shape[1] // CPU_POINTS[precision]) if noisy.device.type == "cpu" else 1
    size = -(-len(noisy) // count)
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
