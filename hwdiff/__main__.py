"""`python -m hwdiff`, the same as the command `hwdiff`."""

from hwdiff.cli import app

if __name__ == "__main__":
    app()
