"""Cells on a GPU's kernels against the same cells on the CPU: on a GPU where there is one, and interpreted everywhere."""

import copy

import pytest
import torch
from torch import Tensor

from suite.recurrent import RecurrentEncoder, RecurrentOptions, gpu_unroll
from suite.recurrent import cells as cells_module
from suite.recurrent import minimal as minimal_module
from suite.recurrent.steps import ACTIVATIONS

OWN = ("rnn", "indrnn", "peephole_lstm", "layernorm_lstm", "layernorm_gru", "mingru", "minlstm")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(params=["interpreted", pytest.param("cuda", marks=[pytest.mark.gpu, on_gpu])])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the kernels run. Interpreted, the same code is plain Python over the CPU's memory (see ``conftest.py``)."""
    if request.param == "cuda":
        return "cuda"
    if torch.cuda.is_available():
        pytest.skip("compiled here")
    pytest.importorskip("triton")
    monkeypatch.setattr(gpu_unroll, "find_block", lambda *_, **__: None)
    for module in (cells_module, minimal_module):
        monkeypatch.setattr(module, "runs_on_gpu", lambda values, *, size: _Here.on)
    return "cpu"


class _Here:
    """Whether the interpreted kernels take the cells' place."""

    on = False


def run_both(
    encoder: RecurrentEncoder, inputs: Tensor, lengths: Tensor, device: str, state: tuple[Tensor, ...] | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, states and all gradients on the CPU's own way, and on the kernels."""
    found = []
    for place in ("cpu", device):
        _Here.on = place == device and len(found) == 1
        try:
            found.append(_run(copy.deepcopy(encoder).to(place), inputs, lengths, place, state))
        finally:
            _Here.on = False
    return found[0], found[1]


def _run(
    encoder: RecurrentEncoder, inputs: Tensor, lengths: Tensor, place: str, state: tuple[Tensor, ...] | None
) -> list[Tensor]:
    inputs = inputs.to(place).clone().requires_grad_()
    state = None if state is None else tuple(part.to(place).clone().requires_grad_() for part in state)
    encoded = encoder(inputs, lengths.to(place), state)
    weights = torch.linspace(-1.0, 1.5, encoded.outputs.numel(), dtype=inputs.dtype).view_as(encoded.outputs).to(place)
    loss = (encoded.outputs * weights).sum()
    for number, part in enumerate(encoded.state):
        loss = loss + (number + 0.5) * (part * part).sum()
    wanted = [inputs, *encoder.parameters(), *(state or ())]
    gradients = torch.autograd.grad(loss, wanted)
    return [part.detach().cpu() for part in (encoded.outputs, *encoded.state, *gradients)]


def make(cell: str, *, size: int = 6, dtype: torch.dtype = torch.float64, **options: object) -> RecurrentEncoder:
    torch.manual_seed(3)
    encoder = RecurrentEncoder(5, size, cell=cell, options=RecurrentOptions(**options))  # type: ignore[arg-type]
    for parameter in encoder.parameters():  # biases, gains and peepholes away from where they start
        torch.nn.init.normal_(parameter, std=0.4)
    return encoder.to(dtype)


def a_batch(dtype: torch.dtype = torch.float64, steps: int = 9) -> tuple[Tensor, Tensor]:
    torch.manual_seed(4)
    inputs = torch.randn(5, steps, 5, dtype=dtype)
    return inputs, torch.tensor([steps, 1, 0, steps - 2, 4])


@pytest.mark.parametrize("cell", OWN)
@pytest.mark.parametrize("with_state", [False, True])
def test_equals_the_cpu(cell: str, with_state: bool, device: str) -> None:
    encoder, (inputs, lengths) = make(cell), a_batch()
    state = None
    if with_state:
        state = tuple(torch.randn(5, 1, 6, dtype=torch.float64) for _ in range(encoder.num_states))
    for expected, found in zip(*run_both(encoder, inputs, lengths, device, state), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("cell", ["rnn", "indrnn"])
def test_every_activation(cell: str, activation: str, device: str) -> None:
    encoder, (inputs, lengths) = make(cell, activation=activation), a_batch()
    for expected, found in zip(*run_both(encoder, inputs, lengths, device), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
