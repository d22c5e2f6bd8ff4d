import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from hwdiff import HwdiffError, diffusion, load_model, training
from hwdiff.checkpoint import read_info
from hwdiff.model.writer import DiffusionWriter
from tests.conftest import TINY, fill

CONFIG = training.TrainingConfig(steps=6, batch_size=4, learning_rate=1e-3, padding="bucket", save_every=4, model=TINY)


@pytest.fixture(scope="module")
def run(dataset, features, tmp_path_factory):
    """A short run: its folder, the network, and what the callback saw."""
    out, seen = tmp_path_factory.mktemp("run") / "new", []
    network = training.train(CONFIG, dataset, features, out, "cpu", callback=lambda step, metrics: seen.append((step, metrics["loss"])))
    return out, network, seen


def test_a_run_leaves_configuration_metrics_and_weights(run, dataset, features):
    out, network, seen = run
    config = json.loads((out / "config.json").read_text())
    assert config["steps"] == 6
    assert config["dataset"] == dataset.content
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == seen
    assert all(line["loss"] == pytest.approx(line["stroke"] + line["pen"]) for line in lines)
    info = read_info(out / "model.safetensors")
    assert (info["step"], info["training"]["batch_size"], info["style_weights"]) == (6, 4, features.extractor.identity)
    opened = load_model(out / "model.safetensors", device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(opened.state_dict().values(), network.state_dict().values(), strict=True))
    assert opened.default_style.shape == (14, 1280)


def test_the_same_seed_trains_the_same_bits(run, dataset, features, tmp_path):
    _, network, _ = run
    again = training.train(CONFIG, dataset, features, tmp_path / "again", "cpu")
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), network.state_dict().values(), strict=True))
    other = training.train(replace(CONFIG, seed=1, steps=1), dataset, features, tmp_path / "other", "cpu")
    assert not torch.equal(other.input.weight, again.input.weight)


def test_training_learns(dataset, features, tmp_path):
    losses = []
    config = replace(CONFIG, steps=60, batch_size=8)
    training.train(config, dataset, features, tmp_path / "run", "cpu", callback=lambda step, metrics: losses.append(metrics["loss"]))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_a_folder_that_holds_a_run_is_refused(run, dataset, features):
    out, _, _ = run
    before = (out / "metrics.jsonl").read_bytes()
    with pytest.raises(HwdiffError, match="holds a training run already"):
        training.train(CONFIG, dataset, features, out, "cpu")
    assert (out / "metrics.jsonl").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(dataset, features, tmp_path):
    config = replace(CONFIG, save_every=1, learning_rate=0.99, steps=400)
    with pytest.raises(HwdiffError, match=r"the loss is .* and the gradient (nan|inf) at step \d+; the last saved state is kept"):
        training.train(config, dataset, features, tmp_path / "run", "cpu")
    assert load_model(tmp_path / "run" / "model.safetensors", device="cpu").info["step"] >= 1


def gradients_of(network, dataset, features, config=CONFIG):
    batch = next(training.training_batches(dataset, features, config))
    network.zero_grad()
    generator = torch.Generator().manual_seed(0)
    terms = training.accumulate_gradients(network, batch, config, diffusion.alpha_bars(), generator)
    return [term.item() for term in terms], [weight.grad.clone() for weight in network.parameters()]


@pytest.mark.parametrize("pen_weight", ["paper", "released"])
def test_pieces_of_a_batch_add_up(dataset, features, monkeypatch, pen_weight):
    network = fill(DiffusionWriter(TINY))  # in eval mode: dropout draws would differ
    config = replace(CONFIG, pen_weight=pen_weight)
    whole_terms, whole = gradients_of(network, dataset, features, config)
    monkeypatch.setattr(training, "CPU_LINES", 3)
    terms, pieces = gradients_of(network, dataset, features, config)
    assert terms == pytest.approx(whole_terms, rel=1e-5)
    for a, b in zip(whole, pieces, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * whole_terms[0], rtol=1e-4)


def test_bf16_is_close_to_fp32(dataset, features):
    network = fill(DiffusionWriter(TINY))
    fp32, _ = gradients_of(network, dataset, features)
    bf16, _ = gradients_of(network, dataset, features, replace(CONFIG, precision="bf16"))
    assert bf16 != fp32
    assert bf16 == pytest.approx(fp32, rel=0.05)


def test_clipping_all_keeps_the_direction_and_clipping_each_does_not():
    def network():
        pair = torch.nn.ModuleDict({"dense": torch.nn.Linear(1, 2, bias=False), "scale_shift": torch.nn.Linear(1, 4, bias=False)})
        pair["dense"].weight.grad = torch.tensor([[300.0], [400.0]])
        pair["scale_shift"].weight.grad = torch.tensor([[0.0], [50.0], [600.0], [0.0]])
        return pair

    together = network()
    norm = training.clip_gradients(together, "all")
    assert norm.item() == pytest.approx((500**2 + 50**2 + 600**2) ** 0.5)
    clipped = torch.cat([weight.grad for weight in together.parameters()])
    assert clipped.norm().item() == pytest.approx(100, rel=1e-4)
    each = network()
    training.clip_gradients(each, "each")
    assert each["dense"].weight.grad.flatten().tolist() == pytest.approx([60, 80], rel=1e-4)
    assert each["scale_shift"].weight.grad.flatten().tolist() == pytest.approx([0, 50, 100, 0], rel=1e-4)  # two weights of the authors


def test_batches_come_from_the_training_part_alone(dataset, features, monkeypatch):
    drawn = []
    monkeypatch.setattr(training, "make_batch", lambda dataset, features, lines, styles, length: drawn.append((lines, length)))
    for padding, length in (("bucket", None), ("full", 488)):
        drawn.clear()
        list(islice(training.training_batches(dataset, features, replace(CONFIG, padding=padding)), 12))
        assert set(np.concatenate([lines for lines, _ in drawn])) == set(dataset.part("train"))
        assert {used for _, used in drawn} == {length}


def test_a_start_that_fails_leaves_the_folder_free(dataset, features, tmp_path):
    with pytest.raises(HwdiffError, match="only 16 lines"):
        training.train(replace(CONFIG, batch_size=17), dataset, features, tmp_path / "run", "cpu")
    assert not (tmp_path / "run").exists()


def test_presets_and_their_settings():
    paper = training.preset("paper")
    assert (paper.steps, paper.batch_size, paper.learning_rate, paper.model.c1) == (60_000, 96, None, 128)
    assert training.preset("paper", steps=10, seed=None).steps == 10
    with pytest.raises(HwdiffError, match="no such preset as 'huge'"):
        training.preset("huge")
    with pytest.raises(HwdiffError, match="no such setting as colour"):
        training.preset("smoke", colour="red")
    for wrong in ({"precision": "fp8"}, {"steps": 0}, {"learning_rate": -1.0}, {"seed": -1}, {"clipping": "none"}):
        with pytest.raises(HwdiffError, match=next(iter(wrong))):
            training.preset("smoke", **wrong)
