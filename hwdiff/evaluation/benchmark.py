"""What `hwdiff benchmark` measures: times, and rates as fractions of this machine's matrix products."""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from hwdiff.data import iam
from hwdiff.data.dataset import Dataset
from hwdiff.data.lines import MAX_POINTS, Report
from hwdiff.data.preparation import prepare
from hwdiff.data.synthetic import LINES_PER_FORM, write_form
from hwdiff.diffusion import process
from hwdiff.diffusion.generate import seeded_noise, signal_levels, writing_settings
from hwdiff.diffusion.pages import wrap, write_pages
from hwdiff.diffusion.samplers import sample_eq12, schedule
from hwdiff.evaluation import geometry, speed
from hwdiff.evaluation.measures import points
from hwdiff.evaluation.tables import PAPER_LINES
from hwdiff.ink import images
from hwdiff.ink.formats import parse_points
from hwdiff.ink.page import Layout
from hwdiff.model.checkpoint import BUNDLED, load_model
from hwdiff.model.style_encoder import load_style_extractor
from hwdiff.model.unet import UNet
from hwdiff.training import config as presets
from hwdiff.training.distributed import default_count
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.machine import matrix_product_rate, rate_of

LENGTHS = (160, 320, MAX_POINTS)  # points of a line
BATCHES = (1, 8)  # lines that are written at once
CLOUDS = (1000, PAPER_LINES)  # lines of the Geometry Score
PAGE = " ".join(["the quick brown fox jumps over the lazy dog"] * 33)  # twenty lines of A4
MIN_LINES = 96  # of a batch of the preset `paper`
TRIES = 3  # of what takes a whole process: the fastest counts


class Timing(NamedTuple):
    """One row.

    what: what was measured.   seconds: that it took.   rate: operations a second.   fraction: of the rate of
    matrix products. None where there is no such number.
    """

    what: str
    seconds: float | None = None
    rate: float | None = None
    fraction: float | None = None


def benchmark(
    dataset: Dataset, device: str | torch.device, source: str | Path | None = None
) -> Iterator[Timing]:
    """Measure the machine, starting, writing, style features, training, the Geometry Score and preparing.

    dataset: whose lines are trained on, drawn and compared.
    source: the folder with the IAM database that is prepared, or None.
    Raises HwdiffError when the source cannot be used, or the dataset has too few training lines.
    """
    # What fails, fails at once, not after minutes.
    archives = source and iam.Source(source)
    if len(dataset.split("train")) < MIN_LINES:
        raise HwdiffError(f"{dataset.path}: fewer than {MIN_LINES} training lines; prepare more")
    device = torch.device(device)
    fp32, bf16 = (matrix_product_rate(dtype, device) for dtype in (torch.float32, torch.bfloat16))
    yield Timing("matrix product, fp32", rate=fp32)
    yield Timing("matrix product, bf16", rate=bf16)
    yield from _starting()
    yield from _writing(device, fp32)
    yield from _style_features(dataset, device, fp32)
    yield from _training(dataset, device, {"fp32": fp32, "bf16": bf16})
    yield from _geometry_score(dataset)
    if archives:
        yield from _preparing(archives)
    yield Timing(f"most memory of this process, {_most_memory(resource.RUSAGE_SELF):.1f} GB")


