"""What recurrent cells do at the edges: gradients of gradients, no steps, long padding, numbers that are none."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from suite.attention import LocationAwareAttention, build_attention
from suite.errors import UsageError
from suite.pooling import Pooling
from suite.recurrent import RecurrentEncoder, RecurrentOptions
from suite.recurrent.gradient_flow import gradient_by_lag
from suite.recurrent.options import CELLS, FUSED, MINIMAL


def encoder(cell: Any, *sizes: int, **options: Any) -> RecurrentEncoder:
    torch.manual_seed(0)
    return RecurrentEncoder(*(sizes or (3, 4)), cell=cell, options=RecurrentOptions(**options))


@pytest.mark.parametrize("cell", [*(cell for cell in CELLS if cell not in FUSED), "gru", "lstm"])
def test_gradients_of_gradients_are_refused_and_never_wrong(cell: str) -> None:
    """Also after a plain sum, whose gradient is a constant: torch's own mark would let that pass, wrong."""
    module = encoder(cell, **({"zoneout": 0.1} if cell in FUSED else {})).double().eval()
    inputs = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([4, 3])
    (slope,) = torch.autograd.grad(module(inputs, lengths).outputs.sum(), inputs, create_graph=True)
    (plain,) = torch.autograd.grad(module(inputs, lengths).outputs.sum(), inputs)
    torch.testing.assert_close(slope.detach(), plain, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="written by hand, which has no derivative"):
        slope.square().sum().backward()


def test_padding_never_overflows_a_relu() -> None:
    """Long padding under an identity above one: the running state would be infinite, and its gradient no number."""
    module = encoder("rnn_relu", recurrent_init="identity")
    own: Any = module.layers[0].rnn
    with torch.no_grad():
        own.weight_hh_l0.mul_(1.1)
        own.weight_ih_l0.uniform_(0, 1)
    reference = nn.RNN(3, 4, nonlinearity="relu", batch_first=True)
    reference.load_state_dict(own.state_dict())
    inputs, lengths = torch.zeros(2, 1200, 3), torch.tensor([1200, 5])
    inputs[1, :5] = 1.0
    encoded = module(inputs, lengths)
    encoded.outputs.sum().backward()
    packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    outputs, final = reference(packed)
    outputs.data.sum().backward()
    torch.testing.assert_close(encoded.state[0][:, 0], final[0])
    for mine, other in zip(own.parameters(), reference.parameters(), strict=True):
        assert bool(torch.isfinite(mine.grad).all())
        torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("cell", CELLS)
def test_no_steps_at_all_give_no_outputs_and_the_state_back(cell: str) -> None:
    options = {"zoneout": 0.1} if cell in MINIMAL else {}
    module = encoder(cell, **options)
    state = tuple(torch.randn(2, 1, 4, requires_grad=True) for _ in range(module.num_states))
    encoded = module(torch.zeros(2, 0, 3), torch.tensor([0, 0]), state)
    assert encoded.outputs.shape == (2, 0, 4)
    for before, after in zip(state, encoded.state, strict=False):
        torch.testing.assert_close(before, after, rtol=0, atol=0)
    encoded.state[0].sum().backward()
    assert state[0].grad is not None
    assert torch.equal(state[0].grad, torch.ones(2, 1, 4))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_the_state_of_an_empty_row_reaches_nothing(cell: str, bidirectional: bool) -> None:
    """Not even as zero times no number, in the gradient of a recurrent weight; it is handed on as it is."""
    original = RecurrentEncoder(3, 4, cell=cell, num_layers=2, bidirectional=bidirectional)  # type: ignore[arg-type]
    state = tuple(torch.randn(3, 2 * original.num_directions, 4) for _ in range(original.num_states))
    inputs, lengths = torch.randn(3, 5, 3), torch.tensor([5, 0, 2])
    found = []
    for filler in (0.5, float("nan")):
        module = copy.deepcopy(original)  # running statistics change
        first = tuple(part.index_fill(0, torch.tensor(1), filler).requires_grad_() for part in state)
        encoded = module(inputs, lengths, first)
        (encoded.outputs.sum() + sum(part[[0, 2]].sum() for part in encoded.state)).backward()
        for before, after in zip(first, encoded.state, strict=False):
            torch.testing.assert_close(after[1], before[1], rtol=0, atol=0, equal_nan=True)
        found.append([encoded.outputs, *(each.grad for each in (*module.parameters(), *first))])
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("cell", CELLS)
def test_types(cell: str) -> None:
    """Another type of inputs is refused in the same words; a state's is converted; any whole numbers are lengths."""
    module = encoder(cell)
    inputs, lengths = torch.randn(2, 5, 3), torch.tensor([5, 0])
    with pytest.raises(UsageError, match=r"^inputs are of float64, the encoder's weights of float32: convert"):
        module(inputs.double(), lengths)
    state = tuple(torch.randn(2, 1, 4) for _ in range(module.num_states))
    expected = module(inputs, lengths, state).outputs
    torch.testing.assert_close(module(inputs, lengths, tuple(part.double() for part in state)).outputs, expected)
    assert module(inputs, lengths, tuple(part.bfloat16() for part in state)).outputs.dtype == torch.float32
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        torch.testing.assert_close(module(inputs, lengths.to(dtype), state).outputs, expected)
    with torch.autocast("cpu", dtype=torch.float16):
        assert bool(torch.isfinite(module(inputs, lengths, state).outputs).all())


