"""The minimal cells for GPUs, from gates to states and back, compiled by Triton: a scan over chunks of time.

``h_t = k_t h_{t-1} + (1 - k_t) c_t`` is linear in h, so a chunk of steps comes down to two numbers a feature, the
product of its k and its last state from a start at zero. *Reduce* finds them for all chunks at once, *carry* goes
from chunk to chunk, and *apply* runs all chunks again from their true first states. Each is one launch; gates are read
twice, states written once, and nothing else of the length of time is kept. Backward is the same with time reversed.

Arrays are batch first: ``gates (B, T, G)``, ``states (B, T, H)``; rows stop at their length and are zero after it.
``decays`` and ``ends`` are ``(B, chunks, H)``.
"""

import triton
import triton.language as tl


@triton.jit
def keep_and_candidate(gates, inside, size, is_lstm: tl.constexpr, kind: tl.constexpr):
    """What stays of the state and what comes in its place, and the two gates of minLSTM."""
    first = tl.load(gates, mask=inside, other=0.0).to(kind)
    second = tl.load(gates + size, mask=inside, other=0.0).to(kind)
    if not is_lstm:
        return tl.sigmoid(-first), second, first, second
    third = tl.load(gates + 2 * size, mask=inside, other=0.0).to(kind)
    # forget / (forget + input) of two sigmoids, multiplied out and scaled so that nothing overflows
    top = tl.maximum(tl.maximum(-first, -second), 0.0)
    unit = tl.exp(-top)
    share = unit + tl.exp(-second - top)
    return share / (share + (unit + tl.exp(-first - top))), third, first, second


@triton.jit
def reduce(
    gates, lengths, decays, ends, steps, size, width,
    span: tl.constexpr, block: tl.constexpr, is_lstm: tl.constexpr,
):  # fmt: skip
    """Each chunk's product of decays, and its last state from zero."""
    row, chunk, j = tl.program_id(0), tl.program_id(1), tl.program_id(2) * block + tl.arange(0, block)
    kind = ends.dtype.element_ty
    inside, length = j < size, tl.load(lengths + row)
    decay, state = tl.full((block,), 1.0, kind), tl.zeros((block,), kind)
    for k in range(span):
        step = chunk * span + k
        valid = inside & (step < length)
        place = gates + (row.to(tl.int64) * steps + step) * width + j
        keep, candidate, _, _ = keep_and_candidate(place, valid, size, is_lstm, kind)
        state = tl.where(valid, candidate + keep * (state - candidate), state)
        decay = tl.where(valid, decay * keep, decay)
    here = (row * tl.num_programs(1) + chunk) * size + j
    tl.store(decays + here, decay, mask=inside)
    tl.store(ends + here, state, mask=inside)


@triton.jit
def carry(
    start, decays, ends, chunks, size, block: tl.constexpr, backward: tl.constexpr
):  # fmt: skip
    """``ends`` become the states (or gradients) with which the chunks begin, ``start`` what leaves the last of them."""
    row, j = tl.program_id(0), tl.program_id(1) * block + tl.arange(0, block)
    inside = j < size
    state = tl.load(start + row * size + j, mask=inside, other=0.0)
    number = 0
    while number < chunks:
        chunk = chunks - 1 - number if backward else number
        here = (row * chunks + chunk) * size + j
        decay, end = tl.load(decays + here, mask=inside, other=0.0), tl.load(ends + here, mask=inside, other=0.0)
        tl.store(ends + here, state, mask=inside)
        state = end + decay * state
        number += 1
    if backward:
        tl.store(start + row * size + j, state, mask=inside)


