"""The linear recurrence: loop, blocks, scan and compiled kernels are one thing, for open and shut gates too."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from suite.recurrent import RecurrentEncoder, kernel_steps
from suite.recurrent.minimal import MinimalCell, MinimalLayer, _keep_and_candidate
from suite.recurrent.scan import Method, linear_recurrence

METHODS: tuple[Method, ...] = get_args(Method)
LONG = 4096


def extreme_gates(steps: int, *, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Decays of logits with deviation 8: from below 1e-12 to one in float32."""
    generator = torch.Generator().manual_seed(1)
    logits, inputs = (torch.randn(2, steps, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    decay = torch.sigmoid(8.0 * logits)
    start = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    return tuple(part.to(dtype).requires_grad_() for part in (decay, (1.0 - decay) * inputs, start))  # type: ignore[return-value]


def values_and_slopes(parts: tuple[Tensor, ...], method: Method) -> list[Tensor]:
    states = linear_recurrence(*parts, method=method)
    probe = torch.randn(states.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return [states, *torch.autograd.grad((states * probe.to(states.dtype)).sum(), parts)]


@pytest.mark.parametrize("steps", [1, 2, 7, 64, LONG])
@pytest.mark.parametrize("method", ["blocked", "scan"])
def test_equals_the_loop_in_float64(method: Method, steps: int) -> None:
    parts = extreme_gates(steps, dtype=torch.float64)
    expected, given = values_and_slopes(parts, "loop"), values_and_slopes(parts, method)
    torch.testing.assert_close(given, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_float32_at_length_4096(method: Method) -> None:
    """Against the loop in float64: states within 1e-6 absolute, gradients within 1e-5 of their largest."""
    exact = values_and_slopes(extreme_gates(LONG, dtype=torch.float64), "loop")
    rough = values_and_slopes(extreme_gates(LONG, dtype=torch.float32), method)
    torch.testing.assert_close(rough[0].double(), exact[0], rtol=0, atol=1e-6)
    for given, expected in zip(rough[1:], exact[1:], strict=True):
        torch.testing.assert_close(given.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_gradcheck(method: Method) -> None:
    parts = extreme_gates(7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *given: linear_recurrence(*given, method=method), parts)


def layer_of(cell: MinimalCell, dtype: torch.dtype) -> tuple[MinimalLayer, Tensor]:
    """A layer whose gates have logits of deviation 8."""
    torch.manual_seed(3)
    layer = MinimalLayer(4, 8, cell=cell)
    torch.nn.init.normal_(layer.weight_ih, std=4.0)
    torch.nn.init.zeros_(layer.bias)
    return layer.to(dtype), torch.randn(2, LONG, 4).to(dtype).requires_grad_()


@pytest.mark.parametrize("cell", get_args(MinimalCell))
def test_compiled_equals_the_parts_at_length_4096(cell: MinimalCell, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64 to 1e-10; in float32 within 2e-5 of the largest value (gates' products are rounded too)."""
    lengths = torch.tensor([LONG, LONG // 3])

    def run(dtype: torch.dtype) -> list[Tensor]:
        layer, inputs = layer_of(cell, dtype)
        outputs, final = layer(inputs, lengths)
        probe = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        total = (outputs * probe.to(dtype)).sum() + final[0].sum()
        return [outputs, *final, *torch.autograd.grad(total, [inputs, *layer.parameters()])]

    compiled, rough = run(torch.float64), run(torch.float32)
    monkeypatch.setattr(kernel_steps, "compiled_kernels", lambda name="kernels": None)
    torch.testing.assert_close(compiled, run(torch.float64), rtol=1e-10, atol=1e-10)
    for given, expected in zip(rough, compiled, strict=True):
        torch.testing.assert_close(given.double(), expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("scale", [100.0, 1e4, 1e30])
@pytest.mark.parametrize("cell", get_args(MinimalCell))
def test_saturated_gates_stay_finite(cell: MinimalCell, scale: float) -> None:
    layer, inputs = layer_of(cell, torch.float32)
    candidates = slice(8 * (len(layer.bias) // 8 - 1), None)
    with torch.no_grad():
        layer.weight_ih.mul_(scale)
        layer.weight_ih[candidates].div_(scale)
    outputs, _ = layer(inputs, torch.tensor([LONG, 7]))
    outputs.sum().backward()
    assert torch.isfinite(outputs).all()
    assert inputs.grad is not None
    assert torch.isfinite(layer.weight_ih.grad).all()  # type: ignore[arg-type]


def test_shares_of_minlstm_add_to_one_where_both_sigmoids_vanish() -> None:
    gates = torch.tensor([[[-200.0, -201.0, 5.0]]], dtype=torch.float32)
    keep, _ = _keep_and_candidate("minlstm", gates)
    torch.testing.assert_close(keep, torch.sigmoid(torch.tensor([[[1.0]]])), rtol=1e-4, atol=0)


@pytest.mark.parametrize("cell", get_args(MinimalCell))
def test_autocast_computes_the_recurrence_in_float32(cell: MinimalCell) -> None:
    """Gates are rounded to bfloat16, once; states are those of float32 gates of the same values, to the bit."""
    encoder = RecurrentEncoder(4, 8, cell=cell)
    inputs, lengths = torch.randn(2, 300, 4), torch.tensor([300, 20])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(inputs, lengths)
    layer = encoder.layers[0]
    assert isinstance(layer, MinimalLayer)
    gates = torch.nn.functional.linear(inputs.bfloat16(), layer.weight_ih.bfloat16(), layer.bias.bfloat16()).float()
    keep, candidate = _keep_and_candidate(cell, gates)
    states = linear_recurrence(keep, (1.0 - keep) * candidate, torch.zeros(2, 8), method="loop")
    assert rough.state[0].dtype == torch.float32
    expected = torch.stack([states[0, -1], states[1, 19]])
    torch.testing.assert_close(rough.state[0][:, 0], expected, rtol=1e-5, atol=1e-5)


def test_memory_is_linear_in_time() -> None:
    """What autograd keeps for a pass: the bytes of all saved tensors double with the length."""

    def saved(steps: int) -> int:
        encoder, kept = RecurrentEncoder(8, 16, cell="mingru"), {}

        def pack(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            encoder(torch.randn(2, steps, 8, requires_grad=True), torch.tensor([steps, 5])).outputs.sum()
        return sum(kept.values())

    assert saved(4000) < 2.05 * saved(2000)
