"""The command line: `hwdiff prepare`, `train`, `write`, `info`, `compare-images`, `benchmark`."""

import json
import sys
import warnings
from dataclasses import replace
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from hwdiff.errors import HwdiffError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

SMOKE_MODEL = Path("runs/smoke/model.safetensors")  # what ./run_all.sh trains
StyleWeights = Annotated[
    Path | None, typer.Option(help="MobileNetV2 weights (.safetensors or torchvision's .pth); by default torchvision's, downloaded once.")
]


class Split(StrEnum):
    authors = "authors"
    official = "official"


class Form(StrEnum):
    paper = "paper"
    released = "released"


class Preset(StrEnum):
    smoke = "smoke"
    paper = "paper"


class Sampler(StrEnum):
    eq12 = "eq12"
    eq12_released = "eq12-released"
    eq9 = "eq9"
    ddim = "ddim"
    dpm = "dpm"


def progress_bar(**options):
    """A progress bar; a line every half minute where there is no terminal."""
    return tqdm(mininterval=0.5 if sys.stderr.isatty() else 30, **options)


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

    with progress_bar(desc="reading lines", unit=" lines") as bar:
        prepared = prepare_dataset(source, out, split.value, Limits(long_offsets=long_offsets.value), seed, progress=bar.update)
    if prepared.existed:
        print(f"{out} is there already, prepared with the same parameters: nothing to do (delete it to read the archives again)")
    _print_dataset(out, prepared.manifest)


