"""The command line, `hwdiff --help`. What each command does is in the package; here are options, progress and messages."""

import json
import sys
import warnings
from dataclasses import asdict
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer

from hwdiff.errors import HwdiffError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

StyleEncoder = Annotated[
    str, typer.Option(help="bundled, imagenet (torchvision's MobileNetV2, downloaded once), or a file of MobileNetV2 weights (.safetensors, .pth).")
]
Model = Annotated[
    str, typer.Option(help="pretrained (it comes with the package), a checkpoint (.safetensors), or weights of the authors' program (.h5).")
]
Minutes = Annotated[float | None, typer.Option(min=0, help="Stop after so long, everything saved; the same command with --resume goes on.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default CUDA where there is one.")]
UNFINISHED = 3  # exit code of what was stopped in good order before its end


class Split(StrEnum):
    authors = "authors"
    official = "official"


class Part(StrEnum):
    train = "train"
    validation = "validation"
    test = "test"


class Form(StrEnum):
    paper = "paper"
    released = "released"


class Sampler(StrEnum):
    eq12 = "eq12"
    eq12_released = "eq12-released"
    eq9 = "eq9"
    ddim = "ddim"
    dpm = "dpm"


SamplerName = Annotated[Sampler, typer.Option(help="eq12: the paper's; eq9: its ablation; ddim, dpm: noiseless, for few steps.")]
Steps = Annotated[int, typer.Option(help="Network calls.")]
Guidance = Annotated[
    float | None, typer.Option(help="1: the plain method; above: follow the text more closely, at twice the work. By default as the model says.")
]
Lines = Annotated[int | None, typer.Option(min=1, help="At most so many lines, evenly spread; by default all.")]


def command(function):
    """Register a command; what a user can put right ends it with one line and exit code 1, and warnings are one line too."""

    @app.command()
    @wraps(function)
    def run(*args, **kwargs):
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        try:
            function(*args, **kwargs)
        except HwdiffError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            raise typer.Exit(130) from None

    return run


@app.callback()
def main():
    """Handwriting by diffusion (Luhman & Luhman 2020): prepare the data, train, write."""


@command
def prepare(
    out: Annotated[Path, typer.Option(help="The dataset file to write, *.npz.")],
    source: Annotated[
        Path | None, typer.Option(help="Folder with the IAM On-Line archives and the split lists; without it the built-in writers write.")
    ] = None,
    split: Annotated[Split, typer.Option(help="authors: as the paper trains; official: as the database's makers propose.")] = Split.authors,
    long_offsets: Annotated[Form, typer.Option(help="What a long offset is measured from: the mean (paper) or zero (released).")] = Form.paper,
    seed: Annotated[int, typer.Option(help="Seed of the built-in writers.")] = 0,
):
    """Make a dataset file, of the IAM On-Line archives or of the built-in writers."""
    from hwdiff.data.dataset import prepare as prepare_dataset
    from hwdiff.data.lines import Limits
    from hwdiff.runs import Progress

    with Progress("preparing", unit="lines") as bar:
        prepared = prepare_dataset(source, out, split.value, Limits(long_offsets=long_offsets.value), seed, progress=bar.update)
    if prepared.existed:
        print(f"{out} is there already, prepared with the same parameters: nothing to do (delete it to read the archives again)")
    _print_dataset(out, prepared.manifest)


