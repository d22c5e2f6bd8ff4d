"""Commands that train, and commands that tell how training went."""

import json
import os
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hwdiff.cli.options import (
    UNFINISHED,
    Device,
    Minutes,
    Model,
    Resume,
    Split,
    StyleEncoder,
    command,
    require_output,
    require_output_folder,
    setting_options,
)
from hwdiff.model.config import ModelConfig
from hwdiff.training.config import StepDistillationConfig, TrainingConfig, changed, config_of
from hwdiff.training.config import preset as preset_config
from hwdiff.utils.errors import HwdiffError

Datasets = Annotated[list[Path], typer.Option(help="A dataset file; may be given several times.")]
Teacher = Annotated[str, typer.Option(help="The reference: imagenet, or a file of MobileNetV2 weights.")]


@command
@setting_options(TrainingConfig, ModelConfig)
def train(
    out: Annotated[
        Path,
        typer.Option(help="The folder of the run; the trained model is model.safetensors in it."),
    ],
    data: Annotated[Path | None, typer.Option(help="A dataset file from hwdiff prepare.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="smoke (a quick trial, the default), small (a small network, for a CPU), tune (the "
            "bundled small network, to lines of your own), paper (the paper's recipe) or paper-cpu (the "
            "paper's network, for a CPU)."
        ),
    ] = None,
    style_encoder: StyleEncoder = "bundled",
    resume: Resume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the whole configuration and do nothing.")
    ] = False,
    branch: Annotated[
        Path | None,
        typer.Option(help="Copy the run in this folder to --out and resume the copy."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            help="Number of processes that share each batch; must divide the batch size. By default 1 on a "
            "GPU; on a CPU one per core, as far as that divides the batch."
        ),
    ] = None,
    minutes: Minutes = None,
    compiled: Annotated[
        bool | None, typer.Option(help="Compile the training step; by default on a GPU only.")
    ] = None,
    device: Device = None,
    **settings,
):
    """Train the network.

    Ctrl-C saves and stops; the same command with --resume resumes the run. Settings that are not given come
    from the preset, or from the run that is resumed.
    """
    from hwdiff.data.dataset import Dataset
    from hwdiff.model.checkpoint import find_device
    from hwdiff.model.style_encoder import load_style_extractor
    from hwdiff.training import loop, run_dir
    from hwdiff.training.distributed import check_count, default_count, launch

    is_run = os.path.exists(out / "config.json")  # Path.exists raises where a folder may not be read
    copies = branch and not is_run
    begun = out if resume and is_run else branch
    # A resumed run keeps its own configuration unless a preset is given.
    keep = begun and preset is None
    if keep:
        config = changed(config_of(run_dir.read_config(begun), begun), **settings)
    else:
        config = preset_config(preset or "smoke", **settings)
    if dry_run:
        print(json.dumps(asdict(config), indent=2))
        return
    if data is None:
        raise HwdiffError("--data: give the dataset file; hwdiff prepare --out FILE.npz makes one")
    if branch and is_run and resume:
        ours, theirs = (run_dir.read_config(path) for path in (out, branch))
        if any(ours.get(key) != theirs.get(key) for key in ("dataset", "seed", "model", "init")):
            raise HwdiffError(
                f"--branch {branch}: {out} holds another run, no copy of it; choose another --out"
            )
    device = find_device(device)
    _warn_of_precision(config, device)
    count = default_count(config.batch_size, device) if processes is None else processes
    check_count(count, config.batch_size, device)
    dataset = Dataset(data)  # an error in it shows before anything is copied or launched
    if copies:
        identity = load_style_extractor(style_encoder, device).identity
        loop.run_directory(branch, config, dataset, identity, device).find_step(resume=True)
        run_dir.branch(branch, out)
        resume = True
    # Several processes each choose their own GPU; a single one uses the device that was asked for.
    arguments = (
        config,
        data,
        style_encoder,
        out,
        str(device) if count == 1 else device.type,
        resume,
        minutes,
        compiled,
    )
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
        scheme = dataset.manifest["parameters"]["split_scheme"]
        print(
            f"training on {len(dataset.split('train'))} lines of {data} (split scheme {scheme}) on {device}; "
            f"style features: {features.path}"
        )
    with Stop(minutes) as stop:
        if device.type == "cuda":
            if distributed.first_process():
                compute_features(features, stop)  # a GPU keeps all of them in its memory
            if distributed.Processes(device).any(bool(stop.reason)):
                if distributed.first_process():
                    found = (
                        f"{stop.reason or 'another process was stopped'} while style features were computed"
                    )
                    print(f"{found}; run the same command to resume")
                return 130 if stop.signal else UNFINISHED
        with Progress("training", config.steps) as progress:
            _, reached = loop.train(
                config,
                dataset,
                features,
                out,
                device,
                resume=resume,
                stop=stop,
                compiled=compiled,
                progress=progress,
            )
    if reached < config.steps and distributed.first_process():
        print(
            f"{stop.reason or 'another process was stopped'}: saved at step {reached} of {config.steps}; "
            "resume with the same command and --resume"
        )
    if reached < config.steps:
        return 130 if stop.signal else UNFINISHED
    model = out / "model.safetensors"
    if distributed.first_process():
        print(f'wrote {model}; try: hwdiff write "hello world" --model {model} -o hello.svg')
    return 0


