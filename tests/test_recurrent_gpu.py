"""Cells on the kernels for GPUs against the same cells on the CPU: on a GPU where there is one, else interpreted."""

import copy
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from suite.recurrent import RecurrentEncoder, RecurrentOptions
from suite.recurrent import cells as cells_module
from suite.recurrent import fused as fused_module
from suite.recurrent import minimal as minimal_module
from suite.recurrent.dropout import Zoneout
from suite.recurrent.gpu import graphs
from suite.recurrent.gpu import steps as gpu_steps
from suite.recurrent.gpu import unroll as gpu_unroll
from suite.recurrent.gpu.steps import PEEPHOLE_LSTM
from suite.recurrent.options import WITH_MEMORY
from suite.recurrent.steps import ACTIVATIONS

OWN = ("rnn", "indrnn", "peephole_lstm", "layernorm_lstm", "layernorm_gru", "mingru", "minlstm")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class _Switch:
    """Whether cells may take the kernels; off, they run as they do where there is no Triton."""

    on = True


@pytest.fixture(params=["interpreted", pytest.param("cuda", marks=[pytest.mark.gpu, on_gpu])])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the kernels run. Interpreted, the same code is plain Python over the CPU's memory (see ``conftest.py``)."""
    if request.param == "interpreted":
        if torch.cuda.is_available():
            pytest.skip("compiled here")
        pytest.importorskip("triton")
        monkeypatch.setattr(gpu_unroll, "find_block", lambda *_, **__: None)
    for module in (cells_module, minimal_module, fused_module):
        monkeypatch.setattr(module, "runs_on_gpu", lambda values, *, size: _Switch.on)
    return "cpu" if request.param == "interpreted" else "cuda"


