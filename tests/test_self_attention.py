"""Self-attention and location-aware attention: against torch, a plain loop, padding, and going on where one stopped."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suite.attention import LocationAwareAttention, SelfAttention
from suite.errors import UsageError
from suite.sequence import length_mask

EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
B, T, S, D, Q, M = 3, 5, 7, 8, 4, 6
LENGTHS = torch.tensor([5, 2, 0])
SOURCE = torch.tensor([7, 3, 0])


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_equals_torch(causal: bool) -> None:
    ours = SelfAttention(D, num_heads=2, causal=causal).double()
    theirs = nn.MultiheadAttention(D, 2, batch_first=True).double()
    parts = ours.attention
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([parts.query.weight, parts.key.weight, parts.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([parts.query.bias, torch.zeros(D), parts.value.bias]))
        theirs.out_proj.load_state_dict(parts.output.state_dict())
    inputs = torch.randn(B, T, D, dtype=torch.float64)
    lengths = torch.tensor([5, 2, 1])
    mask = torch.ones(T, T, dtype=torch.bool).triu(1) if causal else None
    expected, weights = theirs(inputs, inputs, inputs, key_padding_mask=~length_mask(lengths, T), attn_mask=mask)
    context, ours_weights = ours(inputs, lengths)
    valid = length_mask(lengths, T)
    torch.testing.assert_close(context[valid], expected[valid], **EXACT)
    torch.testing.assert_close(ours_weights[valid], weights[valid], **EXACT)
    assert context[~valid].eq(0).all()


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_knows_nothing_of_padding_or_of_what_comes(causal: bool) -> None:
    attention = SelfAttention(D, num_heads=2, causal=causal)
    inputs = torch.randn(B, T, D)
    context = attention(inputs, LENGTHS).context
    changed = inputs.clone()
    changed[~length_mask(LENGTHS, T)] = float("nan")
    assert torch.equal(attention(changed, LENGTHS).context, context)
    assert attention(inputs, LENGTHS).weights[2].eq(0).all()
    later = inputs.clone()
    later[0, 3] += 1.0
    same = (attention(later, LENGTHS).context[0] == context[0]).all(dim=1)
    assert same.tolist() == ([True] * 3 + [False] * 2 if causal else [False] * 5)


def located() -> tuple[LocationAwareAttention, Tensor, Tensor]:
    attention = LocationAwareAttention(Q, M, size=5, channels=3, kernel_size=3).double()
    return attention, torch.randn(B, T, Q, dtype=torch.float64), torch.randn(B, S, M, dtype=torch.float64)


def test_location_aware_equals_the_papers_loop() -> None:
    attention, queries, values = located()
    mask = length_mask(SOURCE, S)
    context, weights = attention(queries, attention.prepare(values, mask))
    for row in range(2):
        length, before = int(SOURCE[row]), torch.zeros(S, dtype=torch.float64)
        for step in range(T):
            scores = []
            for place in range(length):
                window = nn.functional.pad(before.detach(), (1, 1))[place : place + 3]
                filtered = attention.convolution.weight[:, 0] @ window
                inside = attention.query(queries[row, step]) + attention.key(values[row, place])
                scores.append(attention.score(torch.tanh(inside + attention.location(filtered))))
            found = torch.cat(scores).softmax(dim=0)
            before = torch.cat([found, torch.zeros(S - length, dtype=torch.float64)])
            torch.testing.assert_close(weights[row, step], before, **EXACT)
            torch.testing.assert_close(context[row, step], before @ values[row], **EXACT)
    assert weights[2].eq(0).all()
    assert context[2].eq(0).all()


def test_location_aware_goes_on_where_it_stopped() -> None:
    attention, queries, values = located()
    memory = attention.prepare(values, length_mask(SOURCE, S))
    whole = attention(queries, memory)
    first = attention(queries[:, :2], memory)
    second = attention(queries[:, 2:], memory, first.weights[:, -1])
    torch.testing.assert_close(torch.cat([first.context, second.context], dim=1), whole.context, **EXACT)
    assert attention(queries[:, :0], memory).context.shape == (B, 0, M)


def test_gradcheck() -> None:
    attention, queries, values = located()
    queries, values = queries.requires_grad_(), values.requires_grad_()
    mask = length_mask(SOURCE, S)
    assert torch.autograd.gradcheck(lambda q, v: tuple(attention(q, attention.prepare(v, mask))), (queries, values))
    own = SelfAttention(4, num_heads=2, causal=True).double()
    inputs = torch.randn(B, T, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: tuple(own(x, LENGTHS)), (inputs,))


def test_refusals() -> None:
    with pytest.raises(UsageError, match="num_heads is 3, which does not divide the size 8"):
        SelfAttention(D, num_heads=3)
    with pytest.raises(UsageError, match="kernel_size is 4, allowed is an odd number from 1"):
        LocationAwareAttention(Q, M, size=5, kernel_size=4)
