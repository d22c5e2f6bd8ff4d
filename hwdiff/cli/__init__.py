"""The command line, `hwdiff --help`.

Here are options, progress and messages; the work is done in the other packages.
"""

import os

# Importing these registers their commands.
from hwdiff.cli import data, evaluation, reproduction, training, writing  # noqa: F401
from hwdiff.cli.options import app
from hwdiff.utils.memory import keep_freed_memory

__all__ = ["app"]

# Threads that wait for one another sleep soon: GNU's OpenMP reads this when torch is loaded. By default they
# keep their cores busy: beside one other busy program on two cores, writing took eleven times
# as long as alone.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
keep_freed_memory()
