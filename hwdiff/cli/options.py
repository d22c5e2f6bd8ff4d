"""What the commands share: their options, and how they end."""

import sys
import warnings
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer

from hwdiff.utils.errors import HwdiffError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

StyleEncoder = Annotated[
    str, typer.Option(help="bundled, imagenet (torchvision's MobileNetV2, downloaded once), or a file of MobileNetV2 weights (.safetensors, .pth).")
]
Model = Annotated[
    str, typer.Option(help="pretrained (it comes with the package), a checkpoint (.safetensors), or weights of the authors' program (.h5).")
]
Minutes = Annotated[float | None, typer.Option(min=0, help="Stop after so long, everything saved; the same command with --resume goes on.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default CUDA where there is one.")]
UNFINISHED = 3  # exit code of what was stopped in good order before its end


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
    fast = "fast"


SamplerName = Annotated[Sampler, typer.Option(help="eq12: the paper's; eq9: its ablation; ddim, dpm: noiseless; fast: Eq. 12 in 40 steps.")]
Steps = Annotated[int | None, typer.Option(help="Network evaluations, twice as many with guidance; by default 60, fewer for fast.")]
Guidance = Annotated[
    float | None, typer.Option(help="1: the plain method; above: follow the text more closely, at twice the work. By default as the model says.")
]
RecognizerFile = Annotated[
    Path | None, typer.Option("--recognizer", help="A file that hwdiff train-recognizer wrote, instead of the bundled recognizer.")
]
Lines = Annotated[int | None, typer.Option(min=1, help="At most so many lines, evenly spread; by default all.")]


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