@command
def train(
    out: Annotated[Path, typer.Option(help="The folder of the run: config.json, metrics.jsonl, state.safetensors, model.safetensors.")],
    data: Annotated[Path | None, typer.Option(help="The dataset file that hwdiff prepare wrote.")] = None,
    preset: Annotated[str | None, typer.Option(help="smoke (the default), small (for a CPU) or paper (the published recipe).")] = None,
    style_encoder: StyleEncoder = "bundled",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder; without one there, begin it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the whole configuration and do nothing.")] = False,
    minutes: Minutes = None,
    steps: Annotated[int | None, typer.Option(help="Steps instead of the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Lines a batch instead of the preset's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest learning rate instead of the preset's.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Steps until it is reached.")] = None,
    cooldown: Annotated[int | None, typer.Option(help="Last steps, in which it falls to 0.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the moving average of the weights; 0 for none.")] = None,
    excerpts: Annotated[float | None, typer.Option(help="Share of lines of which only some words are trained on.")] = None,
    guided_attention: Annotated[float | None, typer.Option(help="Weight of a loss that draws attention to the right words.")] = None,
    drop_style: Annotated[float | None, typer.Option(help="Share of lines trained without style.")] = None,
    drop_text: Annotated[float | None, typer.Option(help="Share of lines trained without text.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16 instead of the preset's.")] = None,
    padding: Annotated[str | None, typer.Option(help="full (488 points) or bucket (lines of like length) instead of the preset's.")] = None,
    noise_levels: Annotated[str | None, typer.Option(help="paper or released (the authors' code): how noise levels are drawn.")] = None,
    pen_weight: Annotated[str | None, typer.Option(help="paper or released: how the pen's loss is weighted.")] = None,
    clipping: Annotated[str | None, typer.Option(help="all or each (released): what gradients are clipped together.")] = None,
    position_form: Annotated[str | None, typer.Option(help="strokes (released) or text (paper): which positions are multiplied.")] = None,
    own_style: Annotated[bool | None, typer.Option(help="A line's style image may be its own (released).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and noise.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps from one saved state to the next.")] = None,
    held_out_every: Annotated[int | None, typer.Option(help="Steps from one held-out loss to the next; 0 for none.")] = None,
    sample_every: Annotated[int | None, typer.Option(help="Steps from one page of samples to the next; 0 for none.")] = None,
    compiled: Annotated[bool | None, typer.Option(help="Compile the step; by default on a GPU.")] = None,
    device: Device = None,
):
    """Train a model; Ctrl-C saves it.

    Several processes: torchrun --nproc-per-node N -m hwdiff train ...
    """
    from hwdiff import processes, recipes, run_folder, training
    from hwdiff.benchmark import bf16_is_emulated
    from hwdiff.chain import compute_features
    from hwdiff.checkpoint import find_device
    from hwdiff.data.batches import StyleFeatures
    from hwdiff.data.dataset import Dataset
    from hwdiff.model.style import load_style_extractor
    from hwdiff.runs import Progress, Stop

    begun = resume and (out / "config.json").exists()
    # A run that is gone on with keeps its own configuration where nothing else is asked for.
    config = run_folder.config_of_run(out) if begun and preset is None else recipes.preset(preset or "smoke")
    config = recipes.changed(
        config,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup=warmup,
        cooldown=cooldown,
        ema=ema,
        excerpts=excerpts,
        guided_attention=guided_attention,
        drop_style=drop_style,
        drop_text=drop_text,
        precision=precision,
        padding=padding,
        noise_levels=noise_levels,
        pen_weight=pen_weight,
        clipping=clipping,
        position_form=position_form,
        own_style=own_style,
        seed=seed,
        save_every=save_every,
        held_out_every=held_out_every,
        sample_every=sample_every,
    )
    if dry_run:
        print(json.dumps(asdict(config), indent=2))
        return
    if data is None:
        raise HwdiffError("--data: give the dataset file; hwdiff prepare --out FILE.npz makes one")
    dataset = Dataset(data)
    device = find_device(device)
    if config.precision == "bf16" and bf16_is_emulated(device):
        warnings.warn(f"{device} has no bf16: it is emulated, many times slower than --precision fp32", stacklevel=1)
    features = StyleFeatures(dataset, load_style_extractor(style_encoder, device))
    if processes.first_process():
        split = dataset.manifest["parameters"]["split"]
        print(f"training on {len(dataset.part('train'))} lines of {data} (split {split}) on {device}; style features: {features.path}")
    with Stop(minutes) as stop:
        if device.type == "cuda" and processes.first_process():
            compute_features(features, stop)  # a GPU keeps all of them in its memory
            if stop.reason:
                print(f"{stop.reason} while style features were computed; go on with the same command")
                raise typer.Exit(130 if stop.signal else UNFINISHED)
        with Progress("training", config.steps) as progress:
            _, reached = training.train(config, dataset, features, out, device, resume, stop, compiled, progress)
    _end_of_training(out, reached, config, stop)


