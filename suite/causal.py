"""Forward and backward pass of a causal gated residual stack, block by block with work that stays in cache.

Rows are ``time * batch + item``; the past of a block of rows is the block ``dilation * batch`` rows before it. The
backward pass needs the residual stream and the two factors of the gate of every layer: they are kept in one large
buffer that is handed on from step to step, because fresh memory costs more than the products that fill it.
"""

import mmap
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from suite.gating import gate_, gate_backward_

BLOCK_ELEMENTS = 2**16  # of the stream, on CPU: what a block touches fits the second-level cache
_KEPT = 1  # spare buffers for each type of number


def causal_stack(
    rows: Tensor,
    offsets: Tensor,
    local: Tensor | None,
    *,
    batch: int,
    dilations: Sequence[int],
    past: Sequence[Tensor],
    current: Sequence[Tensor],
    local_weights: Sequence[Tensor],
    residual: Sequence[Tensor],
    skip: Sequence[Tensor],
) -> Tensor:
    """Summed skips ``(N, S)`` of ``rows (N, C)``, differentiable once in every tensor.

    Args:
        rows: time first: row ``t * batch + b`` is step t of item b.
        offsets: ``(L, batch or 1, 2C)``, added to the gates of every step.
        local: ``(N, D)``, the condition of each row, or ``None``.
        batch: items.
        dilations: steps that each of L layers looks back.
        past: ``(C, 2C)`` a layer. current: likewise.
        local_weights: ``(D, 2C)`` a layer, or none.
        residual: ``(C, C)`` for each layer but the last.
        skip: ``(C, S)`` a layer.
    """
    assert (local is None) == (not local_weights), "the stack and the call disagree on a local condition"
    plan = _Plan(batch, tuple(dilations), local is not None)
    weights = [*past, *current, *local_weights, *residual, *skip]
    device = rows.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        rows, weights = rows.to(dtype), [weight.to(dtype) for weight in weights]
        local = None if local is None else local.to(dtype)
    # Added to gates in float32 whatever these are, and summed over all steps in the backward pass.
    offsets = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
    needed = [part for part in (rows, offsets, local, *weights) if part is not None]
    if torch.is_grad_enabled() and any(part.requires_grad for part in needed):
        return _Stack.apply(plan, rows, offsets, local, *weights)
    return _infer(plan, rows, offsets, local, _sorted(plan, weights))


class _Plan(NamedTuple):
    batch: int
    dilations: tuple[int, ...]
    has_local: bool


class _Weights(NamedTuple):
    past: Sequence[Tensor]
    current: Sequence[Tensor]
    local: Sequence[Tensor]
    residual: Sequence[Tensor]
    skip: Sequence[Tensor]


def _sorted(plan: _Plan, flat: Sequence[Tensor]) -> _Weights:
    count = len(plan.dilations)
    local = count if plan.has_local else 0
    ends = [count, 2 * count, 2 * count + local, 3 * count + local - 1]
    return _Weights(*(list(flat[a:b]) for a, b in zip([0, *ends], [*ends, len(flat)], strict=True)))


class _Past(NamedTuple):
    """Where the past of a block is: rows ``begin`` to ``end``; the first ``missing`` rows of the block have none."""

    begin: int
    end: int
    missing: int


def _blocks(plan: _Plan, rows: Tensor) -> list[tuple[int, int]]:
    count, channels = rows.shape
    on_cpu = rows.device.type == "cpu"
    size = max(1, BLOCK_ELEMENTS // (channels * plan.batch)) * plan.batch if on_cpu else max(count, 1)
    return [(begin, min(begin + size, count)) for begin in range(0, count, size)]


def _past(begin: int, end: int, shift: int) -> _Past | None:
    if end <= shift:
        return None
    return _Past(max(begin - shift, 0), end - shift, max(shift - begin, 0))


def _layer(
    plan: _Plan,
    number: int,
    block: tuple[int, int],
    stream: Tensor,
    local: Tensor | None,
    offsets: Tensor,
    gates: Tensor,
    gated: Tensor,
    weights: _Weights,
) -> None:
    """Gates of one block of one layer: ``gates`` become the two factors, ``gated`` their product."""
    begin, end = block
    torch.mm(stream[begin:end], weights.current[number], out=gates)
    past = _past(begin, end, plan.dilations[number] * plan.batch)
    if past is not None:
        gates[past.missing :].addmm_(stream[past.begin : past.end], weights.past[number])
    if local is not None:
        gates.addmm_(local[begin:end], weights.local[number])
    gate_(gates, offsets[number], gated)


def _infer(plan: _Plan, rows: Tensor, offsets: Tensor, local: Tensor | None, weights: _Weights) -> Tensor:
    """Without gradients: two streams and one block of gates are all the memory."""
    count, channels = rows.shape
    blocks = _blocks(plan, rows)
    most = blocks[0][1] if blocks else 0
    gates, gated = rows.new_empty(most, 2 * channels), rows.new_empty(most, channels)
    skips = rows.new_zeros(count, weights.skip[0].size(1))
    stream, spare = rows, torch.empty_like(rows)
    for number in range(len(plan.dilations)):
        for begin, end in blocks:
            size = end - begin
            _layer(plan, number, (begin, end), stream, local, offsets.detach(), gates[:size], gated[:size], weights)
            if number + 1 < len(plan.dilations):
                torch.addmm(stream[begin:end], gated[:size], weights.residual[number], out=spare[begin:end])
            skips[begin:end].addmm_(gated[:size], weights.skip[number])
        stream, spare = spare, (torch.empty_like(rows) if stream is rows else stream)
    return skips


class _Stack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, rows: Tensor, offsets: Tensor, local: Tensor | None, *flat: Tensor) -> Tensor:
        weights = _sorted(plan, flat)
        count, channels = rows.shape
        blocks = _blocks(plan, rows)
        work = _take(rows, count, channels, len(plan.dilations))
        streams, gates = work.streams, work.gates
        streams[0].copy_(rows)
        gated = rows.new_empty(blocks[0][1] if blocks else 0, channels)
        skips = rows.new_zeros(count, weights.skip[0].size(1))
        for number in range(len(plan.dilations)):
            stream, kept = streams[number], gates[number]
            for begin, end in blocks:
                product = gated[: end - begin]
                _layer(plan, number, (begin, end), stream, local, offsets, kept[begin:end], product, weights)
                if number + 1 < len(plan.dilations):
                    out = streams[number + 1][begin:end]
                    torch.addmm(stream[begin:end], product, weights.residual[number], out=out)
                skips[begin:end].addmm_(product, weights.skip[number])
        ctx.save_for_backward(offsets, local, *flat)
        ctx.plan, ctx.work, ctx.blocks = plan, work, blocks
        return skips

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        assert not torch.is_grad_enabled(), "the causal stack has no second derivative"
        assert ctx.work is not None, "the causal stack keeps what it needs for one backward pass only"
        offsets, local, *flat = ctx.saved_tensors
        found = _backward(ctx.plan, ctx.work, ctx.blocks, grads[0].contiguous(), offsets, local, flat)
        _give(ctx.work)
        ctx.work = None
        return (None, *found)


