import copy
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from hwdiff import HwdiffError, load_model, sample
from hwdiff.cli import app
from hwdiff.data import tokenizer
from hwdiff.diffusion.generate import require_style_weights, seeded_noise
from hwdiff.diffusion.process import alpha_bars
from hwdiff.diffusion.samplers import published_levels, sample_eq12
from hwdiff.evaluation.attention import watch_attention
from hwdiff.evaluation.bench import Bench, RowSettings
from hwdiff.model.checkpoint import save_model
from hwdiff.model.unet import UNet
from hwdiff.training import step_distillation
from hwdiff.training.config import StepDistillationConfig
from hwdiff.training.step_distillation import LITTLE_NOISE, distil_steps, draw_texts, student_levels
from hwdiff.utils.interrupt import Stop
from tests.conftest import TINY

CONFIG = StepDistillationConfig(evaluations=3, batches=4, batch_size=2, guidance=2, save_every=2)


def test_levels_go_from_noise_to_ink():
    assert student_levels(12) == [60, 56, 52, 48, 44, 40, 35, 30, 25, 16, 8, 1]
    for count in range(2, 41):
        levels = student_levels(count)
        assert len(levels) == count
        assert levels[0] == 60 and levels[-1] == 1
        assert (np.diff(levels) < 0).all()


def test_texts_are_words_of_a_line_and_about_alike():
    texts = ["the quick brown fox jumps over the lazy dog", "Of 3 lines, or so", "a"]
    for seed in range(20):
        drawn, numbers = draw_texts(texts, 5, np.random.default_rng(seed))
        assert max(map(len, drawn)) - min(map(len, drawn)) < 4
        assert all(text in texts[number] for text, number in zip(drawn, numbers, strict=True))
        assert all(set(text.split()) <= set(" ".join(texts).split()) for text in drawn)
    with pytest.raises(HwdiffError, match="too few words"):
        draw_texts(["", " "], 5, np.random.default_rng(0))


def test_texts_that_lack_a_length_give_those_of_another():
    for seed in range(20):
        drawn, _ = draw_texts(["handwriting"], 5, np.random.default_rng(seed))
        assert drawn == ["handwriting"] * 5


def test_without_guidance_there_is_nothing_to_learn_at_first(teacher, dataset, features, tmp_path):
    """The critic begins as the teacher: both predict the same."""
    config = replace(CONFIG, batches=1, guidance=1, learning_rate=1e-12, save_every=1)
    distil_steps(config, teacher, dataset, features, tmp_path / "same")
    distil_steps(replace(config, guidance=3), teacher, dataset, features, tmp_path / "guided")
    same, guided = (logged(tmp_path / run, "difference") for run in ("same", "guided"))
    assert same[0] < 1e-5 < 1e-2 < guided[0]


@pytest.fixture(scope="module")
def teacher(features):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(TINY)
    short = {"points_per_character": 5.0}  # its scribbles need no more
    network.metadata = {"style_weights": features.extractor.identity, "writing": short}
    return network.eval()


@pytest.fixture(scope="module")
def whole(teacher, dataset, features, tmp_path_factory):
    out = tmp_path_factory.mktemp("steps") / "run"
    assert distil_steps(CONFIG, teacher, dataset, features, out) == 4
    return out


