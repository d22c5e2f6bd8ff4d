import hashlib
from urllib.error import URLError

import numpy as np
import pytest
import torch
from pytorch_fid import inception
from scipy.linalg import sqrtm

from hwdiff import HwdiffError, Ink
from hwdiff.evaluation import frechet
from hwdiff.evaluation.frechet import Canvas, frechet_distance, inception_features, kernel_distance, load_inception, mobilenet_features


def normal(n, d=6, mean=0.0, scale=1.0, seed=0):
    return np.random.default_rng(seed).normal(mean, scale, (n, d))


def exactly(mean, deviations):
    """2 d points whose mean and covariance (diagonal) are exactly those."""
    d = len(deviations)
    away = np.diag(np.asarray(deviations) * np.sqrt((2 * d - 1) / 2))
    return np.concatenate((away, -away)) + mean


def test_the_frechet_distance_of_known_gaussians():
    one, two = exactly([0, 0, 0], [1, 2, 3]), exactly([3, 0, 4], [2, 2, 1])
    # |m1 - m2|^2 + sum of (s1 - s2)^2, for covariances that commute
    assert frechet_distance(one, two) == pytest.approx(25 + 1 + 0 + 4, rel=1e-12)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(two, one) == pytest.approx(frechet_distance(one, two))


@pytest.mark.parametrize(("n", "m"), [(50, 80), (5, 4), (5, 80), (80, 5)])
def test_the_frechet_distance_is_that_with_the_root_of_a_matrix(n, m):
    first, second = normal(n, 20), normal(m, 20, 0.3, 2.0, seed=1)
    covariances = [np.cov(some, rowvar=False) for some in (first, second)]
    root = sqrtm(covariances[0] @ covariances[1] + 1e-12 * np.eye(20)).real
    expected = np.square(first.mean(axis=0) - second.mean(axis=0)).sum() + sum(np.trace(some) for some in covariances) - 2 * np.trace(root)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-4)


def test_the_kernel_distance_is_the_unbiased_estimate():
    x, y = normal(7, 3), normal(7, 3, 0.5, seed=1)

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    same = [np.mean([kernel(some[i], some[j]) for i in range(7) for j in range(7) if i != j]) for some in (x, y)]
    across = np.mean([kernel(a, b) for a in x for b in y])
    mean, deviation = kernel_distance(x, y)
    assert mean == pytest.approx(sum(same) - 2 * across)
    assert deviation > 0
    alike = [kernel_distance(normal(100, seed=2 * seed), normal(100, seed=2 * seed + 1))[0] for seed in range(40)]
    assert abs(np.mean(alike)) < 3 * np.std(alike) / np.sqrt(40)  # no bias
    mean, deviation = kernel_distance(normal(500, seed=1), normal(300, mean=0.5, seed=2), subset=100, subsets=30, seed=3)
    assert mean > 3 * deviation > 0
    assert kernel_distance(normal(500, seed=1), normal(300, mean=0.5, seed=2), subset=100, subsets=30, seed=3) == (mean, deviation)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (normal(5, 3), normal(5, 4), "sets of different width: 3 and 4"),
        (normal(0, 3), normal(5, 3), "first set: 0 lines; at least 2"),
        (normal(5, 3), normal(1, 3), "second set: 1 lines; at least 2"),
        (np.full((5, 3), np.inf), normal(5, 3), "first set: holds numbers that are not finite"),
        (np.zeros(5), normal(5, 3), r"first set: an array of shape \(5,\)"),
    ],
)
@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_bad_features_are_named(distance, first, second, message):
    with pytest.raises(HwdiffError, match=message):
        distance(first, second)


def test_constant_features_have_the_distance_of_their_means():
    assert frechet_distance(np.zeros((5, 3)), np.ones((4, 3))) == pytest.approx(3)


