"""Distilling the bundled style encoder: a MobileNetV2 learns the ImageNet network's features of handwriting.

The student has the teacher's shape and starts with random weights. It sees pieces of lines, half of them
bent, thickened, blurred, faded or noisy. It learns the output of each of the teacher's 19 layers, not only of
the last (hints, after FitNets, Romero et al. 2015): that makes it learn in an hour.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import mobilenet_v2

from hwdiff.data.dataset import Dataset
from hwdiff.data.line_images import LineImages
from hwdiff.ink import images
from hwdiff.model.config import DISTILLED
from hwdiff.model.style_encoder import StyleExtractor, fold_batch_norms, grey_input, pool, set_padding
from hwdiff.training.config import warmup_and_cosine
from hwdiff.training.distributed import Processes
from hwdiff.training.run_dir import RunDirectory
from hwdiff.training.steps import Steps
from hwdiff.utils.errors import require_choice
from hwdiff.utils.files import lock_directory
from hwdiff.utils.interrupt import Stop
from hwdiff.utils.progress import Progress
from hwdiff.utils.settings import check_settings, setting
from hwdiff.utils.tensors import save_tensors

PIECE_WIDTH = 480  # pixels: five of the fourteen columns of features
FEATURE_WEIGHT = 4.0  # of the last layer's loss, that of the hints being 1
CLIP_NORM = 10.0
JUDGED_LINES = 200
WARMUP = 100
# In this fraction of the steps each layer gets the teacher's output of the layer before: all learn at once.
FORCED = 0.4


@dataclass(frozen=True)
class DistillationConfig:
    """A distillation in two parts.

    In the second part, batch norms are folded and only the last layer's loss counts. In each part the
    learning rate rises over 100 steps, then falls to 0 along a cosine.
    """

    steps: int = setting(6500, "Steps of the first part, with hints.", low=1)
    fine_steps: int = setting(2000, "Steps of the second part.", low=1)
    pieces: int = setting(8, "Pieces of lines per batch.", low=1)
    learning_rate: float = setting(3e-3, "Highest learning rate of the first part.", above=0, below=1)
    fine_rate: float = setting(4e-4, "Highest learning rate of the second part.", above=0, below=1)
    seed: int = setting(0, "Seed of the weights, the pieces and their variations.", low=0)
    save_every: int = setting(200, "Save the state every so many steps.", low=1)

    def __post_init__(self):
        check_settings(self)

    @property
    def all_steps(self) -> int:
        """The steps of both parts."""
        return self.steps + self.fine_steps

    def learning_rate_at(self, step: int) -> float:
        """The learning rate at step 1, 2, ..., `all_steps`."""
        highest, steps = self.learning_rate, self.steps
        if step > self.steps:
            step, highest, steps = step - self.steps, self.fine_rate, self.fine_steps
        return highest * warmup_and_cosine(step, WARMUP, steps)


PRESETS = {
    "smoke": DistillationConfig(steps=20, fine_steps=5, pieces=2, save_every=10),
    "paper": DistillationConfig(),
}


def preset(name: str, steps: int | None = None) -> DistillationConfig:
    """The configuration of a preset.

    steps: of the first part, instead of the preset's.
    Raises HwdiffError for an unknown preset.
    """
    require_choice("preset", name, PRESETS)
    return PRESETS[name] if steps is None else replace(PRESETS[name], steps=steps)


def lines_to_judge(dataset: Dataset) -> np.ndarray:
    """Indices of at most 200 test lines, evenly spread. Raises HwdiffError where there are none."""
    indices = dataset.needed_split("test")
    return indices[np.linspace(0, len(indices) - 1, min(JUDGED_LINES, len(indices))).astype(int)]


def draw_pieces(
    sources: Sequence[tuple[LineImages, np.ndarray]],
    count: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Pieces of lines drawn at random: (count, 96, 480) uint8.

    One in four may reach beyond the end of its line, as padding does.

    sources: (images, indices of the lines to draw from); images[i] is (96, W) uint8. Every line of any source
        is drawn equally often.
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


def vary(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Vary slant, size, stroke width, blur, contrast and noise of about half of the pieces.

    pixels: (B, 96, W) uint8.
    Returns (B, 96, W) float32, 0 to 255.
    """
    device, count = pixels.device, len(pixels)

    def uniform(low, high):
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator, device=device)

    ink = 1 - pixels.float()[:, None] / 255
    height, width = ink.shape[2:]

    # Slant and size. `theta` maps the new picture's coordinates (-1 to 1) to the old one's.
    slant, wider = uniform(-0.5, 0.5), uniform(0.75, 1.35)
    taller, turn = uniform(0.85, 1.5), uniform(-0.03, 0.03)
    rows = (wider, slant * height / width, 0 * turn, turn * width / height, taller, uniform(-0.1, 0.1))
    theta = torch.cat(rows, dim=1).view(count, 2, 3)
    grid = F.affine_grid(theta, list(ink.shape), align_corners=False)
    moved = F.grid_sample(ink, grid, align_corners=False)

    # Stroke width.
    thick, thin = F.max_pool2d(moved, 3, 1, 1), -F.max_pool2d(-moved, 3, 1, 1)
    weight = uniform(-1, 1)
    moved = torch.lerp(moved, torch.where(weight > 0, thick, thin), weight.abs())

    # Blur, contrast and noise.
    blurred = F.avg_pool2d(F.pad(moved, (2, 2, 2, 2), mode="replicate"), 5, 1)
    moved = torch.lerp(moved, blurred, uniform(-0.5, 0.9).clamp(min=0))
    moved = moved * uniform(0.5, 1) + uniform(-0.1, 0.15).clamp(min=0)
    strength = uniform(-0.06, 0.08).clamp(min=0)
    moved = moved + strength * torch.randn(moved.shape, generator=generator, device=device)

    varied = torch.where(uniform(0, 1) < 0.5, ink, moved)
    return 255 * (1 - varied.clamp(0, 1))[:, 0]


