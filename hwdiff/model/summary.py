"""The network from outside: its parts, shapes and parameters, what a point sees, what noise levels do.

All of it is told from the modules themselves, so that it cannot differ from them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hwdiff.data.lines import MAX_POINTS
from hwdiff.model.blocks import Affine, AttentionBlock
from hwdiff.model.config import STYLE_SHAPE
from hwdiff.model.unet import UNet


@dataclass(frozen=True)
class Layer:
    """A part of the network, as one line went through it.

    name: of the module.   kind: its class.
    shape: of its output, without the batch: (points or tokens, channels).
    parameters: trained numbers.
    sources: names of the parts whose output it takes, in between averaged, doubled or added to one another.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    sources: tuple[str, ...]


def layers(network: UNet, points: int = MAX_POINTS, tokens: int = 32) -> list[Layer]:
    """The parts of the network in the order in which a line goes through them.

    points: of the line, divisible by 8.   tokens: of its text.
    What a part takes is told from the graph of the gradients. The encoder, the convolution
    blocks and the attention blocks have the noise level besides.
    """
    found, nodes = [], {}
    names = {module: name for name, module in parts(network)}

    def look(module, arguments, output):
        output = output[0] if isinstance(output, tuple) else output
        given = [one for one in arguments if isinstance(one, Tensor) and one.grad_fn is not None]
        sources = {nodes[node]: None for one in given for node in _nearest(one.grad_fn, nodes)}
        count = sum(weight.numel() for weight in module.parameters())
        from_others = tuple(name for name in sources if name != "noise_embedding")
        shape = tuple(output.shape[1:])
        found.append(Layer(names[module], type(module).__name__, shape, count, from_others))
        nodes[output.grad_fn] = names[module]

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        with torch.enable_grad():
            network(*_example(network, points, tokens), attention=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def parts(network: UNet) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of each part of the network. Their parameters add up to its own."""
    for name, module in network.named_children():
        if isinstance(module, nn.ModuleList):
            yield from ((f"{name}.{number}", one) for number, one in enumerate(module))
        else:
            yield name, module


def _example(network, points, tokens):
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)
    strokes = torch.randn(1, points, 2, generator=generator).to(device)
    style = torch.randn(1, *STYLE_SHAPE, generator=generator).to(device)
    text = torch.full((1, tokens), 3, device=device)
    return strokes, text, torch.full((1, 1, 1), 0.5, device=device), style


def _nearest(node, known):
    """The known nodes that are reached from `node` first, not those behind them."""
    seen, waiting, found = set(), [node], []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in known:
            found.append(node)
        else:
            waiting += [before for before, _ in node.next_functions]
    return found


def receptive_field(network: UNet, points: int = MAX_POINTS) -> tuple[int, int]:
    """How many points the prediction at the middle point sees by convolutions alone: (before it, after it).

    It is measured: which inputs the gradient of the noise predicted there reaches, with all attention left
    out. With attention every point sees the whole line.
    """
    strokes, *others = _example(network, points, 4)
    strokes.requires_grad_()
    hooks = [
        module.register_forward_hook(lambda module, arguments, output: (arguments[0], None))
        for module in network.modules()
        if isinstance(module, AttentionBlock)
    ]
    try:
        with torch.enable_grad():
            eps, _, _ = network(strokes, *others, attention=False)
            eps[0, points // 2].sum().backward()
    finally:
        for hook in hooks:
            hook.remove()
    seen = strokes.grad[0].abs().sum(dim=1).nonzero()[:, 0]
    network.zero_grad()
    return points // 2 - int(seen.min()), int(seen.max()) - points // 2


@torch.inference_mode()
def conditioning(network: UNet, noise_levels: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What each affine transform (Fig. 6) does at some noise levels.

    noise_levels: (T,) sqrt(alpha_bar).
    Returns {name: (scale (T, C), shift (T, C))}.
    """
    levels = noise_levels.to(next(network.parameters())).view(-1, 1, 1)
    emb = network.noise_embedding(levels)
    return {
        name: tuple(part[:, 0].cpu() for part in module.scale_shift(emb).chunk(2, dim=-1))
        for name, module in network.named_modules()
        if isinstance(module, Affine)
    }


@torch.inference_mode()
def attention_to_style(network: UNet, text: Tensor, style: Tensor, noise_level: float) -> Tensor:
    """How the tokens of a text attend to the columns of a style (Fig. 10), the mean of the heads.

    text: (L,) tokens.   style: (S, 1280).
    Returns (L, S). A column's 1280 features are read as five vectors, whose weights are added.
    """
    attention, kept = network.encoder.attention, []

    def look(module, arguments):
        hook.remove()
        kept.append(module(*arguments, weights=True)[1])

    hook = attention.register_forward_pre_hook(look)
    device = next(network.parameters()).device
    emb = network.noise_embedding(torch.full((1, 1, 1), noise_level, device=device))
    network.encoder(text[None].to(device), style[None].to(device), emb)
    return kept[0][0].mean(dim=0).unflatten(-1, (len(style), -1)).sum(dim=-1).cpu()
