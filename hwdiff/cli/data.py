"""Commands about data: datasets, line images, what a file holds."""

import json
import warnings
from pathlib import Path
from typing import Annotated

import typer

from hwdiff.cli.options import SplitScheme, StyleEncoder, Variant, command, require_figure, require_output
from hwdiff.utils.errors import HwdiffError


@command
def prepare(
    out: Annotated[Path, typer.Option(help="The dataset file to write, *.npz.")],
    source: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the IAM On-Line archives and the split lists, or with lines of your own "
            "(*.inkml, *.json); by default the lines are made by the built-in writers."
        ),
    ] = None,
    split_scheme: Annotated[
        SplitScheme | None,
        typer.Option(
            help="Of IAM's lines. authors, the default: as the paper trains; official: as the IAM database "
            "recommends."
        ),
    ] = None,
    long_offsets: Annotated[
        Variant,
        typer.Option(
            help="Leave out lines with very long offsets, measured from the mean (paper) or from zero "
            "(released)."
        ),
    ] = Variant.paper,
    seed: Annotated[int | None, typer.Option(help="Seed of the built-in writers, by default 0.")] = None,
    writers: Annotated[
        int | None, typer.Option(help="How many built-in writers write, 40 lines each; by default 64.")
    ] = None,
):
    """Make a dataset file.

    Its lines come from the IAM On-Line archives, from your own recordings, or from the built-in writers.
    """
    from hwdiff.data.iam import holds_strokes
    from hwdiff.data.lines import Limits
    from hwdiff.data.preparation import prepare as prepare_dataset
    from hwdiff.data.synthetic import WRITERS
    from hwdiff.utils.progress import Progress

    require_output(out)
    for name, value in (("seed", seed), ("writers", writers)):
        if source is not None and value is not None:
            raise HwdiffError(f"--{name} {value}: only the built-in writers have it; leave it out")
    # A folder that is not there is left to `prepare`, which says so.
    is_iam = source is not None and (not source.is_dir() or holds_strokes(source))
    if split_scheme and not is_iam:
        found = f"--split-scheme {split_scheme.value}: only IAM's lines have one"
        raise HwdiffError(f"{found}; other lines are split by writer or form; leave it out")
    with Progress("preparing", unit="lines") as bar:
        prepared = prepare_dataset(
            source,
            out,
            (split_scheme or SplitScheme.authors).value,
            Limits(long_offsets=long_offsets.value),
            seed or 0,
            WRITERS if writers is None else writers,
            progress=bar.update,
        )
    if prepared.existed:
        print(
            f"{out} exists already, prepared with the same parameters: nothing to do "
            "(delete it to prepare it again)"
        )
    _print_dataset(out, prepared.manifest)


@command
def show(
    data: Annotated[Path, typer.Option(help="A dataset file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write, *.png or *.svg.")],
    rows: Annotated[
        int, typer.Option(min=1, help="Forms to show, evenly spread: the first lines of one in each row.")
    ] = 16,
):
    """Draw a page of a dataset's lines."""
    from hwdiff.data.dataset import Dataset
    from hwdiff.data.figures import plot_lines
    from hwdiff.ink.plot import save_figure

    require_figure(out, inputs=[data])
    save_figure(plot_lines(Dataset(data), rows), out)
    print(f"wrote {out}")


@command
def compare_images(
    source: Annotated[
        Path, typer.Option(help="Folder with the IAM archives and at least one official line image.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The figure to write, *.png or *.svg.")],
    style_encoder: StyleEncoder = "bundled",
):
    """Compare line images drawn here with IAM's official ones.

    The figure shows some side by side. The cosine similarity of the style features of all is printed.
    """
    from hwdiff.data.figures import compare_line_images
    from hwdiff.data.iam import Source, read_pairs
    from hwdiff.data.lines import Report
    from hwdiff.ink.plot import save_figure
    from hwdiff.model.style_encoder import load_style_extractor

    require_figure(out)
    report, extractor = Report(), load_style_extractor(style_encoder)
    figure, cosines = compare_line_images(read_pairs(Source(source), report), extractor)
    save_figure(figure, out)
    for line_id, cosine in cosines.items():
        print(f"{line_id}  cosine of style features {cosine:.3f}")
    _print_left_out(report.left_out, report.examples)


def _print_left_out(left_out, examples):
    print("left out:" if left_out else "nothing was left out")
    for reason, count in left_out.items():
        print(f"  {count:5}  {reason}, for example {', '.join(examples[reason])}")


def _print_dataset(path, manifest):
    counts, left_out = manifest["counts"], manifest["left_out"]
    scheme = manifest["parameters"]["split_scheme"]
    splits = ", ".join(
        f"{counts[split]} {split}" for split in ("train", "validation", "test") if split in counts
    )
    print(
        f"{path}: {counts['lines']} lines of {counts['forms']} forms ({splits}), split scheme {scheme}, "
        f"fingerprint {manifest['fingerprint'][:8]}"
    )
    if missing := [split for split in ("validation", "test") if not counts.get(split)]:
        found = (
            f"no lines in the split {' and '.join(missing)}, so that nothing can be measured on unseen lines"
        )
        warnings.warn(f"{path}: {found}; prepare more lines", stacklevel=1)
    _print_left_out(left_out, manifest["left_out_examples"])
    if scheme == "hash":
        print(
            "the split lists (trainset, testset_f, testset_t, testset_v) were not found in the source: "
            "split by hash of the form"
        )


@command
def info(
    path: Annotated[
        Path,
        typer.Argument(
            help="A dataset file, pretrained, fast, small, a checkpoint or other .safetensors file, weights "
            "of the authors' program, or ink."
        ),
    ],
):
    """Say what a file is and where it comes from."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        from hwdiff.data.dataset import Dataset

        _print_dataset(path, Dataset(path).manifest)
        return
    if suffix in (".svg", ".inkml", ".json", ".xml"):
        from hwdiff.ink.ink import Ink

        ink = Ink.load(path)
        print(f"{path}: ink of {len(ink)} points in {len(ink.strokes())} strokes, text {ink.text!r}")
        return
    from hwdiff.model.checkpoint import FORMAT, load_model
    from hwdiff.utils.tensors import load_metadata

    if suffix == ".safetensors":
        about = {"what": "safetensors file", "advice": "copy it again"}
        metadata = load_metadata(path, **about)
        if metadata.get("format") != FORMAT:
            print(f"{path}: {metadata.get('format', 'tensors, in no format of hwdiff')}")
            print(json.dumps(metadata, indent=2))
            return

    network = load_model(path, "cpu")
    parameters = sum(weight.numel() for weight in network.parameters())
    print(f"{path}: network of Luhman & Luhman (2020), {parameters:,} parameters")
    metadata = network.metadata or {"model": network.settings, "written_by": "the authors' program"}
    print(json.dumps(metadata, indent=2))