def test_statistics_outlive_a_batch_that_is_not_finite() -> None:
    module = encoder("batchnorm_lstm")
    inputs, lengths = torch.randn(3, 5, 3), torch.tensor([5, 5, 5])
    module(inputs, lengths)
    layer: Any = module.layers[0]
    before = {name: value.clone() for name, value in layer.named_buffers()}
    broken = inputs.clone()
    broken[0, 2, 0] = float("nan")
    module(broken, lengths)
    assert layer.batches[:6].tolist() == [2, 2, 1, 1, 1, 0]
    for name, value in layer.named_buffers():
        assert torch.equal(value[2:], before[name][2:])
    module(inputs, lengths)
    assert bool(torch.isfinite(module.eval()(inputs, lengths).outputs).all())


def test_statistics_of_rows_at_different_steps_are_filed_under_the_median() -> None:
    module = encoder("batchnorm_lstm", statistics_steps=6)
    state = (torch.zeros(5, 1, 4), torch.zeros(5, 1, 4), torch.tensor([0.0, 0.0, 0.0, 3.0, 0.0]).view(5, 1, 1))
    module(torch.randn(5, 2, 3), torch.full((5,), 2), state)
    batches: Any = module.layers[0].batches
    assert batches.tolist() == [1, 1, 0, 0, 0, 0]


def test_one_feature_and_a_state_of_two() -> None:
    module = encoder("batchnorm_lstm", 2, 1)
    encoded = module(torch.randn(3, 4, 2), torch.full((3,), 4), (torch.zeros(3, 1, 1), torch.zeros(3, 1, 1)))
    assert len(encoded.state) == 3
    assert encoded.state[2].flatten().tolist() == [4, 4, 4]


@pytest.mark.parametrize("kind", ["additive", "dot", "general", "multihead", "location"])
def test_what_stands_at_padding_reaches_no_context_and_no_gradient(kind: Any) -> None:
    torch.manual_seed(0)
    module: Any = LocationAwareAttention(4, 4, size=5) if kind == "location" else None
    module = module or build_attention(kind, 4, 4, num_heads=2)
    values, queries = torch.randn(2, 5, 4), torch.randn(2, 3, 4, requires_grad=True)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    found = []
    for filler in (0.0, float("nan"), float("inf")):
        filled = values.masked_fill(~mask.unsqueeze(2), filler)
        module.zero_grad()
        context = module(queries, module.prepare(filled, mask)).context
        context.sum().backward()
        found.append([context, *(weight.grad for weight in module.parameters() if weight.grad is not None)])
    for other in found[1:]:
        assert all(torch.equal(first, second) for first, second in zip(found[0], other, strict=True))


