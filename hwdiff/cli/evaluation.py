"""Commands that measure handwriting, real and generated."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hwdiff.cli.options import (
    Device,
    Guidance,
    Lines,
    Model,
    RecognizerFile,
    Sampler,
    SamplerName,
    Split,
    Steps,
    StyleEncoder,
    command,
    require_figure,
    require_output,
    require_output_folder,
    require_picture,
)
from hwdiff.utils.errors import HwdiffError, require_choice


@command
def recognize(
    file: Annotated[
        Path,
        typer.Argument(
            help="A line saved by hwdiff write (.svg, .inkml, .json), a line file of IAM (.xml), or a "
            "dataset file (.npz) with --line."
        ),
    ],
    line: Annotated[
        str | None, typer.Option(help="The line of a dataset file to read, such as a01-000u-01.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A figure of what was read where, *.png or *.svg.")
    ] = None,
    recognizer: RecognizerFile = None,
    device: Device = None,
):
    """Print what the recognizer reads in ink.

    It uses no dictionary and no language model.
    """
    from hwdiff.evaluation.error_rates import recognize as recognize_inks
    from hwdiff.evaluation.figures import plot_recognition
    from hwdiff.evaluation.recognizer import load_recognizer
    from hwdiff.ink.ink import Ink
    from hwdiff.ink.plot import save_figure

    require_figure(out, inputs=[file])
    if (file.suffix.lower() == ".npz") != (line is not None):
        raise HwdiffError(f"{file}: give --line with a dataset file (.npz), and only with one")
    if line is None:
        ink = Ink.load(file)
    else:
        from hwdiff.data.dataset import Dataset

        dataset = Dataset(file)
        ink = dataset.ink(dataset.index_of(line))
    judge = load_recognizer(recognizer, device)
    try:
        [recognition] = recognize_inks([ink], judge)
    except HwdiffError as error:
        raise HwdiffError(f"{file}: {error}") from error
    print(recognition.text)
    if not recognition.text:
        print(f"{file}: nothing could be read in it", file=sys.stderr)
    if out:
        save_figure(plot_recognition(ink.trimmed(), recognition), out)
        print(f"wrote {out}")


@command
def legibility(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    split: Annotated[Split, typer.Option(help="The split whose lines are read.")] = Split.test,
    lines: Lines = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Read what this model (pretrained, fast, small, or a checkpoint) writes for the same texts "
            "and styles, and compare it with the real lines."
        ),
    ] = None,
    sampler: SamplerName = Sampler.eq12,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Annotated[int, typer.Option(help="Seed of the lines that the model writes.")] = 0,
    style_encoder: StyleEncoder = "bundled",
    corrupted: Annotated[
        bool,
        typer.Option("--corrupted", help="Also read the lines corrupted on purpose, in several ways."),
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file for all results, *.json.")] = None,
    recognizer: RecognizerFile = None,
    device: Device = None,
):
    """Measure how legible lines are, real or generated.

    Prints the recognizer's character and word error rates, with bootstrap intervals over forms.
    """
    import numpy as np

    from hwdiff.data.dataset import Dataset
    from hwdiff.evaluation.corruption import CORRUPTIONS, corrupted_rates
    from hwdiff.evaluation.error_rates import legibility as measure
    from hwdiff.evaluation.generation import subsample_lines
    from hwdiff.evaluation.notes import ON_RATES
    from hwdiff.evaluation.recognizer import load_recognizer
    from hwdiff.utils.files import write_json

    require_output(out, ".json")
    by_default = (Sampler.eq12, None, None, 0, "bundled")
    if not model and (sampler, steps, guidance, seed, style_encoder) != by_default:
        options = "--sampler, --steps, --guidance, --seed, --style-encoder"
        raise HwdiffError(f"{options}: of what a model writes; name it with --model")
    dataset, judge = Dataset(data), load_recognizer(recognizer, device)
    indices = subsample_lines(dataset, split.value, lines)
    real, forms = [dataset.ink(index).trimmed() for index in indices], dataset.forms[indices]
    if corrupted and len(indices) < 2:
        raise HwdiffError("--corrupted: one line is corrupted with another's ink; give --lines 2 or more")
    inks, written = real, {}
    if model:
        inks, written = _regenerate(
            model, dataset, indices, style_encoder, device, sampler.value, steps, guidance, seed
        )
    result = measure(inks, judge, forms, real if model else None, forms if model else None)
    known = judge.metadata.get("forms", {})
    counts = {
        word: int(np.isin(forms, known.get(name, [])).sum())
        for word, name in (("seen", "train"), ("watched", "validation"))
    }
    words = {"seen": "seen in the recognizer's training", "watched": "used for its validation"}
    marks = "".join(f", {count} of them {words[word]}" for word, count in counts.items() if count)
    print(f"{data}, split {split.value}: {result.lines} lines{marks}, {result.characters} characters")
    print(result.table())
    if model:
        print(f"note: {ON_RATES}")
    everything = {
        "recognizer": judge.metadata,
        "split": split.value,
        "lines_in_training": counts,
        "written_by": written,
        **asdict(result),
    }
    if corrupted:
        everything["corrupted"] = {}
        for key, rate in corrupted_rates(inks, judge, forms):
            print(f"corrupted: {CORRUPTIONS[key].title:40}  {rate}")
            everything["corrupted"][key] = asdict(rate)
    if out:
        write_json(out, everything)
        print(f"wrote {out}")


def _regenerate(model, dataset, indices, style_encoder, device, sampler, steps, guidance, seed):
    import time

    from hwdiff.data.style_features import StyleFeatures
    from hwdiff.diffusion.generate import signal_levels, writing_settings
    from hwdiff.evaluation.generation import regenerate_lines
    from hwdiff.model.checkpoint import load_model
    from hwdiff.model.style_encoder import load_style_extractor

    network = load_model(model, device)
    alpha_bar = signal_levels(network, sampler, steps)
    steps = len(alpha_bar) - 1
    guidance = writing_settings(network)["guidance"] if guidance is None else guidance
    features = StyleFeatures(dataset, load_style_extractor(style_encoder, next(network.parameters()).device))
    start = time.perf_counter()
    inks = regenerate_lines(
        network, dataset, features, indices, seed, sampler=sampler, alpha_bar=alpha_bar, guidance=guidance
    )
    seconds = (time.perf_counter() - start) / len(indices)
    print(
        f"written by {model}, {sampler} in {steps} steps, guidance {guidance:g}, seed {seed}: "
        f"{seconds:.2f} s per line, including style features"
    )
    return inks, {
        "model": model,
        "sampler": sampler,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
        "metadata": network.metadata,
    }


Seeds = Annotated[int, typer.Option(min=1, help="Repetitions, each with other lines and other noise.")]
SetSize = Annotated[
    int | None,
    typer.Option(
        "--lines",
        min=2,
        help="Lines in each of the two sets; by default 4500 on a GPU, 60 on a CPU, at most half the split.",
    ),
]
InceptionWeights = Annotated[
    str | None,
    typer.Option(
        help="pytorch-fid's weights, for FID: a file, or download to fetch them. Without them the distance "
        "is measured on MobileNetV2 features."
    ),
]
Repetitions = Annotated[
    int,
    typer.Option(
        min=1,
        help="Sets of landmarks of the Geometry Score, which needs 600 lines a set; with fewer lines it is "
        "taken of real lines alone, with at most 100.",
    ),
]
Student = Annotated[
    str | None,
    typer.Option(
        help="fast (the student of pretrained), or a checkpoint from hwdiff distil-steps, if the model was "
        "its teacher: a row of its own."
    ),
]
TableFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="A folder for table1.csv, table1.json, timings.json, what was measured of each line (lines.npz) "
        "and the lines that are written. A stopped command resumes from them.",
    ),
]


@command
def evaluate(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    model: Model = "pretrained",
    split: Annotated[
        Split,
        typer.Option(help="The split: train, as in the paper, or one that the model has not seen."),
    ] = Split.train,
    lines: SetSize = None,
    seeds: Seeds = 5,
    rows: Annotated[
        str | None,
        typer.Option(
            help="What to write, separated by commas: of eq12, eq9, eq12_foreign, eq12_guided, eq9_guided, "
            "student (with --student). By default all."
        ),
    ] = None,
    student: Student = None,
    inception_weights: InceptionWeights = None,
    repetitions: Repetitions = 1000,
    guidance: Guidance = None,
    style_encoder: StyleEncoder = "bundled",
    recognizer: RecognizerFile = None,
    out: TableFolder = None,
    device: Device = None,
):
    """Run the protocol of the paper's Table 1, with error bars.

    Compares these with real lines: other real lines; lines written by Eq. 12 and by Eq. 9 without guidance,
    as in the paper, and with the model's own; by Eq. 12 in foreign styles; by the model's student, if one is
    given; and corrupted real lines.
    """
    from hwdiff.evaluation.bench import Bench, chosen_rows

    if out:
        require_output_folder(out)
    bench = Bench(
        data,
        model,
        split.value,
        lines=lines,
        style_encoder=style_encoder,
        recognizer=recognizer,
        inception_weights=inception_weights,
        guidance=guidance,
        student=student,
        device=device,
    )
    wanted = chosen_rows(
        bench.table1_rows, None if rows is None else [name.strip() for name in rows.split(",")]
    )
    unused = {
        "--guidance": guidance not in (None, 1)
        and all(row.student or row.guidance is not None for row in wanted.values()),
        "--student": student is not None and not any(row.student for row in wanted.values()),
    }
    for option, is_unused in unused.items():
        if is_unused:
            raise HwdiffError(f"{option}: none of --rows {rows} has it; leave it out, or write other rows")
    _finish(bench, _measure(bench, wanted, seeds, out, repetitions=repetitions), out)


def _measure(bench, rows, seeds, out, **options):
    from hwdiff.evaluation.inception import FID_ADVICE

    if not bench.inception_weights:
        print(f"distances are measured on MobileNetV2 features and are not FID: {FID_ADVICE}")
    return bench.table(rows, range(seeds), folder=out, **options)


@command
def compare_samplers(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    model: Model = "pretrained",
    split: Annotated[Split, typer.Option(help="The split to compare on.")] = Split.validation,
    sampler: Annotated[
        str, typer.Option(help="The samplers to compare, separated by commas.")
    ] = "eq12,eq9,dpm",
    steps: Annotated[
        str, typer.Option(help="The numbers of steps to compare, separated by commas.")
    ] = "60,30,20,12,8,5",
    spacing: Annotated[
        str,
        typer.Option(help="How noise levels are spaced, separated by commas; for 60 steps as in the paper."),
    ] = "log-snr,time,karras",
    student: Student = None,
    lines: SetSize = None,
    seeds: Seeds = 5,
    inception_weights: InceptionWeights = None,
    repetitions: Repetitions = 1000,
    guidance: Guidance = None,
    style_encoder: StyleEncoder = "bundled",
    recognizer: RecognizerFile = None,
    margin: Annotated[
        float,
        typer.Option(min=0, help="By how many points the CER may exceed that of 60 steps."),
    ] = 1.0,
    out: TableFolder = None,
    device: Device = None,
):
    """Compare samplers, numbers of steps and noise levels.

    Prints the measures of hwdiff evaluate for each combination, and which of those that are not worse than
    Eq. 12 with 60 steps takes the fewest network evaluations: the interval of the difference must end below
    --margin in CER and below 0.0005 in kernel distance. With --out there is a figure too, of CER against
    network evaluations.
    """
    from hwdiff.diffusion.samplers import SAMPLERS, SPACINGS
    from hwdiff.evaluation.bench import Bench
    from hwdiff.evaluation.figures import plot_comparison
    from hwdiff.evaluation.sampler_comparison import BASE, comparison_text, sampler_rows
    from hwdiff.ink.plot import save_figure

    if out:
        require_output_folder(out)
    samplers, counts, spacings = (
        [word.strip() for word in words.split(",")] for words in (sampler, steps, spacing)
    )
    if not all(count.isdecimal() for count in counts):
        raise HwdiffError(f"--steps {steps}: must be numbers separated by commas, such as 60,20")
    for name in samplers:
        require_choice("sampler", name, SAMPLERS)
    for name in spacings:
        require_choice("spacing", name, SPACINGS)
    rows = sampler_rows(samplers, list(map(int, counts)), spacings, student is not None)
    bench = Bench(
        data,
        model,
        split.value,
        lines=lines,
        style_encoder=style_encoder,
        recognizer=recognizer,
        inception_weights=inception_weights,
        guidance=guidance,
        student=student,
        device=device,
    )
    compared = [(row, BASE) for row in rows if row != BASE]
    options = {"repetitions": repetitions, "compared": compared, "canvases": False}
    table = _measure(bench, rows, seeds, out, **options)
    _finish(bench, table, out)
    print(comparison_text(table, margin / 100))
    if out:
        save_figure(plot_comparison(table), out / "evaluations.png")
        print(f"wrote {out / 'evaluations.png'}")


def _finish(bench, table, out):
    from hwdiff.evaluation.report import table_text

    seeds = len(table.settings["seeds"])
    print(f"split {bench.split}, two sets of {bench.lines} lines, {seeds} seed{'s' * (seeds != 1)}")
    print(table_text(table))
    if out:
        print(f"wrote {out / 'table1.csv'}, table1.json, lines.npz and timings.json")


@command
def diversity(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    model: Model = "pretrained",
    split: Annotated[Split, typer.Option(help="The split whose texts and styles are used.")] = Split.test,
    texts: Annotated[int, typer.Option(min=2, help="Texts, each in one style, evenly spread.")] = 12,
    repeats: Annotated[int, typer.Option(min=2, help="Lines of each text, from other noise.")] = 6,
    guidance: Guidance = None,
    seed: Annotated[int, typer.Option(help="Seed of the first line.")] = 0,
    style_encoder: StyleEncoder = "bundled",
    recognizer: RecognizerFile = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file for all values, *.json.")] = None,
    device: Device = None,
):
    """Measure how much lines of one text in one style differ, by Eq. 12 and by Eq. 9.

    Without guidance, as in the paper, and with the model's own. Distances are means over pairs of lines: of
    the ink (dynamic time warping), of hand-made features and of style features, where 1 is about
    that of lines of the other splits. Intervals are of a bootstrap over texts.
    """
    from hwdiff.evaluation.bench import Bench
    from hwdiff.evaluation.generation import subsample_lines
    from hwdiff.evaluation.notes import ON_RATES
    from hwdiff.utils.progress import Progress

    require_output(out, ".json")
    bench = Bench(
        data,
        model,
        split.value,
        style_encoder=style_encoder,
        recognizer=recognizer,
        guidance=guidance,
        device=device,
    )
    indices = subsample_lines(bench.dataset, split.value, texts)
    with Progress("writing", len(bench.diversity_rows), unit="rows") as progress:
        found = bench.diversity(indices, repeats, seed, progress=lambda row: progress.update())
    print(f"split {split.value}, {len(indices)} texts, each written {repeats} times in one style")
    print(found.text())
    print(f"note: {ON_RATES}")
    if out:
        found.save(out)
        print(f"wrote {out}")


@command
def geometry_floor(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    split: Annotated[Split, typer.Option(help="The split whose lines are compared.")] = Split.train,
    lines: Annotated[
        int, typer.Option(min=2, help="Lines in each of the two sets; 4500 in the paper.")
    ] = 4500,
    seeds: Annotated[int, typer.Option(min=1, help="Drawings of both sets.")] = 5,
    repetitions: Annotated[int, typer.Option(min=1, help="Sets of landmarks (n).")] = 1000,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file for all values, *.json.")] = None,
):
    """Measure the Geometry Score of real lines against real ones.

    It is the first row of the paper's Table 1, and needs no network. The paper leaves open whether the pen
    flag is part of a point: both are measured, in several drawings of the sets.
    """
    from hwdiff.data.dataset import Dataset
    from hwdiff.evaluation.geometry_floor import floor_text
    from hwdiff.evaluation.geometry_floor import geometry_floor as floor
    from hwdiff.utils.environment import environment
    from hwdiff.utils.files import write_json
    from hwdiff.utils.progress import Progress

    require_output(out, ".json")
    dataset = Dataset(data)
    with Progress("holes", 4 * seeds, unit="sets") as progress:
        rows = floor(
            dataset, split.value, lines, range(seeds), repetitions=repetitions, progress=progress.update
        )
    print(f"split {split.value}, {lines} real lines a set, {len(dataset.split(split.value))} to draw from")
    print(floor_text(rows))
    if out:
        settings = {"dataset": dataset.fingerprint, "split": split.value, "lines": lines}
        content = {"settings": {**settings, "environment": environment("cpu")}, "rows": rows}
        write_json(out, content)
        print(f"wrote {out}")


@command
def attention(
    model: Model = "pretrained",
    style: Annotated[
        str, typer.Option(help="The name of one of hwdiff styles, or a picture of a line of handwriting.")
    ] = "ada",
    style_encoder: StyleEncoder = "bundled",
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the maps and the scores.")] = Path(
        "."
    ),
    device: Device = None,
):
    """Save the attention of three fixed lines, to monitor training.

    Writes attention-STEP.npz, the maps at t = 55, 30 and 5 as in the paper's Fig. 4, and alignment-STEP.json,
    how far they are diagonals. Written with guidance 1, from fixed seeds.
    """
    from hwdiff.evaluation.attention import watch_attention
    from hwdiff.model.checkpoint import load_model, path_of_model
    from hwdiff.utils.arrays import save_npz
    from hwdiff.utils.files import write_json

    require_output_folder(out)
    require_picture(style, {"--style-encoder": style_encoder != "bundled"})
    maps, record = watch_attention(load_model(model, device), style, style_encoder)
    name = f"{record['step'] or 0:06}"
    save_npz(out / f"attention-{name}.npz", maps)
    write_json(out / f"alignment-{name}.json", record | {"style": style, "file": path_of_model(model).name})
    for text, forward in record["monotonicity_at"].items():
        said = ", ".join(f"{100 * value:.0f} % at t = {t}" for t, value in forward.items())
        covered = 100 * record["scores"][text]["coverage"]
        print(f"{text}: forward on {said} of its way; {covered:.0f} % of the letters are attended to")


@command
def alignment(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    model: Model = "pretrained",
    split: Annotated[Split, typer.Option(help="The split whose texts and styles are used.")] = Split.test,
    lines: Lines = 120,
    block: Annotated[
        int,
        typer.Option(
            help="The block whose attention is used: 0 is the first; -1 the last, as in the paper's Fig. 4."
        ),
    ] = -1,
    sampler: SamplerName = Sampler.eq12,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Annotated[int, typer.Option(help="Seed of the first line.")] = 0,
    style_encoder: StyleEncoder = "bundled",
    recognizer: RecognizerFile = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="A table of all lines, *.csv; the correlations go into *.json beside it."
        ),
    ] = None,
    device: Device = None,
):
    """Measure how attention relates to misspelling.

    A model writes lines. Prints rank correlations between scores of each line's attention to its text and the
    recognizer's character error rate on the line, as they are, and with the rate on the real line of the same
    text held fixed. Intervals are of a bootstrap over texts.
    """
    import csv

    from hwdiff.data.dataset import Dataset
    from hwdiff.data.style_features import StyleFeatures
    from hwdiff.diffusion.generate import signal_levels, writing_settings
    from hwdiff.evaluation.attention import regenerate_aligned, relations
    from hwdiff.evaluation.generation import record_of, subsample_lines
    from hwdiff.evaluation.recognizer import load_recognizer
    from hwdiff.model.checkpoint import load_model
    from hwdiff.model.style_encoder import load_style_extractor
    from hwdiff.utils.files import atomic_write, write_json
    from hwdiff.utils.json_values import number_or_none
    from hwdiff.utils.progress import Progress

    require_output(out, ".csv")
    require_output(out and out.with_suffix(".json"))
    dataset, network = Dataset(data), load_model(model, device)
    judge = load_recognizer(recognizer, device)
    features = StyleFeatures(dataset, load_style_extractor(style_encoder, next(network.parameters()).device))
    indices = subsample_lines(dataset, split.value, lines)
    if len(indices) < 3:
        raise HwdiffError(f"{data}: {len(indices)} lines; a correlation takes at least 3")
    options = {"seed": seed, "sampler": sampler.value, "steps": steps, "guidance": guidance, "block": block}
    with Progress("writing", len(indices), unit="lines") as progress:
        rows = regenerate_aligned(
            network, dataset, features, indices, judge, progress=progress.update, **options
        )
    inked = [(index, row) for index, row in zip(indices, rows, strict=True) if row]
    if out:
        with atomic_write(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["line", *(inked[0][1].scores if inked else ()), "cer", "real_cer"])
            for index, row in inked:
                values = (*row.scores.values(), row.cer, row.real_cer)
                table.writerow([dataset.ids[index], *(f"{value:.6f}" for value in values)])
    found = relations([row for _, row in inked])
    print(
        f"{data}, split {split.value}: {len(inked)} of {len(indices)} lines with ink; "
        "rank correlation with the line's CER:"
    )
    for name, one in found.items():
        print(
            f"  {name:14} {one.correlation:6.2f} ({one.low:.2f} to {one.high:.2f}); real line held fixed "
            f"{one.given_text:6.2f} ({one.given_low:.2f} to {one.given_high:.2f}); {one.differing} differ"
        )
    if out:
        settings = {
            **options,
            "steps": len(signal_levels(network, sampler.value, steps)) - 1,
            "guidance": writing_settings(network)["guidance"] if guidance is None else guidance,
            "model": record_of(network, model),
            "dataset": dataset.fingerprint,
            "split": split.value,
            "lines": len(indices),
            "with_ink": len(inked),
        }
        relations_by_score = {
            name: {key: number_or_none(value) for key, value in asdict(one).items()}
            for name, one in found.items()
        }
        write_json(out.with_suffix(".json"), {"settings": settings, "relations": relations_by_score})
        print(f"wrote {out} and {out.with_suffix('.json').name}")
