import pytest
import torch

from hwdiff.model.unet import UNet
from hwdiff.training import muon
from tests.conftest import TINY


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.0), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("shape", [(12, 12), (8, 24), (24, 8)])
def test_an_orthogonal_factor_comes_out(shape, dtype, tolerance):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    found = muon.orthogonalize(matrices.to(dtype)).float()
    singular = torch.linalg.svdvals(found)
    assert 0.65 - tolerance < singular.min() < singular.max() < 1.25 + tolerance
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    exact = u @ v
    assert ((found * exact).sum(dim=(1, 2)) / found.norm(dim=(1, 2)) / exact.norm(dim=(1, 2))).min() > 0.97


def test_an_update_is_as_large_as_adams_and_goes_downhill():
    weight = torch.nn.Parameter(torch.randn(16, 32, generator=torch.Generator().manual_seed(0)))
    before, optimizer = weight.detach().clone(), muon.Muon([weight], lr=0.1)
    (weight**2).sum().backward()
    optimizer.step()
    change = weight.detach() - before
    assert change.square().mean().sqrt().item() == pytest.approx(0.1 * muon.ADAM_RMS, rel=0.15)
    assert (change * before).sum() < 0


def test_processes_that_share_the_work_do_as_one(monkeypatch):
    shapes = enumerate([(8, 8), (8, 16), (8, 8), (8, 8)])
    gradients = [torch.randn(shape, generator=torch.Generator().manual_seed(n)) for n, shape in shapes]

    def stepped(rank, count):
        weights = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
        optimizer = muon.Muon(weights, lr=1.0, rank=rank, count=count)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()
        return [weight.detach() for weight in weights]

    whole = stepped(0, 1)
    # Without the sum each process has its own updates, and zeros for the other's.
    monkeypatch.setattr(muon.dist, "all_reduce", lambda flat: None)
    for one, other, both in zip(stepped(0, 2), stepped(1, 2), whole, strict=True):
        assert bool(one.any()) != bool(other.any())
        torch.testing.assert_close(one + other, both)


def test_every_weight_is_trained_once():
    network = UNet(TINY)
    matrices, rest = muon.matrices_and_rest(network)
    assert {id(weight) for weight in (*matrices, *rest)} == {id(weight) for weight in network.parameters()}
    assert len(matrices) + len(rest) == len(list(network.parameters()))
    names = {id(weight): name for name, weight in network.named_parameters()}
    assert all(weight.ndim == 2 for weight in matrices)
    for_adam = {names[id(weight)] for weight in rest}
    assert {"input.weight", "eps_out.weight", "encoder.embedding.weight"} <= for_adam
    assert "down1.affine1.scale_shift.weight" in for_adam


def test_momentum_is_nesterovs():
    weight = torch.nn.Parameter(torch.zeros(8, 8))
    optimizer, momentum, expected = muon.Muon([weight], lr=1.0), 0, 0
    for seed in range(3):
        gradient = torch.randn(8, 8, generator=torch.Generator().manual_seed(seed))
        weight.grad = gradient.clone()
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        expected = expected - 0.2 * 8**0.5 * muon.orthogonalize((0.05 * gradient + 0.95 * momentum)[None])[0]
    torch.testing.assert_close(weight.detach(), expected, atol=1e-4, rtol=1e-3)