def _end_of_training(out, reached, config, stop):
    from hwdiff import processes

    if not processes.first_process():
        return
    if reached < config.steps:
        print(f"{stop.reason or 'another process was stopped'}: saved at step {reached} of {config.steps}; go on with the same command and --resume")
        raise typer.Exit(130 if stop.signal else UNFINISHED)
    model = out / "model.safetensors"
    print(f'wrote {model}; try: hwdiff write "hello world" --model {model} -o hello.svg')


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
    from hwdiff import distillation
    from hwdiff.checkpoint import find_device
    from hwdiff.data.dataset import Dataset
    from hwdiff.data.line_images import LineImages
    from hwdiff.model.style import load_style_extractor
    from hwdiff.runs import Progress, Stop

    config = distillation.preset(preset, steps)
    extractor = load_style_extractor(teacher, find_device(device))
    datasets = [Dataset(path) for path in data]
    with Progress("drawing", unit="lines") as progress:
        lines = [LineImages(dataset, progress=progress.update) for dataset in datasets]
    sources = [(images, dataset.part("train")) for dataset, images in zip(datasets, lines, strict=True)]
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
    from hwdiff.checkpoint import find_device
    from hwdiff.data.dataset import Dataset
    from hwdiff.data.line_images import LineImages
    from hwdiff.model.style import load_style_extractor

    extractors = [load_style_extractor(weights, find_device(device)) for weights in (style_encoder, teacher)]
    for dataset in map(Dataset, data):
        _print_agreement(dataset, LineImages(dataset), *extractors)


