"""Attention against plain loops written from the papers' equations, and against ``torch.nn.functional``."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.attention import AdditiveAttention, AttentionKind, MultiHeadAttention, build_attention, masked_softmax
from suite.errors import UsageError

KINDS: list[AttentionKind] = ["additive", "dot", "general", "multihead"]
B, T, S, Q, M, HEADS = 3, 4, 5, 6, 6, 2
LENGTHS = torch.tensor([5, 2, 3])
TIGHT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}


def build(kind: AttentionKind, memory_size: int = M) -> Any:
    attention = build_attention(kind, Q, memory_size, num_heads=HEADS)
    assert attention is not None
    for parameter in attention.double().parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention


def sample(memory_size: int = M) -> tuple[Tensor, Tensor, Tensor]:
    mask = torch.arange(S) < LENGTHS.unsqueeze(1)
    return torch.randn(B, T, Q).double(), torch.randn(B, S, memory_size).double(), mask


def score(attention: Any, kind: AttentionKind, query: Tensor, key: Tensor) -> Tensor:
    """One query against one memory vector, from the paper."""
    if kind == "additive":  # Bahdanau et al. 2015, A.1.2: v . tanh(W s + U h)
        hidden = attention.query.weight @ query + attention.query.bias + attention.key.weight @ key
        return attention.score.weight[0] @ torch.tanh(hidden)
    if kind == "general":  # Luong et al. 2015, equation 8: h W h
        return query @ attention.key.weight @ key
    return query @ key


def loop(attention: Any, kind: AttentionKind, queries: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Contexts and weights, one query at a time over valid memory alone."""
    contexts, weights = torch.zeros(B, T, values.size(2)).double(), torch.zeros(B, T, S).double()
    for row in range(B):
        valid = values[row, : LENGTHS[row]]
        for time in range(T):
            scores = [math.exp(score(attention, kind, queries[row, time], key)) for key in valid]
            for position, value in enumerate(valid):
                weights[row, time, position] = scores[position] / sum(scores)
                contexts[row, time] += scores[position] / sum(scores) * value
    return contexts, weights


