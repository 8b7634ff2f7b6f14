"""Attention of queries over a memory, all queries at once: ``queries (B, T, Q)``, ``memory (B, S, M)``.

The same call serves a teacher-forced pass (T target steps) and beam search (T hypotheses of one sentence), so the
memory is never repeated. ``prepare`` computes what depends on the memory alone, once a sentence.
"""

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from suite.errors import UsageError
from suite.sequence import length_mask, mask_steps

AttentionKind = Literal["additive", "dot", "general", "multihead", "none"]


class Memory(NamedTuple):
    """What is attended to: ``values (B, S, M)``, ``keys (B, S, K)`` by ``prepare``, ``mask (B, S)``.

    For multi-head attention the mask may also be ``(B, T, S)``, one row for each query.
    """

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


def _valid(values: Tensor, mask: Tensor) -> Tensor:
    """``values (B, S, M)``, zero where no query may look: a weight of zero does not silence what is not a number."""
    seen = mask.any(dim=1) if mask.dim() == 3 else mask
    if mask.device.type == "cpu" and bool(seen.all()):  # asking would stop an accelerator
        return values
    return values.masked_fill(~seen.unsqueeze(2), 0.0)


class _SingleHead(nn.Module):
    """Scores to context: the part that the single-head kinds share."""

    def prepare(self, values: Tensor, mask: Tensor) -> Memory:
        """Bundle ``values (B, S, M)`` and their ``mask (B, S)`` with the keys made from them."""
        values = _valid(values, mask)
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
        values = _valid(values, mask)
        return Memory(self.value(values), self.key(values), mask)

    def forward(self, queries: Tensor, memory: Memory) -> Attended:
        """Attend with ``queries (B, T, Q)``."""
        query, key, value = (self._split(part) for part in (self.query(queries), memory.keys, memory.values))
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(query.size(3))
        mask = memory.mask[:, None] if memory.mask.dim() == 3 else memory.mask[:, None, None]
        weights = masked_softmax(scores, mask).to(value.dtype)
        context = torch.matmul(weights, value).transpose(1, 2).flatten(2)
        return Attended(self.output(context), weights.mean(dim=1))

    def _split(self, inputs: Tensor) -> Tensor:
        return inputs.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence over itself (Vaswani et al. 2017).

    Args:
        size: features of a step (D).
        num_heads: heads, which divide ``size``.
        causal: each step sees itself and those before it alone.

    Raises:
        UsageError: heads that do not divide ``size``.
    """

    def __init__(self, size: int, *, num_heads: int, causal: bool = False) -> None:
        super().__init__()
        if num_heads < 1 or size % num_heads:
            raise UsageError(f"num_heads is {num_heads}, which does not divide the size {size}")
        self.attention = MultiHeadAttention(size, size, num_heads=num_heads)
        self.causal = causal

    def forward(self, inputs: Tensor, lengths: Tensor) -> Attended:
        """``inputs (B, T, D)``; the context is zero at padding, and so are the weights ``(B, T, T)``."""
        steps = inputs.size(1)
        inputs = mask_steps(inputs, lengths)
        valid = length_mask(lengths, steps)
        mask = valid.unsqueeze(1) & valid.unsqueeze(2)
        if self.causal:
            mask = mask & torch.ones(steps, steps, dtype=torch.bool, device=inputs.device).tril()
        attended = self.attention(inputs, self.attention.prepare(inputs, mask))
        return Attended(mask_steps(attended.context, lengths), attended.weights)


class LocationAwareAttention(nn.Module):
    """``v . tanh(W q + U k + F f)``, where ``f`` is a convolution over the weights of the step before.

    Chorowski et al., "Attention-Based Models for Speech Recognition", 2015. Each step needs the one before it: this is
    a loop over time, and for a beam of hypotheses ``previous`` is part of the state.

    Args:
        query_size: features of a query (Q).
        memory_size: features of what is attended to (M).
        size: features inside.
        channels: filters of the convolution.
        kernel_size: steps that a filter sees; odd, so that it has a middle.

    Raises:
        UsageError: an even ``kernel_size``.
    """

    def __init__(
        self, query_size: int, memory_size: int, *, size: int, channels: int = 10, kernel_size: int = 31
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise UsageError(f"kernel_size is {kernel_size}, allowed is an odd number from 1")
        self.query = nn.Linear(query_size, size)
        self.key = nn.Linear(memory_size, size, bias=False)
        self.convolution = nn.Conv1d(1, channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.location = nn.Linear(channels, size, bias=False)
        self.score = nn.Linear(size, 1, bias=False)

    def prepare(self, values: Tensor, mask: Tensor) -> Memory:
        """Bundle ``values (B, S, M)`` and their ``mask (B, S)`` with the keys made from them."""
        values = _valid(values, mask)
        return Memory(values, self.key(values), mask)

    def forward(self, queries: Tensor, memory: Memory, previous: Tensor | None = None) -> Attended:
        """Attend with ``queries (B, T, Q)``, one after another.

        ``previous (B, S)`` are the weights before the first of them: zeros if not given, and ``weights[:, -1]`` of the
        last call to go on with.
        """
        asked = self.query(queries)
        weights = memory.values.new_zeros(memory.mask.shape) if previous is None else previous
        found = []
        for step in range(queries.size(1) if memory.mask.size(1) else 0):
            located = self.location(self.convolution(weights.unsqueeze(1)).transpose(1, 2))
            scores = self.score(torch.tanh(asked[:, step : step + 1] + memory.keys + located)).squeeze(2)
            weights = masked_softmax(scores, memory.mask).to(memory.values.dtype)
            found.append(weights)
        shape = (*queries.shape[:2], memory.mask.size(1))  # without a query, or without anything to attend to
        stacked = torch.stack(found, dim=1) if found else memory.values.new_zeros(shape)
        return Attended(torch.bmm(stacked, memory.values), stacked)


def build_attention(kind: AttentionKind, query_size: int, memory_size: int, *, num_heads: int) -> nn.Module | None:
    """The attention of that name, or nothing for ``none``.

    Raises:
        UsageError: sizes that the kind cannot join, or a kind that there is not.
    """
    if kind not in get_args(AttentionKind):
        raise UsageError(f"attention is {kind}, allowed are {', '.join(get_args(AttentionKind))}")
    if kind == "additive":
        return AdditiveAttention(query_size, memory_size, size=query_size)
    if kind == "dot":
        return DotAttention(query_size, memory_size)
    if kind == "general":
        return GeneralAttention(query_size, memory_size)
    if kind == "multihead":
        return MultiHeadAttention(query_size, memory_size, num_heads=num_heads)
    return None
