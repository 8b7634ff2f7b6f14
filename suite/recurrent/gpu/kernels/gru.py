"""A GRU's step, with layer normalisation or without: as ``kernels/lstm.py``."""

import triton
import triton.language as tl

from suite.recurrent.gpu.kernels.blocks import (
    add_to,
    keep_old,
    load3,
    load_slope,
    split,
    standardise,
    standardise_slope,
    store3,
    store_state,
    tanh,
)


@triton.jit(do_not_specialize=["step"])
def gru(
    gates, product, kept, scales, hidden, low, new_hidden, gain, bias, zone,
    left, step, size, block: tl.constexpr, zoned: tl.constexpr, normed: tl.constexpr,
):  # fmt: skip
    row, j = tl.program_id(0), tl.arange(0, block)
    runs, inside = step < tl.load(left + row), j < size
    here, wide = row * size + j, row * 3 * size + j
    kind = hidden.dtype.element_ty
    g0, g1, g2 = load3(gates + wide, inside, size, kind)
    p0, p1, p2 = load3(product + wide, inside, size, kind)
    a0, a1, a2 = load3(gain + j, inside, size, kind)
    b0, b1, b2 = load3(bias + j, inside, size, kind)
    old = tl.load(hidden + here, mask=inside, other=0.0)
    if normed:
        mean = tl.sum(p0 + p1, axis=0) / (2 * size)
        p0, p1 = tl.where(inside, p0 - mean, 0.0), tl.where(inside, p1 - mean, 0.0)
        scale = 1.0 / tl.sqrt(tl.sum(p0 * p0 + p1 * p1, axis=0) / (2 * size) + 1e-5)
        p0, p1 = p0 * scale, p1 * scale
        p2, scale_new = standardise(p2, inside, size)
        tl.store(scales + 2 * row, scale)
        tl.store(scales + 2 * row + 1, scale_new)
    reset = tl.sigmoid(g0 + a0 * p0 + b0)
    update = tl.sigmoid(g1 + a1 * p1 + b1)
    new = tanh(g2 + reset * (a2 * p2 + b2))
    shown = new + update * (old - new)
    if zoned:
        shown = keep_old(shown, hidden + here, zone + here, inside)
    store3(gates + wide, reset, update, new, inside & runs, size)
    store3(kept + wide, p0, p1, p2, inside, size)
    store_state(new_hidden + here, low + here, shown, runs, inside)


@triton.jit(do_not_specialize=["step"])
def gru_slope(
    gates, kept, scales, hidden, gain, bias, zone, direct, through, outputs,
    gates_slope, products_slope, gain_slope, bias_slope,
    left, step, size, block: tl.constexpr, zoned: tl.constexpr, normed: tl.constexpr,
):  # fmt: skip
    row, j = tl.program_id(0), tl.arange(0, block)
    runs, inside = step < tl.load(left + row), j < size
    here, wide, valid = row * size + j, row * 3 * size + j, inside & runs
    kind = direct.dtype.element_ty
    reset, update, new = load3(gates + wide, valid, size, kind)
    p0, p1, p2 = load3(kept + wide, valid, size, kind)
    a0, a1, a2 = load3(gain + j, inside, size, kind)
    old = tl.load(hidden + here, mask=valid, other=0.0)
    share = load_slope(direct + here, through + here, outputs + here, valid, kind)
    past = tl.zeros_like(share)
    if zoned:
        share, past = split(share, zone + here, valid)
    inner = a2 * p2 + tl.load(bias + 2 * size + j, mask=inside, other=0.0)
    new_slope = share * (1.0 - update) * (1.0 - new * new)
    reset_slope = new_slope * inner * reset * (1.0 - reset)
    update_slope = share * (old - new) * update * (1.0 - update)
    store3(gates_slope + wide, reset_slope, update_slope, new_slope, inside, size)
    tl.store(direct + here, past + share * update, mask=valid)
    inner_slope = new_slope * reset
    own = row * 3 * size + j
    add_to(bias_slope + own, reset_slope, valid)
    add_to(bias_slope + own + size, update_slope, valid)
    add_to(bias_slope + own + 2 * size, inner_slope, valid)
    add_to(gain_slope + own, reset_slope * p0, valid)
    add_to(gain_slope + own + size, update_slope * p1, valid)
    add_to(gain_slope + own + 2 * size, inner_slope * p2, valid)
    s0, s1 = reset_slope * a0, update_slope * a1
    s2 = inner_slope * a2
    if normed:
        level, along = tl.sum(s0 + s1, axis=0) / (2 * size), tl.sum(s0 * p0 + s1 * p1, axis=0) / (2 * size)
        width = tl.where(runs, tl.load(scales + 2 * row), 0.0)
        s0, s1 = (s0 - level - p0 * along) * width, (s1 - level - p1 * along) * width
        s2 = standardise_slope(s2, p2, tl.where(runs, tl.load(scales + 2 * row + 1), 0.0), inside, size)
    store3(products_slope + wide, s0, s1, s2, inside, size)
