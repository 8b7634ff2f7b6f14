"""The vanilla cells for GPUs: one step of ``VanillaSteps``, and IndRNN's whole sequence, compiled by Triton.

IndRNN's features do not see each other, so that a program takes one row and some features through all of time.
"""

import triton
import triton.language as tl

from suite.recurrent.gpu.kernels.blocks import blend, keep_old, load_slope, split, store_state, tanh


@triton.jit
def activate(x, activation: tl.constexpr):
    """The activation of that name."""
    if activation == "tanh":
        return tanh(x)
    if activation == "relu":
        return tl.where(x <= 0, 0.0, x)  # NaN stays
    if activation == "leaky_relu":
        return tl.where(x > 0, x, 0.01 * x)
    if activation == "elu":
        series = x * (1.0 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x / 720)))))  # exp - 1 cancels
        return tl.where(x > 0, x, tl.where(x > -0.03, series, tl.exp(x) - 1.0))
    if activation == "gelu":
        return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    if activation == "softsign":
        return x / (1.0 + tl.abs(x))
    return tl.sigmoid(x)


@triton.jit
def activate_slope(slope, x, y, activation: tl.constexpr):
    """The gradient of ``x`` from that of ``y``, what ``activate`` made of it."""
    if activation == "tanh":
        return slope * (1.0 - y * y)
    if activation == "relu":
        return tl.where(y <= 0, 0.0, slope)
    if activation == "leaky_relu":
        return tl.where(x > 0, slope, 0.01 * slope)
    if activation == "elu":
        return tl.where(x > 0, slope, slope * (y + 1.0))
    if activation == "gelu":
        density = 0.3989422804014327 * tl.exp(-0.5 * x * x)
        return slope * (0.5 * (1.0 + tl.erf(x * 0.7071067811865476)) + x * density)
    if activation == "softsign":
        width = 1.0 + tl.abs(x)
        return slope / (width * width)
    return slope * y * (1.0 - y)


@triton.jit(do_not_specialize=["step"])
def vanilla(
    gates, product, hidden, new_hidden, low, zone, left, step, size,
    block: tl.constexpr, zoned: tl.constexpr, activation: tl.constexpr,
):  # fmt: skip
    row, j = tl.program_id(0), tl.arange(0, block)
    runs, inside = step < tl.load(left + row), j < size
    here = row * size + j
    kind = new_hidden.dtype.element_ty
    before = tl.load(gates + here, mask=inside, other=0.0) + tl.load(product + here, mask=inside, other=0.0).to(kind)
    shown = activate(before, activation)
    if zoned:
        shown = keep_old(shown, hidden + here, zone + here, inside)
    tl.store(gates + here, before, mask=inside)
    store_state(new_hidden + here, low + here, shown, runs, inside)


@triton.jit(do_not_specialize=["step"])
def vanilla_slope(
    gates, zone, direct, through, outputs, gates_slope, products_slope,
    left, step, size, block: tl.constexpr, zoned: tl.constexpr, activation: tl.constexpr,
):  # fmt: skip
    row, j = tl.program_id(0), tl.arange(0, block)
    runs = step < tl.load(left + row)
    valid, inside = (j < size) & runs, j < size
    here = row * size + j
    share = load_slope(direct + here, through + here, outputs + here, valid, direct.dtype.element_ty)
    past = tl.zeros_like(share)
    if zoned:
        share, past = split(share, zone + here, valid)
    before = tl.load(gates + here, mask=valid, other=0.0)
    slope = tl.where(runs, activate_slope(share, before, activate(before, activation), activation), 0.0)
    tl.store(gates_slope + here, slope, mask=inside)
    tl.store(products_slope + here, slope.to(products_slope.dtype.element_ty), mask=inside)
    tl.store(direct + here, past, mask=valid)


@triton.jit
def indrnn(
    gates, weight, hidden, zone, left, batch, size,
    block: tl.constexpr, zoned: tl.constexpr, activation: tl.constexpr,
):  # fmt: skip
    """``gates (T, B, H)`` are kept as they were before the activation; ``hidden (T + 1, B, H)`` begins with a state."""
    row, j = tl.program_id(0), tl.program_id(1) * block + tl.arange(0, block)
    inside, length = j < size, tl.load(left + row)
    here = row.to(tl.int64) * size + j
    factor = tl.load(weight + j, mask=inside, other=0.0)
    state = tl.load(hidden + here, mask=inside, other=0.0)
    share = tl.load(gates + here, mask=inside & (length > 0), other=0.0)
    step = 0
    while step < length:
        place = here + tl.cast(step, tl.int64) * batch * size
        following = tl.load(gates + place + batch * size, mask=inside & (step + 1 < length), other=0.0)
        before = share + factor * state
        new = activate(before, activation)
        if zoned:
            new = blend(new, state, tl.load(zone + place, mask=inside, other=0.0))
        state = new
        tl.store(gates + place, before, mask=inside)
        tl.store(hidden + place + batch * size, state, mask=inside)
        share = following
        step += 1


@triton.jit
def indrnn_slope(
    gates, weight, hidden, zone, outputs, direct, gates_slope, weight_slope,
    left, batch, size, block: tl.constexpr, zoned: tl.constexpr, activation: tl.constexpr,
):  # fmt: skip
    """``weight_slope (B, H)``: each row's share; ``direct (B, H)``: of the final state, then of the first one."""
    row, j = tl.program_id(0), tl.program_id(1) * block + tl.arange(0, block)
    inside, length = j < size, tl.load(left + row)
    here = row.to(tl.int64) * size + j
    factor = tl.load(weight + j, mask=inside, other=0.0)
    passed = tl.load(direct + here, mask=inside, other=0.0)
    total = tl.zeros_like(passed)
    step = length
    while step > 0:
        step -= 1
        place = here + tl.cast(step, tl.int64) * batch * size
        before = tl.load(gates + place, mask=inside, other=0.0)
        share = passed + tl.load(outputs + place, mask=inside, other=0.0)
        past = tl.zeros_like(share)
        if zoned:
            share, past = split(share, zone + place, inside)
        slope = activate_slope(share, before, activate(before, activation), activation)
        tl.store(gates_slope + place, slope, mask=inside)
        total += slope * tl.load(hidden + place, mask=inside, other=0.0)
        passed = past + slope * factor
    tl.store(weight_slope + here, total, mask=inside)
    tl.store(direct + here, passed, mask=inside)
