"""The recurrent encoder equals ``torch.nn`` on packed sequences, whatever stands at padding."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from suite.errors import UsageError
from suite.recurrent import FusedCell, RecurrentEncoder, State
from suite.recurrent.fused import FusedLayer
from suite.sequence import length_mask

CELLS: list[FusedCell] = ["lstm", "gru", "rnn_tanh", "rnn_relu"]
D, H, T = 3, 4, 6
RAGGED = torch.tensor([3, 6, 1, 4])
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def reference(encoder: RecurrentEncoder, *, cell: FusedCell) -> nn.RNNBase:
    """The ``torch.nn`` module with the encoder's weights."""
    options: dict[str, Any] = {
        "num_layers": encoder.num_layers,
        "bidirectional": encoder.num_directions == 2,
        "batch_first": True,
    }
    if cell.startswith("rnn"):
        options["nonlinearity"] = cell.removeprefix("rnn_")
    module = {"lstm": nn.LSTM, "gru": nn.GRU}.get(cell, nn.RNN)(D, H, **options)
    module = module.to(next(encoder.parameters()).dtype)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(encoder.get_parameter(own_name(name, encoder.num_directions)))
    return module


def own_name(name: str, directions: int) -> str:
    """``weight_ih_l1_reverse`` of ``torch.nn`` to ``layers.3.rnn.weight_ih_l0``."""
    stem, layer = name.removesuffix("_reverse").rsplit("_l", 1)
    return f"layers.{int(layer) * directions + name.endswith('_reverse')}.rnn.{stem}_l0"


def packed(module: nn.RNNBase, inputs: Tensor, lengths: Tensor, state: State | None) -> tuple[Tensor, State]:
    """What ``torch.nn`` gives on the packed sequence, batch first."""
    parts = None if state is None else tuple(part.transpose(0, 1).contiguous() for part in state)
    start = parts[0] if parts is not None and len(parts) == 1 else parts
    outputs, final = module(pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False), start)
    outputs = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.size(1))[0]
    return outputs, tuple(part.transpose(0, 1) for part in (final if isinstance(final, tuple) else (final,)))


def build(cell: FusedCell, *, dtype: torch.dtype = torch.float64, layers: int = 1, both: bool = False):
    encoder = RecurrentEncoder(D, H, cell=cell, num_layers=layers, bidirectional=both).to(dtype)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.6)  # biases too: torch's own start would hide one that is ignored
    return encoder


def start_state(encoder: RecurrentEncoder, rows: int) -> State:
    dtype = next(encoder.parameters()).dtype
    shape = (rows, encoder.num_layers * encoder.num_directions, H)
    return tuple(torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(encoder.num_states))


