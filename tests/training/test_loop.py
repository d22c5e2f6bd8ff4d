import json
import shutil
from argparse import Namespace
from copy import copy
from dataclasses import asdict, replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hwdiff import HwdiffError, load_model
from hwdiff.data import tokenizer
from hwdiff.data.batches import Lines, bucket_length, training_order
from hwdiff.data.dataset import style_lines
from hwdiff.data.excerpts import Excerpts
from hwdiff.diffusion import process
from hwdiff.model.checkpoint import read_metadata, save_model
from hwdiff.model.unet import UNet
from hwdiff.training import config as presets
from hwdiff.training import distributed, loop, objective, optimizers, run_dir, steps, validation
from hwdiff.utils.files import lock_directory
from hwdiff.utils.interrupt import Stop
from hwdiff.utils.tensors import load_metadata
from tests.conftest import TINY, fill

CONFIG = presets.TrainingConfig(
    steps=6,
    batch_size=4,
    learning_rate=1e-3,
    padding="bucket",
    ema=0.9,
    save_every=4,
    validate_every=2,
    sample_every=0,
    model=TINY,
)


def same_weights(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


class Seen:
    """Progress that keeps what it is told: steps and losses."""

    def __init__(self, then=lambda step: None):
        self.steps, self.then = [], then

    def reach(self, step, note):
        self.steps.append((step, note))
        self.then(step)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def run(dataset, features, tmp_path_factory):
    """A short run: its directory, the network, and what its progress was told."""
    out, seen = tmp_path_factory.mktemp("run") / "new", Seen()
    network, reached = loop.train(CONFIG, dataset, features, out, "cpu", progress=seen)
    assert reached == 6
    return out, network, seen.steps


def test_a_run_leaves_configuration_metrics_and_weights(run, dataset, features):
    out, network, seen = run
    assert presets.config_of(run_dir.read_config(out), out) == CONFIG
    assert run_dir.read_config(out)["dataset"] == dataset.fingerprint
    lines = rows(out / "metrics.jsonl")
    assert [(line["step"], f"loss {line['loss']:.3f}") for line in lines] == seen
    assert all(line["loss"] == pytest.approx(line["stroke"] + line["pen"]) for line in lines)
    assert [row["step"] for row in rows(out / "validation.jsonl")] == [2, 4, 6]
    metadata = read_metadata(out / "model.safetensors")
    assert (metadata["step"], metadata["training"]["batch_size"]) == (6, 4)
    assert metadata["style_weights"] == features.extractor.identity
    opened = load_model(out / "model.safetensors", device="cpu")
    assert same_weights(opened, network)
    assert opened.default_style.shape == (14, 1280)


def test_the_same_seed_trains_the_same_bits(run, dataset, features, tmp_path):
    _, network, _ = run
    again, _ = loop.train(CONFIG, dataset, features, tmp_path / "again", "cpu")
    assert same_weights(again, network)
    other, _ = loop.train(replace(CONFIG, seed=1, steps=1), dataset, features, tmp_path / "other", "cpu")
    assert not torch.equal(other.input.weight, again.input.weight)


def test_training_learns(dataset, features, tmp_path):
    config = replace(CONFIG, steps=60, batch_size=8, validate_every=20)
    loop.train(config, dataset, features, tmp_path / "run", "cpu")
    losses = [row["loss"] for row in rows(tmp_path / "run" / "metrics.jsonl")]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    losses = [row["loss"] for row in rows(tmp_path / "run" / "validation.jsonl")]
    assert losses[-1] < 0.8 * losses[0]


def test_the_trained_network_knows_what_its_checkpoint_does(run):
    out, network, _ = run
    saved = load_model(out / "model.safetensors").metadata
    assert network.metadata == {key: saved[key] for key in network.metadata}
    assert {"step", "training", "style_weights", "dataset"} <= network.metadata.keys()


@pytest.mark.parametrize("at", [1, 4, 5])
def test_a_stopped_run_resumes_bit_for_bit(run, dataset, features, tmp_path, at):
    whole, network, _ = run
    out, stop = tmp_path / "run", Stop()

    def interrupt(step):
        if step == at - 1:
            stop.signal = "SIGINT"

    interrupt(0)
    _, reached = loop.train(CONFIG, dataset, features, out, "cpu", stop=stop, progress=Seen(interrupt))
    assert reached == at
    resumed, reached = loop.train(CONFIG, dataset, features, out, "cpu", resume=True)
    assert reached == 6
    assert same_weights(resumed, network)
    assert run_dir.read_config(out) == run_dir.read_config(whole)
    for name in ("state.safetensors", "model.safetensors"):
        ours, theirs = load_file(out / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    ours, theirs = ([row["loss"] for row in rows(some / "metrics.jsonl")] for some in (out, whole))
    assert ours == theirs
    assert (out / "validation.jsonl").read_text() == (whole / "validation.jsonl").read_text()


def test_resuming_what_is_finished_changes_nothing(run, dataset, features, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run[0], out)
    again, reached = loop.train(CONFIG, dataset, features, out, "cpu", resume=True)
    assert reached == 6
    assert same_weights(again, run[1])
    longer, reached = loop.train(replace(CONFIG, steps=7), dataset, features, out, "cpu", resume=True)
    assert reached == 7
    assert not same_weights(longer, run[1])


def test_a_run_of_time_stops_in_good_order(dataset, features, tmp_path):
    with Stop(minutes=0) as stop:
        _, reached = loop.train(CONFIG, dataset, features, tmp_path / "run", "cpu", stop=stop)
    assert (reached, stop.reason) == (1, "time is up")
    assert load_metadata(tmp_path / "run" / "state.safetensors", what="", advice="")["step"] == 1


def test_what_cannot_be_resumed_is_refused_in_one_line(run, dataset, features, tmp_path):
    out, _, _ = run
    before = (out / "metrics.jsonl").read_bytes()

    def refused(message, config=CONFIG, out=out, data=dataset, resume=True):
        with pytest.raises(HwdiffError, match=message) as error:
            loop.train(config, data, features, out, "cpu", resume=resume)
        assert "\n" not in str(error.value)

    refused("holds a training run already; resume it with --resume", resume=False)
    refused("other settings: it has batch_size = 4, not 5", replace(CONFIG, batch_size=5))
    refused(r"it has steps = 6, not 5", replace(CONFIG, steps=5))
    refused(r"model = .*num_layers", replace(CONFIG, model=replace(TINY, num_layers=2)))
    other = copy(dataset)
    other.manifest = {**dataset.manifest, "fingerprint": "0" * 64}
    refused(f"trained on another dataset \\({dataset.fingerprint[:8]}, not 00000000\\)", data=other)
    for name, corrupt, message in (
        ("cut", lambda content: content[: len(content) // 2], "not a whole state of a run"),
        (
            "newer",
            lambda content: content.replace(b"hwdiff run 1", b"hwdiff run 9"),
            "its format is 'hwdiff run 9', not 'hwdiff run 1'",
        ),
    ):
        shutil.copytree(out, tmp_path / name)
        state = tmp_path / name / "state.safetensors"
        state.write_bytes(corrupt(state.read_bytes()))
        refused(message, out=tmp_path / name)
    (tmp_path / "foreign").mkdir()
    shutil.copy(out / "state.safetensors", tmp_path / "foreign")
    refused("holds state.safetensors without the config.json of its run", out=tmp_path / "foreign")
    for name in ("model.safetensors", "metrics.jsonl"):
        kept = tmp_path / name.split(".")[0]
        kept.mkdir()
        shutil.copy(out / name, kept)
        for resume in (True, False):
            refused(f"holds {name} without the config.json of its run", out=kept, resume=resume)
        with pytest.raises(HwdiffError, match=f"holds {name} without the config.json of its run"):
            run_dir.branch(out, kept)
        assert [path.name for path in kept.iterdir()] == [name]
        assert (kept / name).read_bytes() == (out / name).read_bytes()
    # What is left of a copy that was interrupted is copied again, the state of another run is not replaced.
    (tmp_path / "copy").mkdir()
    shutil.copy(out / "state.safetensors", tmp_path / "copy")
    run_dir.branch(out, tmp_path / "copy")
    assert (tmp_path / "copy" / "config.json").exists()
    loop.train(replace(CONFIG, seed=1, steps=1), dataset, features, tmp_path / "other", "cpu")
    (tmp_path / "other" / "config.json").unlink()
    with pytest.raises(HwdiffError, match=r"holds state\.safetensors without the config\.json of its run"):
        run_dir.branch(out, tmp_path / "other")
    with lock_directory(out):
        refused("another process is at work in it")
    assert (out / "metrics.jsonl").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(dataset, features, tmp_path):
    config = replace(CONFIG, save_every=1, learning_rate=0.99, steps=400, ema=0.0, validate_every=0)
    message = r"loss = .*, gradient_norm = (nan|inf) at step \d+; the last saved state is kept"
    with pytest.raises(HwdiffError, match=message):
        loop.train(config, dataset, features, tmp_path / "run", "cpu")
    kept = load_model(tmp_path / "run" / "model.safetensors", device="cpu")
    assert kept.metadata["step"] == rows(tmp_path / "run" / "metrics.jsonl")[-1]["step"] >= 1
    assert all(weight.isfinite().all() for weight in kept.parameters())


def test_samples_are_drawn_at_chosen_steps(dataset, features, tmp_path):
    config = replace(CONFIG, steps=2, sample_every=2)
    with_samples, _ = loop.train(config, dataset, features, tmp_path / "run", "cpu")
    assert Image.open(tmp_path / "run" / "samples" / "step-000002.png").width > 500
    without, _ = loop.train(replace(CONFIG, steps=2), dataset, features, tmp_path / "other", "cpu")
    assert same_weights(with_samples, without)


def lines_of(dataset, features, own_style=False):
    return Lines(dataset, features, style_lines(dataset.forms, own_style), "cpu")


def draws_of(batch, config=CONFIG):
    generator = torch.Generator().manual_seed(0)
    return objective.draw(batch.strokes.shape, batch.style.shape, config, process.alpha_bars(), generator)


def gradients_of(network, dataset, features, config=CONFIG, slices=(slice(None),)):
    """Terms and gradients of the first batch, computed slice by slice as several processes would."""
    excerpts = Excerpts(dataset, config.seed)
    order = training_order(excerpts, dataset.split("train"), config.batch_size, seed=config.seed)
    indices, _ = next(order)
    lines, length = lines_of(dataset, features), bucket_length(dataset.lengths[indices])
    draws = draws_of(lines.batch(indices, length), config)
    network.zero_grad()
    terms, judge = 0, objective.Objective(network, config.precision)
    for some in slices:
        own = objective.Draws(*(drawn[some] for drawn in draws))
        found = objective.accumulate_gradients(judge, lines.batch(indices[some], length), own)
        terms = terms + found / len(slices)
    return terms.tolist(), [weight.grad / len(slices) for weight in network.parameters()]


@pytest.mark.parametrize("pen_weight", ["paper", "released"])
@pytest.mark.parametrize("slices", [(slice(None),), (slice(0, 2), slice(2, 4))])
def test_pieces_of_a_batch_add_up(dataset, features, monkeypatch, pen_weight, slices):
    network = fill(UNet(TINY))
    config = replace(CONFIG, pen_weight=pen_weight, drop_style=0.3, drop_text=0.3)
    whole_terms, whole = gradients_of(network, dataset, features, config)
    monkeypatch.setitem(objective.CPU_POINTS, "fp32", 1 if len(slices) > 1 else 3 * 488)
    terms, pieces = gradients_of(network, dataset, features, config, slices)
    assert terms == pytest.approx(whole_terms, rel=1e-5)
    for a, b in zip(whole, pieces, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * whole_terms[0], rtol=1e-4)


@pytest.mark.slow
def test_a_compiled_step_is_the_same_step(dataset, features):
    network = fill(UNet(TINY))
    plain = objective.Objective(network, "fp32")
    batch = lines_of(dataset, features).batch(np.array([0, 1, 2]))
    draws = draws_of(batch)
    # The eager backend traces the step as the compiler would, and needs no C++ compiler.
    compiled = torch.compile(plain, dynamic=False, backend="aot_eager", fullgraph=True)
    expected = objective.accumulate_gradients(plain, batch, draws)
    gradients = [weight.grad.clone() for weight in network.parameters()]
    network.zero_grad()
    torch.testing.assert_close(objective.accumulate_gradients(compiled, batch, draws), expected)
    for weight, gradient in zip(network.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient, atol=1e-5, rtol=1e-4)


def test_dropped_lines_are_trained_without_text_or_style(dataset, features):
    seen = []
    batch = lines_of(dataset, features).batch(np.array([0, 1, 2]))
    config = replace(CONFIG, drop_style=0.5, drop_text=0.5)
    kept_style = torch.tensor([1, 0, 1]).view(3, 1, 1)
    kept_text = torch.tensor([[True], [True], [False]])
    draws = draws_of(batch, config)._replace(kept_style=kept_style, kept_text=kept_text)

    def watched(noisy, text, noise_level, style, *_):
        seen.append((text, style))
        return torch.zeros(2, requires_grad=True)

    objective.accumulate_gradients(watched, batch, draws)
    [(text, style)] = seen
    assert torch.equal(text[:2], batch.text[:2])
    assert text[2].tolist() == [tokenizer.END] + [0] * (text.shape[1] - 1)
    assert (style[1] == 0).all()
    torch.testing.assert_close(style[0], batch.style[0] * draws.kept_features[0])
    assert (draws.kept_features == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    # What is kept is larger, as with any dropout: writing sees whole features.
    assert draws.kept_features.unique().tolist() == pytest.approx([0, 1 / 0.7])
    config = replace(CONFIG, drop_style=0.2, drop_text=0.1)
    many = objective.draw((4000, 8, 2), (4000, 1, 1), config, process.alpha_bars(), torch.Generator())
    assert many.kept_style.float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert many.kept_text.float().mean().item() == pytest.approx(0.9, abs=0.03)


def test_bf16_is_close_to_fp32(dataset, features):
    network = fill(UNet(TINY))
    fp32, _ = gradients_of(network, dataset, features)
    bf16, _ = gradients_of(network, dataset, features, replace(CONFIG, precision="bf16"))
    assert bf16 != fp32
    assert bf16 == pytest.approx(fp32, rel=0.05)


def test_the_ema_follows_the_weights():
    network = torch.nn.Linear(1, 1, bias=False)
    ema = optimizers.Ema(network, 0.5)
    expected = None
    for count, value in enumerate((1.0, 2.0, 4.0, 8.0)):
        torch.nn.init.constant_(network.weight, value)
        ema.update_parameters(network)
        decay = min(0.5, (1 + count) / (10 + count))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert ema.module.weight.item() == pytest.approx(expected)


def test_the_ema_is_pytorchs_with_another_decay_and_copies_buffers():
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    ema, theirs = optimizers.Ema(network, 0.0), AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.0))
    for step in range(3):
        torch.nn.init.constant_(network[0].weight, step)
        network(torch.randn(8, 3, generator=torch.Generator().manual_seed(step)))
        ema.update_parameters(network)
        theirs.update_parameters(network)
        for (name, own), other in zip(ema.state_dict().items(), theirs.state_dict().values(), strict=True):
            torch.testing.assert_close(own, other, msg=name)
    assert torch.equal(ema.module[1].running_mean, network[1].running_mean)


def test_the_validation_loss_is_the_loss_at_fixed_noise(dataset, features, monkeypatch):
    network, lines, indices = fill(UNet(TINY)), lines_of(dataset, features), dataset.split("validation")
    first = validation.validation_loss(network, lines, indices)
    assert first == validation.validation_loss(network, lines, indices)
    monkeypatch.setattr(validation, "BATCH_SIZE", len(indices))
    alone = [validation.validation_loss(network, lines, indices[i : i + 1]) for i in range(len(indices))]
    points = dataset.lengths[indices]
    for t in validation.NOISE_STEPS:
        # Only real points count, so that a line counts by its length. Padding has a little influence, too,
        # through self-attention.
        expected = np.average([one["stroke"][t] for one in alone], weights=points)
        assert first["stroke"][t] == pytest.approx(expected, rel=0.05)
    with torch.no_grad():
        for out in (network.eps_out, network.pen_out):
            out.weight.zero_()
            out.bias.zero_()
    silent = validation.validation_loss(network, lines, indices)
    assert list(silent["pen"].values()) == pytest.approx([np.log(2)] * len(validation.NOISE_STEPS))
    alpha_bar = process.alpha_bars()
    by_level = [silent["stroke"][t] + alpha_bar[t].item() * np.log(2) for t in validation.NOISE_STEPS]
    assert silent["loss"] == pytest.approx(np.mean(by_level))
    # The squared length of a standard normal pair.
    assert silent["stroke"][60] == pytest.approx(2, rel=0.1)


def test_clipping_all_keeps_the_direction_and_clipping_each_does_not():
    def network():
        sizes = {"dense": 2, "scale_shift": 4}
        pair = torch.nn.ModuleDict({name: torch.nn.Linear(1, n, bias=False) for name, n in sizes.items()})
        pair["dense"].weight.grad = torch.tensor([[300.0], [400.0]])
        pair["scale_shift"].weight.grad = torch.tensor([[0.0], [50.0], [600.0], [0.0]])
        return pair

    together = network()
    norm = optimizers.clip_gradients(together, "all")
    assert norm.item() == pytest.approx((500**2 + 50**2 + 600**2) ** 0.5)
    clipped = torch.cat([weight.grad for weight in together.parameters()])
    assert clipped.norm().item() == pytest.approx(100, rel=1e-4)
    each = network()
    optimizers.clip_gradients(each, "each")
    assert each["dense"].weight.grad.flatten().tolist() == pytest.approx([60, 80], rel=1e-4)
    # Two weights in the authors' program.
    assert each["scale_shift"].weight.grad.flatten().tolist() == pytest.approx([0, 50, 100, 0], rel=1e-4)


def test_the_order_is_resumed_from_any_step():
    lengths = np.random.default_rng(0).integers(50, 488, 40)
    spans = np.array([(0, length, 0, 5) for length in lengths])
    some = np.arange(10, 40)

    def of_epoch(epoch, fraction):
        return np.maximum(spans - [0, epoch + int(10 * fraction), 0, 0], 1)

    def fraction(step):
        return 1 - step / 20

    def batches(done, count):
        options = {"seed": CONFIG.seed, "done": done, "fraction": fraction}
        excerpts = Namespace(of_epoch=of_epoch)
        order = training_order(excerpts, some, CONFIG.batch_size, **options)
        return [(lines.tolist(), found.tolist()) for lines, found in islice(order, count)]

    whole = batches(0, 20)
    assert len({line for lines, _ in whole[:7] for line in lines}) == 28  # an epoch repeats none
    assert {line for lines, _ in whole for line in lines} <= set(some.tolist())
    for number, (lines, found) in enumerate(whole):
        assert found == of_epoch(number // 7, fraction(number // 7 * 7))[lines].tolist()
    for done in (1, 7, 13):
        assert batches(done, 20 - done) == whole[done:]


def test_steps_may_be_changed_until_the_cooldown_begins(dataset, features, tmp_path):
    config = replace(CONFIG, cooldown=3)

    def resume(name, steps, until=None):
        stop = Stop()
        seen = Seen(lambda step: setattr(stop, "signal", "SIGINT" if step == until else None))
        options = {"resume": True, "stop": stop, "progress": seen}
        return loop.train(replace(config, steps=steps), dataset, features, tmp_path / name, "cpu", **options)

    assert resume("changed", 6, until=2)[1] == 3
    changed, reached = resume("changed", 8)
    assert reached == 8
    whole, _ = resume("whole", 8)
    assert same_weights(changed, whole)
    assert resume("late", 6, until=3)[1] == 4
    with pytest.raises(HwdiffError, match="it has steps = 6, not 8"):
        resume("late", 8)


def test_excerpts_are_trained_on(dataset, features, tmp_path, monkeypatch):
    lengths, make_batch = [], Lines.batch

    def batch(self, *arguments):
        made = make_batch(self, *arguments)
        lengths.append(made.lengths)
        return made

    def word_starts(offsets, pen_up, text):
        return np.arange(len(text.split())) * 5

    monkeypatch.setattr(Lines, "batch", batch)
    monkeypatch.setattr("hwdiff.data.excerpts.word_starts", word_starts)
    config = replace(CONFIG, excerpts=1.0, steps=4, validate_every=0)
    loop.train(config, dataset, features, tmp_path / "run", "cpu")
    found = torch.cat(lengths)
    assert len(found) == 16
    assert found.min() < 20 < dataset.lengths.min()


def test_a_start_that_fails_leaves_no_directory(dataset, features, tmp_path):
    with pytest.raises(HwdiffError, match="only 16 lines"):
        loop.train(replace(CONFIG, batch_size=17), dataset, features, tmp_path / "run", "cpu")
    assert not (tmp_path / "run").exists()


def test_presets_and_their_settings():
    paper = presets.preset("paper")
    assert (paper.steps, paper.batch_size, paper.learning_rate, paper.model.c1) == (60_000, 96, None, 128)
    assert presets.preset("paper", steps=10, seed=None).steps == 10
    assert presets.preset("small", position_variant="text").model.position_variant == "text"
    assert [paper.learning_rate_at(step) for step in (1, 10_000)] == pytest.approx([6.25e-8, 6.25e-4])
    small = presets.preset("small", steps=1000, warmup=10, cooldown=100)
    expected = [1e-4, 1e-3, 1e-3, 5e-4, 1 / 101 * 1e-3]
    rates = [small.learning_rate_at(step) for step in (1, 10, 900, 951, 1000)]
    assert rates == pytest.approx(expected, rel=0.02)
    with pytest.raises(HwdiffError, match="no such preset as 'huge'"):
        presets.preset("huge")
    with pytest.raises(HwdiffError, match="no such setting as colour"):
        presets.preset("smoke", colour="red")
    for wrong in (
        {"precision": "fp8"},
        {"steps": 0},
        {"learning_rate": -1.0},
        {"seed": -1},
        {"clipping": "none"},
        {"drop_text": 1.0},
        {"excerpts": 1.1},
        {"guided_attention": -0.1},
        {"ema": -0.1},
        {"save_every": 0},
    ):
        with pytest.raises(HwdiffError, match=next(iter(wrong))):
            presets.preset("smoke", **wrong)


def test_guided_attention_asks_for_the_place_of_the_word():
    places = torch.tensor([[0.0] * 4 + [3.0] * 4 + [torch.nan] * 4])
    right = torch.zeros(1, 2, 3, 6)
    right[0, :, 0, 0] = right[0, :, 1, 3] = 1
    for head in range(2):
        right[0, head, 2] = torch.rand(6).softmax(0)  # where nothing is known anything goes
    assert objective.guided_attention_loss(right, places).item() == pytest.approx(0, abs=2e-3)
    off = torch.zeros(1, 2, 3, 6)
    off[0, :, :, 5] = 1
    window = [np.exp(-(distance**2) / 4.5) + 1e-3 for distance in (5, 2)]
    expected = -np.log(window).mean()
    assert objective.guided_attention_loss(off, places).item() == pytest.approx(expected, rel=1e-4)
    assert objective.guided_attention_loss(off, torch.full((1, 12), torch.nan)).item() == 0


def test_guided_attention_does_not_depend_on_how_a_batch_is_divided():
    generator = torch.Generator().manual_seed(0)
    attention = torch.rand(4, 2, 6, 9, generator=generator).softmax(dim=-1)
    places = torch.rand(4, 12, generator=generator) * 9
    places[1], places[2, 3:] = torch.nan, torch.nan
    whole = objective.guided_attention_loss(attention, places)
    parts = [objective.guided_attention_loss(attention[[k]], places[[k]]) for k in range(4)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_guided_attention_learns_places(dataset, features, tmp_path, monkeypatch):
    """The attention goes where the words are. What is logged as the loss is stroke and pen alone."""

    def word_starts(offsets, pen_up, text):
        return np.linspace(0, len(pen_up), len(text.split()) + 1).astype(int)[:-1]

    monkeypatch.setattr("hwdiff.data.excerpts.word_starts", word_starts)
    config = replace(CONFIG, steps=30, guided_attention=1.0, learning_rate=3e-3, validate_every=0)
    loop.train(config, dataset, features, tmp_path / "run", "cpu")
    seen = rows(tmp_path / "run" / "metrics.jsonl")
    attention = [row["attention"] for row in seen]
    assert np.mean(attention[-5:]) < 0.7 * np.mean(attention[:3])
    assert all(row["loss"] == pytest.approx(row["stroke"] + row["pen"]) for row in seen)
    loop.train(replace(config, guided_attention=0.0, steps=1), dataset, features, tmp_path / "free", "cpu")
    assert "attention" not in rows(tmp_path / "free" / "metrics.jsonl")[0]


def test_the_padded_loss_counts_padding(dataset, features):
    network, lines, indices = fill(UNet(TINY)), lines_of(dataset, features), dataset.split("validation")
    first = validation.padded_loss(network, lines, indices)
    assert first == validation.padded_loss(network, lines, indices)
    assert first != validation.padded_loss(network, lines, indices, seed=1)
    with torch.no_grad():
        for out in (network.eps_out, network.pen_out):
            out.weight.zero_()
            out.bias.zero_()
    # Of noise alone, padding included; the pen's is weighted.
    stroke, pen = validation.padded_loss(network, lines, indices)
    assert stroke == pytest.approx(2, rel=0.1)
    assert 0.05 < pen < 0.9 * np.log(2)


def test_the_schedule_of_a_short_run_is_shorter():
    short = presets.preset("small", steps=600)
    assert (short.warmup, short.cooldown) == (10, 60)
    assert short.learning_rate_at(300) == 1e-3
    given = presets.preset("small", steps=600, warmup=20, cooldown=0)
    assert (given.warmup, given.cooldown) == (20, 0)
    assert presets.preset("small", steps=40_000).cooldown == presets.PRESETS["small"].cooldown
    with pytest.raises(HwdiffError, match="warmup = 1, cooldown = 3000 of 100 steps"):
        presets.preset("small", steps=100, cooldown=3000)
    # A run that was begun with such a schedule goes on as it was begun.
    settings = {**asdict(replace(presets.PRESETS["tune"], steps=100)), "kind": "network"}
    assert presets.changed(presets.config_of(settings, "run"), batch_size=8).cooldown == 150


def test_excerpts_become_fewer():
    config = presets.TrainingConfig(excerpts=0.8, excerpt_steps=100)
    assert [config.excerpts_at(step) for step in (0, 50, 100, 200)] == pytest.approx([0.8, 0.4, 0, 0])
    assert presets.TrainingConfig(excerpts=0.8).excerpts_at(10_000) == 0.8
    # In a shorter run, too.
    assert presets.preset("paper-cpu", steps=9_600).excerpt_steps == 6_400
    assert presets.preset("paper-cpu", steps=1).excerpt_steps == 1
    assert presets.preset("small", steps=10).excerpt_steps == 0


@pytest.fixture
def until(dataset, features, tmp_path):
    """until(name, config, step): train in the directory `name` until `step`. Returns the network."""

    def train(name, config, step):
        out, stop = tmp_path / name, Stop()
        log = out / "metrics.jsonl"

        def reached_one_less(done):
            stop.signal = "SIGINT" if done == step - 1 else None

        reached_one_less(len(rows(log)) if log.exists() else 0)
        options = {"resume": True, "stop": stop, "progress": Seen(reached_one_less)}
        network, reached = loop.train(config, dataset, features, out, "cpu", **options)
        assert reached == step
        return network

    return train


MUON = replace(CONFIG, optimizer="muon", ema=0.0)


def test_a_run_with_muon_resumes_bit_for_bit(until, tmp_path):
    whole = until("whole", MUON, 6)
    until("run", MUON, 3)
    assert same_weights(until("run", MUON, 6), whole)
    ours, theirs = (load_file(tmp_path / name / "state.safetensors") for name in ("run", "whole"))
    assert any(name.startswith("muon.") for name in ours)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_settings_may_be_changed_and_that_is_kept(until, tmp_path):
    """Guided attention is on for two steps. The run says so, and is the same if it is stopped in between."""
    until("run", CONFIG, 2)
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    guided = replace(CONFIG, guided_attention=1.0, excerpts=0.5)
    until("run", guided, 3)
    until("run", guided, 4)
    until("whole", guided, 4)
    assert same_weights(until("run", CONFIG, 6), until("whole", CONFIG, 6))
    changes = [
        {"after": 2, "guided_attention": [0.0, 1.0], "excerpts": [0.0, 0.5]},
        {"after": 4, "guided_attention": [1.0, 0.0], "excerpts": [0.5, 0.0]},
    ]
    assert run_dir.read_config(tmp_path / "run")["changes"] == changes
    state = load_metadata(tmp_path / "run" / "state.safetensors", what="", advice="")
    assert state["settings"]["changes"] == changes
    assert presets.config_of(run_dir.read_config(tmp_path / "run"), "run") == CONFIG
    guided_steps = [row["step"] for row in rows(tmp_path / "run" / "metrics.jsonl") if "attention" in row]
    assert guided_steps == [3, 4]
    assert load_model(tmp_path / "run" / "model.safetensors").metadata["training"]["guided_attention"] == 1.0


def test_a_branch_cools_down_and_leaves_the_run_alone(until, tmp_path):
    config = replace(CONFIG, steps=20)
    whole = until("whole", config, 6)
    until("run", config, 4)
    run_dir.branch(tmp_path / "run", tmp_path / "branch")
    until("branch", replace(config, steps=6, cooldown=2, ema=0.1), 6)
    rates = [row["learning_rate"] for row in rows(tmp_path / "branch" / "metrics.jsonl")]
    assert rates == pytest.approx([1e-3] * 4 + [2e-3 / 3, 1e-3 / 3])
    # A shorter EMA is nearer to the last weights. It can't be given up, nor begun.
    ends = {}
    for name in ("branch", "run"):
        state = load_file(tmp_path / name / "state.safetensors")
        ends[name] = (state["ema.module.input.weight"] - state["network.input.weight"]).abs().mean()
    assert ends["branch"] < ends["run"]
    with pytest.raises(HwdiffError, match=r"it has ema = 0.9, not 0"):
        until("run", replace(config, ema=0.0), 6)
    until("plain", replace(config, ema=0.0), 2)
    with pytest.raises(HwdiffError, match=r"it has ema = 0.0, not 0.9"):
        until("plain", config, 4)
    with pytest.raises(HwdiffError, match="plain: holds another run"):
        run_dir.branch(tmp_path / "run", tmp_path / "plain")
    assert same_weights(until("run", config, 6), whole)
    with pytest.raises(HwdiffError, match="no configuration of a training run"):
        run_dir.branch(tmp_path / "none", tmp_path / "other")


def test_training_starts_from_given_weights(run, dataset, features, tmp_path, until):
    out, network, _ = run
    config = replace(CONFIG, steps=1, learning_rate=1e-9, init=str(out / "model.safetensors"))
    started, _ = loop.train(config, dataset, features, tmp_path / "run", "cpu")
    for ours, theirs in zip(started.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    # It writes as they do, after resuming too; levels of a student are no use to it.
    writing = {"guidance": 2.5, "points_per_character": 14.0}
    helped = {"training": {"guided_attention": 0.1}, "teacher": "a hash"}
    save_model(network, tmp_path / "given.safetensors", writing={**writing, "levels": [60, 1]}, **helped)
    given = replace(config, init=str(tmp_path / "given.safetensors"))
    given = replace(given, steps=3)
    until("begun", given, 1)
    (tmp_path / "given.safetensors").unlink()
    for name in ("begun", "branch"):
        loop.train(given, dataset, features, tmp_path / name, "cpu", resume=True)
        about = load_model(tmp_path / name / "model.safetensors").metadata
        assert (about["writing"], about["teacher"]) == (writing, "a hash")
        assert about["training"] == {**json.loads(json.dumps(asdict(given))), "guided_attention": 0.1}
        run_dir.branch(tmp_path / "begun", tmp_path / "branch")
    foreign = {"name": "another", "padding": "both", "fingerprint": "f" * 64}
    save_model(network, tmp_path / "foreign.safetensors", style_weights=foreign)
    with pytest.raises(HwdiffError, match="the model was trained with another"):
        init = str(tmp_path / "foreign.safetensors")
        loop.train(replace(config, init=init), dataset, features, tmp_path / "third", "cpu")
    larger = replace(config, model=replace(TINY, num_layers=2))
    message = r"init = .*model\.safetensors: its network is .*; give one of that size"
    with pytest.raises(HwdiffError, match=message):
        loop.train(larger, dataset, features, tmp_path / "other", "cpu")


def test_a_pause_is_no_training(monkeypatch):
    times = iter([0.0, 1.0, 3601.0, 3602.5])
    monkeypatch.setattr(steps.time, "perf_counter", lambda: next(times))
    clock = steps.Clock(10.0)
    seen = []
    for _ in range(3):
        clock.tick()
        seen.append(clock.seconds)
    assert seen == [11.0, 71.0, 72.5]


def test_the_released_noise_levels_and_weights_of_the_pen_are_drawn():
    size = ((4000, 8, 2), (4000, 1, 1))
    drawn = {
        variant: objective.draw(
            *size,
            replace(CONFIG, noise_levels=variant, pen_weight=variant),
            process.alpha_bars(),
            torch.Generator().manual_seed(0),
        )
        for variant in ("paper", "released")
    }
    # The released program never draws from the interval up to 1, and weighs all pens alike.
    first = process.alpha_bars()[1]
    assert drawn["released"].noise_level.max() ** 2 <= first + 1e-6 < drawn["paper"].noise_level.max() ** 2
    assert drawn["released"].pen_weight.unique().numel() == 1 < drawn["paper"].pen_weight.unique().numel()


def test_a_run_is_not_resumed_on_another_kind_of_device(run, dataset, features):
    out, _, _ = run
    given = (out, CONFIG, dataset, features.extractor.identity)
    assert loop.run_directory(*given, torch.device("cpu")).find_step(resume=True) == CONFIG.steps
    with pytest.raises(HwdiffError, match="it has device = 'cpu', not 'cuda'"):
        loop.run_directory(*given, torch.device("cuda")).find_step(resume=True)


def test_clipping_and_the_own_style_are_as_set(dataset, features, tmp_path, monkeypatch):
    seen, clip, styles = [], loop.clip_gradients, loop.style_lines
    monkeypatch.setattr(loop, "clip_gradients", lambda network, how: seen.append(how) or clip(network, how))
    monkeypatch.setattr(loop, "style_lines", lambda forms, own: seen.append(own) or styles(forms, own))
    config = replace(CONFIG, steps=1, clipping="each", own_style=True)
    loop.train(config, dataset, features, tmp_path / "run", "cpu")
    assert seen == [True, "each"]


def test_what_is_saved_to_write_with_is_the_ema(run):
    out, _, _ = run
    state, model = load_file(out / "state.safetensors"), load_file(out / "model.safetensors")
    assert torch.equal(model["input.weight"], state["ema.module.input.weight"])
    assert not torch.equal(model["input.weight"], state["network.input.weight"])


def test_validation_is_of_the_ema_on_validation_lines(run, dataset, features):
    out, network, _ = run
    expected = validation.validation_loss(network, lines_of(dataset, features), dataset.split("validation"))
    assert rows(out / "validation.jsonl")[-1]["loss"] == pytest.approx(expected["loss"], rel=1e-6)


@pytest.mark.parametrize("padding", ["full", "bucket"])
def test_batches_are_as_long_as_the_padding_says(dataset, features, tmp_path, monkeypatch, padding):
    lengths, batch_of = [], Lines.batch

    def spied(lines, indices, length, spans):
        lengths.append((length, bucket_length(spans[:, 1] - spans[:, 0])))
        return batch_of(lines, indices, length, spans)

    monkeypatch.setattr(Lines, "batch", spied)
    config = replace(CONFIG, padding=padding, validate_every=0)
    loop.train(config, dataset, features, tmp_path / "run", "cpu")
    assert len(lengths) == CONFIG.steps
    if padding == "full":
        assert {length for length, _ in lengths} == {488}
    else:  # a little longer now and then, so that the end of a line is not known by its place
        assert all(least <= length < 488 for length, least in lengths)
        assert any(least < length for length, least in lengths)


def test_the_seed_decides_order_and_noise(dataset, features, tmp_path, monkeypatch):
    seeds = []
    monkeypatch.setattr(
        loop,
        "training_order",
        lambda *given, seed, **more: seeds.append(seed) or training_order(*given, seed=seed, **more),
    )
    monkeypatch.setattr(
        loop, "draw", lambda *given: seeds.append(given[-1].initial_seed()) or objective.draw(*given)
    )
    config = replace(CONFIG, steps=1, seed=5, validate_every=0)
    loop.train(config, dataset, features, tmp_path / "run", "cpu")
    assert seeds == [5, 5]


def test_the_presets_are_the_papers_and_what_differs_is_told():
    paper = presets.preset("paper")
    methods = (paper.padding, paper.noise_levels, paper.pen_weight, paper.clipping, paper.own_style)
    assert methods == ("full", "paper", "paper", "all", False)
    added = (paper.excerpts, paper.guided_attention, paper.drop_style, paper.drop_text, paper.ema)
    assert added == (0, 0, 0, 0, 0)
    for name, guided in (("small", 0.1), ("paper-cpu", 0.0)):
        other = presets.preset(name)
        assert (other.guided_attention, other.drop_style, other.drop_text) == (guided, 0.1, 0.1)
        assert (other.noise_levels, other.pen_weight, other.clipping) == ("paper", "paper", "all")


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_every_weight_has_an_optimizer(optimizer):
    network = UNet(TINY)
    processes = distributed.Processes(torch.device("cpu"))
    made = optimizers.make_optimizers(network, replace(CONFIG, optimizer=optimizer), processes)
    trained = [weight for one in made.values() for group in one.param_groups for weight in group["params"]]
    assert {id(weight) for weight in trained} == {id(weight) for weight in network.parameters()}
    assert len(trained) == len(list(network.parameters()))
    assert made["optimizer"].defaults["betas"] == (0.9, 0.98)


def test_guided_attention_has_its_weight(dataset, features):
    network = fill(UNet(TINY))
    batch = lines_of(dataset, features).batch(np.array([0, 1]))
    places = torch.linspace(0, 5, batch.strokes.shape[1]).expand(2, -1)
    level = torch.full((2, 1, 1), 0.7)
    inputs = (batch.strokes, batch.text, level, batch.style)
    given = (*inputs, torch.zeros_like(batch.strokes), batch.pen_up, torch.ones(2, 1, 1), places)
    with torch.no_grad():
        attention = network.predict(*inputs, "all")[2]
        *_, term = objective.Objective(network, "fp32", 0.1)(*given)
    losses = [objective.guided_attention_loss(weights, places) for weights in attention]
    assert term.item() == pytest.approx(0.1 * np.mean([loss.item() for loss in losses]), rel=1e-5)


def test_noise_levels_and_outputs_are_not_in_bf16(dataset, features):
    network, seen = fill(UNet(TINY)), []
    handles = [
        module.register_forward_hook(lambda module, given, found: seen.append(found.dtype))
        for module in (network.noise_embedding, network.input)
    ]
    batch = lines_of(dataset, features).batch(np.array([0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        eps, pen, _ = network.predict(batch.strokes, batch.text, torch.ones(1, 1, 1), batch.style)
    for handle in handles:
        handle.remove()
    assert [*seen, eps.dtype, pen.dtype] == [torch.float32] * 4
