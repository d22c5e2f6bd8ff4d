"""The command line, `hwdiff --help`.

Here are options, progress and messages; the work is done in the other packages.
"""

# Importing these registers their commands.
from hwdiff.cli import data, evaluation, reproduction, training, writing  # noqa: F401
from hwdiff.cli.options import app

__all__ = ["app"]