@command
def distil(
    data: Datasets,
    teacher: Teacher,
    out: Annotated[Path, typer.Option(help="The folder of the run; the encoder is style.safetensors in it.")],
    preset: Annotated[str, typer.Option(help="smoke (a quick trial) or paper.")] = "paper",
    steps: Annotated[
        int | None, typer.Option(help="Steps of the first part, instead of the preset's.")
    ] = None,
    resume: Resume = False,
    minutes: Minutes = None,
    device: Device = None,
):
    """Train a style encoder to imitate another, the teacher.

    The bundled encoder was made this way, with ImageNet weights as the teacher. Prints how well the two agree
    on test lines.
    Ctrl-C saves and stops; the same command with --resume resumes the run.
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
    for dataset in datasets:  # before anything is trained
        distillation.lines_to_judge(dataset)
    with Progress("drawing", unit="lines") as progress:
        lines = [LineImages(dataset, progress=progress.update) for dataset in datasets]
    trained_on = [dataset.needed_split("train") for dataset in datasets]
    sources = list(zip(lines, trained_on, strict=True))
    with Stop(minutes) as stop, Progress("distilling", config.all_steps) as progress:
        encoder = distillation.distil(
            config, sources, extractor, out, resume=resume, stop=stop, progress=progress
        )
    if encoder is None:
        _end_stopped(stop, f"in {out}")
    for dataset, images in zip(datasets, lines, strict=True):
        _print_agreement(dataset, images, load_style_extractor(encoder, find_device(device)), extractor)
    print(f"wrote {encoder}; use it with --style-encoder {encoder}")


@command
def compare_encoders(
    data: Datasets,
    teacher: Teacher,
    style_encoder: StyleEncoder = "bundled",
    device: Device = None,
):
    """Measure how well two style encoders agree.

    Prints the cosine similarity of their (14, 1280) features on up to 200 test lines.
    """
    from hwdiff.data.dataset import Dataset
    from hwdiff.data.line_images import LineImages
    from hwdiff.model.checkpoint import find_device
    from hwdiff.model.style_encoder import load_style_extractor
    from hwdiff.training.distillation import lines_to_judge

    extractors = [load_style_extractor(weights, find_device(device)) for weights in (style_encoder, teacher)]
    datasets = [Dataset(path) for path in data]
    for dataset in datasets:
        lines_to_judge(dataset)  # fails at once without any
    for dataset in datasets:
        _print_agreement(dataset, LineImages(dataset), *extractors)


def _warn_of_precision(config, device):
    from hwdiff.utils.machine import bf16_is_emulated

    if config.precision == "bf16" and bf16_is_emulated(device):
        warnings.warn(
            f"{device} has no bf16: it is emulated, many times slower than --precision fp32", stacklevel=1
        )


def _end_stopped(stop, saved):
    """End the command of a run that was stopped.   saved: where its state is, for a person."""
    print(f"{stop.reason}: saved {saved}; resume with the same command and --resume")
    raise typer.Exit(130 if stop.signal else UNFINISHED)


def _print_agreement(dataset, lines, encoder, teacher):
    from hwdiff.training.distillation import agreement, lines_to_judge

    cosines = agreement(encoder, teacher, lines, lines_to_judge(dataset))
    low, high = sorted(cosines)[len(cosines) // 20], sorted(cosines)[-1 - len(cosines) // 20]
    print(
        f"{dataset.path}: cosine with {teacher.name} on {len(cosines)} test lines: "
        f"mean {cosines.mean():.3f}, 5 % to 95 % {low:.3f} to {high:.3f}"
    )


@command
@setting_options(StepDistillationConfig)
def distil_steps(
    data: Annotated[
        Path, typer.Option(help="A dataset file; texts and styles of its training split are used.")
    ],
    out: Annotated[Path, typer.Option(help="The folder of the run; the student is model.safetensors in it.")],
    model: Model = "pretrained",
    style_encoder: StyleEncoder = "bundled",
    resume: Resume = False,
    minutes: Minutes = None,
    device: Device = None,
    **settings,
):
    """Train a student that writes in few network evaluations.

    The bundled model fast was made so, with pretrained as its teacher.

    With guidance the teacher takes two in each of 60 steps. Ctrl-C saves and stops; the same command
    with --resume resumes the run.
    """
    from hwdiff.data.dataset import Dataset
    from hwdiff.data.style_features import StyleFeatures
    from hwdiff.model.checkpoint import load_model
    from hwdiff.model.style_encoder import load_style_extractor
    from hwdiff.training import step_distillation
    from hwdiff.utils.interrupt import Stop
    from hwdiff.utils.progress import Progress

    config = StepDistillationConfig(**{key: value for key, value in settings.items() if value is not None})
    teacher, dataset = load_model(model, device), Dataset(data)
    device = next(teacher.parameters()).device
    _warn_of_precision(config, device)
    extractor = load_style_extractor(style_encoder, device)
    with Stop(minutes) as stop, Progress("distilling steps", config.batches, unit="batches") as progress:
        reached = step_distillation.distil_steps(
            config,
            teacher,
            dataset,
            StyleFeatures(dataset, extractor),
            out,
            resume=resume,
            stop=stop,
            progress=progress,
        )
    if reached < config.batches:
        _end_stopped(stop, f"at batch {reached} of {config.batches}")
    file = out / "model.safetensors"
    print(f"wrote {file}; try: hwdiff write hello --model {file} -o hello.svg")


@command
def train_recognizer(
    data: Annotated[Path, typer.Option(help="A dataset file from hwdiff prepare.")],
    out: Annotated[
        Path, typer.Option(help="The folder of the run; the recognizer is recognizer.safetensors in it.")
    ],
    preset: Annotated[str, typer.Option(help="smoke (a quick trial) or full.")] = "full",
    steps: Annotated[int | None, typer.Option(help="Training steps, instead of the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Lines per batch, instead of the preset's.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="The highest learning rate, instead of the preset's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and variations.")] = None,
    resume: Resume = False,
    minutes: Minutes = None,
    device: Device = None,
):
    """Train a recognizer, with which legibility is measured.

    Ctrl-C saves and stops; the same command with --resume resumes the run.
    """
    from hwdiff.data.dataset import Dataset
    from hwdiff.evaluation import recognizer_training
    from hwdiff.model.checkpoint import find_device
    from hwdiff.utils.interrupt import Stop
    from hwdiff.utils.progress import Progress

    config = recognizer_training.preset(
        preset, steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed
    )
    with Stop(minutes) as stop, Progress("training the recognizer", config.steps) as progress:
        reached = recognizer_training.train_recognizer(
            config, Dataset(data), out, find_device(device), resume=resume, stop=stop, progress=progress
        )
    if reached < config.steps:
        _end_stopped(stop, f"at step {reached} of {config.steps}")
    file = out / "recognizer.safetensors"
    print(f"wrote {file}; try: hwdiff legibility --data {data} --recognizer {file}")


@command
def chain(
    data: Annotated[Path, typer.Option(help="A dataset file from hwdiff prepare.")],
    out: Annotated[
        Path, typer.Option(help="The folder for the training run, the figures and the style encoder.")
    ],
    preset: Annotated[
        str, typer.Option(help="smoke, small, tune, paper or paper-cpu, as for hwdiff train.")
    ] = "paper",
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Distil a style encoder from this teacher (imagenet, or a file of MobileNetV2 weights) "
            "instead of using the bundled one."
        ),
    ] = None,
    minutes: Minutes = None,
    steps: Annotated[int | None, typer.Option(help="Training steps, instead of the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Lines per batch, instead of the preset's.")] = None,
    distillation_steps: Annotated[
        int | None, typer.Option(help="Steps of the distillation's first part, instead of the preset's.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16, instead of the preset's.")] = None,
    padding: Annotated[str | None, typer.Option(help="full or bucket, instead of the preset's.")] = None,
    device: Device = None,
):
    """Go all the way from a dataset to samples.

    The steps: line images, style encoder (with --teacher), style features, training, samples. Ctrl-C saves
    and stops; the same command resumes.
    """
    from hwdiff.model.checkpoint import find_device
    from hwdiff.training.pipeline import run_chain
    from hwdiff.utils.interrupt import Stop

    if distillation_steps is not None and not teacher:
        raise HwdiffError("--distillation-steps: of the encoder; give its --teacher, too")
    config = preset_config(preset, steps=steps, batch_size=batch_size, precision=precision, padding=padding)
    device = find_device(device)
    _warn_of_precision(config, device)
    with Stop(minutes) as stop:
        step = run_chain(data, out, config, preset, teacher, distillation_steps, device, stop)
    if step:
        print(f"{stop.reason} in the step {step}: saved; run the same command to resume")
        raise typer.Exit(130 if stop.signal else UNFINISHED)
    print(f"done: the model is {out / 'training' / 'model.safetensors'}, figures are in {out / 'figures'}")


@command
def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run of hwdiff train.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for loss.png and samples.png.")],
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    device: Device = None,
):
    """Draw the loss curve and samples of a training run.

    The samples are the texts of the paper's Fig. 11 and 14, each by three samplers.
    """
    from hwdiff.model.checkpoint import load_model
    from hwdiff.training.pipeline import report_run

    require_output_folder(out)
    report_run(run, load_model(run / "model.safetensors", device), out, seed)
    print(f"wrote {out / 'loss.png'} and {out / 'samples.png'}")


@command
def benchmark(
    data: Annotated[Path, typer.Option(help="A dataset file from hwdiff prepare.")],
    source: Annotated[
        Path | None, typer.Option(help="Folder with the IAM On-Line archives, to time preparing them too.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file for the table, *.md.")] = None,
    device: Device = None,
):
    """Measure the speed of writing, training and measuring, in about five minutes on two cores.

    Rates are also given as fractions of the rate of matrix products on this machine.
    """
    from hwdiff.data.dataset import Dataset
    from hwdiff.evaluation.benchmark import as_markdown, as_text
    from hwdiff.evaluation.benchmark import benchmark as measure
    from hwdiff.model.checkpoint import find_device
    from hwdiff.utils.environment import environment
    from hwdiff.utils.files import write_text

    require_output(out, ".md")
    timings = []
    for timing in measure(Dataset(data), find_device(device), source):
        timings.append(timing)
        print(as_text(timing), flush=True)
    if out:
        write_text(out, as_markdown(timings, environment(find_device(device))))
        print(f"wrote {out}")


@command
def loss(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    model: Model = "pretrained",
    lines: Annotated[
        int | None, typer.Option(min=1, help="At most this many lines of each split, evenly spread.")
    ] = 500,
    style_encoder: StyleEncoder = "bundled",
    device: Device = None,
):
    """Measure a model's loss on each split of a dataset.

    Two losses are printed: over real points only, at fixed noise levels; and over lines padded to full
    length, at the noise levels of the authors' program, as losses are usually logged.
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
    device = next(network.parameters()).device
    extractor = load_style_extractor(style_encoder, device)
    require_style_weights(network, extractor.identity)
    tensors = LinesOf(dataset, StyleFeatures(dataset, extractor), style_lines(dataset.forms), device)
    terms = f"{'(stroke, pen)':>24}"
    print(f"{'split':12}{'lines':>7}{'real points':>14}{terms}{'padded':>10}{terms}")
    for split in (one for one in Split if len(dataset.split(one.value))):
        indices = subsample_lines(dataset, split.value, lines)
        real = validation_loss(network, tensors, indices)
        stroke, pen = (sum(real[term].values()) / len(real[term]) for term in ("stroke", "pen"))
        padded_stroke, padded_pen = padded_loss(network, tensors, indices)
        print(
            f"{split.value:12}{len(indices):7}{real['loss']:14.3f}{f'{stroke:.3f} {pen:.4f}':>24}"
            f"{padded_stroke + padded_pen:10.3f}{f'{padded_stroke:.3f} {padded_pen:.4f}':>24}"
        )