def _most_memory(whose):
    """In GB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(whose).ru_maxrss * unit / 1e9


def _starting():
    with tempfile.TemporaryDirectory() as folder:
        write = ("-m", "hwdiff", "write", "hello world", "-o", f"{folder}/hello.svg")
        for what, arguments in (
            ("hwdiff --help", ("-m", "hwdiff", "--help")),
            ("import torch", ("-c", "import torch")),
            *(
                (f'hwdiff write "hello world" --model {name}, all of it', (*write, "--model", name))
                for name in BUNDLED
            ),
        ):
            command = [sys.executable, *arguments]
            yield Timing(what, min(_seconds(_run, command) for _ in range(TRIES)))
    yield Timing(f"most memory of these processes, {_most_memory(resource.RUSAGE_CHILDREN):.1f} GB")


def _run(command: Sequence[str]):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _writing(device, limit):
    network = UNet().to(device).eval()
    levels = schedule().float()
    for count in BATCHES:
        for length in LENGTHS:
            noise = seeded_noise(range(count), length, device)
            start, text, level, style = (some.to(device) for some in speed.network_inputs(count, length))

            def write(start=start, text=text, style=style, noise=noise):
                with torch.inference_mode():
                    return sample_eq12(network, start, text, style, levels, noise)

            flop = process.STEPS * _operations(network, start, text, level, style)
            rate = rate_of(write, flop, device)
            lines = "one line" if count == 1 else f"{count} lines at once"
            yield Timing(
                f"writing {lines} of {length} points, 60 steps, guidance 1", flop / rate, rate, rate / limit
            )
    for name in BUNDLED:
        bundled = load_model(name, device)
        page, guidance = wrap(PAGE, Layout()), writing_settings(bundled)["guidance"]
        what = f"a page of {len(page)} lines in {sum(map(len, page))} pieces"
        what += f", model {name}, {len(signal_levels(bundled)) - 1} steps, guidance {guidance:g}"
        yield Timing(what, _seconds(write_pages, bundled, PAGE))


def _style_features(dataset, device, limit):
    extractor = load_style_extractor("bundled", device)
    inks = [dataset.ink(index).trimmed() for index in range(min(16, len(dataset)))]
    drawn = [ink.line_image() for ink in inks]
    yield Timing("drawing a line image", _seconds(lambda: [ink.line_image() for ink in inks]) / len(inks))
    count = extractor.batch_size
    pixels = torch.from_numpy(images.pad_to_width(drawn[0])).expand(count, -1, -1).to(device)
    flop = _operations(extractor, pixels)
    rate = rate_of(lambda: extractor(pixels), flop, device)
    yield Timing("style features of a line", flop / count / rate, rate, rate / limit)
    yield Timing("writing a line of a built-in writer", _seconds(write_form, 0, 0, 0) / LINES_PER_FORM)


def _training(dataset, device, limits):
    forward = _operations(UNet(), *speed.network_inputs(1, MAX_POINTS))
    flop = 3 * forward / MAX_POINTS  # of a point, forward and backward
    for precision, limit in limits.items():
        # Where bf16 is emulated it is a hundred times slower than fp32: nobody would train with it.
        if precision == "bf16" and limit <= limits["fp32"]:
            continue
        config = presets.preset("paper", padding="bucket", precision=precision)
        for count in dict.fromkeys((1, default_count(config.batch_size, device))):
            if count == 1:
                seconds, rate = speed.training_rate(dataset, config, device)
            else:
                seconds, rate = speed.shared_training_rate(dataset, config, device, count=count)
            threads = f"{count} process{'es of one thread' if count > 1 else ''}"
            what = f"training step, batch 96, {precision}, {threads}, {rate:.0f} points/s"
            yield Timing(what, seconds, flop * rate, flop * rate / limit)


def _geometry_score(dataset):
    for count in dict.fromkeys(min(count, len(dataset)) for count in CLOUDS):
        cloud = points([dataset.ink(index) for index in range(count)])
        ours, plain = speed.geometry_seconds(cloud, geometry.REPETITIONS)
        yield Timing(f"Geometry Score of {count} lines, a set of landmarks", ours)
        yield Timing(f"the same the plain way ({plain / ours:.1f} times as long)", plain)


def _preparing(archives):
    yield Timing(
        "unpacking the strokes of the database and parsing their XML, one process", _seconds(_parse, archives)
    )
    with tempfile.TemporaryDirectory() as folder:
        yield Timing("hwdiff prepare, all of it", _seconds(prepare, archives.path, f"{folder}/lines.npz"))


def _parse(archives):
    for _, content in iam.read_files(archives.strokes, ".xml", Report()):
        with suppress(ValueError):  # a line that `prepare` leaves out
            parse_points(content)


def _operations(function: Callable, *arguments) -> float:
    """Floating-point operations of a call."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        function(*arguments)
    return counter.get_total_flops()


def _seconds(function: Callable, *arguments, **options) -> float:
    began = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - began


def as_markdown(timings: Sequence[Timing], about: dict) -> str:
    """A page with a table.   about: the machine, from `utils.environment.environment`."""
    packages, device = about["packages"], about["device"]
    machine = f"{about['processor']}, {about['cores']} cores"
    if device != "cpu":
        machine = f"{device}, {machine}"
    head = (
        "# Benchmark\n\n"
        f"`hwdiff benchmark` on {machine}, PyTorch {packages['torch']}, "
        "all in one run:\n\n| | time | rate | of the matrix product |\n|---|---|---|---|\n"
    )
    return head + "".join(f"| {' | '.join(_cells(timing))} |\n" for timing in timings)


def as_text(timing: Timing) -> str:
    """A row for a terminal."""
    what, time_, rate, fraction = _cells(timing)
    return f"{what:84} {time_:>9} {rate:>16} {fraction:>5}".rstrip()


def _cells(timing):
    what, seconds, rate, fraction = timing
    return (
        what,
        "" if seconds is None else f"{seconds:.3f} s",
        "" if rate is None else f"{rate / 1e9:.1f} GFLOP/s",
        "" if fraction is None else f"{fraction:.0%}",
    )
