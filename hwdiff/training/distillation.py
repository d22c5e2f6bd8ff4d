"""Distilling the bundled style encoder: a MobileNetV2 that starts at random and learns to give the ImageNet network's features of handwriting.

The student has the teacher's form. It sees pieces of lines, half of them bent, thickened, blurred, faded or noisy, and learns the output
of each of the teacher's 19 layers, not the last alone (hints, after FitNets, Romero et al. 2015): that is what makes it learn in an hour.
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torchvision.models import mobilenet_v2

from hwdiff.ink import images
from hwdiff.model.style_encoder import fold_batch_norms, grey_input, pool, set_padding
from hwdiff.training.run_dir import check_same, load_state, read_metadata, save_state
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import append_jsonl, atomic_write, lock_directory, truncate_jsonl
from hwdiff.utils.interrupt import Stop

FORMAT = "hwdiff distillation 1"
PIECE_WIDTH = 480  # pixels: five of the fourteen columns of features
FEATURE_WEIGHT = 4.0  # of the last layer's error against the mean of the hints
WARMUP = 100
FORCED = 0.4  # fraction of the steps in which each layer is fed the teacher's output of the layer before, so that all learn at once


@dataclass(frozen=True)
class DistillationConfig:
    """steps: of the first part, with hints.   fine_steps: of the second, in which batch norms are folded and the last layer alone is learnt.
    pieces: of lines in a batch.   learning_rate, fine_rate: the highest of either part, after 100 steps; they fall to 0 along a cosine.
    """

    steps: int = 6500
    fine_steps: int = 2000
    pieces: int = 8
    learning_rate: float = 3e-3
    fine_rate: float = 4e-4
    seed: int = 0
    save_every: int = 200

    def __post_init__(self):
        for name in ("steps", "fine_steps", "pieces", "save_every"):
            if getattr(self, name) < 1:
                raise HwdiffError(f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("learning_rate", "fine_rate"):
            if not 0 < getattr(self, name) < 1:
                raise HwdiffError(f"{name} = {getattr(self, name)}: must be between 0 and 1")

    @property
    def all_steps(self):
        return self.steps + self.fine_steps

    def learning_rate_at(self, step):
        """The learning rate at step 1, 2, ..., `all_steps`."""
        highest, of = (self.learning_rate, self.steps) if step <= self.steps else (self.fine_rate, self.fine_steps)
        step -= 0 if step <= self.steps else self.steps
        return highest * min(step / WARMUP, 0.5 + 0.5 * np.cos(np.pi * (step - 1) / of))


PRESETS = {"smoke": DistillationConfig(steps=20, fine_steps=5, pieces=2, save_every=10), "paper": DistillationConfig()}


def preset(name, steps=None):
    """The configuration of a preset, with another number of steps if given. Raises HwdiffError for an unknown preset."""
    if name not in PRESETS:
        raise HwdiffError(f"preset: no such preset of the distillation as {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name] if steps is None else replace(PRESETS[name], steps=steps)


def lines_to_judge(dataset, count=200):
    """Indices of `count` test lines, evenly spread."""
    indices = dataset.split("test")
    return indices[np.linspace(0, len(indices) - 1, min(count, len(indices))).astype(int)]


def draw_pieces(sources, count, generator):
    """Pieces of lines drawn at random: (count, 96, 480) uint8; one in four reaches over the end of its line, as padding does.

    sources: a list of (images, indices): images[i] is (96, W) uint8. Each source is drawn from equally often as it has lines.
    """
    sizes = np.cumsum([len(indices) for _, indices in sources])
    pieces = np.full((count, images.HEIGHT, PIECE_WIDTH), 255, dtype=np.uint8)
    for piece in pieces:
        number = int(generator.integers(sizes[-1]))
        which = int(np.searchsorted(sizes, number, side="right"))
        lines, indices = sources[which]
        line = lines[indices[number - (sizes[which - 1] if which else 0)]]
        over = PIECE_WIDTH // 2 if generator.uniform() < 0.25 else 0
        start = int(generator.integers(max(0, line.shape[1] - PIECE_WIDTH + over) + 1))
        part = line[:, start : start + PIECE_WIDTH]
        piece[:, : part.shape[1]] = part
    return pieces


def vary(pixels, generator):
    """Half of the pieces (B, 96, W) uint8 varied: slant, size, stroke width, blur, contrast, noise. Returns (B, 96, W) float32, 0 to 255."""
    device, count = pixels.device, len(pixels)

    def uniform(low, high):
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator, device=device)

    ink = 1 - pixels.float()[:, None] / 255
    slant, wider, taller, turn = uniform(-0.5, 0.5), uniform(0.75, 1.35), uniform(0.85, 1.5), uniform(-0.03, 0.03)
    height, width = ink.shape[2:]
    # What affine_grid is given maps the new picture's coordinates (-1 to 1) to the old one's.
    theta = torch.cat((wider, slant * height / width, 0 * turn, turn * width / height, taller, uniform(-0.1, 0.1)), dim=1).view(count, 2, 3)
    moved = F.grid_sample(ink, F.affine_grid(theta, list(ink.shape), align_corners=False), align_corners=False)
    thick, thin = F.max_pool2d(moved, 3, 1, 1), -F.max_pool2d(-moved, 3, 1, 1)
    weight = uniform(-1, 1)
    moved = torch.lerp(moved, torch.where(weight > 0, thick, thin), weight.abs())
    blurred = F.avg_pool2d(F.pad(moved, (2, 2, 2, 2), mode="replicate"), 5, 1)
    moved = torch.lerp(moved, blurred, uniform(-0.5, 0.9).clamp(min=0))
    moved = moved * uniform(0.5, 1) + uniform(-0.1, 0.15).clamp(min=0)
    moved = moved + uniform(-0.06, 0.08).clamp(min=0) * torch.randn(moved.shape, generator=generator, device=device)
    varied = torch.where(uniform(0, 1) < 0.5, ink, moved)
    return 255 * (1 - varied.clamp(0, 1))[:, 0]


def layer_outputs(features, x, given=None):
    """The outputs of the 19 layers of MobileNetV2's `features`, a list. given: what each layer after the first is fed, instead of the one before."""
    outputs = []
    for number, layer in enumerate(features):
        outputs.append(layer(x))
        x = given[number] if given else outputs[-1]
    return outputs