@pytest.mark.parametrize(("kind", "memory_size"), [("additive", 7), ("dot", Q), ("general", 7)])
def test_equals_the_papers_loop(kind: AttentionKind, memory_size: int) -> None:
    attention = build(kind, memory_size)
    queries, values, mask = sample(memory_size)
    attended = attention(queries, attention.prepare(values, mask))
    with torch.no_grad():
        contexts, weights = loop(attention, kind, queries, values)
    torch.testing.assert_close(attended.context, contexts, **TIGHT)
    torch.testing.assert_close(attended.weights, weights, **TIGHT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("memory_size", [M, 10])
def test_multihead_equals_torch(memory_size: int, dtype: torch.dtype) -> None:
    """Value, weights and gradients of everything; torch's own has a key bias too, which softmax cancels: zero here."""
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    attention = build("multihead", memory_size).to(dtype)
    queries, values, mask = sample(memory_size)
    queries, values = queries.to(dtype).requires_grad_(), values.to(dtype).requires_grad_()
    context, weights = functional.multi_head_attention_forward(
        queries.transpose(0, 1),
        values.transpose(0, 1),
        values.transpose(0, 1),
        embed_dim_to_check=Q,
        num_heads=HEADS,
        in_proj_weight=None,
        in_proj_bias=torch.cat([attention.query.bias, torch.zeros(Q, dtype=dtype), attention.value.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=attention.output.weight,
        out_proj_bias=attention.output.bias,
        key_padding_mask=~mask,
        use_separate_proj_weight=True,
        q_proj_weight=attention.query.weight,
        k_proj_weight=attention.key.weight,
        v_proj_weight=attention.value.weight,
    )
    assert weights is not None
    attended = attention(queries, attention.prepare(values, mask))
    torch.testing.assert_close(attended.context, context.transpose(0, 1), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(attended.weights, weights, rtol=tolerance, atol=tolerance)
    probe = torch.randn_like(attended.context)
    leaves = [queries, values, *attention.parameters()]
    given = torch.autograd.grad((attended.context * probe).sum(), leaves)
    expected = torch.autograd.grad((context.transpose(0, 1) * probe).sum(), leaves)
    torch.testing.assert_close(given, expected, rtol=10 * tolerance, atol=10 * tolerance)


def test_multihead_equals_scaled_dot_product() -> None:
    attention = build("multihead")
    queries, values, mask = sample()
    query, key, value = (
        layer(part).unflatten(2, (HEADS, -1)).transpose(1, 2)
        for layer, part in ((attention.query, queries), (attention.key, values), (attention.value, values))
    )
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
    attended = attention(queries, attention.prepare(values, mask))
    torch.testing.assert_close(attended.context, attention.output(mixed.transpose(1, 2).flatten(2)), **TIGHT)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_has_no_weight_and_no_gradient(kind: AttentionKind) -> None:
    attention = build(kind)
    queries, values, mask = sample()
    values.requires_grad_()
    attended = attention(queries, attention.prepare(values, mask))
    assert attended.weights.masked_select(~mask.unsqueeze(1)).eq(0).all()
    torch.testing.assert_close(attended.weights.sum(dim=2), torch.ones(B, T).double(), **TIGHT)
    (slope,) = torch.autograd.grad(attended.context.square().sum() + attended.weights.square().sum(), values)
    assert slope[~mask].eq(0).all()
    assert slope[mask].ne(0).all()
    filled = values.detach().masked_fill(~mask.unsqueeze(2), 1e4)
    torch.testing.assert_close(attention(queries, attention.prepare(filled, mask)).context, attended.context, **TIGHT)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_padding_alone_give_zeros(kind: AttentionKind) -> None:
    """Nothing to attend to: no weight, no context (of several heads only the output's bias), finite gradients."""
    attention = build(kind)
    queries, values, mask = sample()
    mask[1] = False
    queries.requires_grad_()
    values.requires_grad_()
    attended = attention(queries, attention.prepare(values, mask))
    assert attended.weights[1].eq(0).all()
    rest = attention.output.bias if isinstance(attention, MultiHeadAttention) else torch.zeros(M).double()
    torch.testing.assert_close(attended.context[1], rest.expand(T, M), rtol=0, atol=0)
    slopes = torch.autograd.grad(attended.context.square().sum(), [queries, values, *attention.parameters()])
    assert all(slope.isfinite().all() for slope in slopes)
    assert slopes[0][1].eq(0).all()
    assert slopes[1][1].eq(0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_hypotheses_of_a_sentence_equal_one_by_one(kind: AttentionKind) -> None:
    attention = build(kind)
    queries, values, mask = sample()
    memory = attention.prepare(values, mask)
    together = attention(queries, memory)
    for row in range(B):
        alone = attention.prepare(values[row : row + 1, : LENGTHS[row]], mask[row : row + 1, : LENGTHS[row]])
        for time in range(T):
            single = attention(queries[row : row + 1, time : time + 1], alone)
            torch.testing.assert_close(single.context[0, 0], together.context[row, time], **TIGHT)
            expected = together.weights[row, time, : LENGTHS[row]]
            torch.testing.assert_close(single.weights[0, 0], expected, **TIGHT)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: AttentionKind) -> None:
    attention = build(kind)
    queries, values, mask = sample()

    def run(queries: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(attention(queries, attention.prepare(values, mask)))

    small = queries[:, :2].clone().requires_grad_(), values.clone().requires_grad_()
    assert torch.autograd.gradcheck(run, small, fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_autocast_stays_close(kind: AttentionKind) -> None:
    """Within five hundredths of the values' size (they reach 3): bfloat16 keeps 8 bits of keys, queries and weights."""
    attention = build(kind).float()
    queries, values, mask = sample()
    queries, values = queries.float() / 2, values.float()
    exact = attention(queries, attention.prepare(values, mask))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = attention(queries, attention.prepare(values, mask))
    torch.testing.assert_close(rough.context.float(), exact.context, rtol=0.05, atol=0.05)
    torch.testing.assert_close(rough.weights.float(), exact.weights, rtol=0, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_masked_softmax_in_every_precision(dtype: torch.dtype) -> None:
    """Float64 stays float64; the others are done in float32; huge scores at padding and at valid places do no harm."""
    scores = torch.tensor([[1.0, 2.0, 6e4], [-6e4, -6e4, 0.0], [0.0, 0.0, 0.0]], dtype=dtype)
    mask = torch.tensor([[True, True, False], [True, True, False], [False, False, False]])
    weights = masked_softmax(scores, mask)
    assert weights.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    share = 1 / (1 + math.e)
    expected = torch.tensor([[share, 1 - share, 0], [0.5, 0.5, 0], [0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(weights.double(), expected, rtol=0, atol=1e-15 if dtype == torch.float64 else 1e-7)


def test_build_attention_names_and_refusals() -> None:
    assert build_attention("none", 3, 4, num_heads=1) is None
    assert isinstance(build_attention("additive", 3, 4, num_heads=1), AdditiveAttention)
    with pytest.raises(UsageError, match=r"dot needs the decoder's hidden size \(3\) to equal .* output size \(4\)"):
        build_attention("dot", 3, 4, num_heads=1)
    for heads in (0, 4):
        with pytest.raises(UsageError, match=f"num_heads is {heads}, which does not divide .* 6"):
            build_attention("multihead", 6, 4, num_heads=heads)
