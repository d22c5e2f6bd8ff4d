"""How a model is trained: every setting of a run in one value, and the presets."""

from dataclasses import dataclass, field, fields, replace

from hwdiff.model.config import ModelConfig
from hwdiff.utils.errors import HwdiffError

WARMUP = 10_000
LEARNING_RATE_WIDTH = 256
_CHOICES = {
    "precision": ("fp32", "bf16"),
    "padding": ("full", "bucket"),
    "noise_levels": ("paper", "released"),
    "pen_weight": ("paper", "released"),
    "clipping": ("all", "each"),
    "optimizer": ("adam", "muon"),
}


def learning_rate(step):
    """The published learning rate at step 1, 2, ...: 256^-0.5 min(step^-0.5, step 10000^-1.5)."""
    return LEARNING_RATE_WIDTH**-0.5 * min(step**-0.5, step * WARMUP**-1.5)


@dataclass(frozen=True)
class TrainingConfig:
    """A training run, whole. The defaults are the paper's; where the authors' released program differs, "released" or "each" is its form.

    learning_rate: None for the published schedule, or one that is reached after `warmup` steps, stays, and falls to 0 in the last
    `cooldown` steps; until those begin, `steps` may still be changed.   precision: of the network's arithmetic, "fp32" or "bf16".
    padding: "full" pads every line to 488 points as the authors do; "bucket" batches lines of like length and pads to the longest and up
    to half as much again, drawn for each step.
    optimizer: "adam", or "muon" for the matrices and Adam for the rest, see `muon.Muon`; in bf16 where that is the precision.
    clipping: gradients to norm 100, of "all" weights together or of "each" on its own.
    own_style: a line's style image may be that of the line itself, as in the released program.
    excerpts: fraction of the lines of which only some consecutive words are trained on, drawn anew in each epoch: far cheaper, and with few
    characters to choose from, which ink belongs to which is learnt far sooner. excerpt_steps: over how many steps it falls to 0,
    evenly; 0 for not at all.
    guided_attention: weight of a loss that draws each point's attention to the letters about where its word is, see
    `training.guided_attention_loss`; not in the paper, where that is left to be found out.
    drop_style, drop_text: fraction of the lines that are trained without style (zeros) or text (the end alone), for guidance.
    ema: decay of the moving average of the weights, which is what is saved for writing; 0 for the weights themselves.
    init: a checkpoint whose weights it starts from, instead of random ones: a path, or "pretrained".
    save_every, validate_every, sample_every: steps from one saved state, held-out loss or page of samples to the next; 0 for none of the
    latter two.
    """

    steps: int = 60_000
    batch_size: int = 96
    learning_rate: float | None = None
    warmup: int = 0
    cooldown: int = 0
    precision: str = "fp32"
    padding: str = "full"
    noise_levels: str = "paper"
    pen_weight: str = "paper"
    clipping: str = "all"
    optimizer: str = "adam"
    own_style: bool = False
    excerpts: float = 0.0
    excerpt_steps: int = 0
    guided_attention: float = 0.0
    drop_style: float = 0.0
    drop_text: float = 0.0
    ema: float = 0.0
    seed: int = 0
    init: str = ""
    save_every: int = 1000
    validate_every: int = 1000
    sample_every: int = 10_000
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise HwdiffError(f"{name} = {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        for name, lowest in {
            "steps": 1,
            "batch_size": 1,
            "save_every": 1,
            "validate_every": 0,
            "sample_every": 0,
            "warmup": 0,
            "cooldown": 0,
            "excerpt_steps": 0,
        }.items():
            if getattr(self, name) < lowest:
                raise HwdiffError(f"{name} = {getattr(self, name)}: must be at least {lowest}")
        if not 0 <= self.excerpts <= 1:
            raise HwdiffError(f"excerpts = {self.excerpts}: must be between 0 and 1")
        if not 0 <= self.guided_attention < 100:
            raise HwdiffError(f"guided_attention = {self.guided_attention}: must be at least 0 and below 100")
        for name in ("drop_style", "drop_text", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise HwdiffError(f"{name} = {getattr(self, name)}: must be at least 0 and below 1")
        if not 0 <= self.seed < 2**63:
            raise HwdiffError(f"seed = {self.seed}: must be between 0 and 2^63 - 1")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise HwdiffError(f"learning_rate = {self.learning_rate}: must be between 0 and 1")
        if self.learning_rate is None and (self.warmup or self.cooldown):
            raise HwdiffError("warmup and cooldown: the published schedule has its own; give a learning_rate with them")

    def learning_rate_at(self, step):
        """The learning rate at step 1, 2, ..., `steps`."""
        if self.learning_rate is None:
            return learning_rate(step)
        return self.learning_rate * min(1, step / max(1, self.warmup), (self.steps + 1 - step) / (self.cooldown + 1))

    def excerpts_at(self, step):
        """The fraction of excerpts at step 1, 2, ...."""
        return self.excerpts * max(0.0, 1 - step / self.excerpt_steps) if self.excerpt_steps else self.excerpts


PRESETS = {
    "smoke": TrainingConfig(
        steps=100,
        batch_size=16,
        learning_rate=1e-3,
        padding="bucket",
        ema=0.99,
        save_every=50,
        validate_every=50,
        sample_every=0,
        model=ModelConfig(c1=32, c2=48, c3=64, num_layers=1),
    ),
    "small": TrainingConfig(
        steps=30_000,
        batch_size=32,
        learning_rate=1e-3,
        warmup=500,
        cooldown=3000,
        padding="bucket",
        excerpts=0.75,
        guided_attention=0.1,
        drop_style=0.1,
        drop_text=0.1,
        ema=0.999,
        save_every=250,
        model=ModelConfig(c1=64, c2=96, c3=128),
    ),
    "paper": TrainingConfig(),
    "paper-cpu": TrainingConfig(
        steps=96_000,
        batch_size=64,
        learning_rate=1e-3,
        warmup=500,
        cooldown=19_200,
        padding="bucket",
        optimizer="muon",
        excerpts=0.9,
        excerpt_steps=64_000,
        drop_style=0.1,
        drop_text=0.1,
        ema=0.9995,
        save_every=250,
    ),
}


def preset(name, **changes):
    """The configuration of a preset with some fields changed; those given as None stay. Raises HwdiffError for an unknown preset."""
    if name not in PRESETS:
        raise HwdiffError(f"preset: no such preset as {name!r}; choose one of {', '.join(PRESETS)}")
    return changed(PRESETS[name], **changes)


def changed(config, **changes):
    """`config` with some fields changed, those of its model too; those given as None stay. Raises HwdiffError for an unknown field."""
    changes = {key: value for key, value in changes.items() if value is not None}
    of_model = {item.name for item in fields(ModelConfig)}
    unknown = changes.keys() - {item.name for item in fields(TrainingConfig)} - of_model
    if unknown:
        raise HwdiffError(f"training: no such setting as {', '.join(sorted(unknown))}")
    model = replace(config.model, **{key: value for key, value in changes.items() if key in of_model})
    return replace(config, model=model, **{key: value for key, value in changes.items() if key not in of_model})
