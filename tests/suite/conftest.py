"""The suite in small, which several files test."""

import json
import shutil

import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from typer.testing import CliRunner

from hwdiff.cli import app
from hwdiff.data.dataset import Dataset
from hwdiff.data.style_features import StyleFeatures
from hwdiff.model.checkpoint import load_model, save_model
from hwdiff.model.style_encoder import load_style_extractor
from hwdiff.model.unet import UNet
from tests.conftest import TINY, compute_most

SMALL = [
    "writers=16",
    "steps=4",
    "sample_every=2",
    "pulled=2",
    "seeds=1",
    "repetitions=20",
    "measured_lines=1",
    "step_counts=[4, 2]",
    "lines=2",
    "scored=4",
    "drawn=2",
    "known=3",
    "points=96",
    "repeats=2",
    "quiz=4",
    "text=a fox",
    "letter=Dear é",
    "tries=1",
    "checked=3",
    "floor_draws=1",
    "diversity_texts=2",
    "diversity_repeats=2",
]

# Of a notebook's record, where it was run.
ENVIRONMENT = {
    "device": "cpu",
    "processor": "a processor",
    "cores": 2,
    "packages": {"torch": "2"},
    "code": {"commit": "0123456789abcdef", "changed": False},
}
HEAD = "from hwdiff.suite.outputs import Outputs\nfrom pathlib import Path\noutputs = Outputs(run, {name!r})"


def write_notebook(folder, name, *cells, needs=(), keeps=(), parameters="size = 1"):
    first = new_code_cell(f'run = "."\nseed = 0\n{parameters}')
    first.metadata["tags"] = ["parameters"]
    sources = [new_code_cell(source) for source in (HEAD.format(name=name), *cells)]
    metadata = {
        "hwdiff": {"needs": list(needs), "keeps": list(keeps)},
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    folder.mkdir(exist_ok=True)
    about = new_markdown_cell(f"# The {name[3:]} <one>\n\nWhat it reproduces.\n\nMore of it.")
    (folder / f"{name}.ipynb").write_text(
        json.dumps(new_notebook(cells=[about, first, *sources], metadata=metadata))
    )


def reproduce(out, parameters, *options):
    given = [argument for parameter in parameters for argument in ("--param", parameter)]
    return CliRunner().invoke(app, ["reproduce", "--out", str(out), *given, *options])


def prepare_lines(out):
    """Run 01, which no other parameter is for, and compute most style features of its lines."""
    result = reproduce(out, SMALL, "--only", "01")
    assert result.exit_code == 0, result.output
    lines = Dataset(out / "data" / "lines.npz")
    compute_most(StyleFeatures(lines, load_style_extractor("bundled", "cpu")))


def save_untrained(path):
    """Write a checkpoint of a small untrained network that passes for the small bundled one."""
    bundled = load_model("small")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(TINY)
    network.default_style = bundled.default_style
    about = {name: bundled.metadata[name] for name in ("step", "training", "dataset", "style_weights")}
    short = {**bundled.metadata["writing"], "points_per_character": 5.0}  # its scribbles need no more
    save_model(network, path, **about, writing=short)


@pytest.fixture(scope="session")
def small(untrained):
    """Parameters of the suite in small, with an untrained network that passes for the small bundled one."""
    return [f"checkpoint={untrained}", *SMALL]


@pytest.fixture(scope="session")
def run_suite(suite_data, small):
    """run_suite(out): runs all notebooks in small.

    What 01 writes is shared, and most style features: they are the same in any case.
    """

    def run_all(out):
        shutil.copytree(suite_data, out)
        result = reproduce(out, small)
        assert result.exit_code == 0, result.output
        assert "01_preprocessing: up to date" in result.output

    return run_all


@pytest.fixture(scope="session")
def run(run_suite, once):
    """The folder of a run of the suite."""
    return once("suite", run_suite)
