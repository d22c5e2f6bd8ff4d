import hashlib
from urllib.error import URLError

import numpy as np
import pytest
import torch
from pytorch_fid import inception as fid

from hwdiff import HwdiffError
from hwdiff.evaluation import inception
from hwdiff.evaluation.inception import inception_features, load_inception


def random_weights():
    """Random weights of the whole Inception network of FID, as pytorch-fid makes it."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)
        patch.setattr(fid, "load_state_dict_from_url", lambda *arguments, **options: {})
        return fid.fid_inception_v3().state_dict()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights as a file, and the address that would go with its hash."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(random_weights(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return path, f"https://somewhere/pt_inception-2015-12-05-{digest}.pth"


def test_features_are_those_of_pytorch_fid(weights, monkeypatch):
    path, url = weights
    monkeypatch.setattr(inception, "INCEPTION_URL", url)
    monkeypatch.setattr(fid, "load_state_dict_from_url", lambda *arguments, **options: torch.load(path))
    block = fid.InceptionV3.BLOCK_INDEX_BY_DIM[2048]
    theirs, ours = fid.InceptionV3([block], resize_input=False).eval(), load_inception(path)
    pixels = torch.rand(2, 3, 299, 299, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = theirs(pixels)[0].flatten(1), ours(pixels)
    assert found.shape == (2, 2048)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert not any(weight.requires_grad for weight in ours.parameters())


def test_features_come_from_the_file_that_is_given(weights, monkeypatch):
    path, url = weights
    monkeypatch.setattr(inception, "INCEPTION_URL", url)
    monkeypatch.setattr(inception, "load_state_dict_from_url", None)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 60, 400), dtype=np.uint8)
    features = inception_features(pictures, load_inception(path))
    assert (features.shape, features.dtype) == ((3, 2048), np.float64)
    assert np.abs(features[0] - features[1]).max() > 0


def test_other_weights_and_missing_ones_are_refused_with_the_way_out(weights, tmp_path, monkeypatch):
    path, _ = weights
    with pytest.raises(
        HwdiffError,
        match=r"not the weights of FID \(their SHA-256 begins with 6726825d.*fetched from https://github\.com",
    ):
        load_inception(path)
    with pytest.raises(HwdiffError, match=r"none\.pth: cannot be read"):
        load_inception(tmp_path / "none.pth")

    def no_network(*arguments, **options):
        raise URLError("no network")

    monkeypatch.setattr(inception, "load_state_dict_from_url", no_network)
    with pytest.raises(
        HwdiffError, match=r"cannot be downloaded .*a FILE fetched from .*; or do without, on MobileNetV2"
    ):
        load_inception()


def test_the_address_is_the_one_that_pytorch_fid_knows():
    assert inception.INCEPTION_URL == fid.FID_WEIGHTS_URL


def test_pictures_are_handed_over_in_the_range_of_inception():
    class Watched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, pixels):
            self.seen = pixels
            return torch.zeros(len(pixels), 2048)

    network = Watched()
    inception_features(np.full((1, 60, 400), 255, dtype=np.uint8), network)
    assert network.seen.shape == (1, 3, 299, 299)
    assert network.seen.unique().tolist() == [1.0]