def test_lines_stand_alike_on_the_canvas():
    ink = Ink([[0, 0], [10, 4], [10, -4], [5, 5], [5, 5]], [True, False, False, True, False], "v")
    canvas = Canvas(200, 100, 5.0, 2.0)
    drawn = canvas.draw(ink)
    assert (drawn.shape, drawn.dtype) == ((100, 200), np.uint8)
    ys, xs = np.nonzero(drawn < 128)
    assert abs(xs.min() - (4 - 1)) <= 1
    assert abs((ys.min() + ys.max()) / 2 - 50) <= 1
    moved = Ink(np.concatenate(([[7, -9]], ink.offsets[1:])), ink.pen_up)
    np.testing.assert_array_equal(canvas.draw(moved), drawn)
    assert (canvas.draw(Ink(np.zeros((0, 2)), [])) == 255).all()
    assert (Canvas(20, 100).draw(ink) < 128).any()  # what does not fit is cut off


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An Inception network with random weights, as a file, and the name that its hash would give it."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)
        patch.setattr(inception, "load_state_dict_from_url", lambda *arguments, **options: {})
        network = inception.fid_inception_v3()
    torch.save(network.state_dict(), path)
    return path, f"https://somewhere/pt_inception-2015-12-05-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"


def test_inception_features_come_from_the_file_that_is_given(weights, monkeypatch):
    path, url = weights
    monkeypatch.setattr(frechet, "INCEPTION_URL", url)
    monkeypatch.setattr(inception, "load_state_dict_from_url", None)
    pictures, counts = np.random.default_rng(0).integers(0, 256, (3, 60, 400), dtype=np.uint8), []
    features = inception_features(pictures, load_inception(path), progress=counts.append)
    assert (features.shape, features.dtype, counts) == ((3, 2048), np.float64, [3])
    assert np.abs(features[0] - features[1]).max() > 0
    assert inception.load_state_dict_from_url is None


def test_other_weights_and_missing_ones_are_refused_with_the_way_out(weights, tmp_path, monkeypatch):
    path, _ = weights
    with pytest.raises(HwdiffError, match=r"not the weights of FID \(their SHA-256 begins with 6726825d.*fetched from https://github\.com"):
        load_inception(path)
    with pytest.raises(HwdiffError, match=r"none\.pth: cannot be read"):
        load_inception(tmp_path / "none.pth")

    def no_network(*arguments, **options):
        raise URLError("no network")

    monkeypatch.setattr(frechet, "load_state_dict_from_url", no_network)
    with pytest.raises(HwdiffError, match=r"cannot be downloaded .*a FILE fetched from .*; or do without, on MobileNetV2"):
        load_inception()


@pytest.mark.parametrize(
    "pictures", [[], np.zeros((1, 9, 9)), np.zeros((1, 9, 9, 3), np.uint8), [np.zeros((9, 9), np.uint8), np.zeros((9, 8), np.uint8)]]
)
def test_pictures_of_another_kind_are_named(pictures, extractor):
    with pytest.raises(HwdiffError, match="all of one size"):
        mobilenet_features(pictures, extractor)


def test_the_address_is_the_one_that_pytorch_fid_knows():
    assert frechet.INCEPTION_URL == inception.FID_WEIGHTS_URL


def test_mobilenet_features_are_of_pictures_scaled_with_antialiasing(extractor):
    generator, counts = np.random.default_rng(0), []
    small = generator.integers(0, 256, (3, 96, 500), dtype=np.uint8)
    features = mobilenet_features(small, extractor, progress=counts.append)
    assert (features.shape, features.dtype, sum(counts)) == ((3, 1280), np.float64, 3)
    padded = np.full((3, 96, 1400), 255, dtype=np.uint8)
    padded[:, :, :500] = small
    np.testing.assert_allclose(features, extractor(torch.from_numpy(padded)).mean(dim=1), rtol=1e-4, atol=1e-5)
    # One thin line in a large picture is grey in the small one, wherever it falls; without antialiasing it would vanish from some.
    thin = np.full((6, 960, 5000), 255, dtype=np.uint8)
    for number in range(6):
        thin[number, 400 + number] = 0
    found = mobilenet_features(thin, extractor)
    blank = mobilenet_features(np.full((1, 960, 5000), 255, dtype=np.uint8), extractor)
    assert (np.abs(found - blank).max(axis=1) > 0.01).all()
    assert mobilenet_features(np.zeros((1, 60, 1400), dtype=np.uint8), extractor).shape == (1, 1280)  # too long: cut off
