"""Pooling against a loop over single rows, whatever stands at padding."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from suite.errors import UsageError
from suite.pooling import Pooling, PoolingKind
from suite.recurrent import RecurrentEncoder

KINDS = get_args(PoolingKind)
LENGTHS = torch.tensor([5, 1, 3, 0])


def outputs(*, size: int = 6) -> Tensor:
    return torch.randn(len(LENGTHS), 5, size, dtype=torch.float64)


def pooling(kind: PoolingKind, *, size: int = 6, bidirectional: bool = False) -> Pooling:
    return Pooling(size, kind=kind, bidirectional=bidirectional).double()


def by_hand(module: Pooling, row: Tensor) -> Tensor:
    """One sequence ``(T, H)`` without padding."""
    if not len(row):
        return row.new_zeros(module.output_size)
    half = row.size(1) // 2
    last = torch.cat([row[-1, :half], row[0, half:]]) if module.bidirectional else row[-1]
    highest, mean = row.max(dim=0).values, row.mean(dim=0)
    if module.kind == "attention":
        scores = [module.score(torch.tanh(module.key(step))).item() for step in row]
        shares = torch.tensor(scores, dtype=row.dtype).softmax(dim=0)
        return sum((share * step for share, step in zip(shares, row, strict=True)), torch.zeros_like(row[0]))
    return {"last": last, "mean": mean, "max": highest, "concat": torch.cat([last, highest, mean])}[module.kind]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_a_loop_over_rows(kind: PoolingKind, bidirectional: bool) -> None:
    module, given = pooling(kind, bidirectional=bidirectional), outputs()
    expected = torch.stack([by_hand(module, row[:length]) for row, length in zip(given, LENGTHS, strict=True)])
    pooled = module(given, LENGTHS)
    torch.testing.assert_close(pooled.features, expected, rtol=1e-12, atol=1e-12)
    assert pooled.features.shape == (4, module.output_size)
    assert (pooled.weights is not None) == (kind == "attention")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_padding_reaches_neither_features_nor_gradients(kind: PoolingKind, garbage: float) -> None:
    module, clean = pooling(kind), outputs()
    valid = torch.arange(5).unsqueeze(0) < LENGTHS.unsqueeze(1)
    results = []
    for filler in (0.0, garbage):
        given = clean.masked_fill(~valid.unsqueeze(2), filler).requires_grad_()
        pooled = module(given, LENGTHS)
        pooled.features.square().sum().backward()
        assert given.grad is not None
        assert not given.grad[~valid].any()
        results.append((pooled.features.detach(), given.grad))
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not results[0][0][3].any(), "an empty row is not zero"


def test_negative_outputs_are_not_beaten_by_padding() -> None:
    assert (pooling("max")(-outputs().abs() - 1.0, LENGTHS).features[:3] <= -1.0).all()


def test_weights_are_shares_of_valid_steps() -> None:
    weights = pooling("attention")(outputs(), LENGTHS).weights
    assert weights is not None
    torch.testing.assert_close(weights.sum(dim=1), torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64))
    assert not weights[1, 1:].any()
    assert not weights[3].any()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_last_is_the_final_state_of_an_encoder(cell, bidirectional: bool) -> None:
    encoder = RecurrentEncoder(3, 4, cell=cell, num_layers=2, bidirectional=bidirectional).double()
    encoded = encoder(torch.randn(4, 5, 3, dtype=torch.float64), LENGTHS)
    pooled = pooling("last", size=encoder.output_size, bidirectional=bidirectional)(encoded.outputs, LENGTHS)
    torch.testing.assert_close(pooled.features, encoded.state[0][:, -encoder.num_directions :].flatten(1))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: PoolingKind) -> None:
    module, lengths = pooling(kind, size=2, bidirectional=True), LENGTHS[:3]
    given = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: module(value, lengths).features, given)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_and_only_empty_rows(kind: PoolingKind) -> None:
    module = Pooling(4, kind=kind).to(torch.bfloat16)
    for steps in (0, 2):
        features = module(torch.randn(2, steps, 4, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.long)).features
        assert features.shape == (2, module.output_size)
        assert not features.any()


def test_errors() -> None:
    with pytest.raises(UsageError, match="input_size is 0, allowed is 1 or more"):
        Pooling(0)
    with pytest.raises(UsageError, match="input_size is 3, allowed is an even number"):
        Pooling(3, bidirectional=True)
    with pytest.raises(UsageError, match="one a row"):
        Pooling(3)(torch.zeros(2, 4, 3), torch.ones(3, dtype=torch.long))
    with pytest.raises(UsageError, match="lengths go down to -1, allowed is 0 or more"):
        Pooling(3, kind="max")(torch.zeros(2, 4, 3), torch.tensor([-1, 2]))