def hint_loss(student, teacher):
    """Mean over layers of the squared error, each channel in units of the teacher's variance in the batch.

    student, teacher: lists of (B, C, H, W).
    """
    losses = []
    for ours, theirs in zip(student, teacher, strict=True):
        variance = theirs.var(dim=(0, 2, 3), keepdim=True)
        losses.append(((ours - theirs).square() / (variance + 0.1 * variance.mean() + 1e-6)).mean())
    return torch.stack(losses).mean()


def feature_loss(student, teacher):
    """1 - cosine between columns of style features (B, S, 1280), and their squared error in units of the teacher's mean square."""
    cosine = F.cosine_similarity(student, teacher, dim=-1).mean()
    return 1 - cosine + (student - teacher).square().mean() / teacher.square().mean()


def distil(config, sources, teacher, out, resume=False, stop=None, progress=None):
    """Train the student in the folder `out`: `state.safetensors`, `metrics.jsonl` and, at the end, `style.safetensors`, the encoder.

    sources: a list of (`LineImages`, indices of its training lines).   teacher: a `StyleExtractor`; its device is used.
    resume: go on from the folder's state where it has one.   stop: a `Stop`.   progress(step): called after each step.
    Returns the path of the encoder, or None when it was stopped before. On a CPU the same arguments give the same bits, resumed or not.
    """
    out = Path(out)
    device = next(teacher.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        student = mobilenet_v2(weights=None).features
    set_padding(student, teacher.padding)
    student = student.to(device, memory_format=torch.channels_last).train()
    optimizer = _optimizer(student)
    generator = torch.Generator(device).manual_seed(config.seed)
    settings = {**asdict(config), "teacher": teacher.identity, "data": [lines.fingerprint for lines, _ in sources], "device": device.type}
    state, done = out / "state.safetensors", 0
    if state.exists():
        if not resume:
            raise HwdiffError(f"{out}: holds a distillation already; go on with --resume, or choose another folder")
        metadata = read_metadata(state, FORMAT)
        check_same(out, metadata["settings"], settings)
        done = metadata["step"]
        if done > config.steps:
            optimizer = _begin_second_part(student)
        load_state(state, {"student": student}, {"optimizer": optimizer}, generator)
    stop, start = stop or Stop(), time.perf_counter()

    def save(step):
        save_state(state, {"format": FORMAT, "step": step, "settings": settings}, {"student": student}, {"optimizer": optimizer}, generator)

    with lock_directory(out):
        last_row = truncate_jsonl(out / "metrics.jsonl", done)
        before = last_row["seconds"] if last_row else 0
        for step in range(done + 1, config.all_steps + 1):
            if step == config.steps + 1:
                optimizer = _begin_second_part(student)
            pieces = torch.from_numpy(draw_pieces(sources, config.pieces, np.random.default_rng((config.seed, step)))).to(device)
            x = grey_input(vary(pieces, generator))
            with torch.no_grad():
                theirs = layer_outputs(teacher.features, x)
            ours = layer_outputs(student, x, theirs if step <= FORCED * config.steps else None)
            target, features = pool(theirs[-1]), pool(ours[-1])
            loss = feature_loss(features, target)
            if step <= config.steps:
                loss = hint_loss(ours, theirs) + FEATURE_WEIGHT * loss
            optimizer.param_groups[0]["lr"] = config.learning_rate_at(step)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(student.parameters(), 10.0)
            optimizer.step()
            ended = stop.reason
            saving = ended or step % config.save_every == 0 or step == config.all_steps
            if saving or step % 20 == 0:
                if not torch.isfinite(loss + norm):
                    found = f"the loss is {loss.item()} and the gradient {norm.item()}"
                    raise HwdiffError(f"{out}: {found} at step {step}; the last saved state is kept; try a lower learning rate")
                cosine = F.cosine_similarity(features.detach().flatten(1), target.flatten(1)).mean().item()
                seconds = round(before + time.perf_counter() - start, 1)
                append_jsonl(out / "metrics.jsonl", [{"step": step, "loss": loss.item(), "cosine": cosine, "seconds": seconds}])
            if progress:
                progress(step)
            if saving:
                save(step)
            if ended and step < config.all_steps:
                return None
    return save_encoder(student, teacher, out / "style.safetensors")


def _optimizer(student):
    return torch.optim.AdamW(student.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)


def _begin_second_part(student):
    """Fold the student's batch norms into its convolutions, as they will be used, and return a new optimizer for those."""
    fold_batch_norms(student.eval())
    student.to(memory_format=torch.channels_last)
    return _optimizer(student)


def save_encoder(student, teacher, path):
    """Write `student`, its batch norms folded, in half precision and torchvision's names: about 4.5 MB. Returns `path`."""
    state = {}
    reference = mobilenet_v2(weights=None).features.state_dict()
    modules = dict(student.named_modules())
    for name in reference:
        module_name, _, kind = name.rpartition(".")
        module = modules[module_name]
        if isinstance(module, nn.Conv2d):
            state[f"features.{name}"] = module.weight
            last = module
        else:  # the batch norm after it, which only adds the bias now
            values = {"bias": last.bias, "weight": torch.ones_like(last.bias), "running_mean": torch.zeros_like(last.bias)}
            values["running_var"] = torch.ones_like(last.bias)
            state[f"features.{name}"] = values.get(kind, torch.zeros((), dtype=torch.long))
    state = {name: tensor.detach().cpu().contiguous().to(torch.long if tensor.dtype == torch.long else torch.half) for name, tensor in state.items()}
    stored = {"padding": "right, bottom" if teacher.padding == "right-bottom" else "both", "source": "hwdiff, distilled", "teacher": teacher.name}
    with atomic_write(path) as temporary:
        save_file(state, temporary, metadata=stored)
    return path


@torch.inference_mode()
def agreement(encoder, teacher, lines, indices):
    """Cosine similarity of the (14, 1280) features that two extractors give of line images, (n,) float64: what the distillation is judged by.

    lines[i]: (96, W) uint8, for i in `indices`.
    """
    cosines = []
    device = next(teacher.parameters()).device
    for index in indices:
        pixels = torch.from_numpy(images.pad_to_width(lines[index])[None]).to(device)
        cosines.append(F.cosine_similarity(encoder(pixels).flatten(), teacher(pixels).flatten(), dim=0).item())
    return np.array(cosines)