def layer_outputs(
    features: nn.Sequential,
    x: torch.Tensor,
    given: list[torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """The outputs of the 19 layers of MobileNetV2's `features`.

    given: outputs of the layers that the next ones get instead of the network's own.
    """
    outputs = []
    for number, layer in enumerate(features):
        outputs.append(layer(x))
        x = given[number] if given else outputs[-1]
    return outputs


def hint_loss(student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
    """Mean over layers of the squared error, each channel in units of the teacher's variance in the batch.

    student, teacher: lists of (B, C, H, W).
    """
    losses = []
    for ours, theirs in zip(student, teacher, strict=True):
        variance = theirs.var(dim=(0, 2, 3), keepdim=True)
        losses.append(((ours - theirs).square() / (variance + 0.1 * variance.mean() + 1e-6)).mean())
    return torch.stack(losses).mean()


def feature_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 - cosine of the columns of style features, plus their squared error over the teacher's mean square.

    student, teacher: (B, S, 1280).
    """
    cosine = F.cosine_similarity(student, teacher, dim=-1).mean()
    return 1 - cosine + (student - teacher).square().mean() / teacher.square().mean()


def distil(
    config: DistillationConfig,
    sources: Sequence[tuple[LineImages, np.ndarray]],
    teacher: StyleExtractor,
    out: str | Path,
    *,
    resume: bool = False,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> Path | None:
    """Train the student in the directory `out`, a `RunDirectory` with style.safetensors at the end.

    On a CPU the same arguments give the same bits with as many threads, resumed or not.

    sources: (images of lines, indices of those to train on).
    teacher: its device is used.
    resume: from the state in `out`, if there is one.
    stop: looked at between steps.
    progress: told of each step.
    Returns the path of the encoder, or None when it was stopped before the end.
    Raises HwdiffError when `out` holds another run, or the loss is no longer finite.
    """
    device = teacher.device
    data = [lines.fingerprint for lines, _ in sources]
    settings = {
        "kind": "style encoder",
        **asdict(config),
        "teacher": teacher.identity,
        "data": data,
        "device": device.type,
    }
    directory = RunDirectory(out, settings)
    done = directory.find_step(resume)

    # Make the student and what trains it.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        student = mobilenet_v2(weights=None).features
    set_padding(student, teacher.padding)
    student = student.to(device, memory_format=torch.channels_last).train()
    optimizer = _begin_second_part(student) if done > config.steps else _optimizer(student)
    generator = torch.Generator(device).manual_seed(config.seed)

    with lock_directory(directory.path):
        if done:
            directory.load({"student": student}, {"optimizer": optimizer}, generator)
        directory.begin()
        steps = Steps(
            directory,
            config.all_steps,
            every=(config.save_every,),
            processes=Processes(device),
            stop=stop,
            progress=progress,
        )
        for step in steps:
            if step == config.steps + 1:
                optimizer = _begin_second_part(student)

            # Show the same pieces to the student and the teacher.
            pieces = draw_pieces(sources, config.pieces, np.random.default_rng((config.seed, step)))
            x = grey_input(vary(torch.from_numpy(pieces).to(device), generator))
            with torch.no_grad():
                theirs = [teacher.turned(maps) for maps in layer_outputs(teacher.features, teacher.turned(x))]
            ours = layer_outputs(student, x, theirs if step <= FORCED * config.steps else None)

            # Take a gradient step on their difference.
            target, features = pool(theirs[-1]), pool(ours[-1])
            loss = feature_loss(features, target)
            if step <= config.steps:
                loss = hint_loss(ours, theirs) + FEATURE_WEIGHT * loss
            optimizer.param_groups[0]["lr"] = config.learning_rate_at(step)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(student.parameters(), CLIP_NORM)
            optimizer.step()

            # Log and save.
            cosine = F.cosine_similarity(features.detach().flatten(1), target.flatten(1)).mean()
            steps.log({"loss": loss, "cosine": cosine, "gradient_norm": norm})
            if steps.due(config.save_every) or steps.stopping:
                directory.save(step, {"student": student}, {"optimizer": optimizer}, generator)
    if steps.step < config.all_steps:
        return None
    return save_encoder(student, teacher, directory.path / "style.safetensors")


def _optimizer(student):
    return torch.optim.AdamW(student.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)


def _begin_second_part(student):
    """Fold the student's batch norms, as they will be used. Returns an optimizer of what is left."""
    fold_batch_norms(student.eval())
    student.to(memory_format=torch.channels_last)
    return _optimizer(student)


def save_encoder(student: nn.Module, teacher: StyleExtractor, path: Path) -> Path:
    """Write `student` in half precision under torchvision's names: about 4.5 MB.

    student: its batch norms are folded.
    teacher: its padding is the student's, and its name goes into the metadata.
    Returns `path`.
    """
    state = {}
    modules = dict(student.named_modules())
    for name in mobilenet_v2(weights=None).features.state_dict():
        module_name, _, kind = name.rpartition(".")
        module = modules[module_name]
        if isinstance(module, nn.Conv2d):
            value, last = module.weight, module
        else:  # the batch norm after it, which only adds the bias now
            bias, count = last.bias, torch.zeros((), dtype=torch.long)
            ones, zeros = torch.ones_like(bias), torch.zeros_like(bias)
            values = {"bias": bias, "weight": ones, "running_mean": zeros, "running_var": ones}
            value = values.get(kind, count)
        state[f"features.{name}"] = value if value.dtype == torch.long else value.half()
    about = {"padding": teacher.padding, "source": DISTILLED, "teacher": teacher.name}
    save_tensors(path, state, about)
    return path


@torch.inference_mode()
def agreement(
    encoder: StyleExtractor,
    teacher: StyleExtractor,
    lines: LineImages,
    indices: Sequence[int] | np.ndarray,
) -> np.ndarray:
    """By what a distillation is judged: the cosine similarity of two extractors' features of lines.

    lines: lines[i] is (96, W) uint8.
    indices: (n,) of the lines.
    Returns (n,) float64.
    """
    cosines = []
    device = teacher.device
    for index in indices:
        pixels = torch.from_numpy(images.pad_to_width(lines[index])[None]).to(device)
        features = encoder(pixels).flatten(), teacher(pixels).flatten()
        cosines.append(F.cosine_similarity(*features, dim=0).item())
    return np.array(cosines)