@command
def train(
    data: Annotated[Path, typer.Option(help="The dataset file that hwdiff prepare wrote.")],
    out: Annotated[Path, typer.Option(help="A new folder for config.json, metrics.jsonl and model.safetensors.")],
    preset: Annotated[Preset, typer.Option(help="smoke: a small network for a few minutes; paper: the published recipe.")] = Preset.smoke,
    style_weights: StyleWeights = None,
    steps: Annotated[int | None, typer.Option(help="Steps instead of the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Lines a batch instead of the preset's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="A constant learning rate instead of the preset's.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16 instead of the preset's.")] = None,
    padding: Annotated[str | None, typer.Option(help="full (488 points) or bucket (lines of like length) instead of the preset's.")] = None,
    noise_levels: Annotated[str | None, typer.Option(help="paper or released (the authors' code): how noise levels are drawn.")] = None,
    pen_weight: Annotated[str | None, typer.Option(help="paper or released: how the pen's loss is weighted.")] = None,
    clipping: Annotated[str | None, typer.Option(help="all or each (released): what gradients are clipped together.")] = None,
    position_form: Annotated[str | None, typer.Option(help="strokes (released) or text (paper): which positions are multiplied.")] = None,
    own_style: Annotated[bool | None, typer.Option(help="A line's style image may be its own (released).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and noise.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default CUDA where there is one.")] = None,
):
    """Train a model."""
    from hwdiff import training
    from hwdiff.checkpoint import find_device
    from hwdiff.data.batches import StyleFeatures
    from hwdiff.data.dataset import Dataset
    from hwdiff.model.style import load_style_extractor

    config = training.preset(
        preset.value,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        precision=precision,
        padding=padding,
        noise_levels=noise_levels,
        pen_weight=pen_weight,
        clipping=clipping,
        own_style=own_style,
        seed=seed,
    )
    if position_form:
        config = replace(config, model=replace(config.model, position_form=position_form))
    dataset = Dataset(data, split="authors") if preset is Preset.paper else Dataset(data)
    device = find_device(device)
    features = StyleFeatures(dataset, load_style_extractor(style_weights, device))
    print(f"training {preset.value}: {config.steps} steps of {config.batch_size} lines on {device}; style features: {features.path}")
    with progress_bar(total=config.steps, desc="training", unit=" steps") as bar:

        def show(step, metrics):
            bar.update()
            bar.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)

        training.train(config, dataset, features, out, device, callback=show)
    print(f'wrote {out / "model.safetensors"}; try: hwdiff write "hello world" --model {out / "model.safetensors"} -o hello.svg')


@command
def write(
    text: Annotated[str, typer.Argument(help="What to write, on one line.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write, *.svg or *.png.")],
    model: Annotated[Path, typer.Option(help="A checkpoint (.safetensors), or weights of the authors' program (.h5).")] = SMOKE_MODEL,
    style: Annotated[Path | None, typer.Option(help="A picture of a line in the hand to write in; by default a hand kept in the model.")] = None,
    style_weights: StyleWeights = None,
    sampler: Annotated[Sampler, typer.Option(help="eq12: the paper's; eq9: its ablation; ddim, dpm: noiseless, for few steps.")] = Sampler.eq12,
    steps: Annotated[int, typer.Option(help="Network calls.")] = 60,
    seed: Annotated[int, typer.Option(help="Another seed writes the text another time.")] = 0,
    end_tokens: Annotated[int, typer.Option(help="End tokens after the text: 1, or 2 as in the released program.")] = 1,
    padded_style: Annotated[bool, typer.Option(help="Pad the style image to 1400 pixels as in training; the released program does not.")] = True,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default CUDA where there is one.")] = None,
):
    """Write a text by hand."""
    from hwdiff.checkpoint import load_model
    from hwdiff.writing import sample

    if out.suffix.lower() not in (".svg", ".png"):
        raise HwdiffError(f"{out}: ink is saved as .svg or .png; choose such a name")
    network = load_model(model, device)
    extractor = None
    if style:
        from hwdiff.model.style import load_style_extractor  # torchvision takes seconds to load

        extractor = load_style_extractor(style_weights)
    [ink] = sample(
        network,
        [text],
        str(style) if style else None,
        sampler.value,
        steps,
        seed,
        style_extractor=extractor,
        end_tokens=end_tokens,
        padded_style=padded_style,
    )
    ink.save(out)
    print(f"wrote {out}: {len(ink)} points, {len(ink.strokes())} strokes")


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
def report(
    run: Annotated[Path, typer.Argument(help="The folder that hwdiff train wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the figures loss.png and samples.png.")],
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default CUDA where there is one.")] = None,
):
    """Draw a training run's loss, and its samples.

    The samples are the texts of the paper's Fig. 11 and 14, by three samplers.
    """
    from hwdiff.checkpoint import load_model
    from hwdiff.figures import plot_inks, plot_loss, read_metrics, save_figure
    from hwdiff.writing import sample

    texts = [
        "the quick brown fox jumps",
        "Samples from a diffusion model",
        "night bring only a disturbed tossing",
        "here in the same words in",
    ]
    save_figure(plot_loss(read_metrics(run)), out / "loss.png")
    network = load_model(run / "model.safetensors", device)
    samplers = {"Eq. 12": ("eq12", 60), "Eq. 9": ("eq9", 60), "DPM-Solver++, 20 steps": ("dpm", 20)}
    columns = [sample(network, texts, sampler=sampler, steps=steps, seed=seed) for sampler, steps in samplers.values()]
    title = f"after {network.info['step']} training steps; from left to right: {'; '.join(samplers)}"
    save_figure(plot_inks([ink for row in zip(*columns, strict=True) for ink in row], columns=len(columns), title=title), out / "samples.png")
    print(f"wrote {out / 'loss.png'} and {out / 'samples.png'}")


@command
def compare_images(
    source: Annotated[Path, typer.Option(help="Folder with the IAM archives and at least one official line image.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The figure to write, *.png or *.svg.")],
    style_weights: StyleWeights = None,
):
    """Compare drawn line images with official ones.

    The figure sets them side by side; the cosine of their style features is printed.
    """
    from hwdiff.data.iam import Source, read_pairs
    from hwdiff.data.lines import Report
    from hwdiff.figures import compare_line_images, save_figure
    from hwdiff.model.style import load_style_extractor

    pairs = read_pairs(Source(source), Report())
    figure, cosines = compare_line_images(pairs, load_style_extractor(style_weights))
    save_figure(figure, out)
    for line_id, cosine in cosines.items():
        print(f"{line_id}  cosine of style features {cosine:.3f}")


@command
def benchmark(
    data: Annotated[Path, typer.Option(help="The dataset file that hwdiff prepare wrote.")],
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default CUDA where there is one.")] = None,
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
