"""Commands that train, and what tells how training went."""

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hwdiff.cli.options import UNFINISHED, Device, Minutes, Model, Split, StyleEncoder, command
from hwdiff.utils.errors import HwdiffError


@command
def train(
    out: Annotated[Path, typer.Option(help="The folder of the run: config.json, metrics.jsonl, state.safetensors, model.safetensors.")],
    data: Annotated[Path | None, typer.Option(help="The dataset file that hwdiff prepare wrote.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="smoke (the default), small (for a CPU), paper (the published recipe) or paper-cpu (its network, on a CPU)."),
    ] = None,
    style_encoder: StyleEncoder = "bundled",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder; without one there, begin it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the whole configuration and do nothing.")] = False,
    branch: Annotated[Path | None, typer.Option(help="Go on with the run in this folder, but in that of --out.")] = None,
    init: Annotated[str | None, typer.Option(help="Start from the weights of this checkpoint instead of random ones.")] = None,
    processes: Annotated[int | None, typer.Option(help="Processes that share each batch; by default one a core that divides it, or one GPU.")] = None,
    minutes: Minutes = None,
    steps: Annotated[int | None, typer.Option(help="Steps instead of the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Lines a batch instead of the preset's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest learning rate instead of the preset's.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Steps until it is reached.")] = None,
    cooldown: Annotated[int | None, typer.Option(help="Last steps, in which it falls to 0.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the moving average of the weights; 0 for none.")] = None,
    excerpts: Annotated[float | None, typer.Option(help="Share of lines of which only some words are trained on.")] = None,
    excerpt_steps: Annotated[int | None, typer.Option(help="Steps over which that fraction falls to 0; 0: it stays.")] = None,
    guided_attention: Annotated[float | None, typer.Option(help="Weight of a loss that draws attention to the right words.")] = None,
    drop_style: Annotated[float | None, typer.Option(help="Share of lines trained without style.")] = None,
    drop_text: Annotated[float | None, typer.Option(help="Share of lines trained without text.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16 instead of the preset's.")] = None,
    padding: Annotated[str | None, typer.Option(help="full (488 points) or bucket (lines of like length) instead of the preset's.")] = None,
    noise_levels: Annotated[str | None, typer.Option(help="paper or released (the authors' code): how noise levels are drawn.")] = None,
    pen_weight: Annotated[str | None, typer.Option(help="paper or released: how the pen's loss is weighted.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam, or muon for the matrices.")] = None,
    clipping: Annotated[str | None, typer.Option(help="all or each (released): what gradients are clipped together.")] = None,
    position_variant: Annotated[str | None, typer.Option(help="strokes (released) or text (paper): which positions are multiplied.")] = None,
    own_style: Annotated[bool | None, typer.Option(help="A line's style image may be its own (released).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and noise.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps from one saved state to the next.")] = None,
    validate_every: Annotated[int | None, typer.Option(help="Steps from one held-out loss to the next; 0 for none.")] = None,
    sample_every: Annotated[int | None, typer.Option(help="Steps from one page of samples to the next; 0 for none.")] = None,
    compiled: Annotated[bool | None, typer.Option(help="Compile the step; by default on a GPU.")] = None,
    device: Device = None,
):
    """Train a model; Ctrl-C saves it.

    The same command with --resume goes on.
    """
    from hwdiff.evaluation.speed import bf16_is_emulated
    from hwdiff.model.checkpoint import find_device
    from hwdiff.training import config as presets
    from hwdiff.training import run_dir
    from hwdiff.training.distributed import check_count, default_count, launch

    if branch and not dry_run and not (out / "config.json").exists():
        run_dir.branch(branch, out)
        resume = True
    begun = out if resume and (out / "config.json").exists() else branch
    # A run that is gone on with keeps its own configuration where nothing else is asked for.
    config = run_dir.config_of_run(begun) if begun and preset is None else presets.preset(preset or "smoke")
    config = presets.changed(
        config,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup=warmup,
        cooldown=cooldown,
        ema=ema,
        excerpts=excerpts,
        excerpt_steps=excerpt_steps,
        optimizer=optimizer,
        guided_attention=guided_attention,
        drop_style=drop_style,
        drop_text=drop_text,
        precision=precision,
        padding=padding,
        noise_levels=noise_levels,
        pen_weight=pen_weight,
        clipping=clipping,
        position_variant=position_variant,
        own_style=own_style,
        init=init,
        seed=seed,
        save_every=save_every,
        validate_every=validate_every,
        sample_every=sample_every,
    )
    if dry_run:
        print(json.dumps(asdict(config), indent=2))
        return
    if data is None:
        raise HwdiffError("--data: give the dataset file; hwdiff prepare --out FILE.npz makes one")
    device = find_device(device)
    if config.precision == "bf16" and bf16_is_emulated(device):
        warnings.warn(f"{device} has no bf16: it is emulated, many times slower than --precision fp32", stacklevel=1)
    count = default_count(config.batch_size, device) if processes is None else processes
    check_count(count, config.batch_size, device)
    # Several processes each choose their own GPU; one takes that which was asked for.
    arguments = (config, data, style_encoder, out, str(device) if count == 1 else device.type, resume, minutes, compiled)
    if code := _train(*arguments) if count == 1 else launch(_train, arguments, count, device):
        raise typer.Exit(code)


def _train(config, data, style_encoder, out, device, resume, minutes, compiled):
    from hwdiff.data.dataset import Dataset
    from hwdiff.data.style_features import StyleFeatures
    from hwdiff.model.checkpoint import find_device
    from hwdiff.model.style_encoder import load_style_extractor
    from hwdiff.training import distributed, loop
    from hwdiff.training.pipeline import compute_features
    from hwdiff.utils.interrupt import Stop
    from hwdiff.utils.progress import Progress

    dataset, device = Dataset(data), find_device(device)
    features = StyleFeatures(dataset, load_style_extractor(style_encoder, device))
    if distributed.first_process():
        split = dataset.manifest["parameters"]["split_scheme"]
        print(f"training on {len(dataset.split('train'))} lines of {data} (split {split}) on {device}; style features: {features.path}")
    with Stop(minutes) as stop:
        if device.type == "cuda" and distributed.first_process():
            compute_features(features, stop)  # a GPU keeps all of them in its memory
            if stop.reason:
                print(f"{stop.reason} while style features were computed; go on with the same command")
                return 130 if stop.signal else UNFINISHED
        with Progress("training", config.steps) as progress:
            _, reached = loop.train(config, dataset, features, out, device, resume, stop, compiled, progress)
    if reached < config.steps and distributed.first_process():
        print(f"{stop.reason or 'another process was stopped'}: saved at step {reached} of {config.steps}; go on with the same command and --resume")
    if reached < config.steps:
        return 130 if stop.signal else UNFINISHED
    model = out / "model.safetensors"
    if distributed.first_process():
        print(f'wrote {model}; try: hwdiff write "hello world" --model {model} -o hello.svg')
    return 0


@command
def distil(
    data: Annotated[list[Path], typer.Option(help="A dataset file; may be given several times.")],
    teacher: Annotated[str, typer.Option(help="imagenet, or a file of MobileNetV2 weights.")],
    out: Annotated[Path, typer.Option(help="The folder of the run; style.safetensors in it is the encoder.")],
    preset: Annotated[str, typer.Option(help="smoke or paper.")] = "paper",
    steps: Annotated[int | None, typer.Option(help="Steps instead of the preset's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder; without one there, begin it.")] = False,
    minutes: Minutes = None,
    device: Device = None,
):
    """Distil a style encoder from the ImageNet network.

    Prints how well both agree on test lines.
    """
    from hwdiff.data.dataset import Dataset
    from hwdiff.data.line_images import LineImages
    from hwdiff.model.checkpoint import find_device
    from hwdiff.model.style_encoder import load_style_extractor
    from hwdiff.training import distillation
    from hwdiff.utils.interrupt import Stop
    from hwdiff.utils.progress import Progress

    config = distillation.preset(preset, steps)
    extractor = load_style_extractor(teacher, find_device(device))
    datasets = [Dataset(path) for path in data]
    with Progress("drawing", unit="lines") as progress:
        lines = [LineImages(dataset, progress=progress.update) for dataset in datasets]
    sources = [(images, dataset.split("train")) for dataset, images in zip(datasets, lines, strict=True)]
    with Stop(minutes) as stop, Progress("distilling", config.all_steps) as progress:
        encoder = distillation.distil(config, sources, extractor, out, resume, stop, progress.reach)
    if encoder is None:
        print(f"{stop.reason}: saved in {out}; go on with the same command and --resume")
        raise typer.Exit(130 if stop.signal else UNFINISHED)
    for dataset, images in zip(datasets, lines, strict=True):
        _print_agreement(dataset, images, load_style_extractor(encoder, find_device(device)), extractor)
    print(f"wrote {encoder}; use it with --style-encoder {encoder}")


@command
def compare_encoders(
    data: Annotated[list[Path], typer.Option(help="A dataset file; may be given several times.")],
    teacher: Annotated[str, typer.Option(help="imagenet, or a file of MobileNetV2 weights.")],
    style_encoder: StyleEncoder = "bundled",
    device: Device = None,
):
    """Measure how well a style encoder agrees with another one.

    The cosine of the (14, 1280) features on 200 test lines.
    """
    from hwdiff.data.dataset import Dataset
    from hwdiff.data.line_images import LineImages
    from hwdiff.model.checkpoint import find_device
    from hwdiff.model.style_encoder import load_style_extractor

    extractors = [load_style_extractor(weights, find_device(device)) for weights in (style_encoder, teacher)]
    for dataset in map(Dataset, data):
        _print_agreement(dataset, LineImages(dataset), *extractors)


def _print_agreement(dataset, lines, encoder, teacher):
    from hwdiff.training.distillation import agreement, lines_to_judge

    cosines = agreement(encoder, teacher, lines, lines_to_judge(dataset))
    low, high = sorted(cosines)[len(cosines) // 20], sorted(cosines)[-1 - len(cosines) // 20]
    print(f"{dataset.path}: cosine with {teacher.name} on {len(cosines)} test lines: mean {cosines.mean():.3f}, 5 % to 95 % {low:.3f} to {high:.3f}")


@command
def train_recognizer(
    data: Annotated[Path, typer.Option(help="The dataset file that hwdiff prepare wrote.")],
    out: Annotated[Path, typer.Option(help="The folder of the run; recognizer.safetensors in it is the recognizer.")],
    preset: Annotated[str, typer.Option(help="smoke or full.")] = "full",
    steps: Annotated[int | None, typer.Option(help="Steps instead of the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Lines a batch instead of the preset's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest learning rate instead of the preset's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and variations.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder; without one there, begin it.")] = False,
    minutes: Minutes = None,
    device: Device = None,
):
    """Train a recognizer, which measures legibility; Ctrl-C saves it."""
    from hwdiff.data.dataset import Dataset
    from hwdiff.evaluation import recognizer_training
    from hwdiff.model.checkpoint import find_device
    from hwdiff.utils.interrupt import Stop
    from hwdiff.utils.progress import Progress

    config = recognizer_training.preset(preset, steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    with Stop(minutes) as stop, Progress("training the recognizer", config.steps) as progress:
        reached = recognizer_training.train_recognizer(config, Dataset(data), out, find_device(device), resume, stop, progress.reach)
    if reached < config.steps:
        print(f"{stop.reason}: saved at step {reached} of {config.steps}; go on with the same command and --resume")
        raise typer.Exit(130 if stop.signal else UNFINISHED)
    print(f"wrote {out / 'recognizer.safetensors'}; try: hwdiff legibility --data {data} --recognizer {out / 'recognizer.safetensors'}")


@command
def chain(
    data: Annotated[Path, typer.Option(help="The dataset file that hwdiff prepare wrote.")],
    out: Annotated[Path, typer.Option(help="The folder of the whole; the same command again goes on where it was stopped.")],
    preset: Annotated[str, typer.Option(help="smoke, small, paper or paper-cpu.")] = "paper",
    teacher: Annotated[
        str | None, typer.Option(help="imagenet, or MobileNetV2 weights: distil a style encoder; else the bundled one is used.")
    ] = None,
    minutes: Minutes = None,
    steps: Annotated[int | None, typer.Option(help="Training steps instead of the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Lines a batch instead of the preset's.")] = None,
    distillation_steps: Annotated[int | None, typer.Option(help="Steps of the distillation instead of the preset's.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16 instead of the preset's.")] = None,
    padding: Annotated[str | None, typer.Option(help="full or bucket instead of the preset's.")] = None,
    device: Device = None,
):
    """Do it all: images, encoder, features, training, samples.

    Each step keeps its state; with --minutes it stops in time, and the same command goes on.
    """
    from hwdiff.model.checkpoint import find_device
    from hwdiff.training import config as presets
    from hwdiff.training.pipeline import run_chain
    from hwdiff.utils.interrupt import Stop

    config = presets.preset(preset, steps=steps, batch_size=batch_size, precision=precision, padding=padding)
    with Stop(minutes) as stop:
        step = run_chain(data, out, config, preset, teacher, distillation_steps, find_device(device), stop)
    if step:
        print(f"{stop.reason} in the step {step}: saved; the same command goes on")
        raise typer.Exit(130 if stop.signal else UNFINISHED)
    print(f"done: the model is {out / 'training' / 'model.safetensors'}, figures are in {out / 'figures'}")


@command
def report(
    run: Annotated[Path, typer.Argument(help="The folder that hwdiff train wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the figures loss.png and samples.png.")],
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    device: Device = None,
):
    """Draw a training run's loss, and its samples.

    The samples are the texts of the paper's Fig. 11 and 14, by three samplers.
    """
    from hwdiff.model.checkpoint import load_model
    from hwdiff.training.pipeline import report_run

    report_run(run, load_model(run / "model.safetensors", device), out, seed)
    print(f"wrote {out / 'loss.png'} and {out / 'samples.png'}")


@command
def benchmark(
    data: Annotated[Path, typer.Option(help="The dataset file that hwdiff prepare wrote.")],
    device: Device = None,
):
    """Measure writing and training on this machine.

    Speeds come with their fraction of the machine's matrix-product rate.
    """
    from hwdiff.data.dataset import Dataset
    from hwdiff.evaluation.speed import benchmark as measure
    from hwdiff.model.checkpoint import find_device

    for what, seconds, rate, fraction in measure(Dataset(data), find_device(device)):
        duration = "" if seconds is None else f"{seconds:.3f} s"
        speed = "" if rate is None else f"{rate / 1e9:9.1f} GFLOP/s {'' if fraction is None else format(fraction, '5.0%')}"
        print(f"{what:84} {duration:>9} {speed}".rstrip())


@command
def loss(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    model: Model = "pretrained",
    lines: Annotated[int | None, typer.Option(min=1, help="At most so many lines of each split, evenly spread.")] = 500,
    style_encoder: StyleEncoder = "bundled",
    device: Device = None,
):
    """Measure a model's loss on each split of a dataset.

    Real points only, at fixed noise levels; and as losses are usually logged: full padding, the released noise levels.
    """
    from hwdiff.data.batches import Lines as LinesOf
    from hwdiff.data.dataset import Dataset, style_lines
    from hwdiff.data.style_features import StyleFeatures
    from hwdiff.diffusion.generate import require_style_weights
    from hwdiff.evaluation.generation import subsample_lines
    from hwdiff.model.checkpoint import load_model
    from hwdiff.model.style_encoder import load_style_extractor
    from hwdiff.training.validation import padded_loss, validation_loss

    dataset, network = Dataset(data), load_model(model, device)
    extractor = load_style_extractor(style_encoder, next(network.parameters()).device)
    require_style_weights(network, extractor.identity)
    tensors = LinesOf(dataset, StyleFeatures(dataset, extractor), style_lines(dataset.forms), next(network.parameters()).device)
    print(f"{'split':12}{'lines':>7}{'real points':>14}{'stroke, pen of them':>24}{'padded':>10}{'stroke, pen of them':>24}")
    for split in Split:
        indices = subsample_lines(dataset, split.value, lines)
        real, (stroke, pen) = validation_loss(network, tensors, indices), padded_loss(network, tensors, indices)
        terms = "{:.3f} {:.4f}".format(*(sum(real[term].values()) / len(real[term]) for term in ("stroke", "pen")))
        print(f"{split.value:12}{len(indices):7}{real['loss']:14.3f}{terms:>24}{stroke + pen:10.3f}{f'{stroke:.3f} {pen:.4f}':>24}")
