"""Commands that run the notebooks, and publish what they made."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from hwdiff.cli.options import command
from hwdiff.utils.errors import HwdiffError


@command
def reproduce(
    profile: Annotated[str, typer.Option(help="smoke: a CPU, minutes; paper: IAM and a GPU, the published size.")] = "smoke",
    only: Annotated[str | None, typer.Option(help="One notebook, such as 03, and what it needs.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="This notebook, such as 04, and all after it.")] = None,
    param: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, for all notebooks that have it; may be given several times.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the run; by default the newest of the profile in results/runs, or a new one.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="The limit of each notebook.")] = None,
):
    """Run the notebooks in order.

    What has not changed is not run again; after a failure, or when it was stopped, the same command goes on.
    """
    from hwdiff.suite.runner import Reproduction, chosen_parameters, find_notebooks, newest_run, selected
    from hwdiff.utils.files import lock_directory

    if only and start:
        raise HwdiffError("--only and --from: give one of them")
    notebooks = find_notebooks()
    parameters = chosen_parameters(notebooks, profile, dict(map(_parameter, param or [])))
    wanted = selected(notebooks, only, start)
    if profile == "paper":
        _require_paper(parameters)
    out = out or newest_run(profile)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stopped from outside it cleans up as for Ctrl-C
    with lock_directory(out):
        bad = Reproduction(out, profile, notebooks, parameters, minutes).run(wanted)
    print(f"the page of the run: {out / 'index.html'}")
    if bad:
        raise HwdiffError(f"{', '.join(bad)}: failed or skipped; the same command goes on from there")


def _parameter(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise HwdiffError(f"--param {text}: NAME=VALUE is needed")
    return name, value


def _require_paper(parameters):
    import torch

    from hwdiff.data.iam import Source
    from hwdiff.evaluation.frechet import load_inception

    source = parameters["01_preprocessing"]["source"]
    if source is None:
        raise HwdiffError("profile paper: it takes the IAM archives; give their folder with --param source=DIR (or IAM=DIR ./run_all.sh)")
    if Source(source).split_lists() is None:
        raise HwdiffError(f"profile paper: {source}: has no split lists (trainset.txt and three more), which say what the paper trained on; add them")
    if not torch.cuda.is_available():
        raise HwdiffError("profile paper: it takes a GPU, and PyTorch finds none; on a CPU take the profile smoke")
    weights = parameters["05_evaluation"]["inception_weights"]
    if weights:
        try:
            load_inception(None if weights == "download" else weights)
        except HwdiffError as error:
            raise HwdiffError(f"profile paper: {error} (--param inception_weights=FILE, or =null)") from error


@command
def publish(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run of hwdiff reproduce.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for page, manifest, figures, tables and notebooks.")],
):
    """Copy what of a run may be published.

    Figures, tables and notebooks that show people's ink or texts are left out.
    """
    from hwdiff.suite.page import publish as copy

    left_out = copy(run, out)
    print(f"wrote {out / 'index.html'}; left out, since they show people's ink: {', '.join(left_out) or 'nothing'}")