def logged(out, name):
    return [json.loads(line)[name] for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_stopped_distillation_resumes_bit_for_bit(whole, teacher, dataset, features, tmp_path):
    class StopAfter(Stop):
        reason = property(lambda self: "enough" if len(seen) >= 2 else None)

    class Seen:
        def reach(self, step, note):
            seen.append(step)

    seen, out = [], tmp_path / "run"
    assert distil_steps(CONFIG, teacher, dataset, features, out, stop=StopAfter(), progress=Seen()) < 4
    with pytest.raises(HwdiffError, match="holds a training run already"):
        distil_steps(CONFIG, teacher, dataset, features, out)
    with pytest.raises(HwdiffError, match="it has guidance = 2, not 1"):
        distil_steps(replace(CONFIG, guidance=1), teacher, dataset, features, out, resume=True)
    assert distil_steps(CONFIG, teacher, dataset, features, out, resume=True) == 4
    for name in ("step", "loss", "difference", "guided_loss", "pen_loss", "gradient_norm"):
        assert logged(out, name) == logged(whole, name)
    ours, theirs = load_file(out / "model.safetensors"), load_file(whole / "model.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_learning_rate_rises_and_falls(whole):
    # Of 12 updates, three a batch; it would take 50 to rise.
    wanted = CONFIG.learning_rate * np.array([3 / 50, 6 / 50, 9 / 50, 2 * (1 - 11 / 12)])
    np.testing.assert_allclose(logged(whole, "learning_rate"), wanted)


def test_what_another_process_saved_meanwhile_is_not_undone(
    whole, teacher, dataset, features, tmp_path, meanwhile
):
    stop = Stop()
    stop.signal = "SIGTERM"
    distil_steps(CONFIG, teacher, dataset, features, tmp_path / "run", stop=stop)
    meanwhile(step_distillation, whole)
    with pytest.raises(HwdiffError, match="another process has saved step 4"):
        distil_steps(CONFIG, teacher, dataset, features, tmp_path / "run", resume=True)


def test_a_teacher_that_writes_otherwise_is_another(whole, teacher, dataset, features, tmp_path):
    stop = Stop()
    stop.signal = "SIGTERM"
    own = replace(CONFIG, guidance=None)
    distil_steps(own, teacher, dataset, features, tmp_path / "run", stop=stop)
    other = copy.deepcopy(teacher)
    other.metadata = {**teacher.metadata, "writing": {"guidance": 3.5, "points_per_character": 9.0}}
    with pytest.raises(HwdiffError, match=r"guidance = .*, not 3\.5"):
        distil_steps(own, other, dataset, features, tmp_path / "run", resume=True)


def test_a_student_of_the_authors_network_knows_its_style_encoder(teacher, dataset, features, tmp_path):
    authors = copy.deepcopy(teacher)
    authors.metadata = {}
    distil_steps(replace(CONFIG, batches=1, save_every=1), authors, dataset, features, tmp_path / "run")
    student = load_model(tmp_path / "run" / "model.safetensors")
    assert student.metadata["style_weights"] == features.extractor.identity
    assert student.metadata["dataset"] == dataset.fingerprint
    with pytest.raises(HwdiffError, match="but the model was trained with"):
        require_style_weights(student, {**features.extractor.identity, "fingerprint": "another"})


def test_a_student_writes_in_its_own_levels_without_guidance(whole, network):
    student = load_model(whole / "model.safetensors")
    assert student.metadata["writing"]["guidance"] == 1
    seen = []
    [ink] = sample(student, "a fox", network.default_style, callback=seen.append)
    assert [step.t for step in seen] == [3, 2, 1]
    chosen = published_levels(student_levels(3))
    for options in ({"alpha_bar": chosen, "guidance": 1}, {"steps": 3}):
        [same] = sample(student, "a fox", network.default_style, **options)
        # attention is kept for a callback only
        np.testing.assert_allclose(ink.offsets, same.offsets, atol=1e-4)
    with pytest.warns(UserWarning, match="eq12 in its own 3 steps without guidance; otherwise take its"):
        sample(student, "a fox", network.default_style, steps=2, callback=seen.append)
    assert len(seen) == 5


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "eq9", "alpha_bar": published_levels(student_levels(3))},
        {"steps": 60},
        {"guidance": 2},
        {"style_guidance": 2},
        {"sampler": "eq9", "steps": 3},
        {},
    ],
)
def test_what_a_student_has_not_learnt_is_warned_of_once(whole, network, options):
    student = load_model(whole / "model.safetensors")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            sample(student, "a fox", network.default_style, **options)
    assert sum("is a student" in str(one.message) for one in told) == bool(options)


