"""What stands between the products of an LSTM's step, one launch for a batch, compiled for GPUs by Triton.

Each kernel does what its namesake of ``steps.py`` does in ten to thirty launches, with a program for each row. All rows
run at every step: one that has ended (``step`` is not below what it has ``left``) gets zeros as states, and hands its
gradients on untouched. See ``gpu/steps.py`` for who calls them and for the arrays.
"""

import triton
import triton.language as tl

from suite.recurrent.gpu.kernels.blocks import (
    add_to,
    keep_old,
    load3,
    load4,
    load_slope,
    split,
    standardise,
    standardise_slope,
    store4,
    store_states,
    tanh,
)


@triton.jit(do_not_specialize=["step"])
def peephole_lstm(
    gates, product, hidden, new_hidden, low, memory, new_memory, peepholes, zone, zone_memory,
    left, step, size, block: tl.constexpr, zoned: tl.constexpr,
):  # fmt: skip
    row, j = tl.program_id(0), tl.arange(0, block)
    runs, inside = step < tl.load(left + row), j < size
    here, wide = row * size + j, row * 4 * size + j
    kind = new_hidden.dtype.element_ty
    g0, g1, g2, g3 = load4(gates + wide, inside, size, kind)
    p0, p1, p2, p3 = load4(product + wide, inside, size, kind)
    look0, look1, look2 = load3(peepholes + j, inside, size, kind)
    old = tl.load(memory + here, mask=inside, other=0.0)
    enter = tl.sigmoid(g0 + p0 + look0 * old)
    keep = tl.sigmoid(g1 + p1 + look1 * old)
    cell = tanh(g2 + p2)
    new = keep * old + enter * cell
    leave = tl.sigmoid(g3 + p3 + look2 * new)
    shown = leave * tanh(new)
    if zoned:
        shown = keep_old(shown, hidden + here, zone + here, inside)
        new = keep_old(new, memory + here, zone_memory + here, inside)
    store4(gates + wide, enter, keep, cell, leave, inside & runs, size)
    store_states(new_hidden + here, low + here, new_memory + here, shown, new, runs, inside)


@triton.jit(do_not_specialize=["step"])
def peephole_lstm_slope(
    gates, memory, peepholes, zone, zone_memory, direct, through, outputs,
    memory_slope, gates_slope, products_slope, peepholes_slope,
    left, step, size, block: tl.constexpr, zoned: tl.constexpr,
):  # fmt: skip
    row, j = tl.program_id(0), tl.arange(0, block)
    runs, inside = step < tl.load(left + row), j < size
    here, wide = row * size + j, row * 4 * size + j
    kind = direct.dtype.element_ty
    enter, keep, cell, leave = load4(gates + wide, inside & runs, size, kind)
    look0, look1, look2 = load3(peepholes + j, inside, size, kind)
    old = tl.load(memory + here, mask=inside & runs, other=0.0)
    new = keep * old + enter * cell
    share = load_slope(direct + here, through + here, outputs + here, inside & runs, kind)
    from_memory = tl.load(memory_slope + here, mask=inside & runs, other=0.0)
    past, memory_past = tl.zeros_like(share), tl.zeros_like(share)
    if zoned:
        share, past = split(share, zone + here, inside & runs)
        from_memory, memory_past = split(from_memory, zone_memory + here, inside & runs)
    squashed = tanh(new)
    leave_slope = share * squashed * leave * (1.0 - leave)
    inner = from_memory + share * leave * (1.0 - squashed * squashed) + leave_slope * look2
    enter_slope = inner * cell * enter * (1.0 - enter)
    keep_slope = inner * old * keep * (1.0 - keep)
    cell_slope = inner * enter * (1.0 - cell * cell)
    store4(gates_slope + wide, enter_slope, keep_slope, cell_slope, leave_slope, inside, size)
    store4(products_slope + wide, enter_slope, keep_slope, cell_slope, leave_slope, inside, size)
    memory_past += inner * keep + enter_slope * look0 + keep_slope * look1
    tl.store(direct + here, past, mask=inside & runs)
    tl.store(memory_slope + here, memory_past, mask=inside & runs)
    own = peepholes_slope + row * 3 * size + j
    add_to(own, enter_slope * old, inside & runs)
    add_to(own + size, keep_slope * old, inside & runs)
    add_to(own + 2 * size, leave_slope * new, inside & runs)