def test_the_end_of_a_row_begins_where_the_whole_one_would() -> None:
    """A first state that is computed from the first input, of a row as long as what is looked at."""
    module = encoder("rnn_tanh", initial_state="input").double()
    with torch.no_grad():
        first: Any = module.initial.project
        first[0].weight.mul_(5)
    inputs = torch.randn(1, 4, 3, dtype=torch.float64)
    wider = torch.cat([inputs, torch.randn(1, 8, 3, dtype=torch.float64)], dim=1)
    both = torch.cat([wider, torch.randn(1, 12, 3, dtype=torch.float64)])
    probe = torch.ones(2, 4, dtype=torch.float64)
    probe[1] = 0.0
    alone = gradient_by_lag(module, inputs, torch.tensor([4]), probe=probe[:1]).norms
    beside = gradient_by_lag(module, both, torch.tensor([4, 12]), probe=probe, max_steps=6).norms
    torch.testing.assert_close(beside[:4] * 2, alone)


def test_names_that_there_are_not() -> None:
    with pytest.raises(UsageError, match="recurrent_init is identiy, allowed are orthogonal, identity, uniform"):
        RecurrentOptions(recurrent_init="identiy").check("rnn_relu")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="pooling is foo, allowed are last, mean"):
        Pooling(4, kind="foo")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="attention is foo, allowed are additive"):
        build_attention("foo", 4, 4, num_heads=1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="lengths reach 9, but the outputs have 3 steps"):
        Pooling(4, kind="mean")(torch.ones(1, 3, 4), torch.tensor([9]))


def test_without_lengths_every_row_is_full_and_other_things_are_refused() -> None:
    module = encoder("lstm")
    inputs = torch.randn(2, 5, 3)
    full = module(inputs, torch.tensor([5, 5]))
    for given in (module(inputs), module(inputs, None, None)):
        assert torch.equal(given.outputs, full.outputs)
        assert given.lengths.tolist() == [5, 5]
    other: Any = [5, 4]
    with pytest.raises(UsageError, match=r"^lengths are a list, expected a torch\.Tensor"):
        module(inputs, other)
    with pytest.raises(UsageError, match=r"^inputs are a ndarray, expected a torch\.Tensor"):
        module(inputs.numpy())
    with pytest.raises(UsageError, match=r"^options are a dict, expected RecurrentOptions"):
        RecurrentEncoder(3, 4, options={"zoneout": 0.1})  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", CELLS)
def test_a_condition_counts_at_no_padding_however_large(cell: Any) -> None:
    torch.manual_seed(2)
    encoder = RecurrentEncoder(3, 4, cell=cell, condition_size=1, bidirectional=True).eval()
    inputs, lengths, condition = torch.randn(3, 9, 3), torch.tensor([9, 4, 0]), torch.full((3, 1), 1e6)
    once, each = encoder(inputs, lengths, condition=condition), encoder(inputs[1:2, :4], condition=condition[1:2])
    for part, alone in zip(once.state[: encoder.num_states], each.state, strict=False):
        torch.testing.assert_close(part[1:2], alone)
    torch.testing.assert_close(once.outputs[1:2, :4], each.outputs)
    condition[2] = torch.nan  # of a row without a step
    encoder.zero_grad()
    encoder(inputs, lengths, condition=condition).outputs.sum().backward()
    assert all(
        bool(parameter.grad.isfinite().all()) for parameter in encoder.parameters() if parameter.grad is not None
    )


@pytest.mark.parametrize("zoneout", [0.0, 0.2])
@pytest.mark.parametrize("cell", CELLS)
def test_a_loss_of_nothing_has_a_gradient_of_zero(cell: Any, zoneout: float) -> None:
    encoder = RecurrentEncoder(3, 4, cell=cell, options=RecurrentOptions(zoneout=zoneout))
    for batch, steps in ((2, 0), (0, 5)):
        encoded = encoder(torch.randn(batch, steps, 3), torch.zeros(batch, dtype=torch.long))
        assert encoded.outputs.shape == (batch, steps, 4)
        (encoded.outputs.sum() + encoded.state[0].sum()).backward()
    assert all(not parameter.grad.any() for parameter in encoder.parameters() if parameter.grad is not None)


def test_location_aware_attention_to_nothing_gives_zeros() -> None:
    attention = LocationAwareAttention(3, 4, size=5, kernel_size=3)
    memory = attention.prepare(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool))
    attended = attention(torch.randn(2, 6, 3), memory)
    assert attended.weights.shape == (2, 6, 0)
    assert torch.equal(attended.context, torch.zeros(2, 6, 4))