@triton.jit
def apply(
    gates, lengths, starts, states, steps, size, width,
    span: tl.constexpr, block: tl.constexpr, is_lstm: tl.constexpr,
):  # fmt: skip
    """All states, from those with which the chunks begin."""
    row, chunk, j = tl.program_id(0), tl.program_id(1), tl.program_id(2) * block + tl.arange(0, block)
    inside, length = j < size, tl.load(lengths + row)
    state = tl.load(starts + (row * tl.num_programs(1) + chunk) * size + j, mask=inside, other=0.0)
    for k in range(span):
        step = chunk * span + k
        valid = inside & (step < length)
        place = row.to(tl.int64) * steps + step
        keep, candidate, _, _ = keep_and_candidate(gates + place * width + j, valid, size, is_lstm, state.dtype)
        state = candidate + keep * (state - candidate)
        tl.store(states + place * size + j, tl.where(valid, state, 0.0), mask=inside & (step < steps))


@triton.jit
def reduce_slope(
    gates, lengths, slopes, decays, ends, steps, size, width,
    span: tl.constexpr, block: tl.constexpr, is_lstm: tl.constexpr,
):  # fmt: skip
    """As ``reduce``, of the gradient that leaves a chunk at its first step."""
    row, chunk, j = tl.program_id(0), tl.program_id(1), tl.program_id(2) * block + tl.arange(0, block)
    kind = ends.dtype.element_ty
    inside, length = j < size, tl.load(lengths + row)
    decay, passed = tl.full((block,), 1.0, kind), tl.zeros((block,), kind)
    for k in range(span):
        step = chunk * span + span - 1 - k
        valid = inside & (step < length)
        place = row.to(tl.int64) * steps + step
        keep, _, _, _ = keep_and_candidate(gates + place * width + j, valid, size, is_lstm, kind)
        coming = tl.load(slopes + place * size + j, mask=valid, other=0.0)
        passed = tl.where(valid, (passed + coming) * keep, passed)
        decay = tl.where(valid, decay * keep, decay)
    here = (row * tl.num_programs(1) + chunk) * size + j
    tl.store(decays + here, decay, mask=inside)
    tl.store(ends + here, passed, mask=inside)


@triton.jit
def apply_slope(
    gates, lengths, starts, start, states, slopes, gates_slope,
    steps, size, width, span: tl.constexpr, block: tl.constexpr, is_lstm: tl.constexpr,
):  # fmt: skip
    """Gradients of all gates, from those that reach the chunks from later ones."""
    row, chunk, j = tl.program_id(0), tl.program_id(1), tl.program_id(2) * block + tl.arange(0, block)
    inside, length = j < size, tl.load(lengths + row)
    passed = tl.load(starts + (row * tl.num_programs(1) + chunk) * size + j, mask=inside, other=0.0)
    # An empty row's state has no part in anything, and may be no number: zero times it would be none either.
    first = tl.load(start + row * size + j, mask=inside & (length > 0), other=0.0)
    out = gates_slope.dtype.element_ty
    for k in range(span):
        step = chunk * span + span - 1 - k
        valid, written = inside & (step < length), inside & (step < steps)
        place = row.to(tl.int64) * steps + step
        keep, candidate, one, two = keep_and_candidate(gates + place * width + j, valid, size, is_lstm, passed.dtype)
        before = tl.load(states + (place - 1) * size + j, mask=valid & (step > 0), other=0.0)
        old = tl.where(step > 0, before, first)
        share = tl.where(valid, passed + tl.load(slopes + place * size + j, mask=valid, other=0.0), 0.0)
        both = share * (old - candidate) * keep * (1.0 - keep)
        target = gates_slope + place * width + j
        if is_lstm:
            tl.store(target, (both * tl.sigmoid(-one)).to(out), mask=written)
            tl.store(target + size, (-both * tl.sigmoid(-two)).to(out), mask=written)
            tl.store(target + 2 * size, (share * (1.0 - keep)).to(out), mask=written)
        else:
            tl.store(target, (-both).to(out), mask=written)
            tl.store(target + size, (share * (1.0 - keep)).to(out), mask=written)
        passed = tl.where(valid, share * keep, passed)
