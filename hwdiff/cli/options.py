"""What the commands share: options, errors and exit codes."""

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import fields
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer

from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.files import is_special

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)

StyleEncoder = Annotated[
    str,
    typer.Option(
        help="bundled; imagenet (torchvision's MobileNetV2, downloaded once); or a file of MobileNetV2 "
        "weights (.safetensors, .pth)."
    ),
]
Model = Annotated[
    str,
    typer.Option(
        help="pretrained (of the paper's size, unfinished), fast (its student: 12 network evaluations "
        "instead of 120), small (a quarter of the size), a checkpoint (.safetensors), or weights of the "
        "authors' program (.h5)."
    ),
]
Minutes = Annotated[float | None, typer.Option(min=0, help="Save and stop after this many minutes.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Resume the run in the folder, or begin it if there is none.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; by default CUDA if available.")]
UNFINISHED = 3  # exit code of a run that was saved and stopped before its end


class SplitScheme(StrEnum):
    authors = "authors"
    official = "official"


class Split(StrEnum):
    train = "train"
    validation = "validation"
    test = "test"


class Variant(StrEnum):
    paper = "paper"
    released = "released"


class Sampler(StrEnum):
    eq12 = "eq12"
    eq12_released = "eq12-released"
    eq9 = "eq9"
    ddim = "ddim"
    dpm = "dpm"


SAMPLER_HELP = (
    "eq12: the paper's; eq12-released: as in the authors' program; eq9: the paper's ablation; ddim, dpm: "
    "without added noise."
)
SamplerName = Annotated[Sampler, typer.Option(help=SAMPLER_HELP)]
Steps = Annotated[
    int | None,
    typer.Option(help="Sampling steps; by default 60; of fast, and others from distil-steps, their own."),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        help="1: the paper's method; above 1: follow the text more closely, with twice the network "
        "evaluations. By default the model's own."
    ),
]
RecognizerFile = Annotated[
    Path | None,
    typer.Option(
        "--recognizer", help="A file from hwdiff train-recognizer, instead of the bundled recognizer."
    ),
]
Lines = Annotated[int | None, typer.Option(min=1, help="At most this many lines, evenly spread.")]


def require_output(
    path: Path | None, suffix: str | None = None, *, inputs: Iterable[str | Path] = ()
) -> None:
    """Raises HwdiffError when a result cannot be written to `path`: before it is computed, not after.

    suffix: which the file must have; None for any.
    inputs: what is read, if they are files, and must not be replaced.
    """
    if path is None:
        return
    if suffix and path.suffix.lower() != suffix:
        raise HwdiffError(f"--out {path}: must be a *{suffix} file")
    target = Path(os.path.realpath(path))
    if os.path.isdir(target) or is_special(target):
        raise HwdiffError(f"--out {path}: cannot be written; choose another path")
    for given in inputs:
        if os.path.exists(given) and os.path.exists(target) and os.path.samefile(given, target):
            raise HwdiffError(f"--out {path}: is read, and would be replaced; choose another path")
    require_output_folder(target.parent, path)


def require_figure(path: Path | None, *, inputs: Iterable[str | Path] = ()) -> None:
    """As `require_output`, of a figure: a .png or .svg file."""
    if path is not None:
        from hwdiff.ink.plot import require_figure_name

        require_figure_name(path)
    require_output(path, inputs=inputs)


def require_picture(style: str | dict[str, float] | None, given: dict[str, bool]) -> None:
    """Raises HwdiffError when options of a picture of handwriting are given, and none of the styles is one.

    given: {option: whether it was given}.
    """
    from hwdiff.diffusion.generate import is_style_name

    styles = style if isinstance(style, dict) else [style]
    has_none = all(one is None or is_style_name(one) for one in styles)
    for option, is_given in given.items():
        if is_given and has_none:
            raise HwdiffError(f"{option}: only a picture of handwriting has it; give one with --style")


def require_output_folder(folder: Path, path: Path | None = None) -> None:
    """Raises HwdiffError when no files can be written into a folder, which need not be there yet.

    path: what the error names, by default the folder.
    """
    target = Path(os.path.realpath(folder))
    there = next(there for there in (target, *target.parents) if os.path.exists(there))
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        raise HwdiffError(f"--out {path or folder}: cannot be written; choose another path")


def command(function: Callable) -> Callable:
    """Register a command.

    An error that a user can put right ends it with one line and exit code 1. A warning is one line too.
    """

    @app.command()
    @wraps(function)
    def run(*args, **kwargs):
        if hasattr(sys.stdout, "reconfigure"):  # a file may have a name that a terminal cannot show
            sys.stdout.reconfigure(errors="backslashreplace")
        with warnings.catch_warnings():  # restores how warnings are shown
            warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
            try:
                function(*args, **kwargs)
            except HwdiffError as error:
                print(f"error: {error}", file=sys.stderr)
                raise typer.Exit(1) from None
            except RuntimeError as error:
                if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, which may not be loaded
                    raise
                found = str(error).split(". ")[0]
                print(
                    f"error: {found}; give fewer lines or a smaller batch, or --device cpu", file=sys.stderr
                )
                raise typer.Exit(1) from None
            except KeyboardInterrupt:
                print("stopped", file=sys.stderr)
                raise typer.Exit(130) from None

    return run


def setting_options(*configs: type) -> Callable[[Callable], Callable]:
    """Give a command an option for each `setting` of some dataclasses.

    The command takes `**settings`: {field: value}, None where the option was not given.
    """
    added = []
    for item in (item for config in configs for item in fields(config) if "help" in item.metadata):
        text = item.metadata["help"]
        if "choices" in item.metadata and not all(choice in text for choice in item.metadata["choices"]):
            text = f"{text} One of {', '.join(item.metadata['choices'])}."
        option = Annotated[item.type | None, typer.Option(help=text)]
        added.append(
            inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        )

    def decorate(function):
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
        function.__signature__ = signature.replace(parameters=[*own, *added])
        return function

    return decorate


@app.callback()
def main():
    """Generate handwriting by diffusion (Luhman & Luhman 2020): prepare data, train, write, evaluate."""
