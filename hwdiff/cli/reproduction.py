"""Commands that run the notebooks and publish their results."""

import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from hwdiff.cli.options import command
from hwdiff.utils.errors import HwdiffError


@command
def reproduce(
    profile: Annotated[
        str,
        typer.Option(
            help="smoke: minutes on a CPU; paper: trains a network of the paper's size, requires IAM and a "
            "GPU; paper-on-cpu: measures the bundled network (pretrained) with as many lines as the paper, "
            "requires IAM and many hours."
        ),
    ] = "smoke",
    only: Annotated[str | None, typer.Option(help="Run one notebook, such as 03, and what it needs.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Run this notebook, such as 04, and all after it.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE, a parameter of every notebook that has it; may be given several times."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder of the run; by default the profile's newest in results/runs, or a new one."
        ),
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Time limit for each notebook.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, why, and how long it took last time.")
    ] = False,
):
    """Run the notebooks in order.

    What has not changed is not run again. After a failure or an interruption the same command resumes.
    """
    if profile == "smoke":
        # The same bits with any number of cores, and hardly slower beside other programs. PyTorch reads this
        # when it is loaded, here and in the kernels.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    from hwdiff.utils.files import lock_directory

    with _notebook_packages():
        from hwdiff.suite.runner import Reproduction, chosen_parameters, find_notebooks, newest_run, selected

    if only and start:
        raise HwdiffError("--only and --from: give only one of them")
    notebooks = find_notebooks()
    parameters = chosen_parameters(notebooks, profile, dict(map(_parameter, param or [])))
    wanted = selected(notebooks, only, start)
    out = out or newest_run(profile)
    run = Reproduction(out, profile, notebooks, parameters, minutes)
    if dry_run:
        print(f"{out}:")
        for one in run.plan(wanted):
            took = f", took {one['took']}" if one["took"] else ""
            print(f"  {one['name']}: {'runs: ' + one['why'] if one['why'] else 'up to date'}{took}")
        return
    if profile != "smoke":
        _require_iam(profile, parameters)
    if profile == "paper-on-cpu":
        _tell_hours(run, wanted)
    # SIGTERM cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with lock_directory(out):
        bad = run.run(wanted)
    print(f"results: {out / 'index.html'}")
    if bad:
        raise HwdiffError(f"{', '.join(bad)}: failed or skipped; run the same command to resume")


@contextmanager
def _notebook_packages():
    """Say how the packages of the notebooks are installed, where they are missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        advice = "install those of the notebooks: pip install -e '.[notebooks]'"
        raise HwdiffError(f"the package {error.name} is not installed; {advice}") from error


def _parameter(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise HwdiffError(f"--param {text}: must be NAME=VALUE")
    return name, value


def _require_iam(profile, parameters):
    import torch

    from hwdiff.data.iam import Source
    from hwdiff.evaluation.inception import load_inception

    source = parameters["01_preprocessing"]["source"]
    if source is None:
        raise HwdiffError(
            f"profile {profile}: requires the IAM archives; give their folder with --param source=DIR "
            "(or IAM=DIR ./run_all.sh)"
        )
    if Source(source).split_lists() is None:
        raise HwdiffError(
            f"profile {profile}: {source}: has no split lists (trainset.txt and three more), which say what "
            "the paper trained on; add them"
        )
    if profile == "paper" and not torch.cuda.is_available():
        raise HwdiffError(
            "profile paper: requires a GPU, and PyTorch finds none; on a CPU use the profile smoke, or "
            "paper-on-cpu"
        )
    weights = parameters["05_evaluation"]["inception_weights"]
    if weights:
        try:
            load_inception(None if weights == "download" else weights)
        except HwdiffError as error:
            advice = "--param inception_weights=FILE, or =null"
            raise HwdiffError(f"profile {profile}: {error} ({advice})") from error


def _tell_hours(run, wanted):
    """Say how long most of the writing will take: that for the tables of the notebook on evaluation."""
    import torch

    from hwdiff.evaluation.bench import STUDENTS, table1_evaluations
    from hwdiff.evaluation.speed import seconds_of_writing
    from hwdiff.model.checkpoint import load_model

    name = "05_evaluation"
    chosen = run.parameters[name]
    will_run = any(one["name"] == name and one["why"] for one in run.plan(wanted))
    if not will_run or chosen["checkpoint"] == "trained":  # which is not there yet
        return
    network, student = load_model(chosen["checkpoint"], "cpu"), None
    if chosen["checkpoint"] in STUDENTS:
        student = load_model(STUDENTS[chosen["checkpoint"]], "cpu")
    tables = [
        (chosen["lines"] * chosen["seeds"], chosen["table_rows"]),
        (chosen["unseen_lines"] * (chosen["unseen_seeds"] or chosen["seeds"]), None),
    ]
    evaluations = sum(lines * table1_evaluations(network, names, student=student) for lines, names in tables)
    cores = torch.get_num_threads()
    hours = seconds_of_writing(network, evaluations) / cores / 3600
    print(
        f"{name} evaluates its networks {evaluations:,} times for the lines of its tables: about {hours:.1f} "
        f"hours on {cores} cores, if nothing else runs. Lines that are there already are not written again. "
        "Ctrl-C stops, the same command resumes."
    )


@command
def publish(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run of hwdiff reproduce.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="The folder for the page, manifest, figures, tables and notebooks."),
    ],
):
    """Copy the results of a run that may be published.

    Figures, tables and notebooks that show people's ink or texts are left out.
    """
    with _notebook_packages():
        from hwdiff.suite.page import publish as copy

    left_out = copy(run, out)
    named = ", ".join(left_out) or "nothing"
    print(f"wrote {out / 'index.html'}; left out, because they show people's ink: {named}")


@command
def verdicts():
    """Print what the measurements in results/ say of the paper's claims, as a table in Markdown."""
    from hwdiff.suite.verdicts import MEASUREMENTS, as_markdown
    from hwdiff.suite.verdicts import verdicts as found_in

    rows = found_in(MEASUREMENTS)
    if not rows:
        raise HwdiffError(f"{MEASUREMENTS}: no measurements; run this in a clone of the project")
    print(as_markdown(rows), end="")