@triton.jit(do_not_specialize=["step"])
def layernorm_lstm(
    gates, product, kept, scales, hidden, new_hidden, low, memory, new_memory, gain, memory_gain, memory_bias,
    zone, zone_memory, left, step, size, block: tl.constexpr, zoned: tl.constexpr,
):  # fmt: skip
    row, j = tl.program_id(0), tl.arange(0, block)
    runs, inside = step < tl.load(left + row), j < size
    here, wide = row * size + j, row * 4 * size + j
    kind = new_hidden.dtype.element_ty
    g0, g1, g2, g3 = load4(gates + wide, inside, size, kind)
    p0, p1, p2, p3 = load4(product + wide, inside, size, kind)
    a0, a1, a2, a3 = load4(gain + j, inside, size, kind)
    old = tl.load(memory + here, mask=inside, other=0.0)
    mean = tl.sum(p0 + p1 + p2 + p3, axis=0) / (4 * size)
    p0, p1 = tl.where(inside, p0 - mean, 0.0), tl.where(inside, p1 - mean, 0.0)
    p2, p3 = tl.where(inside, p2 - mean, 0.0), tl.where(inside, p3 - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(p0 * p0 + p1 * p1 + p2 * p2 + p3 * p3, axis=0) / (4 * size) + 1e-5)
    p0, p1, p2, p3 = p0 * scale, p1 * scale, p2 * scale, p3 * scale
    enter, keep = tl.sigmoid(g0 + a0 * p0), tl.sigmoid(g1 + a1 * p1)
    cell, leave = tanh(g2 + a2 * p2), tl.sigmoid(g3 + a3 * p3)
    new = keep * old + enter * cell
    normed, _ = standardise(new, inside, size)
    grown = tl.load(memory_gain + j, mask=inside, other=0.0) * normed
    shown = leave * tanh(grown + tl.load(memory_bias + j, mask=inside, other=0.0))
    if zoned:
        shown = keep_old(shown, hidden + here, zone + here, inside)
        new = keep_old(new, memory + here, zone_memory + here, inside)
    store4(gates + wide, enter, keep, cell, leave, inside & runs, size)
    store4(kept + wide, p0, p1, p2, p3, inside, size)
    tl.store(scales + row, scale)
    store_states(new_hidden + here, low + here, new_memory + here, shown, new, runs, inside)


@triton.jit(do_not_specialize=["step"])
def layernorm_lstm_slope(
    gates, kept, scales, memory, gain, memory_gain, memory_bias, zone, zone_memory,
    direct, through, outputs, memory_slope, gates_slope, products_slope,
    gain_slope, memory_gain_slope, memory_bias_slope,
    left, step, size, block: tl.constexpr, zoned: tl.constexpr,
):  # fmt: skip
    row, j = tl.program_id(0), tl.arange(0, block)
    runs, inside = step < tl.load(left + row), j < size
    here, wide, valid = row * size + j, row * 4 * size + j, inside & runs
    kind = direct.dtype.element_ty
    enter, keep, cell, leave = load4(gates + wide, valid, size, kind)
    old = tl.load(memory + here, mask=valid, other=0.0)
    new = keep * old + enter * cell
    share = load_slope(direct + here, through + here, outputs + here, valid, kind)
    from_memory = tl.load(memory_slope + here, mask=valid, other=0.0)
    past, memory_past = tl.zeros_like(share), tl.zeros_like(share)
    if zoned:
        share, past = split(share, zone + here, valid)
        from_memory, memory_past = split(from_memory, zone_memory + here, valid)
    normed, scale = standardise(new, inside, size)
    grows = tl.load(memory_gain + j, mask=inside, other=0.0)
    squashed = tanh(grows * normed + tl.load(memory_bias + j, mask=inside, other=0.0))
    leave_slope = share * squashed * leave * (1.0 - leave)
    shown = share * leave * (1.0 - squashed * squashed)
    inner = standardise_slope(shown * grows, normed, scale, inside, size) + from_memory
    enter_slope = inner * cell * enter * (1.0 - enter)
    keep_slope = inner * old * keep * (1.0 - keep)
    cell_slope = inner * enter * (1.0 - cell * cell)
    store4(gates_slope + wide, enter_slope, keep_slope, cell_slope, leave_slope, inside, size)
    tl.store(direct + here, past, mask=valid)
    tl.store(memory_slope + here, memory_past + inner * keep, mask=valid)
    p0, p1, p2, p3 = load4(kept + wide, valid, size, kind)
    own = gain_slope + row * 4 * size + j
    add_to(own, enter_slope * p0, valid)
    add_to(own + size, keep_slope * p1, valid)
    add_to(own + 2 * size, cell_slope * p2, valid)
    add_to(own + 3 * size, leave_slope * p3, valid)
    add_to(memory_gain_slope + here, shown * normed, valid)
    add_to(memory_bias_slope + here, shown, valid)
    a0, a1, a2, a3 = load4(gain + j, inside, size, kind)
    s0, s1, s2, s3 = enter_slope * a0, keep_slope * a1, cell_slope * a2, leave_slope * a3
    level = tl.sum(s0 + s1 + s2 + s3, axis=0) / (4 * size)
    along = tl.sum(s0 * p0 + s1 * p1 + s2 * p2 + s3 * p3, axis=0) / (4 * size)
    width = tl.where(runs, tl.load(scales + row), 0.0)
    s0, s1 = (s0 - level - p0 * along) * width, (s1 - level - p1 * along) * width
    s2, s3 = (s2 - level - p2 * along) * width, (s3 - level - p3 * along) * width
    store4(products_slope + wide, s0, s1, s2, s3, inside, size)
