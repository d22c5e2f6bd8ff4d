"""Commands that measure what was written."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hwdiff.cli.options import Device, Guidance, Lines, Model, RecognizerFile, Sampler, SamplerName, Split, Steps, StyleEncoder, command
from hwdiff.utils.errors import HwdiffError


@command
def recognize(
    file: Annotated[
        Path, typer.Argument(help="Ink that hwdiff write saved (.svg), a line file of IAM (.xml), or a dataset file (.npz) with --line.")
    ],
    line: Annotated[str | None, typer.Option(help="Which line of a dataset file, such as a01-000u-01.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A figure of how it was read, *.png or *.svg.")] = None,
    recognizer: RecognizerFile = None,
    device: Device = None,
):
    """Read ink: what a recognizer makes of it.

    No dictionary and no language model helps it.
    """
    from hwdiff.evaluation.error_rates import recognize as recognize_inks
    from hwdiff.evaluation.figures import plot_recognition
    from hwdiff.evaluation.recognizer import BUNDLED, load_recognizer
    from hwdiff.ink.ink import Ink
    from hwdiff.ink.plot import save_figure

    if (file.suffix == ".npz") != (line is not None):
        raise HwdiffError(f"{file}: give --line with a dataset file (.npz), and only there")
    if line is None:
        ink = Ink.load(file)
    else:
        from hwdiff.data.dataset import Dataset

        dataset = Dataset(file)
        ink = dataset.ink(dataset.index_of(line))
    judge = load_recognizer(recognizer or BUNDLED, device)
    try:
        [recognition] = recognize_inks([ink], judge)
    except HwdiffError as error:
        raise HwdiffError(f"{file}: {error}") from error
    print(recognition.text)
    if not recognition.text:
        print(f"{file}: nothing was read in it", file=sys.stderr)
    if out:
        save_figure(plot_recognition(ink.trimmed(), recognition), out)
        print(f"wrote {out}")


@command
def legibility(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    split: Annotated[Split, typer.Option(help="Which of its lines.")] = Split.test,
    lines: Lines = None,
    model: Annotated[
        str | None, typer.Option(help="pretrained or a checkpoint: it writes the texts anew in the same hands, and that is read beside the lines.")
    ] = None,
    sampler: SamplerName = Sampler.eq12,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Annotated[int, typer.Option(help="Seed of what the model writes.")] = 0,
    style_encoder: StyleEncoder = "bundled",
    corrupted: Annotated[bool, typer.Option("--corrupted", help="Also of the same lines corrupted on purpose, in several ways.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="All of it as a file, *.json.")] = None,
    recognizer: RecognizerFile = None,
    device: Device = None,
):
    """Measure how legible a dataset's lines are, or a model's.

    Character and word error rates of the recognizer, with bootstrap intervals over forms.
    """
    import numpy as np

    from hwdiff.data.dataset import Dataset
    from hwdiff.evaluation.corruption import corrupted_rates
    from hwdiff.evaluation.error_rates import legibility as measure
    from hwdiff.evaluation.generation import subsample_lines
    from hwdiff.evaluation.recognizer import BUNDLED, load_recognizer
    from hwdiff.utils.files import atomic_write

    dataset, judge = Dataset(data), load_recognizer(recognizer or BUNDLED, device)
    indices = subsample_lines(dataset, split.value, lines)
    real, forms = [dataset.ink(index).trimmed() for index in indices], dataset.forms[indices]
    inks, written = real, {}
    if model:
        inks, written = _written_anew(model, dataset, indices, style_encoder, device, sampler.value, steps, guidance, seed)
    result = measure(inks, judge, forms, real if model else None, forms if model else None)
    known = judge.metadata.get("forms", {})
    counts = {word: int(np.isin(forms, known.get(name, [])).sum()) for word, name in (("seen", "train"), ("watched", "validation"))}
    marks = "".join(f", {count} of them {word} in training" for word, count in counts.items() if count)
    print(f"{data}, split {split.value}: {result.lines} lines{marks}, {result.characters} characters")
    print(result.table())
    everything = {"recognizer": judge.metadata, "split": split.value, "lines in training": counts, "written by": written, **asdict(result)}
    if corrupted:
        everything["corrupted"] = {}
        for name, rate in corrupted_rates(inks, judge, forms):
            print(f"corrupted: {name:40}  {rate}")
            everything["corrupted"][name] = asdict(rate)
    if out:
        with atomic_write(out) as temporary:
            temporary.write_text(json.dumps(everything, indent=1))
        print(f"wrote {out}")


def _written_anew(model, dataset, indices, style_encoder, device, sampler, steps, guidance, seed):
    import time

    from hwdiff.data.style_features import StyleFeatures
    from hwdiff.diffusion.generate import writing_settings
    from hwdiff.diffusion.samplers import levels
    from hwdiff.evaluation.generation import regenerate_lines
    from hwdiff.model.checkpoint import load_model
    from hwdiff.model.style_encoder import load_style_extractor

    network = load_model(model, device)
    steps = len(levels(sampler, steps)) - 1
    guidance = writing_settings(network)["guidance"] if guidance is None else guidance
    features = StyleFeatures(dataset, load_style_extractor(style_encoder, next(network.parameters()).device))
    start = time.perf_counter()
    inks = regenerate_lines(network, dataset, features, indices, seed, sampler=sampler, steps=steps, guidance=guidance)
    seconds = (time.perf_counter() - start) / len(indices)
    print(f"written by {model}, {sampler} in {steps} steps, guidance {guidance:g}, seed {seed}: {seconds:.2f} s a line, style features included")
    return inks, {"model": model, "sampler": sampler, "steps": steps, "guidance": guidance, "seed": seed, "metadata": network.metadata}


Seeds = Annotated[int, typer.Option(min=1, help="How many times, each with other lines and other noise.")]
SetSize = Annotated[
    int | None, typer.Option("--lines", min=2, help="Lines of each of both sets; by default 4500 on a GPU, else 60, or half the split.")
]
InceptionWeights = Annotated[
    str | None, typer.Option(help="For FID: pytorch-fid's weights, a file, or download. Without them a distance on MobileNetV2 features.")
]
Repetitions = Annotated[int, typer.Option(min=1, help="Sets of landmarks of the Geometry Score.")]
TableFolder = Annotated[Path | None, typer.Option("--out", "-o", help="A folder for table1.csv, table1.json and timings.json.")]
SPACINGS = "log-snr, time, karras"


@command
def evaluate(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    model: Model = "pretrained",
    split: Annotated[Split, typer.Option(help="Whose lines: train, as in the paper, or others, which the model has not seen.")] = Split.train,
    lines: SetSize = None,
    seeds: Seeds = 5,
    inception_weights: InceptionWeights = None,
    repetitions: Repetitions = 1000,
    guidance: Guidance = None,
    style_encoder: StyleEncoder = "bundled",
    recognizer: RecognizerFile = None,
    out: TableFolder = None,
    device: Device = None,
):
    """Make the paper's Table 1, with error bars.

    Real lines, lines written by Eq. 12, by Eq. 9 and by the sampler `fast`, and real lines corrupted, each against real lines.
    """
    from hwdiff.evaluation.protocol import TABLE1_ROWS, Bench

    bench = Bench(data, model, split.value, lines, style_encoder, recognizer, inception_weights, guidance, device)
    _finish(bench, _measure(bench, TABLE1_ROWS, seeds, repetitions, True, out), out)


def _measure(bench, rows, seeds, repetitions, canvases, out):
    from hwdiff.evaluation.frechet import FID_ADVICE
    from hwdiff.utils.progress import Progress

    if not bench.inception_weights:
        print(f"distances are taken on MobileNetV2 features and are no FID: {FID_ADVICE}")
    with Progress(f"evaluating on {bench.split}", seeds * (len(rows) + 2), unit="rows") as progress:
        return bench.table(rows, range(seeds), repetitions, canvases, out, lambda row: progress.update())


@command
def compare_samplers(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    model: Model = "pretrained",
    split: Annotated[Split, typer.Option(help="Whose lines.")] = Split.validation,
    sampler: Annotated[str, typer.Option(help="Which ones, with commas between.")] = "eq12,eq9,dpm",
    steps: Annotated[str, typer.Option(help="Steps, with commas between.")] = "60,30,20,12,8,5",
    spacing: Annotated[str, typer.Option(help=f"How noise levels are spaced where there are not 60: some of {SPACINGS}.")] = SPACINGS,
    lines: SetSize = None,
    seeds: Seeds = 5,
    inception_weights: InceptionWeights = None,
    repetitions: Repetitions = 1000,
    guidance: Guidance = None,
    style_encoder: StyleEncoder = "bundled",
    recognizer: RecognizerFile = None,
    out: TableFolder = None,
    device: Device = None,
):
    """Compare samplers, numbers of steps and noise levels.

    All measures of Table 1 for each; then which are worse than Eq. 12 with 60 steps, and the fewest steps that are not.
    """
    from hwdiff.diffusion.samplers import SAMPLERS
    from hwdiff.evaluation.protocol import BASE, Bench, fewest_steps, sampler_rows

    samplers, counts, spacings = ([word.strip() for word in words.split(",")] for words in (sampler, steps, spacing))
    if not all(count.isdigit() for count in counts):
        raise HwdiffError(f"--steps {steps}: numbers with commas between are needed, such as 60,20")
    unknown = [name for name in samplers if name not in SAMPLERS]
    if unknown:
        raise HwdiffError(f"--sampler {sampler}: no such sampler as {unknown[0]!r}; choose of {', '.join(SAMPLERS)}")
    rows = sampler_rows(samplers, list(map(int, counts)), spacings)
    bench = Bench(data, model, split.value, lines, style_encoder, recognizer, inception_weights, guidance, device)
    table = _measure(bench, rows, seeds, repetitions, False, out)
    _finish(bench, table, out)
    worse, fewest = fewest_steps(table)
    print(f"worse than {BASE}, by twice the standard error of the difference:")
    for row, found in worse.items():
        print(f"  {row:28}  {'cannot be told from one seed' if found is None else ', '.join(found) or 'in nothing'}")
    if fewest:
        print(f"fewest steps that are worse in nothing: {'; '.join(fewest)}")


def _finish(bench, table, out):
    print(f"split {bench.split}, two sets of {bench.lines} lines, {len(table.settings['seeds'])} seeds, guidance {bench.guidance:g}")
    print(table.text())
    if out:
        print(f"wrote {out / 'table1.csv'}, table1.json and timings.json")


@command
def alignment(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    model: Model = "pretrained",
    split: Annotated[Split, typer.Option(help="Whose texts are written, in the same hands.")] = Split.test,
    lines: Lines = 120,
    block: Annotated[int, typer.Option(help="Which block's attention: 0 is the first, -1 the last, that of the paper's Fig. 4.")] = -1,
    sampler: SamplerName = Sampler.eq12,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Annotated[int, typer.Option(help="Seed of the first line.")] = 0,
    style_encoder: StyleEncoder = "bundled",
    recognizer: RecognizerFile = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A table of all lines, *.csv.")] = None,
    device: Device = None,
):
    """Measure whether attention that goes astray goes with misspelling.

    Rank correlations between how the attention of each line lies and the recognizer's error rate of the same line.
    """
    import csv

    import numpy as np

    from hwdiff.data.dataset import Dataset
    from hwdiff.data.style_features import StyleFeatures
    from hwdiff.evaluation.alignment import regenerate_aligned, relations
    from hwdiff.evaluation.generation import subsample_lines
    from hwdiff.evaluation.recognizer import BUNDLED, load_recognizer
    from hwdiff.model.checkpoint import load_model
    from hwdiff.model.style_encoder import load_style_extractor
    from hwdiff.utils.files import atomic_write
    from hwdiff.utils.progress import Progress

    dataset, network, judge = Dataset(data), load_model(model, device), load_recognizer(recognizer or BUNDLED, device)
    features, indices = (
        StyleFeatures(dataset, load_style_extractor(style_encoder, next(network.parameters()).device)),
        subsample_lines(dataset, split.value, lines),
    )
    options = {"seed": seed, "sampler": sampler.value, "steps": steps, "guidance": guidance, "block": block}
    with Progress("writing", len(indices), unit="lines") as progress:
        rows = regenerate_aligned(network, dataset, features, indices, judge, progress=progress.update, **options)
    inked = np.array([number for number, row in enumerate(rows) if row], dtype=int)
    found = relations([rows[number] for number in inked], dataset.forms[indices[inked]])
    print(
        f"{data}, split {split.value}: {len(inked)} of {len(indices)} lines with ink; rank correlation with the recognizer's error rate of the line:"
    )
    for name, (value, low, high) in found.items():
        print(f"  {name:14} {value:6.2f} ({low:.2f} to {high:.2f})")
    if out:
        with atomic_write(out) as temporary, temporary.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["line", *found, "error rate"])
            for number in inked:
                scores, rate = rows[number]
                table.writerow([dataset.ids[indices[number]], *(f"{value:.6f}" for value in (*scores.values(), rate))])
        print(f"wrote {out}")
