"""`python -m hwdiff`, as torchrun calls it."""

from hwdiff.cli import app

app()
