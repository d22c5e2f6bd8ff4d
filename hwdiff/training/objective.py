"""Algorithm 1 of Luhman & Luhman (2020): its loss, what is random in a step, and gradients of a batch."""

from collections import namedtuple
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hwdiff.data import tokenizer
from hwdiff.diffusion import process

STYLE_DROPOUT = 0.3  # of single features, Fig. 10
CPU_POINTS = {"fp32": 24 * 320, "bf16": 48 * 320}  # activations of more points at a time are slower on a CPU
ATTENTION_WINDOW = (
    1.5  # standard deviation in characters: so much letters of one word differ in their number of points
)


class Objective(nn.Module):
    """The terms of Algorithm 1's loss of lines that were noised already, as a module that can be compiled and shared among processes.

    guided_attention: weight of a third term, see `guided_attention_loss`; 0 for none, as in the paper.
    """

    def __init__(self, network, precision, guided_attention=0.0):
        super().__init__()
        self.network, self.precision, self.guided_attention = network, precision, guided_attention

    def forward(self, noisy, text, noise_level, style, eps, pen_up, pen_weight, places=None):
        """Shapes as in `UNet`, `process.loss_terms` and `Batch`. Returns (2,) or (3,): stroke, pen and attention."""
        every = "all" if self.guided_attention else False
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            eps_predicted, pen_logit, attention = self.network.predict(noisy, text, noise_level, style, every)
        terms = process.loss_terms(eps, eps_predicted.float(), pen_up, pen_logit.float(), pen_weight)
        if self.guided_attention:
            terms = (
                *terms,
                self.guided_attention
                * sum(guided_attention_loss(weights, places) for weights in attention)
                / len(attention),
            )
        return torch.stack(terms)


def guided_attention_loss(attention, places):
    """How far the attention to the text is from where each point should look: the mean of -log of the fraction within a Gaussian window.

    attention: (B, heads, M, L).   places: (B, N) as in `Batch`, N a multiple of M. Where a place is uncertain nothing is asked.
    In the manner of the guided attention of Tachibana et al. (2018), with the places of words instead of a diagonal.
    """
    step = places.shape[1] // attention.shape[2]
    places = places[:, step // 2 :: step, None]
    known = places.isfinite()
    window = torch.exp(
        -((torch.arange(attention.shape[3], device=places.device) - places.nan_to_num()) ** 2)
        / (2 * ATTENTION_WINDOW**2)
    )
    fraction = (attention.float().mean(dim=1) * window).sum(dim=-1, keepdim=True)
    return -((fraction + 1e-3).log() * known).sum() / known.sum().clamp(min=1)


def compiled_objective(objective, device, graphs=True):
    """`objective` compiled, once for each length of batches, on a GPU as CUDA graphs unless graphs=False."""
    torch._dynamo.config.recompile_limit = (
        64  # there are up to 16 lengths, and 8 is the default, after which nothing more is compiled
    )
    return torch.compile(
        objective,
        dynamic=False,
        mode="reduce-overhead" if graphs and torch.device(device).type == "cuda" else None,
    )


Draws = namedtuple("Draws", "noise_level eps pen_weight kept_features kept_style kept_text")


def draw(shape, style_shape, config, alpha_bar, generator):
    """All that is random in a step of Algorithm 1, for the whole batch, on the generator's device.

    shape: (B, N, 2) of the strokes.   style_shape: (B, S, 1280).
    Drawn for the whole, it is the same however the batch is then divided, into pieces or among processes.
    """
    count, device = shape[0], generator.device

    def chance(*size):
        return torch.rand(size, generator=generator, device=device)

    noise_level = process.draw_noise_levels(count, alpha_bar, generator, config.noise_levels)
    eps = torch.randn(shape, generator=generator, device=device)
    kept_features = (chance(*style_shape) >= STYLE_DROPOUT).to(eps.dtype) / (1 - STYLE_DROPOUT)
    kept_style, kept_text = chance(count, 1, 1) >= config.drop_style, chance(count, 1) >= config.drop_text
    return Draws(
        noise_level,
        eps,
        process.pen_weights(noise_level, config.pen_weight),
        kept_features,
        kept_style,
        kept_text,
    )


def accumulate_gradients(objective, batch, draws, precision="fp32"):
    """Algorithm 1 for one batch: noise it, predict, and add the loss's gradients to those of the network.

    objective: an `Objective`, perhaps compiled or in DistributedDataParallel.   draws: the rows of `draw`'s that belong to the batch.
    The batch goes through the network in pieces (on a CPU of at most `CPU_POINTS`), which changes nothing but speed.
    Returns the loss's terms of this batch, (2,): stroke and pen; with guided attention a third one.
    """
    noisy = process.add_noise(batch.strokes, draws.noise_level, draws.eps)
    style = batch.style * draws.kept_features * draws.kept_style
    text = torch.where(draws.kept_text, batch.text, tokenizer.without_text(batch.text))
    count = -(-noisy.shape[0] * noisy.shape[1] // CPU_POINTS[precision]) if noisy.device.type == "cpu" else 1
    size = -(-len(noisy) // count)
    places = (
        noisy.new_full(noisy.shape[:2], torch.nan)
        if batch.places is None
        else batch.places.where(draws.kept_text, torch.nan)
    )
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
