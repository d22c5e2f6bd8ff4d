import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hwdiff.evaluation import recognizer, recognizer_training
from hwdiff.evaluation.recognizer import encode, load_recognizer
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.interrupt import Stop

CONFIG = replace(recognizer_training.preset("smoke"), steps=6, batch_size=4, save_every=3, validate_every=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("recognizer") / "run"
    assert recognizer_training.train_recognizer(CONFIG, dataset, out, CPU) == 6
    return out


def test_a_run_leaves_a_recognizer_and_its_log(run, dataset):
    recognizer = load_recognizer(run / "recognizer.safetensors", "cpu")
    assert recognizer.metadata["step"] == 6
    assert recognizer.metadata["dataset"] == dataset.fingerprint
    assert recognizer.metadata["test"]["lines"] == len(dataset.split("test"))
    assert recognizer.metadata["test"]["cer"]["value"] > 0
    rows = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    assert rows[0]["lines"] == len(dataset.split("validation"))


@pytest.mark.parametrize("at", [2, 3])
def test_a_stopped_training_resumes_bit_for_bit(run, dataset, tmp_path, at):
    stop = Stop()

    def interrupt(step, note):
        if step == at - 1:
            stop.signal = "SIGTERM"

    out = tmp_path / "run"
    seen = SimpleNamespace(reach=interrupt)
    reached = recognizer_training.train_recognizer(CONFIG, dataset, out, CPU, stop=stop, progress=seen)
    assert reached == at
    with pytest.raises(HwdiffError, match="holds a training run already; resume it with --resume"):
        recognizer_training.train_recognizer(CONFIG, dataset, out, CPU)
    other = replace(CONFIG, learning_rate=3e-3)
    with pytest.raises(HwdiffError, match=r"it has learning_rate = 0.002, not 0.003"):
        recognizer_training.train_recognizer(other, dataset, out, CPU, resume=True)
    assert recognizer_training.train_recognizer(CONFIG, dataset, out, CPU, resume=True) == 6
    for name in ("recognizer.safetensors", "state.safetensors"):
        assert (out / name).read_bytes() == (run / name).read_bytes()


def test_what_is_no_configuration_is_refused():
    message = "no such preset as 'huge'; choose one of smoke, full"
    with pytest.raises(HwdiffError, match=message):
        recognizer_training.preset("huge")
    for change in ({"steps": 0}, {"learning_rate": 1.0}, {"batch_size": 0}, {"seed": -1}, {"warmup": 0}):
        with pytest.raises(HwdiffError, match=next(iter(change))):
            recognizer_training.preset("full", **change)


def test_too_few_lines_are_refused_before_anything_is_written(dataset, tmp_path):
    with pytest.raises(HwdiffError, match="batch size 100: the dataset's split has only 16 lines"):
        recognizer_training.train_recognizer(replace(CONFIG, batch_size=100), dataset, tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()


def test_a_recognizer_can_learn(dataset):
    """It learns a few lines by heart: its loss falls far below that of guessing characters by frequency."""
    torch.manual_seed(0)
    network = recognizer.Recognizer(CONFIG.network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    seen, targets, target_lengths, lengths = recognizer_training.batch_of(dataset, np.arange(4))
    losses = []
    for _ in range(150):
        found = network(seen).transpose(0, 1)
        loss = torch.nn.functional.ctc_loss(found, targets, lengths, target_lengths, reduction="sum")
        loss = loss / len(targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 < 2 < losses[0]


def test_batches_hold_ink_and_text(dataset):
    seen, targets, target_lengths, lengths = recognizer_training.batch_of(dataset, np.array([0, 3]))
    assert seen.shape[0] == 2
    assert seen.shape[1] % 32 == 0
    assert target_lengths.tolist() == [len(encode(dataset.texts[index])) for index in (0, 3)]
    assert targets.tolist() == [*encode(dataset.texts[0]), *encode(dataset.texts[3])]
    assert lengths.tolist() == [-(-dataset.lengths[index] // 2) for index in (0, 3)]


def test_variations_keep_the_line(dataset):
    offsets, pen_up = dataset.strokes(0)
    widths, counts = [], []
    for seed in range(100):
        varied, varied_pen_up = recognizer_training.vary(offsets, pen_up, np.random.default_rng(seed))
        assert varied.shape == (len(varied_pen_up), 2)
        assert np.isfinite(varied).all()
        assert varied_pen_up.sum() == pen_up.sum()  # no stroke is lost or broken
        widths.append(varied[:, 0].sum() / offsets[:, 0].sum())
        counts.append(len(varied) / len(offsets))
    assert 0.8 < np.median(widths) < 1.25
    assert min(widths) < 0.8 < 1.2 < max(widths)
    assert min(counts) < 0.95 < 1.05 < max(counts)


def test_variations_come_from_the_generator_alone(dataset):
    line = dataset.strokes(1)
    one, two, other = (recognizer_training.vary(*line, np.random.default_rng(seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert one.shape != other.shape or not np.allclose(one, other)


def test_the_recognizer_is_trained_and_its_ema_is_kept(run):
    state, kept = load_file(run / "state.safetensors"), load_file(run / "recognizer.safetensors")
    name = "classes.weight"
    assert torch.equal(kept[name], state[f"ema.module.{name}"].half())
    with torch.random.fork_rng():
        torch.manual_seed(CONFIG.seed)
        fresh = recognizer.Recognizer(CONFIG.network)
    assert (state[f"recognizer.{name}"] - fresh.state_dict()[name]).abs().max() > 1e-5


def test_every_line_of_a_batch_is_varied(dataset, tmp_path, monkeypatch):
    calls, vary = [], recognizer_training.vary
    monkeypatch.setattr(recognizer_training, "vary", lambda *given: calls.append(1) or vary(*given))
    recognizer_training.train_recognizer(
        replace(CONFIG, steps=1, save_every=1, validate_every=1), dataset, tmp_path / "run", CPU
    )
    assert len(calls) == CONFIG.batch_size
