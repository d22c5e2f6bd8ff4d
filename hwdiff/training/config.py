"""How a network is trained: every setting of a run in one value, and the presets. Needs no torch."""

from dataclasses import dataclass, field, fields, replace
from math import cos, pi
from pathlib import Path
from typing import Any

from hwdiff.model.config import ModelConfig
from hwdiff.utils.errors import HwdiffError, require_choice
from hwdiff.utils.settings import check_settings, setting

WARMUP = 10_000
LEARNING_RATE_WIDTH = 256


def learning_rate(step: int) -> float:
    """The published learning rate (section 5.1): 256^-0.5 min(step^-0.5, step 10000^-1.5)."""
    return LEARNING_RATE_WIDTH**-0.5 * min(step**-0.5, step * WARMUP**-1.5)


def warmup_and_cosine(step: int, warmup: int, steps: int) -> float:
    """At step 1, 2, ..., `steps`: a rise to 1 over `warmup` steps, then a fall to 0 along a cosine."""
    return min(step / warmup, 0.5 + 0.5 * cos(pi * (step - 1) / steps))


@dataclass(frozen=True)
class TrainingConfig:
    """Every setting of a training run. `hwdiff train` has an option for each, whose help says what it is.

    The defaults are the paper's, but for `ModelConfig.position_variant`. Where the authors' released program
    differs, its variant is "released" or "each", or own_style=True.
    """

    steps: int = setting(
        60_000, "Training steps. May be changed when a run is resumed, until its cooldown begins.", low=1
    )
    batch_size: int = setting(96, "Lines per batch.", low=1)
    learning_rate: float | None = setting(
        None, "Highest learning rate, instead of the published schedule.", above=0, below=1
    )
    warmup: int = setting(0, "Steps in which the learning rate rises to its highest.", low=0)
    cooldown: int = setting(0, "Last steps, in which the learning rate falls to 0.", low=0)
    precision: str = setting("fp32", "Precision of the network's arithmetic.", choices=("fp32", "bf16"))
    padding: str = setting(
        "full",
        "full: pad every line to 488 points, as the authors do. bucket: batches of lines of similar length, "
        "padded to the longest and by up to half as much more, drawn at each step.",
        choices=("full", "bucket"),
    )
    noise_levels: str = setting("paper", "How noise levels are drawn.", choices=("paper", "released"))
    pen_weight: str = setting("paper", "How the pen's loss is weighted.", choices=("paper", "released"))
    clipping: str = setting(
        "all", "Clip gradients to norm 100: all together, or each (released).", choices=("all", "each")
    )
    optimizer: str = setting(
        "adam",
        "adam; or muon for matrices between hidden features, with Adam for the rest.",
        choices=("adam", "muon"),
    )
    own_style: bool = setting(False, "The style image of a line may be its own (released).")
    excerpts: float = setting(
        0.0,
        "Fraction of the lines of which only some consecutive words are used, drawn in each epoch.",
        low=0,
        high=1,
    )
    excerpt_steps: int = setting(
        0, "Steps over which the fraction of excerpts falls to 0; 0 keeps it.", low=0
    )
    guided_attention: float = setting(
        0.0,
        "Weight of a loss that draws each point's attention to the letters of its word. The paper has none.",
        low=0,
        below=100,
    )
    drop_style: float = setting(0.0, "Fraction of the lines trained without style (zeros).", low=0, below=1)
    drop_text: float = setting(
        0.0, "Fraction of the lines trained without text, for guidance.", low=0, below=1
    )
    ema: float = setting(
        0.0,
        "Decay of the EMA of the weights, which is then what model.safetensors holds; 0 for none.",
        low=0,
        below=1,
    )
    seed: int = setting(0, "Seed of the weights, the order of the lines, and the noise.", low=0, below=2**63)
    init: str = setting(
        "", "Checkpoint whose weights to start from (a path, pretrained or small), instead of random ones."
    )
    save_every: int = setting(1000, "Save the state every so many steps.", low=1)
    validate_every: int = setting(
        1000, "Compute the validation loss every so many steps; 0 for never.", low=0
    )
    sample_every: int = setting(10_000, "Draw a page of samples every so many steps; 0 for never.", low=0)
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self):
        check_settings(self)
        if self.learning_rate is None and (self.warmup or self.cooldown):
            advice = "the published schedule has its own; give a learning_rate with them"
            raise HwdiffError(f"warmup and cooldown: {advice}")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate at step 1, 2, ..., `steps`."""
        if self.learning_rate is None:
            return learning_rate(step)
        return self.learning_rate * min(
            1, step / max(1, self.warmup), (self.steps + 1 - step) / (self.cooldown + 1)
        )

    def excerpts_at(self, step: int) -> float:
        """The fraction of excerpts at step 1, 2, ...."""
        if not self.excerpt_steps:
            return self.excerpts
        return self.excerpts * max(0.0, 1 - step / self.excerpt_steps)


@dataclass(frozen=True)
class StepDistillationConfig:
    """A distillation of steps, see `training.step_distillation`."""

    evaluations: int = setting(12, "Network evaluations in which the student writes a line.", low=2, high=40)
    batches: int = setting(
        400, "Batches of lines, each of which trains the student at all its levels.", low=1
    )
    batch_size: int = setting(16, "Lines per batch.", low=1)
    learning_rate: float = setting(
        1e-4,
        "Highest learning rate of the student, half that of its critic; it falls to 0 in the second half.",
        above=0,
        below=1,
    )
    guidance: float | None = setting(None, "The teacher's guidance, by default its own.", low=0, below=100)
    temperature: float = setting(
        1.0,
        "The noise that the teacher predicts is divided by it, but for the last steps: below 1 the student "
        "writes more probable, less varied lines.",
        above=0,
        below=10,
    )
    ema: float = setting(0.995, "Decay of the EMA of the student's weights.", low=0, below=1)
    precision: str = setting("fp32", "Precision of the networks' arithmetic.", choices=("fp32", "bf16"))
    seed: int = setting(0, "Seed of texts, styles and noise.", low=0, below=2**63)
    save_every: int = setting(20, "Save the state every so many batches.", low=1)

    def __post_init__(self):
        check_settings(self)


_SMALL = TrainingConfig(
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
)
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
    "small": _SMALL,
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
    "tune": replace(
        _SMALL,
        steps=300,
        batch_size=16,
        learning_rate=1e-4,
        warmup=20,
        cooldown=150,
        ema=0.98,
        init="small",
        save_every=100,
        validate_every=100,
        sample_every=0,
    ),
}


def preset(name: str, **changes: Any) -> TrainingConfig:
    """The configuration of a preset, with some fields changed.

    With fewer steps, warm-up, cooldown and the steps with excerpts are shortened in proportion, unless they
    are given.

    changes: as for `changed`.
    Raises HwdiffError for an unknown preset or field, and as `changed` does.
    """
    require_choice("preset", name, PRESETS)
    config, steps = PRESETS[name], changes.get("steps")
    if steps is not None and steps < config.steps:
        for part in ("warmup", "cooldown", "excerpt_steps"):
            if changes.get(part) is None:
                changes[part] = getattr(config, part) * steps // config.steps
                if part == "excerpt_steps" and config.excerpt_steps:
                    changes[part] = max(1, changes[part])  # 0 would mean that excerpts never become fewer
    return changed(config, **changes)


def changed(config: TrainingConfig, **changes: Any) -> TrainingConfig:
    """`config` with some fields changed, its own or its model's.

    changes: {field: value}; fields given as None stay.
    Raises HwdiffError for an unknown field, and when warm-up and cooldown take more than all steps.
    """
    changes = {key: value for key, value in changes.items() if value is not None}
    of_model = {item.name for item in fields(ModelConfig)}
    unknown = changes.keys() - {item.name for item in fields(TrainingConfig)} - of_model
    if unknown:
        raise HwdiffError(f"training: no such setting as {', '.join(sorted(unknown))}")
    model = replace(config.model, **{key: value for key, value in changes.items() if key in of_model})
    own = {key: value for key, value in changes.items() if key not in of_model}
    config = replace(config, model=model, **own)
    # A run that was begun with such a schedule may be resumed, as long as nobody changes it.
    if own.keys() & {"steps", "warmup", "cooldown"} and config.warmup + config.cooldown > config.steps:
        found = f"warmup = {config.warmup}, cooldown = {config.cooldown} of {config.steps} steps"
        raise HwdiffError(f"{found}: the learning rate would never be reached; give shorter ones")
    return config


def config_of(settings: dict, run: str | Path) -> TrainingConfig:
    """The configuration of a run, from its settings as `run_dir.read_config` gives them.

    run: what to call it in errors.
    Raises HwdiffError when the settings are those of another version.
    """
    names = {item.name for item in fields(TrainingConfig)}
    if settings.get("kind") not in (None, "network"):
        raise HwdiffError(
            f"{run}: holds a run of another kind ({settings['kind']}); choose another directory"
        )
    try:
        if missing := names - settings.keys():
            raise KeyError(sorted(missing)[0])
        model = ModelConfig(**settings["model"])
        return TrainingConfig(**{**{name: settings[name] for name in names}, "model": model})
    except (KeyError, TypeError, HwdiffError) as error:
        raise HwdiffError(
            f"{run}: its settings are not those of this version ({error}); use the version that wrote it"
        ) from error
