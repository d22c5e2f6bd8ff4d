"""Training: Algorithm 1 of Luhman & Luhman (2020) in a loop."""

import json
import time
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain
from pathlib import Path

import torch

from hwdiff import diffusion
from hwdiff.checkpoint import save_model
from hwdiff.data.batches import FULL_LENGTH, batch_order, make_batch
from hwdiff.data.dataset import style_lines
from hwdiff.errors import HwdiffError
from hwdiff.files import replacing
from hwdiff.model.writer import DiffusionWriter, ModelConfig

CLIP_NORM = 100.0
CPU_LINES = 24  # activations of more lines at a time cost a CPU a third of its speed
BETAS = (0.9, 0.98)
_CHOICES = {
    "precision": ("fp32", "bf16"),
    "padding": ("full", "bucket"),
    "noise_levels": ("paper", "released"),
    "pen_weight": ("paper", "released"),
    "clipping": ("all", "each"),
}


@dataclass(frozen=True)
class TrainingConfig:
    """A training run, whole. The defaults are the paper's; where the authors' released program differs, "released" or "each" is its form.

    learning_rate: a constant one, or None for the published schedule.   precision: of the network's arithmetic, "fp32" or "bf16".
    padding: "full" pads every line to 488 points as the authors do; "bucket" batches lines of like length and pads to the longest.
    clipping: gradients to norm 100, of "all" weights together or of "each" on its own.
    own_style: a line's style image may be that of the line itself, as in the released program.
    """

    steps: int = 60_000
    batch_size: int = 96
    learning_rate: float | None = None
    precision: str = "fp32"
    padding: str = "full"
    noise_levels: str = "paper"
    pen_weight: str = "paper"
    clipping: str = "all"
    own_style: bool = False
    seed: int = 0
    save_every: int = 1000
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise HwdiffError(f"{name} = {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        for name in ("steps", "batch_size", "save_every"):
            if getattr(self, name) < 1:
                raise HwdiffError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 0 <= self.seed < 2**63:
            raise HwdiffError(f"seed = {self.seed}: must be between 0 and 2^63 - 1")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise HwdiffError(f"learning_rate = {self.learning_rate}: must be between 0 and 1")


PRESETS = {
    "paper": TrainingConfig(),
    "smoke": TrainingConfig(
        steps=100, batch_size=16, learning_rate=1e-3, padding="bucket", save_every=100, model=ModelConfig(c1=32, c2=48, c3=64, num_layers=1)
    ),
}


def preset(name, **changes):
    """The configuration of a preset with some fields changed; those given as None stay. Raises HwdiffError for an unknown preset."""
    if name not in PRESETS:
        raise HwdiffError(f"preset: no such preset as {name!r}; choose one of {', '.join(PRESETS)}")
    unknown = changes.keys() - {item.name for item in fields(TrainingConfig)}
    if unknown:
        raise HwdiffError(f"preset {name}: no such setting as {', '.join(sorted(unknown))}")
    return replace(PRESETS[name], **{key: value for key, value in changes.items() if value is not None})


def accumulate_gradients(network, batch, config, alpha_bar, generator):
    """Algorithm 1 for one batch: noise it, predict, and add the loss's gradients to those of the network.

    The batch goes through the network in pieces (on a CPU of 24 lines), which changes nothing but speed: the noise is drawn for the whole.
    Returns the loss's two terms (stroke, pen), scalar tensors.
    """
    noise_level = diffusion.draw_noise_levels(len(batch.strokes), alpha_bar, generator, config.noise_levels)
    eps = torch.randn(batch.strokes.shape, generator=generator, device=generator.device)
    noisy = diffusion.add_noise(batch.strokes, noise_level, eps)
    pen_weight = diffusion.pen_weights(noise_level, config.pen_weight)
    terms = []
    size = CPU_LINES if generator.device.type == "cpu" else len(eps)
    whole = (noisy, batch.text, noise_level, batch.style, eps, batch.pen_up, pen_weight)
    for piece in zip(*(tensor.split(size) for tensor in whole), strict=True):
        noisy, text, noise_level, style, eps, pen_up, pen_weight = piece
        with torch.autocast(generator.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            eps_predicted, pen_logit, _ = network.predict(noisy, text, noise_level, style)
        share = len(eps) / len(batch.strokes)
        stroke, pen = diffusion.loss_terms(eps, eps_predicted.float(), pen_up, pen_logit.float(), pen_weight)
        ((stroke + pen) * share).backward()
        terms.append(torch.stack((stroke, pen)).detach() * share)
    return torch.stack(terms).sum(dim=0).unbind()


def clip_gradients(network, clipping):
    """Clip gradients to norm 100, of all together or of each weight on its own. Returns the norm of all before clipping."""
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    norm = torch.nn.utils.get_total_norm(gradients.values())
    if clipping == "all":
        torch.nn.utils.clip_grads_with_norm_(network.parameters(), CLIP_NORM, norm)
        return norm
    for name, gradient in gradients.items():
        # The authors keep scale and shift as two weights.
        for piece in gradient.chunk(2) if "scale_shift" in name else (gradient,):
            piece.mul_((CLIP_NORM / (piece.norm() + 1e-6)).clamp(max=1))
    return norm


def training_batches(dataset, style_features, config):
    """Endless batches of the training part, epoch after epoch, in an order that depends on the seed alone."""
    lines = dataset.part("train")
    length = FULL_LENGTH if config.padding == "full" else None
    styles = style_lines(dataset.forms, config.own_style)
    epoch = 0
    while True:
        for order in batch_order(dataset.lengths[lines], config.batch_size, config.seed, epoch, bucketed=length is None):
            yield make_batch(dataset, style_features, lines[order], styles, length)
        epoch += 1


def train(config, dataset, style_features, out, device, callback=None):
    """Train a new network and leave `config.json`, `metrics.jsonl` and `model.safetensors` in the folder `out`.

    dataset: a `Dataset`.   style_features: `StyleFeatures` of it.   callback(step, metrics): called after each step.
    Each line of `metrics.jsonl` is one step: step, loss, stroke, pen, gradient norm, learning rate, seconds since the start.
    Returns the network. Raises HwdiffError when `out` holds a run already, or the loss is no longer finite.
    """
    out = Path(out)
    if (out / "config.json").exists():
        raise HwdiffError(f"{out}: holds a training run already; choose another folder or delete it")
    batches = training_batches(dataset, style_features, config)
    first = next(batches)  # whatever is wrong with the data shows before anything is written
    torch.manual_seed(config.seed)  # initial weights and dropout
    generator = torch.Generator(device).manual_seed(config.seed)
    network = DiffusionWriter(config.model).to(device).train()
    network.default_style = style_features[dataset.part("train")[:1]][0]
    optimizer = torch.optim.Adam(network.parameters(), lr=0.0, betas=BETAS, fused=True)
    alpha_bar = diffusion.alpha_bars()
    style_weights = style_features.extractor.identity
    with replacing(out / "config.json") as path:
        path.write_text(json.dumps({**asdict(config), "dataset": dataset.content, "style_weights": style_weights}, indent=1))
    start = time.perf_counter()

    def save(step):
        save_model(network, out / "model.safetensors", step=step, training=asdict(config), dataset=dataset.content, style_weights=style_weights)

    with (out / "metrics.jsonl").open("w", buffering=1) as log:
        for step, batch in zip(range(1, config.steps + 1), chain([first], batches), strict=False):
            rate = config.learning_rate or diffusion.learning_rate(step)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            stroke, pen = accumulate_gradients(network, batch.to(device), config, alpha_bar, generator)
            loss = stroke + pen
            norm = clip_gradients(network, config.clipping)
            metrics = {"step": step, "loss": loss.item(), "stroke": stroke.item(), "pen": pen.item(), "gradient_norm": norm.item()}
            if not torch.isfinite(loss + norm):
                found = f"the loss is {loss.item()} and the gradient {norm.item()}"
                raise HwdiffError(f"{out}: {found} at step {step}; the last saved state is kept; try a lower learning rate")
            optimizer.step()
            metrics |= {"learning_rate": rate, "seconds": round(time.perf_counter() - start, 3)}
            log.write(json.dumps(metrics) + "\n")
            if step % config.save_every == 0 or step == config.steps:
                save(step)
            if callback:
                callback(step, metrics)
    return network.eval()
