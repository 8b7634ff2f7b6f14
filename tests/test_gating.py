"""The gate: kernels against torch in float64, with the bias of each row, and numbers that are none."""

import math

import pytest
import torch
from torch import Tensor

from suite import gating
from suite.gating import gate_, gate_backward_
from suite.kernels import AVAILABLE

needs_numba = pytest.mark.skipif(not AVAILABLE, reason="numba is not installed")


def reference(gates: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    wide = gates.double() + bias.double().repeat(len(gates) // len(bias), 1)
    first, second = wide.chunk(2, dim=1)
    return torch.cat([first.tanh(), second.sigmoid()], dim=1), first.tanh() * second.sigmoid()


@pytest.fixture(params=["kernel", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "kernel" and not AVAILABLE:
        pytest.skip("numba is not installed")
    monkeypatch.setattr(gating, "AVAILABLE", request.param == "kernel")
    return request.param


@pytest.mark.parametrize(("rows", "period", "channels"), [(12, 1, 5), (12, 4, 16), (64, 64, 33)])
def test_forward_and_backward(way: str, rows: int, period: int, channels: int) -> None:
    gates, bias = 4 * torch.randn(rows, 2 * channels), torch.randn(period, 2 * channels)
    slopes, before = torch.randn(rows, channels), torch.randn(period, 2 * channels)
    factors, product = reference(gates, bias)
    kept, gated = gates.clone(), torch.empty(rows, channels)
    gate_(kept, bias, gated)
    torch.testing.assert_close(kept.double(), factors, rtol=0, atol=5e-7)
    torch.testing.assert_close(gated.double(), product, rtol=0, atol=5e-7)

    exact, offset = gates.double().requires_grad_(), bias.double().requires_grad_()
    reference(exact, offset)[1].backward(slopes.double())
    to_gates, total, again = torch.empty(rows, 2 * channels), before.clone(), torch.empty(rows, channels)
    gate_backward_(slopes, kept, to_gates, again, total)
    torch.testing.assert_close(to_gates.double(), exact.grad, rtol=0, atol=2e-6)
    torch.testing.assert_close((total - before).double(), offset.grad, rtol=0, atol=2e-5)
    torch.testing.assert_close(again, gated, rtol=0, atol=0)


def test_half_precision_is_rounded_once() -> None:
    gates, bias, gated = torch.randn(8, 6).bfloat16(), torch.randn(2, 6), torch.empty(8, 3).bfloat16()
    factors, product = reference(gates, bias)
    gate_(gates, bias, gated)
    torch.testing.assert_close(gates.double(), factors, rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(gated.double(), product, rtol=2**-8, atol=1e-6)


@needs_numba
def test_the_kernels_tanh_over_its_whole_range() -> None:
    values = torch.cat([torch.linspace(-30, 30, 120_001), torch.tensor([1e-30, -1e-30, math.inf, -math.inf])])
    gates = torch.stack([values, torch.full_like(values, math.inf)], dim=1)
    gated = torch.empty(len(values), 1)
    gate_(gates, torch.zeros(1, 2), gated)
    torch.testing.assert_close(gated[:, 0].double(), values.double().tanh(), rtol=0, atol=4e-7)
    assert float(gated.abs().max()) <= 1.0


def test_what_is_no_number_stays_none(way: str) -> None:
    gates, gated = torch.full((1, 2), math.nan), torch.zeros(1, 1)
    gate_(gates, torch.zeros(1, 2), gated)
    assert torch.isnan(gated).all()
