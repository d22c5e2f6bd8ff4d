from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hwdiff.data.line_images import LineImages
from hwdiff.model.style_encoder import load_style_extractor
from hwdiff.training import distillation
from hwdiff.utils.errors import HwdiffError
from hwdiff.utils.interrupt import Stop

CONFIG = replace(distillation.preset("smoke"), steps=8, fine_steps=4, save_every=4)


@pytest.fixture(scope="module")
def lines(dataset, tmp_path_factory):
    return LineImages(dataset, tmp_path_factory.mktemp("images"), workers=1)


@pytest.fixture(scope="module")
def sources(lines, dataset):
    return [(lines, dataset.split("train"))]


@pytest.fixture(scope="module")
def run(sources, extractor, tmp_path_factory):
    out = tmp_path_factory.mktemp("distillation") / "run"
    return out, distillation.distil(CONFIG, sources, extractor, out)


def test_the_encoder_is_small_and_gives_features(run, extractor, lines, dataset):
    _, path = run
    assert path.stat().st_size < 4.7e6
    dtypes = {tensor.dtype for name, tensor in load_file(path).items() if "num_batches" not in name}
    assert dtypes == {torch.half}
    encoder = load_style_extractor(path)
    assert (encoder.padding, encoder.name) == (extractor.padding, "hwdiff, distilled")
    cosines = distillation.agreement(encoder, extractor, lines, distillation.lines_to_judge(dataset))
    assert cosines.shape == (4,)
    assert (cosines < 0.999).all()
    assert distillation.agreement(extractor, extractor, lines, [0]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("at", [6, 8, 10])  # in the first part, between the parts, in the second
def test_a_stopped_distillation_resumes_bit_for_bit(run, sources, extractor, tmp_path, at):
    _, path = run
    stop = Stop()

    def interrupt(step, note):
        if step == at:
            stop.signal = "SIGTERM"

    seen = SimpleNamespace(reach=interrupt)
    assert distillation.distil(CONFIG, sources, extractor, tmp_path / "run", stop=stop, progress=seen) is None
    with pytest.raises(HwdiffError, match="holds a training run already; resume it with --resume"):
        distillation.distil(CONFIG, sources, extractor, tmp_path / "run")
    with pytest.raises(HwdiffError, match="it has steps = 8, not 13"):
        distillation.distil(replace(CONFIG, steps=13), sources, extractor, tmp_path / "run", resume=True)
    with pytest.raises(HwdiffError, match="cannot be resumed with other settings: it has data"):
        distillation.distil(CONFIG, [*sources, *sources], extractor, tmp_path / "run", resume=True)
    resumed = distillation.distil(CONFIG, sources, extractor, tmp_path / "run", resume=True)
    ours, theirs = load_file(resumed), load_file(path)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_what_another_process_saved_meanwhile_is_not_undone(run, sources, extractor, tmp_path, meanwhile):
    stop = Stop()
    stop.signal = "SIGTERM"
    distillation.distil(CONFIG, sources, extractor, tmp_path / "run", stop=stop)
    meanwhile(distillation, run[0])
    with pytest.raises(HwdiffError, match="another process has saved step 12"):
        distillation.distil(CONFIG, sources, extractor, tmp_path / "run", resume=True)


def test_a_student_comes_nearer_to_its_teacher(sources, extractor, lines, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(distillation, "WARMUP", 5)
    cosines = []
    for steps in (2, 50):
        config = replace(CONFIG, steps=steps, fine_steps=1, pieces=2, save_every=1000)
        path = distillation.distil(config, sources, extractor, tmp_path / str(steps))
        indices = distillation.lines_to_judge(dataset)
        found = distillation.agreement(load_style_extractor(path), extractor, lines, indices)
        cosines.append(found.mean())
    assert cosines[1] > cosines[0] + 0.05, cosines


def test_pieces_come_from_training_lines_and_half_are_varied(lines, sources):
    pieces = distillation.draw_pieces(sources, 32, np.random.default_rng(0))
    assert pieces.shape == (32, 96, 480)
    assert all((piece < 128).any() for piece in pieces)
    again = distillation.draw_pieces(sources, 32, np.random.default_rng(0))
    assert (pieces == again).all()
    varied = distillation.vary(torch.from_numpy(pieces), torch.Generator().manual_seed(0))
    assert varied.shape == (32, 96, 480)
    assert 0 <= varied.min() < varied.max() <= 255
    same = sum(
        torch.allclose(after, torch.from_numpy(before).float(), atol=1e-3)
        for before, after in zip(pieces, varied, strict=True)
    )
    assert 8 <= same <= 24


def test_losses_are_zero_for_the_teacher_itself():
    maps = [torch.randn(2, 5, 3, 8), torch.randn(2, 7, 3, 4)]
    assert distillation.hint_loss(maps, maps) == 0
    features = torch.randn(2, 3, 1280)
    assert distillation.feature_loss(features, features).item() == pytest.approx(0, abs=1e-6)
    assert distillation.feature_loss(-features, features).item() == pytest.approx(2 + 4, abs=1e-5)
    moved = maps[0] + maps[0].std(dim=(0, 2, 3), keepdim=True)
    assert distillation.hint_loss([moved], maps[:1]).item() == pytest.approx(0.91, abs=0.05)


def test_the_learning_rate_rises_and_falls_twice():
    config = distillation.preset("paper")
    rates = [config.learning_rate_at(step) for step in (1, 100, 6500, 6501, 6600, 8500)]
    assert rates == pytest.approx([3e-5, 3e-3, 0, 4e-6, 4e-4, 0], rel=0.01, abs=1e-8)


def test_bad_settings_are_refused():
    with pytest.raises(HwdiffError, match="no such preset as 'huge'"):
        distillation.preset("huge")
    for wrong in ({"steps": 0}, {"fine_steps": 0}, {"learning_rate": 2.0}):
        with pytest.raises(HwdiffError, match=next(iter(wrong))):
            distillation.DistillationConfig(**wrong)
