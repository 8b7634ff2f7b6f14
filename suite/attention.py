"""Attention of queries over a memory, all queries at once: ``queries (B, T, Q)``, ``memory (B, S, M)``.

The same call serves a teacher-forced pass (T target steps) and beam search (T hypotheses of one sentence), so the
memory is never repeated. ``prepare`` computes what depends on the memory alone, once a sentence.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from suite.errors import UsageError

AttentionKind = Literal["additive", "dot", "general", "multihead", "none"]


class Memory(NamedTuple):
    """What is attended to: ``values (B, S, M)``, ``keys (B, S, K)`` by ``prepare``, ``mask (B, S)``."""

    values: Tensor
    keys: Tensor
    mask: Tensor


class Attended(NamedTuple):
    """``context (B, T, M)`` and ``weights (B, T, S)``: zero at padding, summing to one unless all is padding."""

    context: Tensor
    weights: Tensor


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis where ``mask`` is True; rows with nothing valid are all zero, never NaN."""
    scores = scores if scores.dtype == torch.float64 else scores.float()
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1).masked_fill(~mask, 0.0)


class _SingleHead(nn.Module):
    """Scores to context: the part that the single-head kinds share."""

    def prepare(self, values: Tensor, mask: Tensor) -> Memory:
        """Bundle ``values (B, S, M)`` and their ``mask (B, S)`` with the keys made from them."""
        return Memory(values, self._keys(values), mask)

    def forward(self, queries: Tensor, memory: Memory) -> Attended:
        """Attend with ``queries (B, T, Q)``."""
        weights = masked_softmax(self._scores(queries, memory.keys), memory.mask.unsqueeze(1))
        weights = weights.to(memory.values.dtype)
        return Attended(torch.bmm(weights, memory.values), weights)

    def _keys(self, values: Tensor) -> Tensor:
        return values

    def _scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        raise NotImplementedError


class AdditiveAttention(_SingleHead):
    """``v . tanh(W q + U k)`` (Bahdanau, Cho and Bengio 2015)."""

    def __init__(self, query_size: int, memory_size: int, *, size: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, size)
        self.key = nn.Linear(memory_size, size, bias=False)
        self.score = nn.Linear(size, 1, bias=False)

    def _keys(self, values: Tensor) -> Tensor:
        return self.key(values)

    def _scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        return self.score(torch.tanh(self.query(queries).unsqueeze(2) + keys.unsqueeze(1))).squeeze(3)


class DotAttention(_SingleHead):
    """``q . k`` (Luong, Pham and Manning 2015); queries and memory have the same size."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        if query_size != memory_size:
            raise UsageError(
                f"attention dot needs the decoder's hidden size ({query_size}) to equal the encoder's output size "
                f"({memory_size}): change one of them, or use attention general"
            )

    def _scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        return torch.bmm(queries, keys.transpose(1, 2))


class GeneralAttention(_SingleHead):
    """``q W k`` (Luong, Pham and Manning 2015)."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.key = nn.Linear(memory_size, query_size, bias=False)

    def _keys(self, values: Tensor) -> Tensor:
        return self.key(values)

    def _scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        return torch.bmm(queries, keys.transpose(1, 2))


class MultiHeadAttention(nn.Module):
    """Scaled dot products in several projected subspaces (Vaswani et al. 2017); weights are the mean over heads."""

    def __init__(self, query_size: int, memory_size: int, *, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or query_size % num_heads:
            raise UsageError(f"num_heads is {num_heads}, which does not divide the decoder's hidden size {query_size}")
        self.num_heads = num_heads
        self.query = nn.Linear(query_size, query_size)
        self.key = nn.Linear(memory_size, query_size, bias=False)
        self.value = nn.Linear(memory_size, query_size)
        self.output = nn.Linear(query_size, memory_size)

    def prepare(self, values: Tensor, mask: Tensor) -> Memory:
        """Project ``values (B, S, M)`` to keys and values of all heads."""
        return Memory(self.value(values), self.key(values), mask)

    def forward(self, queries: Tensor, memory: Memory) -> Attended:
        """Attend with ``queries (B, T, Q)``."""
        query, key, value = (self._split(part) for part in (self.query(queries), memory.keys, memory.values))
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(query.size(3))
        weights = masked_softmax(scores, memory.mask[:, None, None]).to(value.dtype)
        context = torch.matmul(weights, value).transpose(1, 2).flatten(2)
        return Attended(self.output(context), weights.mean(dim=1))

    def _split(self, inputs: Tensor) -> Tensor:
        return inputs.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


def build_attention(kind: AttentionKind, query_size: int, memory_size: int, *, num_heads: int) -> nn.Module | None:
    """The attention of that name, or nothing for ``none``.

    Raises:
        UsageError: sizes that the kind cannot join.
    """
    if kind == "additive":
        return AdditiveAttention(query_size, memory_size, size=query_size)
    if kind == "dot":
        return DotAttention(query_size, memory_size)
    if kind == "general":
        return GeneralAttention(query_size, memory_size)
    if kind == "multihead":
        return MultiHeadAttention(query_size, memory_size, num_heads=num_heads)
    return None