def run_both(
    encoder: RecurrentEncoder,
    inputs: Tensor,
    lengths: Tensor,
    places: tuple[str, str],
    state: tuple[Tensor, ...] | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Outputs, states and all gradients without the kernels in the first place, and with them in the second."""
    found: list[list[Tensor]] = []
    for place, kernels in zip(places, (False, True), strict=True):
        _Switch.on = kernels
        try:
            torch.manual_seed(5)  # of zoneout
            found.append(_run(copy.deepcopy(encoder).to(place), inputs, lengths, place, state))
        finally:
            _Switch.on = True
    return list(zip(*found, strict=True))


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


def assert_same(pairs: list[tuple[Tensor, Tensor]], *, rtol: float = 1e-9, atol: float = 1e-10) -> None:
    for expected, found in pairs:
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def make(
    cell: str, *, size: int = 6, std: float = 0.4, dtype: torch.dtype = torch.float64, **options: Any
) -> RecurrentEncoder:
    torch.manual_seed(3)
    encoder = RecurrentEncoder(5, size, cell=cell, options=RecurrentOptions(**options))  # type: ignore[arg-type]
    for parameter in encoder.parameters():  # biases, gains and peepholes away from where they start
        torch.nn.init.normal_(parameter, std=std)
    return encoder.to(dtype)


def a_batch(dtype: torch.dtype = torch.float64, steps: int = 9) -> tuple[Tensor, Tensor]:
    torch.manual_seed(4)
    inputs = torch.randn(5, steps, 5, dtype=dtype)
    return inputs, torch.tensor([steps, 1, 0, steps - 2, 4])


@pytest.mark.parametrize("cell", OWN)
@pytest.mark.parametrize("with_state", [False, True], ids=["from zero", "from a state"])
def test_equals_the_cpu(cell: str, with_state: bool, device: str) -> None:
    encoder, (inputs, lengths) = make(cell), a_batch()
    state = None
    if with_state:
        state = tuple(torch.randn(5, 1, 6, dtype=torch.float64) for _ in range(encoder.num_states))
    assert_same(run_both(encoder, inputs, lengths, ("cpu", device), state))


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("cell", ["rnn", "indrnn"])
def test_every_activation(cell: str, activation: str, device: str) -> None:
    encoder, (inputs, lengths) = make(cell, activation=activation), a_batch()
    assert_same(run_both(encoder, inputs, lengths, ("cpu", device)))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("cell", [*OWN, "lstm", "gru", "rnn_tanh", "rnn_relu"])
def test_zoneout(cell: str, training: bool, device: str) -> None:
    options: dict[str, Any] = {"zoneout": 0.3, **({"zoneout_memory": 0.2} if cell in WITH_MEMORY else {})}
    encoder, (inputs, lengths) = make(cell, **options).train(training), a_batch()
    if training:  # masks are drawn for rows in the order in which they run: without kernels, the longest first
        lengths = torch.full_like(lengths, inputs.size(1))
    assert_same(run_both(encoder, inputs, lengths, (device, device)))


@pytest.mark.parametrize("option", ["zoneout", "zoneout_memory"])
def test_zoneout_of_one_state_alone(option: str, device: str) -> None:
    encoder, (inputs, lengths) = make("layernorm_lstm", **dict[str, Any]({option: 0.3})).eval(), a_batch()
    assert_same(run_both(encoder, inputs, lengths, ("cpu", device)))


@pytest.mark.parametrize("cell", OWN)
def test_float32_and_sizes_that_are_no_power_of_two(cell: str, device: str) -> None:
    encoder, (inputs, lengths) = make(cell, size=70, std=0.1, dtype=torch.float32), a_batch(torch.float32, steps=8)
    assert_same(run_both(encoder, inputs, lengths, ("cpu", device)), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("cell", OWN)
def test_padding_changes_nothing(cell: str, device: str) -> None:
    """Of a layer called directly: the encoder around it sets padding to zero before any kernel sees it."""
    layer, (inputs, lengths) = make(cell).to(device).layers[0], a_batch()
    inputs, lengths = inputs.to(device), lengths.to(device)
    spoilt = inputs.clone()
    spoilt[torch.arange(inputs.size(1), device=device) >= lengths.unsqueeze(1)] = float("nan")
    (left, left_state), (right, right_state) = layer(inputs, lengths), layer(spoilt, lengths)
    for one, other in zip((left, *left_state), (right, *right_state), strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("cell", OWN)
def test_chunks_equal_one_pass(cell: str, device: str) -> None:
    encoder, (inputs, lengths) = make(cell).to(device), a_batch()
    inputs, lengths = inputs.to(device), lengths.to(device)
    whole = encoder(inputs, lengths)
    first = encoder(inputs[:, :4], lengths.clamp(max=4))
    second = encoder(inputs[:, 4:], (lengths - 4).clamp(min=0), first.state)
    torch.testing.assert_close(torch.cat([first.outputs, second.outputs], dim=1), whole.outputs, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(second.state, whole.state, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("cell", ["mingru", "minlstm"])
@pytest.mark.parametrize("steps", [1, 8, 9, 70])
def test_chunks_of_the_scan(cell: str, steps: int, device: str) -> None:
    """Lengths around the sizes of chunks, gates far into saturation."""
    encoder = make(cell, size=3)
    inputs = 30.0 * torch.randn(2, steps, 5, dtype=torch.float64)
    assert_same(run_both(encoder, inputs, torch.tensor([steps, steps - 1]), ("cpu", device)))


@pytest.mark.parametrize("cell", [*OWN[:1], "peephole_lstm", "mingru"])
def test_nothing_to_do(cell: str, device: str) -> None:
    encoder = make(cell).to(device)
    for batch, steps in ((2, 0), (0, 3)):
        inputs = torch.zeros(batch, steps, 5, dtype=torch.float64, device=device, requires_grad=True)
        encoded = encoder(inputs, torch.full((batch,), steps, device=device))
        encoded.outputs.sum().backward()
        assert encoded.outputs.shape == (batch, steps, 6)


@pytest.mark.parametrize("cell", OWN)
def test_gradients_of_gradients_are_refused(cell: str, device: str) -> None:
    encoder, (inputs, lengths) = make(cell).to(device), a_batch()
    inputs = inputs.to(device).requires_grad_()
    (slope,) = torch.autograd.grad(encoder(inputs, lengths.to(device)).outputs.sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="no derivative"):
        slope.sum().backward()


def test_every_kernel_compiles() -> None:
    """For a GPU, by Triton's own compiler, also where there is none: interpreted kernels may be what it refuses."""
    pytest.importorskip("triton")
    script = Path(__file__).with_name("compile_kernels.py")
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=script.parents[1])
    assert found.returncode == 0, found.stderr[-2000:]
    assert int(found.stdout) >= 90


@pytest.mark.parametrize("backward", [False, True])
def test_buffers_made_in_inference_mode_can_be_written_in_training(
    backward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs.Block, "_record", lambda *_: None)
    with torch.inference_mode():
        extras = {"peepholes": torch.ones(3, 4)}
        block = graphs.Block(PEEPHOLE_LSTM, 8, torch.ones(20, 5, 16), torch.ones(16, 4), extras, backward=backward)
        block.begin(torch.ones(16, 4), extras)
        block.put("gates", torch.ones(20, 5, 16), 0)
    assert not any(value.is_inference() for value in (block.weight, *block.arrays.values()))
    block.put("gates", torch.full((40, 3, 16), 2.0), 32)
    assert torch.equal(block.arrays["gates"][:9, :4, 0].sum(dim=0), torch.tensor([17.0, 17.0, 17.0, 9.0]))
    block.begin(torch.zeros(16, 4), extras)
    assert not block.weight.any()


