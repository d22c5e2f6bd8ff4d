from dataclasses import replace

import pytest

from hwdiff import HwdiffError
from hwdiff.model.checkpoint import load_model
from hwdiff.training import config as presets
from hwdiff.training import distillation
from hwdiff.training.pipeline import run_chain
from hwdiff.utils.interrupt import Stop
from tests.conftest import TINY

CONFIG = presets.TrainingConfig(
    steps=6, batch_size=4, learning_rate=1e-3, padding="bucket", sample_every=0, model=TINY
)


class StopAfter(Stop):
    """Says stop at the n-th time it is asked."""

    def __init__(self, asked):
        super().__init__()
        self.left = asked

    @property
    def reason(self):
        self.left -= 1
        return "time is up" if self.left < 0 else None


def test_the_chain_resumes_from_every_step(dataset, style_weights, tmp_path, few_steps):
    arguments = (dataset.path, tmp_path, CONFIG, "smoke", style_weights, 4, "cpu")
    steps, asked = [], 0
    while True:
        step = run_chain(*arguments, StopAfter(asked))
        if step is None:
            break
        steps.append(step)
        asked = min(asked + 2, 8)
        assert len(steps) < 20
    assert list(dict.fromkeys(steps)) == ["line images", "encoder", "style features", "training"]
    network = load_model(tmp_path / "training" / "model.safetensors", "cpu")
    assert network.metadata["step"] == 6
    assert network.metadata["style_weights"]["name"] == "hwdiff, distilled"
    assert (tmp_path / "figures" / "samples.png").exists()
    figure = (tmp_path / "figures" / "loss.png").read_bytes()
    # All is done: nothing is trained again.
    assert run_chain(*arguments, Stop()) is None
    assert (tmp_path / "figures" / "loss.png").read_bytes() == figure
    # What the run there does not allow is said before anything is done.
    for config, teacher, found in (
        (replace(CONFIG, batch_size=3), style_weights, "it has batch_size = 4, not 3"),
        (CONFIG, None, "it has style_weights = "),
    ):
        with pytest.raises(HwdiffError, match=found):
            run_chain(dataset.path, tmp_path, config, "smoke", teacher, 4, "cpu", StopAfter(0))
    (tmp_path / "encoder" / "style.safetensors").unlink()
    with pytest.raises(HwdiffError, match="holds a training that was given no teacher; leave"):
        run_chain(*arguments, StopAfter(0))


def test_what_the_training_refuses_is_refused_at_once(dataset, style_weights, tmp_path):
    few = replace(CONFIG, batch_size=1 + len(dataset.split("train")))
    with pytest.raises(HwdiffError, match="choose a smaller batch"):
        run_chain(dataset.path, tmp_path / "out", few, "smoke", style_weights, 4, "cpu", Stop())
    going_on = replace(CONFIG, init="small")
    with pytest.raises(HwdiffError, match="starts from small, which has a style encoder of its own"):
        run_chain(dataset.path, tmp_path / "out", going_on, "tune", style_weights, 4, "cpu", Stop())
    assert not (tmp_path / "out").exists()


def test_a_budget_of_nothing_stops_at_once(dataset, style_weights, tmp_path):
    arguments = (dataset.path, tmp_path, CONFIG, "smoke", style_weights, 4, "cpu")
    assert run_chain(*arguments, Stop(minutes=0)) == "line images"
    assert not (tmp_path / "training").exists()


def test_the_style_encoder_is_distilled_on_training_lines(dataset, style_weights, tmp_path, monkeypatch):
    seen = []

    def spied(config, sources, *given, **options):
        seen.extend(sources)
        raise HwdiffError("seen")

    monkeypatch.setattr(distillation, "distil", spied)
    with pytest.raises(HwdiffError, match="seen"):
        run_chain(dataset.path, tmp_path, CONFIG, "smoke", style_weights, 4, "cpu", Stop())
    assert seen[0][1].tolist() == dataset.split("train").tolist()