def test_commands_take_a_student_for_what_it_is(whole, teacher, dataset, style_weights, tmp_path):
    student = load_model(whole / "model.safetensors")
    student.default_style = torch.rand(14, 1280, generator=torch.Generator().manual_seed(0))
    about = {name: student.metadata[name] for name in ("teacher", "style_weights", "writing", "step")}
    save_model(student, tmp_path / "student.safetensors", **about)

    def hwdiff(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    given = ("--model", tmp_path / "student.safetensors")
    data = ("--data", dataset.path, "--style-encoder", style_weights, "--lines", 1)
    assert "eq12 in 3 steps, guidance 1" in hwdiff("legibility", *given, *data)
    assert "eq12 in 5 steps, guidance 1" in hwdiff("legibility", *given, *data, "--steps", 5)
    _, watched = watch_attention(student, student.default_style)
    assert watched["distilled"]
    assert watched["planned"] is None  # its steps are batches of the distillation
    assert set(watched["monotonicity_at"]["here in the same words in"]) == {"55", "30", "5"}
    bench = Bench(
        dataset.path,
        tmp_path / "student.safetensors",
        "train",
        lines=2,
        style_encoder=str(style_weights),
        device="cpu",
    )
    assert bench.settings["model"]["distilled"]
    levels = bench._settings({"eq12": RowSettings("eq12")})["rows"]["eq12"]["levels"]
    assert levels == published_levels(student_levels(3)).tolist()


class Gaussian(UNet):
    """Denoises offsets drawn from N(mean, 1) exactly, while its gains are 1. Without a text the mean is 0.

    last_gain: that in little noise.
    bias: the logit of its pen.
    """

    def __init__(self, last_gain=1.0, bias=1.0):
        super().__init__(TINY)
        own = [torch.nn.Parameter(torch.tensor(one)) for one in (1.0, 1.0, last_gain, bias)]
        self.mean, self.gain, self.last_gain, self.bias = own

    def __deepcopy__(self, memo):
        return Gaussian(last_gain=0.5, bias=-1.0)

    def predict(self, strokes, text, noise_level, style, attention=False):
        has_text = (text != tokenizer.without_text(text)).any(dim=1)[:, None, None]
        mean = self.mean * has_text
        gain = torch.where(noise_level**2 > alpha_bars()[LITTLE_NOISE + 1], self.last_gain, self.gain)
        clean = mean + gain * noise_level * (strokes - noise_level * mean)
        eps = (strokes - noise_level * clean) / (1 - noise_level**2).sqrt()
        return eps, self.bias.expand_as(strokes[..., :1]), None


def test_a_student_writes_what_its_teacher_writes_with_guidance(teacher, dataset, features, tmp_path):
    exact = Gaussian()
    exact.metadata = teacher.metadata
    config = replace(CONFIG, batches=60, batch_size=8, guidance=3, learning_rate=0.03, ema=0.9, save_every=60)

    def taught(name, **settings):
        distil_steps(replace(config, **settings), exact, dataset, features, tmp_path / name)
        student = copy.deepcopy(exact)
        student.load_state_dict(load_file(tmp_path / name / "model.safetensors"))
        return student

    student = taught("run")

    def written(network):
        noise = seeded_noise([0], 4000, "cpu")
        text = torch.from_numpy(tokenizer.encode("a fox"))[None]
        levels = published_levels(student_levels(3)).float()
        with torch.no_grad():
            return sample_eq12(network, noise(None), text, None, levels, noise)[0]

    # With guidance 3 the teacher's mean is 3 times as far from 0.
    assert written(student).mean().item() == pytest.approx(3, abs=0.7)
    # In so few steps what is written varies less than the ink should; the student has learnt how ink varies.
    assert written(exact).std() < 0.6 < 0.9 < written(student).std() < 1.4
    assert student.bias > 0.5  # the teacher's is 1
    assert student.last_gain.item() == pytest.approx(1, abs=0.05)
    assert exact.mean == exact.last_gain == exact.bias == 1
    # Colder, its ink varies less.
    assert written(taught("cold", temperature=0.8)).std() < 0.85 * written(student).std()


def test_a_student_is_no_teacher(whole, dataset, features, tmp_path):
    student = load_model(whole / "model.safetensors", "cpu")
    with pytest.raises(HwdiffError, match="the teacher is a student itself"):
        distil_steps(CONFIG, student, dataset, features, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_student_is_trained_in_bf16(teacher, dataset, features, tmp_path):
    config = replace(CONFIG, batches=1, save_every=1, precision="bf16")
    distil_steps(config, teacher, dataset, features, tmp_path / "run")
    assert 0 < logged(tmp_path / "run", "loss")[0] < 10
