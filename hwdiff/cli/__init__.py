"""The command line, `hwdiff --help`. What each command does is in the package; here are options, progress and messages."""

from hwdiff.cli import data, evaluation, reproduction, training, writing  # noqa: F401 (registers the commands)
from hwdiff.cli.options import app

__all__ = ["app"]