def _backward(
    plan: _Plan,
    work: "_Work",
    blocks: list[tuple[int, int]],
    slopes: Tensor,
    offsets: Tensor,
    local: Tensor | None,
    flat: Sequence[Tensor],
) -> tuple[Tensor | None, ...]:
    """Gradients of rows, offsets, local condition and weights, in that order."""
    weights, sums = _sorted(plan, flat), _sorted(plan, [torch.zeros_like(weight) for weight in flat])
    to_offsets = torch.zeros_like(offsets)
    to_local = None if local is None else torch.zeros_like(local)
    most, channels = blocks[0][1] if blocks else 0, work.streams[0].size(1)
    to_stream = torch.zeros_like(work.streams[0])
    gated, to_gated = slopes.new_empty(most, channels), slopes.new_empty(most, channels)
    to_gates = slopes.new_empty(most, 2 * channels)
    for number in reversed(range(len(plan.dilations))):
        stream, shift, last = work.streams[number], plan.dilations[number] * plan.batch, len(plan.dilations) - 1
        back = [weight[number].t() for weight in (weights.skip, weights.current, weights.past)]
        # Blocks in the order of time: what a block adds to its past is behind those that are still to be read.
        for begin, end in blocks:
            size, slope, out = end - begin, slopes[begin:end], to_stream[begin:end]
            product, to_product, to_gate = gated[:size], to_gated[:size], to_gates[:size]
            torch.mm(slope, back[0], out=to_product)
            if number < last:
                to_product.addmm_(out, weights.residual[number].t())
            gate_backward_(to_product, work.gates[number][begin:end], to_gate, product, to_offsets[number])
            sums.skip[number].addmm_(product.t(), slope)
            if number < last:
                sums.residual[number].addmm_(product.t(), out)
            sums.current[number].addmm_(stream[begin:end].t(), to_gate)
            out.addmm_(to_gate, back[1])
            if local is not None and to_local is not None:
                sums.local[number].addmm_(local[begin:end].t(), to_gate)
                to_local[begin:end].addmm_(to_gate, weights.local[number].t())
            past = _past(begin, end, shift)
            if past is not None:
                reached = to_gate[past.missing :]
                sums.past[number].addmm_(stream[past.begin : past.end].t(), reached)
                to_stream[past.begin : past.end].addmm_(reached, back[2])
    return (to_stream, to_offsets, to_local, *(part for group in sums for part in group))


class _Work(NamedTuple):
    """What the backward pass needs of each layer: its input ``(N, C)`` and the factors of its gate ``(N, 2C)``."""

    buffer: Tensor
    streams: list[Tensor]
    gates: list[Tensor]


_spare: dict[torch.dtype, list[Tensor]] = {}


def _take(like: Tensor, count: int, channels: int, layers: int) -> _Work:
    total = 3 * layers * count * channels
    if like.device.type == "cpu":
        waiting = _spare.get(like.dtype, [])
        buffer = waiting.pop() if waiting else None
        if buffer is None or buffer.numel() < total:
            buffer = _large_empty(total, like.dtype)
    else:
        buffer = like.new_empty(total)
    edge = layers * count * channels
    streams = buffer[:edge].view(layers, count, channels).unbind()
    gates = buffer[edge:total].view(layers, count, 2 * channels).unbind()
    return _Work(buffer, list(streams), list(gates))


def _give(work: _Work) -> None:
    if work.buffer.device.type == "cpu":
        waiting = _spare.setdefault(work.buffer.dtype, [])
        if len(waiting) < _KEPT:
            waiting.append(work.buffer)


def _large_empty(count: int, dtype: torch.dtype) -> Tensor:
    """Memory for ``count`` numbers in large pages where the system has them: looking up small ones costs a tenth."""
    if count == 0 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(count, dtype=dtype)
    # Private: Python's default is memory that a forked process would go on sharing, and write over.
    memory = mmap.mmap(-1, count * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype, count=count)
