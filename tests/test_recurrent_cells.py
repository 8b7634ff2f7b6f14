"""Every hand-written cell equals a plain loop from its paper's equations, in values and in every gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suite.recurrent import CELLS, CellName, RecurrentEncoder, RecurrentOptions, State, kernel_steps
from suite.recurrent.batch_norm import BatchNormLSTMLayer
from suite.recurrent.options import FUSED, WITH_MEMORY
from suite.sequence import length_mask
from tests import recurrent_loops

D, H, T = 3, 4, 6
RAGGED = torch.tensor([3, 6, 0, 1])
OWN = [cell for cell in CELLS if cell not in FUSED]
COMPILED = ["peephole_lstm", "layernorm_lstm", "layernorm_gru", "mingru", "minlstm"]
LOOPED = [cell for cell in CELLS if cell != "batchnorm_lstm"]
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(params=["compiled", "torch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With Numba's kernels, and as where there is no Numba."""
    if request.param == "torch":
        monkeypatch.setattr(kernel_steps, "compiled_kernels", lambda name="kernels": None)
    return request.param


def build(
    cell: CellName,
    *,
    dtype: torch.dtype = torch.float64,
    layers: int = 1,
    both: bool = False,
    std: float = 0.6,
    options: RecurrentOptions | None = None,
    size: int = H,
    condition: int = 0,
) -> RecurrentEncoder:
    encoder = RecurrentEncoder(
        D, size, cell=cell, num_layers=layers, bidirectional=both, options=options, condition_size=condition
    ).to(dtype)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=std)
    return encoder


def start_state(encoder: RecurrentEncoder, rows: int) -> State:
    dtype = next(encoder.parameters()).dtype
    shape = (rows, encoder.num_layers * encoder.num_directions, encoder.hidden_size)
    return tuple(torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(encoder.num_states))


def slopes(parts: tuple[Tensor, ...], leaves: list[Tensor], seed: int = 1) -> list[Tensor]:
    """Gradients of a fixed random direction through ``parts``."""
    generator = torch.Generator().manual_seed(seed)
    probes = [torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part.dtype) for part in parts]
    total = torch.stack([(part * probe).sum() for part, probe in zip(parts, probes, strict=True)]).sum()
    return list(torch.autograd.grad(total, leaves))


def assert_equals_loop(encoder: RecurrentEncoder, lengths: Tensor, *, keep: tuple[float, float] = (0.0, 0.0)) -> None:
    inputs = torch.randn(len(lengths), T, D, dtype=torch.float64, requires_grad=True)
    start = start_state(encoder, len(lengths))
    leaves = [inputs, *start, *encoder.parameters()]
    encoded = encoder(inputs, lengths, start)
    outputs, final = recurrent_loops.run(encoder, inputs, lengths, start, keep=keep)
    torch.testing.assert_close(encoded.outputs, outputs, **EXACT)
    torch.testing.assert_close(encoded.state, final, **EXACT)
    given, expected = slopes((encoded.outputs, *encoded.state), leaves), slopes((outputs, *final), leaves)
    torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("both", [False, True], ids=["forward", "bidirectional"])
@pytest.mark.parametrize("cell", [cell for cell in OWN if cell != "batchnorm_lstm"])
def test_equals_the_equations(cell: CellName, both: bool, path: str) -> None:
    assert_equals_loop(build(cell, layers=2, both=both), RAGGED)
    assert_equals_loop(build(cell), torch.full((2,), T))


@pytest.mark.parametrize("activation", ["tanh", "relu", "leaky_relu", "elu", "gelu", "softsign", "sigmoid"])
@pytest.mark.parametrize("cell", ["rnn", "indrnn"])
def test_activations_equal_the_equations(cell: CellName, activation) -> None:
    assert_equals_loop(build(cell, options=RecurrentOptions(activation=activation)), RAGGED)
    assert_equals_loop(build(cell, options=RecurrentOptions(activation=activation, zoneout=0.3)).eval(), RAGGED,
                       keep=(0.3, 0.0))  # fmt: skip


@pytest.mark.parametrize("cell", LOOPED)
def test_zoneout_in_eval_is_its_mean(cell: CellName) -> None:
    memory = 0.2 if cell in WITH_MEMORY else 0.0
    options = RecurrentOptions(zoneout=0.3, zoneout_memory=memory)
    assert_equals_loop(build(cell, layers=2, both=True, options=options).eval(), RAGGED, keep=(0.3, memory))


