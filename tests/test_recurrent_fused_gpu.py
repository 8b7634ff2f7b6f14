"""The cells of ``torch.nn`` on a GPU, without packing: the same as on the CPU, and as fast as padding is."""

import copy
import warnings

import pytest
import torch
from torch import Tensor

from suite.recurrent import RecurrentEncoder, RecurrentOptions
from suite.recurrent.fused import _in_one_piece
from suite.recurrent.options import FUSED

STEPS, ROWS = 9, torch.tensor([9, 1, 0, 7, 4])


def results(encoder: RecurrentEncoder, inputs: Tensor, state: tuple[Tensor, ...] | None, place: str) -> list[Tensor]:
    encoder, inputs = copy.deepcopy(encoder).to(place), inputs.to(place).clone().requires_grad_()
    state = None if state is None else tuple(part.to(place).requires_grad_() for part in state)
    torch.manual_seed(0)
    encoded = encoder(inputs, ROWS.to(place), state)
    weights = torch.linspace(-1.0, 1.5, encoded.outputs.numel(), dtype=inputs.dtype).view_as(encoded.outputs).to(place)
    loss = (encoded.outputs * weights).sum() + torch.stack([part.square().sum() for part in encoded.state]).sum()
    gradients = torch.autograd.grad(loss, [inputs, *encoder.parameters(), *(state or ())])
    return [part.detach().cpu() for part in (encoded.outputs, *encoded.state, *gradients)]


def build(cell: str, size: int = 5, *, both: bool = True, **options: float) -> RecurrentEncoder:
    chosen = RecurrentOptions(**options)  # type: ignore[arg-type]
    encoder = RecurrentEncoder(size, 6, cell=cell, num_layers=2, bidirectional=both, options=chosen)  # type: ignore[arg-type]
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return encoder.double()


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("with_state", [False, True], ids=["from zero", "from a state"])
@pytest.mark.parametrize("size", [5, 8])
@pytest.mark.parametrize("cell", FUSED)
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_equals_the_cpu(cell: str, size: int, with_state: bool, training: bool) -> None:
    """Values, states and all gradients, in eval too, without a warning about where weights lie in memory."""
    encoder = build(cell, size).train(training)
    inputs = torch.randn(5, STEPS, size, dtype=torch.float64)
    shape = (5, 4, 6)
    state = tuple(torch.randn(shape, dtype=torch.float64) for _ in range(encoder.num_states)) if with_state else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = results(encoder, inputs, state, "cuda")
    for given, expected in zip(found, results(encoder, inputs, state, "cpu"), strict=True):
        torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("cell", FUSED)
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_in_bfloat16(cell: str) -> None:
    encoder = RecurrentEncoder(16, 24, cell=cell, bidirectional=True).cuda()  # type: ignore[arg-type]
    inputs, lengths = torch.randn(5, STEPS, 16, device="cuda"), ROWS.cuda()
    expected = encoder(inputs, lengths)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        found = encoder(inputs, lengths)
    found.outputs.float().sum().backward()
    for low, full in zip((found.outputs, *found.state), (expected.outputs, *expected.state), strict=True):
        assert (low.float() - full).norm() < 0.02 * full.norm()
    assert all(
        bool(parameter.grad.isfinite().all()) for parameter in encoder.parameters() if parameter.grad is not None
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("cell", FUSED)
def test_dropped_weights_go_where_they_belong(cell: str) -> None:
    encoder = build(cell, both=False, weight_dropout=0.4).cuda()
    inputs = torch.randn(5, STEPS, 5, dtype=torch.float64, device="cuda")
    first, second = encoder(inputs, ROWS.cuda()).outputs, encoder(inputs, ROWS.cuda()).outputs
    assert not torch.equal(first, second)
    torch.testing.assert_close(encoder.eval()(inputs, ROWS.cuda()).outputs, build_again(encoder, inputs))


def build_again(encoder: RecurrentEncoder, inputs: Tensor) -> Tensor:
    return copy.deepcopy(encoder).cpu()(inputs.cpu(), ROWS).outputs.to(inputs.device)


def test_weights_in_one_piece() -> None:
    """Views of one piece of memory, next to each other, through which gradients go."""
    weights = [torch.randn(shape, requires_grad=True) for shape in ((8, 3), (8, 2), (8,), (8,))]
    parts = _in_one_piece(weights)
    start, place = parts[0].data_ptr(), 0
    for part, weight in zip(parts, weights, strict=True):
        assert part.data_ptr() == start + 4 * place
        assert torch.equal(part, weight)
        place += part.numel()
    torch.stack([(part * part).sum() for part in parts]).sum().backward()
    for weight in weights:
        torch.testing.assert_close(weight.grad, 2 * weight)
