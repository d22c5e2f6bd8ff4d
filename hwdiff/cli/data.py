"""Commands about data: datasets, line images, what a file is."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hwdiff.cli.options import SplitScheme, StyleEncoder, Variant, command


@command
def prepare(
    out: Annotated[Path, typer.Option(help="The dataset file to write, *.npz.")],
    source: Annotated[
        Path | None, typer.Option(help="Folder with the IAM On-Line archives and the split lists; without it the built-in writers write.")
    ] = None,
    split_scheme: Annotated[
        SplitScheme, typer.Option(help="authors: as the paper trains; official: as the database's makers propose.")
    ] = SplitScheme.authors,
    long_offsets: Annotated[Variant, typer.Option(help="What a long offset is measured from: the mean (paper) or zero (released).")] = Variant.paper,
    seed: Annotated[int, typer.Option(help="Seed of the built-in writers.")] = 0,
):
    """Make a dataset file, of the IAM On-Line archives or of the built-in writers."""
    from hwdiff.data.lines import Limits
    from hwdiff.data.preparation import prepare as prepare_dataset
    from hwdiff.utils.progress import Progress

    with Progress("preparing", unit="lines") as bar:
        prepared = prepare_dataset(source, out, split_scheme.value, Limits(long_offsets=long_offsets.value), seed, progress=bar.update)
    if prepared.existed:
        print(f"{out} is there already, prepared with the same parameters: nothing to do (delete it to read the archives again)")
    _print_dataset(out, prepared.manifest)


@command
def show(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write, *.png or *.svg.")],
    rows: Annotated[int, typer.Option(min=1, help="Forms to show, evenly spread: one hand a row.")] = 16,
):
    """Draw a page of a dataset's lines."""
    from hwdiff.data.dataset import Dataset
    from hwdiff.data.figures import plot_lines
    from hwdiff.ink.plot import save_figure

    save_figure(plot_lines(Dataset(data), rows), out)
    print(f"wrote {out}")


@command
def compare_images(
    source: Annotated[Path, typer.Option(help="Folder with the IAM archives and at least one official line image.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The figure to write, *.png or *.svg.")],
    style_encoder: StyleEncoder = "bundled",
):
    """Compare drawn line images with official ones.

    The figure sets them side by side; the cosine of their style features is printed.
    """
    from hwdiff.data.figures import compare_line_images
    from hwdiff.data.iam import Source, read_pairs
    from hwdiff.data.lines import Report
    from hwdiff.ink.plot import save_figure
    from hwdiff.model.style_encoder import load_style_extractor

    pairs = read_pairs(Source(source), Report())
    figure, cosines = compare_line_images(pairs, load_style_extractor(style_encoder))
    save_figure(figure, out)
    for line_id, cosine in cosines.items():
        print(f"{line_id}  cosine of style features {cosine:.3f}")


def _print_dataset(path, manifest):
    counts, left_out = manifest["counts"], manifest["left out"]
    splits = ", ".join(f"{counts[split]} {split}" for split in ("train", "validation", "test") if split in counts)
    print(f"{path}: {counts['lines']} lines of {counts['forms']} forms ({splits}), split scheme {manifest['parameters']['split_scheme']}")
    print("left out:" if left_out else "nothing was left out")
    for reason, count in left_out.items():
        print(f"  {count:5}  {reason}, for example {', '.join(manifest['left out, for example'][reason])}")
    if manifest["parameters"]["split_scheme"] == "hash":
        print("the split lists (trainset, testset_f, testset_t, testset_v) were not found below the source: split by hash of the form")


@command
def info(path: Annotated[Path, typer.Argument(help="A dataset file, a checkpoint, or weights of the authors' program.")]):
    """Tell what a file is and where it comes from."""
    if path.suffix == ".npz":
        from hwdiff.data.dataset import Dataset

        _print_dataset(path, Dataset(path).manifest)
        return
    from hwdiff.model.checkpoint import load_model

    network = load_model(path, "cpu")
    parameters = sum(weight.numel() for weight in network.parameters())
    print(f"{path}: network of Luhman & Luhman (2020), {parameters:,} parameters")
    print(json.dumps(network.metadata or {"model": network.settings, "written by": "the authors' program"}, indent=2))