@pytest.mark.parametrize("cell", COMPILED)
def test_compiled_equals_torch_in_float32(cell: CellName, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 3e-5 after 64 steps at 96 features, gradients within 1e-4 of their largest; gates from open to shut."""
    encoder = build(cell, dtype=torch.float32, std=0.3, size=96)
    lengths = torch.tensor([64, 10, 33])
    inputs = (3.0 * torch.randn(3, 64, D)).requires_grad_()
    leaves = [inputs, *encoder.parameters()]

    def both() -> tuple[tuple[Tensor, ...], list[Tensor]]:
        encoded = encoder(inputs, lengths)
        parts = (encoded.outputs, *encoded.state)
        return parts, slopes(parts, leaves)

    given = both()
    monkeypatch.setattr(kernel_steps, "compiled_kernels", lambda name="kernels": None)
    expected = both()
    torch.testing.assert_close(given[0], expected[0], rtol=3e-5, atol=3e-5)
    for one, other in zip(given[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("cell", CELLS)
def test_gradcheck(cell: CellName, path: str) -> None:
    encoder = build(cell, both=True).train()
    inputs = torch.randn(4, 3, D, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([2, 3, 0, 3])
    state = start_state(encoder, 4)

    def run(inputs: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        encoded = encoder(inputs, lengths, rest[: len(state)])
        return encoded.outputs, *encoded.state[: len(state)]

    # ``rest`` ends with the parameters, which gradcheck changes in place.
    assert torch.autograd.gradcheck(run, (inputs, *state, *encoder.parameters()))


@pytest.mark.parametrize("cell", CELLS)
def test_gradcheck_with_zoneout_and_dropped_weights(cell: CellName) -> None:
    memory = 0.4 if cell in WITH_MEMORY else 0.0
    drop = 0.0 if cell in ("indrnn", "mingru", "minlstm") else 0.3
    options = RecurrentOptions(zoneout=0.3, zoneout_memory=memory, weight_dropout=drop)
    encoder = build(cell, options=options).train()
    inputs = torch.randn(3, 3, D, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([2, 3, 3])

    def run(inputs: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(3)
        encoded = encoder(inputs, lengths)
        return encoded.outputs, *encoded.state[: encoder.num_states]

    assert torch.autograd.gradcheck(run, (inputs, *encoder.parameters()))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", OWN)
def test_chunks_with_state_equal_one_pass(cell: CellName, layers: int, path: str) -> None:
    encoder = build(cell, layers=layers).eval()
    inputs = torch.randn(4, T, D, dtype=torch.float64)
    whole = encoder(inputs, RAGGED)
    state, outputs, position = None, [], 0
    for size in (1, 3, 2):
        lengths = (RAGGED - position).clamp(0, size)
        encoded = encoder(inputs[:, position : position + size], lengths, state)
        state, position = encoded.state, position + size
        outputs.append(encoded.outputs)
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole.outputs, **EXACT)
    torch.testing.assert_close(state, whole.state, **EXACT)


@pytest.mark.parametrize("fill", [1e6, float("inf"), float("nan")])
@pytest.mark.parametrize("cell", OWN)
def test_padding_content_changes_nothing(cell: CellName, fill: float, path: str) -> None:
    """Bit for bit, in outputs, states and every gradient, also for an empty row. Padding gets gradient zero."""
    encoder = build(cell, dtype=torch.float32, layers=2, both=True).train()
    mask = length_mask(RAGGED, T).unsqueeze(2)
    clean = torch.randn(4, T, D)
    statistics = {name: buffer.clone() for name, buffer in encoder.named_buffers()}

    def run(inputs: Tensor) -> list[Tensor]:
        encoder.load_state_dict(statistics, strict=False)
        inputs = inputs.clone().requires_grad_()
        encoded = encoder(inputs, RAGGED)
        found = slopes((encoded.outputs, *encoded.state[: encoder.num_states]), [inputs, *encoder.parameters()])
        assert found[0].masked_select(~mask).eq(0).all()
        assert encoded.outputs.masked_select(~mask).eq(0).all()
        return [encoded.outputs, *encoded.state, *found]

    for given, expected in zip(run(clean.masked_fill(~mask, fill)), run(clean), strict=True):
        assert torch.equal(given, expected)


@pytest.mark.parametrize("cell", OWN)
def test_empty_rows_give_zeros_and_keep_their_state(cell: CellName, path: str) -> None:
    encoder = build(cell, layers=2, both=True).eval()
    state = start_state(encoder, 3)
    for lengths in (torch.tensor([0, T, 0]), torch.zeros(3, dtype=torch.long)):
        encoded = encoder(torch.randn(3, T, D, dtype=torch.float64), lengths, state)
        empty = lengths == 0
        assert encoded.outputs[empty].eq(0).all()
        for final, start in zip(encoded.state, state, strict=False):
            assert torch.equal(final[empty], start[empty])
    nothing = encoder(torch.randn(3, 0, D, dtype=torch.float64), lengths, state)
    assert nothing.outputs.shape == (3, 0, 2 * H)
    assert torch.equal(nothing.state[0], state[0])


@pytest.mark.parametrize("cell", OWN)
def test_bfloat16_autocast_stays_close(cell: CellName) -> None:
    """Within five hundredths of float32 after six steps; states stay in float32."""
    encoder = build(cell, dtype=torch.float32, layers=2, std=0.4).eval()
    inputs = torch.randn(4, T, D, requires_grad=True)
    exact = encoder(inputs, RAGGED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(inputs, RAGGED)
    assert {part.dtype for part in rough.state} == {torch.float32}
    torch.testing.assert_close(rough.outputs.float(), exact.outputs, rtol=0.05, atol=0.05)
    torch.testing.assert_close(rough.state, exact.state, rtol=0.05, atol=0.05)
    rough.outputs.float().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cell", "training"),
    [(cell, training) for cell in CELLS for training in (False, True) if not training or cell != "batchnorm_lstm"],
)
def test_a_nan_stays_in_its_row(cell: CellName, training: bool) -> None:
    """With zoneout too: the row is NaN from there on, and no other row knows of it."""
    encoder = build(cell, options=RecurrentOptions(zoneout=0.5)).train(training)
    inputs = torch.randn(3, T, D, dtype=torch.float64)
    torch.manual_seed(1)
    clean = encoder(inputs, torch.full((3,), T)).outputs
    inputs[1, 2] = float("nan")
    torch.manual_seed(1)
    dirty = encoder(inputs, torch.full((3,), T)).outputs
    torch.testing.assert_close(dirty[[0, 2]], clean[[0, 2]], **EXACT)
    torch.testing.assert_close(dirty[1, :2], clean[1, :2], **EXACT)
    assert dirty[1, 2:].isnan().all()


class TestBatchNorm:
    """The layer whose steps have statistics of their own."""

    def layer(self, **options: int) -> BatchNormLSTMLayer:
        layer = BatchNormLSTMLayer(D, H, options=RecurrentOptions(**options)).double()  # type: ignore[arg-type]
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.6)
        return layer

    def test_training_equals_the_equations(self) -> None:
        layer = self.layer()
        inputs = torch.randn(5, T, D, dtype=torch.float64, requires_grad=True)
        state = tuple(torch.randn(5, H, dtype=torch.float64, requires_grad=True) for _ in range(2))
        outputs, final = layer(inputs, torch.full((5,), T), state)
        expected, last = recurrent_loops.batchnorm_lstm(layer, inputs, state)
        torch.testing.assert_close((outputs, *final[:2]), (expected, *last), **EXACT)
        leaves = [inputs, *state, *layer.parameters()]
        given, wanted = slopes((outputs, *final[:2]), leaves), slopes((expected, *last), leaves)
        torch.testing.assert_close(given, wanted, rtol=1e-8, atol=1e-8)

    def test_eval_uses_each_steps_running_average(self) -> None:
        """The first batch sets them; steps beyond the limit share the last entry, beyond training the last reached."""
        layer = self.layer(statistics_steps=4)
        inputs = torch.randn(5, T, D, dtype=torch.float64)
        layer(inputs[:, :3], torch.full((5,), 3))
        assert layer.batches.tolist() == [1, 1, 1, 0]
        first = torch.nn.functional.linear(inputs[:, 0], layer.weight_ih)
        torch.testing.assert_close(layer.mean_ih[0], first.mean(0), **EXACT)
        torch.testing.assert_close(layer.variance_ih[0], first.var(0), **EXACT)
        layer.eval()
        state = tuple(torch.zeros(5, H, dtype=torch.float64) for _ in range(2))
        names = ("ih", "hh", "memory")
        moments = {name: (getattr(layer, f"mean_{name}")[:3], getattr(layer, f"variance_{name}")[:3]) for name in names}
        expected, _ = recurrent_loops.batchnorm_lstm(layer, inputs, state, moments=moments)
        torch.testing.assert_close(layer(inputs, torch.full((5,), T))[0], expected, **EXACT)
        layer.train()
        layer(inputs, torch.full((5,), T))
        assert layer.batches.tolist() == [2, 2, 2, 1]
        late = torch.nn.functional.linear(inputs[:, 3:], layer.weight_ih)
        torch.testing.assert_close(layer.mean_ih[3], late.mean((0, 1)), **EXACT)

    def test_chunks_in_training_find_their_step(self) -> None:
        layer = self.layer(statistics_steps=10)
        inputs = torch.randn(5, T, D, dtype=torch.float64)
        _, state = layer(inputs[:, :4], torch.full((5,), 4))
        assert state[2].tolist() == [[4.0]] * 5
        layer(inputs[:, 4:], torch.full((5,), 2), state)
        assert layer.batches.tolist() == [1] * 6 + [0] * 4

    def test_a_single_row_takes_running_averages_and_leaves_them(self) -> None:
        layer = self.layer()
        inputs = torch.randn(1, T, D, dtype=torch.float64)
        one = layer(inputs, torch.tensor([T]))[0]
        assert not layer.batches.any()
        torch.testing.assert_close(one, layer.eval()(inputs, torch.tensor([T]))[0], **EXACT)
