import pytest
import torch

from hwdiff.utils import machine


def test_a_rate_is_of_the_calls_after_the_first(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now[0])
    rate = machine.rate_of(lambda: now.__setitem__(0, now[0] + 0.5), 7.0, "cpu", seconds=3.0)
    assert rate == pytest.approx(14)


@pytest.mark.parametrize(("bf16", "emulated"), [(1.0, True), (3.0, False), (20.0, False)])
def test_bf16_far_slower_than_fp32_is_emulated(monkeypatch, bf16, emulated):
    rates = {torch.float32: 8.0, torch.bfloat16: bf16}
    monkeypatch.setattr(machine, "matrix_product_rate", lambda dtype, device, **how: rates[dtype])
    assert machine.bf16_is_emulated("cpu") == emulated
