"""The suite in small, which several files test."""

import shutil

import pytest
import torch
from typer.testing import CliRunner

from hwdiff.cli import app
from hwdiff.model.checkpoint import load_model, save_model
from hwdiff.model.unet import UNet
from tests.conftest import TINY

SMALL = [
    "writers=16",
    "steps=4",
    "sample_every=2",
    "seeds=1",
    "repetitions=20",
    "texts=1",
    "step_counts=[4, 2]",
    "lines=3",
    "scored=4",
    "drawn=2",
    "known=3",
    "points=96",
    "repeats=2",
    "quiz=4",
    "text=a fox",
    "letter=Dear é",
    "tries=1",
    "checked=6",
    "diversity_texts=2",
    "diversity_repeats=2",
]


def reproduce(out, parameters, *options):
    given = [argument for parameter in parameters for argument in ("--param", parameter)]
    return CliRunner().invoke(app, ["reproduce", "--out", str(out), *given, *options])


@pytest.fixture(scope="session")
def small(once):
    """Parameters of the suite in small, with an untrained network that passes for the bundled one."""

    def make(path):
        bundled = load_model("pretrained")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = UNet(TINY)
        network.default_style = bundled.default_style
        about = ("step", "training", "dataset", "style_weights", "writing")
        save_model(network, path, **{name: bundled.metadata[name] for name in about})

    return [f"checkpoint={once('untrained.safetensors', make)}", *SMALL]


@pytest.fixture(scope="session")
def run_suite(once, small):
    """run_suite(out): runs all notebooks in small. What 01 writes is the same in any case, and shared."""

    def prepared(out):
        result = reproduce(out, small, "--only", "01")
        assert result.exit_code == 0, result.output

    def run_all(out):
        shutil.copytree(once("suite-data", prepared), out)
        result = reproduce(out, small)
        assert result.exit_code == 0, result.output
        assert "01_preprocessing: up to date" in result.output

    return run_all


@pytest.fixture(scope="session")
def run(run_suite, once):
    """The folder of a run of the suite."""
    return once("suite", run_suite)