def test_says_once_where_no_kernel_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Triton, without a C compiler, without a GPU: one line, and the loop in torch."""
    monkeypatch.setattr(
        gpu_steps, "import_module", lambda name: (_ for _ in ()).throw(RuntimeError("no C compiler\nmore"))
    )
    gpu_steps._starts.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"without their GPU kernels, twenty times slower: no C compiler \(Triton"):
            assert not gpu_steps._starts(torch.device("cuda", 0))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not gpu_steps._starts(torch.device("cuda", 0))
    finally:
        gpu_steps._starts.cache_clear()


@pytest.fixture
def in_blocks(device: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Blocks of four steps, as on a GPU but for the recording, in whose place the steps are run again."""
    if device == "cuda":
        pytest.skip("recorded there: test_recurrent_graphs.py")

    def record(block: graphs.Block, cell: gpu_steps.Cell, run: Any) -> None:
        for value in block.arrays.values():
            value.fill_(float("nan") if value.is_floating_point() else 0)  # nothing may count on what was there
        replay = partial(run, cell, block.arrays, block.weight)
        block.graph = SimpleNamespace(replay=replay)  # type: ignore[assignment]

    monkeypatch.setattr(gpu_unroll, "find_block", graphs.find_block)
    monkeypatch.setattr(graphs.Block, "_record", record)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    for module in (graphs, gpu_unroll):
        monkeypatch.setattr(module, "BLOCK", 4)
    monkeypatch.setattr(graphs, "SHORTEST", 1)
    graphs.clear_graphs()
    return device


@pytest.mark.parametrize(
    ("cell", "options"),
    [("rnn", {}), ("peephole_lstm", {"zoneout": 0.3}), ("layernorm_lstm", {}), ("layernorm_gru", {})],
)
def test_blocks_equal_the_cpu(cell: str, options: dict[str, Any], in_blocks: str) -> None:
    encoder, (inputs, lengths) = make(cell, **options).eval(), a_batch(steps=6)
    state = tuple(torch.randn(5, 1, 6, dtype=torch.float64) for _ in range(encoder.num_states))
    assert_same(run_both(encoder, inputs, lengths, ("cpu", in_blocks), state))
    assert len(graphs._blocks) == 2
    graphs.clear_graphs()


@pytest.mark.parametrize("cell", ["mingru", "minlstm"])
def test_an_empty_row_without_a_number_spoils_no_gradient(cell: str, device: str) -> None:
    encoder = make(cell).to(device)
    inputs = torch.randn(3, 4, 5, dtype=torch.float64, device=device)
    state = torch.zeros(3, 1, 6, dtype=torch.float64, device=device)
    state[1] = float("nan")
    encoded = encoder(inputs, torch.tensor([4, 0, 2], device=device), (state,))
    encoded.outputs.sum().backward()
    assert all(
        bool(parameter.grad.isfinite().all()) for parameter in encoder.parameters() if parameter.grad is not None
    )


@pytest.mark.parametrize("cell", ["rnn", "indrnn"])
def test_a_relu_that_overflows(cell: str, device: str) -> None:
    """Minus infinity is zero, as in torch, and goes on from there."""
    encoder = make(cell, size=1, activation="relu", dtype=torch.float32)
    for name, parameter in encoder.named_parameters():
        torch.nn.init.constant_(parameter, -2.0 if "weight_hh" in name else 0.0)
    state = (torch.full((1, 1, 1), 3e38),)
    inputs, lengths = torch.zeros(1, 4, 5), torch.tensor([4])
    pairs = run_both(encoder, inputs, lengths, ("cpu", device), state)
    assert torch.equal(*pairs[0])


@pytest.mark.parametrize("cell", ["rnn", "indrnn", "layernorm_gru"])
def test_zoneout_keeps_a_unit_exactly(cell: str, device: str) -> None:
    encoder = make(cell, zoneout=0.5, dtype=torch.float32).to(device)
    for module in encoder.modules():
        if isinstance(module, Zoneout):
            module.draw = lambda steps, start: torch.ones(steps, *start.shape, device=start.device)  # type: ignore[method-assign]
    state = 1e-3 * torch.rand(5, 1, 6, device=device)
    inputs = torch.randn(5, 6, 5, device=device)
    assert torch.equal(encoder(inputs, torch.full((5,), 6, device=device), (state,)).state[0], state)


@pytest.mark.parametrize("cell", OWN)
def test_a_loss_of_the_last_state_alone(cell: str, device: str) -> None:
    encoder, (inputs, lengths) = make(cell), a_batch()
    found = []
    for place, kernels in (("cpu", False), (device, True)):
        _Switch.on = kernels
        own = copy.deepcopy(encoder).to(place)
        last = own(inputs.to(place), lengths.to(place)).state[-1]
        found.append([slope.cpu() for slope in torch.autograd.grad(last.square().sum(), list(own.parameters()))])
        _Switch.on = True
    assert_same(list(zip(*found, strict=True)))