def assert_equals_torch(encoder: RecurrentEncoder, cell: FusedCell, lengths: Tensor, *, state: bool, time: int) -> None:
    dtype = next(encoder.parameters()).dtype
    module = reference(encoder, cell=cell)
    inputs = torch.randn(len(lengths), time, D, dtype=dtype, requires_grad=True)
    start = start_state(encoder, len(lengths)) if state else None
    leaves = [inputs, *(start or ())]
    names = [name for name, _ in module.named_parameters()]
    own = [encoder.get_parameter(own_name(name, encoder.num_directions)) for name in names]

    encoded = encoder(inputs, lengths, start)
    outputs, final = packed(module, inputs, lengths, start)
    probes = [torch.randn_like(part) for part in (outputs, *final)]

    def gradients(parts: tuple[Tensor, ...], parameters: list[nn.Parameter]) -> list[Tensor]:
        total = torch.stack([(part * probe).sum() for part, probe in zip(parts, probes, strict=True)]).sum()
        return list(torch.autograd.grad(total, [*leaves, *parameters]))

    given = gradients((encoded.outputs, *encoded.state), own)
    expected = gradients((outputs, *final), list(module.parameters()))
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(encoded.outputs, outputs, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(encoded.state, final, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(given, expected, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("state", [False, True], ids=["zero", "state"])
@pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_equals_torch_packed(cell: FusedCell, layers: int, both: bool, state: bool, dtype: torch.dtype) -> None:
    encoder = build(cell, dtype=dtype, layers=layers, both=both)
    assert_equals_torch(encoder, cell, RAGGED, state=state, time=T)


@pytest.mark.parametrize(("lengths", "time"), [([T] * 3, T), ([1] * 3, 1), ([2, 4, 3], T)], ids=["full", "T1", "short"])
@pytest.mark.parametrize("cell", CELLS)
def test_equals_torch_on_other_paths(cell: FusedCell, lengths: list[int], time: int) -> None:
    encoder = build(cell, layers=2, both=True)
    assert_equals_torch(encoder, cell, torch.tensor(lengths), state=True, time=time)


@pytest.mark.parametrize("time", [1, T])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_empty_rows_give_zeros_and_keep_their_state(cell: FusedCell, both: bool, time: int) -> None:
    encoder = build(cell, layers=2, both=both)
    inputs = torch.randn(3, time, D, dtype=torch.float64)
    lengths = torch.tensor([0, time, 0])
    state = start_state(encoder, 3)
    encoded = encoder(inputs, lengths, state)
    assert encoded.outputs[[0, 2]].eq(0).all()
    for final, start in zip(encoded.state, state, strict=True):
        assert torch.equal(final[[0, 2]], start[[0, 2]])
        assert not torch.equal(final[1], start[1])
    fresh = encoder(inputs, lengths)
    assert all(part[[0, 2]].eq(0).all() for part in fresh.state)
    alone = encoder(inputs[1:2], lengths[1:2])
    torch.testing.assert_close(fresh.outputs[1:2], alone.outputs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("fill", [1e4, 1e6, float("inf"), float("nan")])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_padding_content_changes_nothing(cell: FusedCell, both: bool, fill: float) -> None:
    """Bit for bit, in outputs, states and every gradient; also for an empty row. Padding gets gradient zero."""
    encoder = build(cell, dtype=torch.float32, layers=2, both=both)
    lengths = torch.tensor([3, 6, 0, 1])
    mask = length_mask(lengths, T).unsqueeze(2)
    clean = torch.randn(4, T, D)

    def run(inputs: Tensor) -> list[Tensor]:
        inputs = inputs.clone().requires_grad_()
        encoded = encoder(inputs, lengths)
        total = encoded.outputs.square().sum() + sum(part.square().sum() for part in encoded.state)
        slopes = torch.autograd.grad(total, [inputs, *encoder.parameters()])
        assert slopes[0].masked_select(~mask).eq(0).all()
        assert encoded.outputs.masked_select(~mask).eq(0).all()
        return [encoded.outputs, *encoded.state, *slopes]

    for given, expected in zip(run(clean.masked_fill(~mask, fill)), run(clean), strict=True):
        assert torch.equal(given, expected)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_chunks_with_state_equal_one_pass(cell: FusedCell, layers: int) -> None:
    encoder = build(cell, layers=layers)
    inputs = torch.randn(4, T, D, dtype=torch.float64)
    whole = encoder(inputs, RAGGED)
    state, outputs, position = None, [], 0
    for size in (1, 3, 2):
        lengths = (RAGGED - position).clamp(0, size)
        encoded = encoder(inputs[:, position : position + size], lengths, state)
        state, position = encoded.state, position + size
        outputs.append(encoded.outputs)
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole.outputs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state, whole.state, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_gradcheck(cell: FusedCell, both: bool) -> None:
    encoder = build(cell, both=both)
    inputs = torch.randn(3, 3, D, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([2, 3, 0])
    state = start_state(encoder, 3)

    def run(inputs: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        encoded = encoder(inputs, lengths, state)
        return encoded.outputs, *encoded.state

    assert torch.autograd.gradcheck(run, (inputs, *state))


@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_autocast_stays_close(cell: FusedCell) -> None:
    """bfloat16 keeps 8 bits: a state is within five hundredths after six steps (relu is unbounded: of its size)."""
    encoder = build(cell, dtype=torch.float32)
    inputs = torch.randn(4, T, D)
    exact = encoder(inputs, RAGGED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(inputs, RAGGED)
    torch.testing.assert_close(rough.outputs.float(), exact.outputs, rtol=0.05, atol=0.05)
    for given, expected in zip(rough.state, exact.state, strict=True):
        torch.testing.assert_close(given.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lstm_cell_passes_through_padding_exactly(dtype: torch.dtype) -> None:
    """A hundred padded steps leave the final cell bit for bit as one padded step does, under autocast too."""
    encoder = build("lstm", dtype=torch.float32)
    inputs = torch.randn(2, 102, D)
    lengths = torch.tensor([2, 2])
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        short = encoder(inputs[:, :3], lengths)
        long = encoder(inputs, lengths)
    assert torch.equal(short.state[1], long.state[1])
    assert torch.equal(short.state[0], long.state[0])


def test_eval_is_deterministic_and_train_drops_between_layers() -> None:
    encoder = RecurrentEncoder(D, H, num_layers=2, dropout=0.5)
    inputs = torch.randn(4, T, D)
    assert not torch.equal(encoder(inputs, RAGGED).outputs, encoder(inputs, RAGGED).outputs)
    encoder.eval()
    assert torch.equal(encoder(inputs, RAGGED).outputs, encoder(inputs, RAGGED).outputs)
    single = RecurrentEncoder(D, H, dropout=0.5)
    assert torch.equal(single(inputs, RAGGED).outputs, single(inputs, RAGGED).outputs)


def test_starts_with_open_forget_gates_and_orthogonal_recurrence() -> None:
    layer = RecurrentEncoder(D, H).layers[0]
    assert isinstance(layer, FusedLayer)
    assert layer.rnn.bias_ih_l0.view(4, H).sum(dim=1).tolist() == [0, H, 0, 0]
    for gate in layer.rnn.weight_hh_l0.view(4, H, H):
        torch.testing.assert_close(gate @ gate.t(), torch.eye(H), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_size": 0}, "input_size is 0"),
        ({"hidden_size": -1}, "hidden_size is -1"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dropout": 1.0}, r"dropout is 1\.0"),
        ({"dropout": -0.1}, r"dropout is -0\.1"),
    ],
)
def test_refuses_sizes(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RecurrentEncoder(**{"input_size": D, "hidden_size": H, **settings})


def test_refuses_lengths_and_states_that_do_not_fit() -> None:
    encoder = RecurrentEncoder(D, H, num_layers=2)
    inputs, part = torch.randn(4, T, D), torch.zeros(4, 2, H)
    with pytest.raises(UsageError, match="lengths reach 7, but the inputs have 6 steps"):
        encoder(inputs, torch.tensor([1, 7, 2, 3]))
    with pytest.raises(UsageError, match="lengths go down to -1"):
        encoder(inputs, torch.tensor([1, -1, 2, 3]))
    with pytest.raises(UsageError, match=r"lengths have shape \(1,\), expected one a row: \(4,\)"):
        encoder(inputs, torch.tensor([2]))
    for state in ((part,), (part, part[:, :1]), (part, part[:3]), (part, part, part)):
        with pytest.raises(UsageError, match=r"the state has shapes .*expected 2 of \(4, 2, 4\)"):
            encoder(inputs, RAGGED, state)