def _print_agreement(dataset, lines, encoder, teacher):
    from hwdiff.distillation import agreement, lines_to_judge

    cosines = agreement(encoder, teacher, lines, lines_to_judge(dataset))
    low, high = sorted(cosines)[len(cosines) // 20], sorted(cosines)[-1 - len(cosines) // 20]
    print(f"{dataset.path}: cosine with {teacher.name} on {len(cosines)} test lines: mean {cosines.mean():.3f}, 5 % to 95 % {low:.3f} to {high:.3f}")


@command
def train_reader(
    data: Annotated[Path, typer.Option(help="The dataset file that hwdiff prepare wrote.")],
    out: Annotated[Path, typer.Option(help="The folder of the run; reader.safetensors in it is the reader.")],
    preset: Annotated[str, typer.Option(help="smoke or full.")] = "full",
    steps: Annotated[int | None, typer.Option(help="Steps instead of the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Lines a batch instead of the preset's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest learning rate instead of the preset's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and variations.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder; without one there, begin it.")] = False,
    minutes: Minutes = None,
    device: Device = None,
):
    """Train a reader, which measures legibility; Ctrl-C saves it."""
    from hwdiff.checkpoint import find_device
    from hwdiff.data.dataset import Dataset
    from hwdiff.evaluation import reader_training
    from hwdiff.runs import Progress, Stop

    config = reader_training.preset(preset, steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    with Stop(minutes) as stop, Progress("training the reader", config.steps) as progress:
        reached = reader_training.train_reader(config, Dataset(data), out, find_device(device), resume, stop, progress.reach)
    if reached < config.steps:
        print(f"{stop.reason}: saved at step {reached} of {config.steps}; go on with the same command and --resume")
        raise typer.Exit(130 if stop.signal else UNFINISHED)
    print(f"wrote {out / 'reader.safetensors'}; try: hwdiff legibility --data {data} --reader {out / 'reader.safetensors'}")


@command
def chain(
    data: Annotated[Path, typer.Option(help="The dataset file that hwdiff prepare wrote.")],
    out: Annotated[Path, typer.Option(help="The folder of the whole; the same command again goes on where it was stopped.")],
    preset: Annotated[str, typer.Option(help="smoke, small or paper.")] = "paper",
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

    Each stage keeps its state; with --minutes it stops in time, and the same command goes on.
    """
    from hwdiff import recipes
    from hwdiff.chain import run_chain
    from hwdiff.checkpoint import find_device
    from hwdiff.runs import Stop

    config = recipes.preset(preset, steps=steps, batch_size=batch_size, precision=precision, padding=padding)
    with Stop(minutes) as stop:
        stage = run_chain(data, out, config, preset, teacher, distillation_steps, find_device(device), stop)
    if stage:
        print(f"{stop.reason} in the stage {stage}: saved; the same command goes on")
        raise typer.Exit(130 if stop.signal else UNFINISHED)
    print(f"done: the model is {out / 'training' / 'model.safetensors'}, figures are in {out / 'figures'}")


@command
def write(
    text: Annotated[str, typer.Argument(help="What to write, on one line.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write: *.svg, *.png, or *.gif of the pen writing it.")],
    model: Model = "pretrained",
    style: Annotated[str | None, typer.Option(help="A name that hwdiff styles shows, or a picture of a line in the hand to write in.")] = None,
    style_encoder: StyleEncoder = "bundled",
    sampler: SamplerName = Sampler.eq12,
    steps: Steps = 60,
    seed: Annotated[int, typer.Option(help="Another seed writes the text another time.")] = 0,
    guidance: Guidance = None,
    end_tokens: Annotated[int, typer.Option(help="End tokens after the text: 1, or 2 as in the released program.")] = 1,
    padded_style: Annotated[bool, typer.Option(help="Pad the style image to 1400 pixels as in training; the released program does not.")] = True,
    device: Device = None,
):
    """Write a text by hand."""
    from hwdiff.checkpoint import load_model
    from hwdiff.writing import sample

    if out.suffix.lower() not in (".svg", ".png", ".gif"):
        raise HwdiffError(f"{out}: ink is saved as .svg, .png or .gif; choose such a name")
    [ink] = sample(
        load_model(model, device),
        [text],
        style,
        sampler.value,
        steps,
        seed,
        style_extractor=style_encoder,
        end_tokens=end_tokens,
        padded_style=padded_style,
        guidance=guidance,
    )
    ink.save(out)
    print(f"wrote {out}: {len(ink)} points, {len(ink.strokes())} strokes")


@command
def styles(
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write, *.png or *.svg.")],
    text: Annotated[str, typer.Argument(help="What to write in each.")] = "the quick brown fox jumps",
    model: Model = "pretrained",
    sampler: SamplerName = Sampler.eq12,
    steps: Steps = 60,
    seed: Annotated[int, typer.Option(help="Another seed writes the text another time.")] = 0,
    guidance: Guidance = None,
    device: Device = None,
):
    """Show the styles that have names: a page with a text in each."""
    import torch

    from hwdiff.checkpoint import load_model
    from hwdiff.figures import plot_inks, save_figure
    from hwdiff.styles import load_styles
    from hwdiff.writing import require_style_weights, sample

    network, named = load_model(model, device), load_styles()
    require_style_weights(network, named.info["style_weights"])
    inks = sample(network, [text] * len(named), torch.stack(list(named.values())), sampler.value, steps, seed, guidance=guidance)
    save_figure(plot_inks(inks, columns=2, titles=list(named)), out)
    print(f"wrote {out}: {', '.join(named)}")


@command
def samples(
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for texts.png, seeds.png, sampler-eq12.png and sampler-eq9.png.")],
    model: Model = "pretrained",
    steps: Steps = 60,
    guidance: Guidance = None,
    seed: Annotated[int, typer.Option(help="Seed of the first line.")] = 0,
    device: Device = None,
):
    """Draw pages of samples, each line with what the reader reads in it.

    Texts of all kinds in all styles; three seeds; the paper's sampler beside its ablation.
    """
    from hwdiff.checkpoint import load_model
    from hwdiff.figures import save_figure
    from hwdiff.release import sample_pages

    for name, page in sample_pages(load_model(model, device), seed, steps=steps, guidance=guidance):
        save_figure(page, out / f"{name}.png")
        print(f"wrote {out / f'{name}.png'}")


@command
def release(
    run: Annotated[Path, typer.Argument(help="The folder that hwdiff train wrote.")],
    data: Annotated[Path, typer.Option(help="Its dataset file, whose hands the model writes in to make the styles.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for writer.safetensors and styles.safetensors.")],
    style_encoder: StyleEncoder = "bundled",
    guidance: Annotated[float, typer.Option(help="How closely it will follow the text where nothing else is asked for.")] = 1.0,
    points_per_character: Annotated[float, typer.Option(help="The room that it will give a text where nothing else is asked for.")] = 16.0,
    seed: Annotated[int, typer.Option(help="Seed of what is written for the styles.")] = 0,
    device: Device = None,
):
    """Make the files that come with the package.

    The run's weights in half precision, and named styles: features of lines that the model drew, of no person's ink.
    """
    from hwdiff.checkpoint import load_model
    from hwdiff.data.batches import StyleFeatures
    from hwdiff.data.dataset import Dataset
    from hwdiff.evaluation.generation import some_lines
    from hwdiff.model.style import load_style_extractor
    from hwdiff.release import CANDIDATES
    from hwdiff.release import release as make_release

    dataset, extractor = Dataset(data), load_style_extractor(style_encoder, device)
    hands = StyleFeatures(dataset, extractor)[some_lines(dataset, "train", CANDIDATES)]
    settings = {"guidance": guidance, "points_per_character": points_per_character}
    names = make_release(load_model(run / "model.safetensors", device), hands, out, extractor, settings, seed=seed)
    print(f"wrote {out / 'writer.safetensors'} and {out / 'styles.safetensors'}: {', '.join(names)}")


@command
def read(
    file: Annotated[
        Path, typer.Argument(help="Ink that hwdiff write saved (.svg), a line file of IAM (.xml), or a dataset file (.npz) with --line.")
    ],
    line: Annotated[str | None, typer.Option(help="Which line of a dataset file, such as a01-000u-01.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A figure of how it was read, *.png or *.svg.")] = None,
    reader: Annotated[Path | None, typer.Option(help="A file that hwdiff train-reader wrote, instead of the bundled reader.")] = None,
    device: Device = None,
):
    """Read ink: what a recogniser makes of it.

    No dictionary and no language model helps it.
    """
    from hwdiff.evaluation.legibility import read as read_inks
    from hwdiff.evaluation.reader import BUNDLED, load_reader
    from hwdiff.figures import plot_reading, save_figure
    from hwdiff.ink import Ink

    if (file.suffix == ".npz") != (line is not None):
        raise HwdiffError(f"{file}: give --line with a dataset file (.npz), and only there")
    if line is None:
        ink = Ink.load(file)
    else:
        from hwdiff.data.dataset import Dataset

        dataset = Dataset(file)
        ink = dataset.ink(dataset.index_of(line))
    judge = load_reader(reader or BUNDLED, device)
    try:
        [reading] = read_inks([ink], judge)
    except HwdiffError as error:
        raise HwdiffError(f"{file}: {error}") from error
    print(reading.text)
    if not reading.text:
        print(f"{file}: nothing was read in it", file=sys.stderr)
    if out:
        save_figure(plot_reading(ink.trimmed(), reading), out)
        print(f"wrote {out}")


@command
def legibility(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    part: Annotated[Part, typer.Option(help="Which of its lines.")] = Part.test,
    lines: Lines = None,
    model: Annotated[
        str | None, typer.Option(help="pretrained or a checkpoint: it writes the texts anew in the same hands, and that is read beside the lines.")
    ] = None,
    sampler: SamplerName = Sampler.eq12,
    steps: Steps = 60,
    guidance: Guidance = None,
    seed: Annotated[int, typer.Option(help="Seed of what the model writes.")] = 0,
    style_encoder: StyleEncoder = "bundled",
    corrupted: Annotated[bool, typer.Option("--corrupted", help="Also of the same lines spoilt on purpose, in several ways.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="All of it as a file, *.json.")] = None,
    reader: Annotated[Path | None, typer.Option(help="A file that hwdiff train-reader wrote, instead of the bundled reader.")] = None,
    device: Device = None,
):
    """Measure how legible a dataset's lines are, or a model's.

    Character and word error rates of the reader, with bootstrap intervals over forms.
    """
    import numpy as np

    from hwdiff.data.dataset import Dataset
    from hwdiff.evaluation.corruption import corrupted_rates
    from hwdiff.evaluation.generation import some_lines
    from hwdiff.evaluation.legibility import legibility as measure
    from hwdiff.evaluation.reader import BUNDLED, load_reader
    from hwdiff.files import replacing

    dataset, judge = Dataset(data), load_reader(reader or BUNDLED, device)
    indices = some_lines(dataset, part.value, lines)
    real, forms = [dataset.ink(index).trimmed() for index in indices], dataset.forms[indices]
    inks, written = real, {}
    if model:
        inks, written = _written_anew(model, dataset, indices, style_encoder, device, sampler.value, steps, guidance, seed)
    result = measure(inks, judge, forms, real if model else None, forms if model else None)
    known = judge.info.get("forms", {})
    counts = {word: int(np.isin(forms, known.get(name, [])).sum()) for word, name in (("seen", "train"), ("watched", "validation"))}
    marks = "".join(f", {count} of them {word} in training" for word, count in counts.items() if count)
    print(f"{data}, part {part.value}: {result.lines} lines{marks}, {result.characters} characters")
    print(result.table())
    everything = {"reader": judge.info, "part": part.value, "lines in training": counts, "written by": written, **asdict(result)}
    if corrupted:
        everything["corrupted"] = {}
        for name, rate in corrupted_rates(inks, judge, forms):
            print(f"spoilt: {name:40}  {rate}")
            everything["corrupted"][name] = asdict(rate)
    if out:
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(everything, indent=1))
        print(f"wrote {out}")


def _written_anew(model, dataset, indices, style_encoder, device, sampler, steps, guidance, seed):
    import time

    from hwdiff.checkpoint import load_model
    from hwdiff.data.batches import StyleFeatures
    from hwdiff.evaluation.generation import written_anew
    from hwdiff.model.style import load_style_extractor
    from hwdiff.writing import writing_settings

    network = load_model(model, device)
    guidance = writing_settings(network)["guidance"] if guidance is None else guidance
    features = StyleFeatures(dataset, load_style_extractor(style_encoder, device))
    start = time.perf_counter()
    inks = written_anew(network, dataset, features, indices, seed, sampler=sampler, steps=steps, guidance=guidance)
    seconds = (time.perf_counter() - start) / len(indices)
    print(f"written by {model}, {sampler} in {steps} steps, guidance {guidance:g}, seed {seed}: {seconds:.2f} s a line, style features included")
    return inks, {"model": model, "sampler": sampler, "steps": steps, "guidance": guidance, "seed": seed, "info": network.info}


@command
def loss(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    model: Model = "pretrained",
    lines: Annotated[int | None, typer.Option(min=1, help="At most so many lines of each part, evenly spread.")] = 500,
    style_encoder: StyleEncoder = "bundled",
    device: Device = None,
):
    """Measure a model's loss on each part of a dataset.

    Real points only, at fixed noise levels; and as losses are usually logged: full padding, the released noise levels.
    """
    from hwdiff.checkpoint import load_model
    from hwdiff.data.batches import Lines as LinesOf
    from hwdiff.data.batches import StyleFeatures
    from hwdiff.data.dataset import Dataset, style_lines
    from hwdiff.evaluation.generation import some_lines
    from hwdiff.model.style import load_style_extractor
    from hwdiff.training import held_out_loss, padded_loss
    from hwdiff.writing import require_style_weights

    dataset, network = Dataset(data), load_model(model, device)
    extractor = load_style_extractor(style_encoder, device)
    require_style_weights(network, extractor.identity)
    tensors = LinesOf(dataset, StyleFeatures(dataset, extractor), style_lines(dataset.forms), next(network.parameters()).device)
    print(f"{'part':12}{'lines':>7}{'real points':>14}{'stroke, pen of them':>24}{'padded':>10}{'stroke, pen of them':>24}")
    for part in Part:
        indices = some_lines(dataset, part.value, lines)
        real, (stroke, pen) = held_out_loss(network, tensors, indices), padded_loss(network, tensors, indices)
        terms = "{:.3f} {:.4f}".format(*(sum(real[term].values()) / len(real[term]) for term in ("stroke", "pen")))
        print(f"{part.value:12}{len(indices):7}{real['held_out']:14.3f}{terms:>24}{stroke + pen:10.3f}{f'{stroke:.3f} {pen:.4f}':>24}")


@command
def info(path: Annotated[Path, typer.Argument(help="A dataset file, a checkpoint, or weights of the authors' program.")]):
    """Tell what a file is and where it comes from."""
    if path.suffix == ".npz":
        from hwdiff.data.dataset import Dataset

        _print_dataset(path, Dataset(path).manifest)
        return
    from hwdiff.checkpoint import load_model

    network = load_model(path, "cpu")
    parameters = sum(weight.numel() for weight in network.parameters())
    print(f"{path}: network of Luhman & Luhman (2020), {parameters:,} parameters")
    print(json.dumps(network.info or {"model": network.settings, "written by": "the authors' program"}, indent=2))


@command
def show(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write, *.png or *.svg.")],
    rows: Annotated[int, typer.Option(min=1, help="Forms to show, evenly spread: one hand a row.")] = 16,
):
    """Draw a page of a dataset's lines."""
    from hwdiff.data.dataset import Dataset
    from hwdiff.figures import plot_lines, save_figure

    save_figure(plot_lines(Dataset(data), rows), out)
    print(f"wrote {out}")


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
    from hwdiff.chain import report_run
    from hwdiff.checkpoint import load_model

    report_run(run, load_model(run / "model.safetensors", device), out, seed)
    print(f"wrote {out / 'loss.png'} and {out / 'samples.png'}")


@command
def compare_images(
    source: Annotated[Path, typer.Option(help="Folder with the IAM archives and at least one official line image.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The figure to write, *.png or *.svg.")],
    style_encoder: StyleEncoder = "bundled",
):
    """Compare drawn line images with official ones.

    The figure sets them side by side; the cosine of their style features is printed.
    """
    from hwdiff.data.iam import Source, read_pairs
    from hwdiff.data.lines import Report
    from hwdiff.figures import compare_line_images, save_figure
    from hwdiff.model.style import load_style_extractor

    pairs = read_pairs(Source(source), Report())
    figure, cosines = compare_line_images(pairs, load_style_extractor(style_encoder))
    save_figure(figure, out)
    for line_id, cosine in cosines.items():
        print(f"{line_id}  cosine of style features {cosine:.3f}")


@command
def benchmark(
    data: Annotated[Path, typer.Option(help="The dataset file that hwdiff prepare wrote.")],
    device: Device = None,
):
    """Measure writing and training on this machine.

    Speeds come with their share of the machine's matrix-product rate.
    """
    from hwdiff.benchmark import benchmark as measure
    from hwdiff.checkpoint import find_device
    from hwdiff.data.dataset import Dataset

    for what, seconds, rate, share in measure(Dataset(data), find_device(device)):
        duration = "" if seconds is None else f"{seconds:.2f} s"
        print(f"{what:62} {duration:>9} {rate / 1e9:9.1f} GFLOP/s {'' if share is None else format(share, '5.0%')}")


def _print_dataset(path, manifest):
    counts, left_out = manifest["counts"], manifest["left out"]
    parts = ", ".join(f"{counts[part]} {part}" for part in ("train", "validation", "test") if part in counts)
    print(f"{path}: {counts['lines']} lines of {counts['forms']} forms ({parts}), split {manifest['parameters']['split']}")
    print("left out:" if left_out else "nothing was left out")
    for reason, count in left_out.items():
        print(f"  {count:5}  {reason}, for example {', '.join(manifest['left out, for example'][reason])}")
    if manifest["parameters"]["split"] == "hash":
        print("the split lists (trainset, testset_f, testset_t, testset_v) were not found below the source: split by hash of the form")
