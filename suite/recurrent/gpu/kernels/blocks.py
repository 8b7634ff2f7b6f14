"""Building blocks of Triton kernels: activations, sums over a row, blocks of features side by side."""

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    """By the logistic function, and in float32 by its own series near zero, where that would cancel."""
    far = 2.0 * tl.sigmoid(2.0 * x) - 1.0
    if x.dtype == tl.float64:
        return far
    square = x * x
    near = x + x * square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * (62 / 2835))))
    return tl.where(tl.abs(x) > 0.25, far, near)


@triton.jit
def standardise(x, inside, size):
    """The values with mean 0 and variance 1 over ``size`` of them, and one over their deviation."""
    centred = tl.where(inside, x - tl.sum(x, axis=0) / size, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / size + 1e-5)
    return centred * scale, scale


@triton.jit
def standardise_slope(slope, normed, scale, inside, size):
    """The gradient of the values from that of the standardised ones."""
    level, along = tl.sum(slope, axis=0) / size, tl.sum(slope * normed, axis=0) / size
    return tl.where(inside, (slope - level - normed * along) * scale, 0.0)


@triton.jit
def add_to(target, value, mask):
    """Add to memory that no other program writes."""
    tl.store(target, tl.load(target, mask=mask, other=0.0) + value, mask=mask)


@triton.jit
def load3(source, mask, size, kind: tl.constexpr):
    """Three blocks of ``size`` side by side; zeros where the mask is off."""
    one = tl.load(source, mask=mask, other=0.0).to(kind)
    two = tl.load(source + size, mask=mask, other=0.0).to(kind)
    three = tl.load(source + 2 * size, mask=mask, other=0.0).to(kind)
    return one, two, three


@triton.jit
def load4(source, mask, size, kind: tl.constexpr):
    """Four blocks of ``size`` side by side; zeros where the mask is off."""
    one, two, three = load3(source, mask, size, kind)
    return one, two, three, tl.load(source + 3 * size, mask=mask, other=0.0).to(kind)


@triton.jit
def store3(target, one, two, three, mask, size):
    """Three blocks of ``size`` side by side, in the precision of the target."""
    kind = target.dtype.element_ty
    tl.store(target, one.to(kind), mask=mask)
    tl.store(target + size, two.to(kind), mask=mask)
    tl.store(target + 2 * size, three.to(kind), mask=mask)


@triton.jit
def store4(target, one, two, three, four, mask, size):
    """Four blocks of ``size`` side by side, in the precision of the target."""
    store3(target, one, two, three, mask, size)
    tl.store(target + 3 * size, four.to(target.dtype.element_ty), mask=mask)


@triton.jit
def load_slope(direct, through, outputs, mask, kind: tl.constexpr):
    """The gradient of a state: what comes past the product, through it, and from outside."""
    total = tl.load(direct, mask=mask, other=0.0) + tl.load(through, mask=mask, other=0.0).to(kind)
    return total + tl.load(outputs, mask=mask, other=0.0)


@triton.jit
def blend(new, old, share):
    """The ``share`` of the old value and the rest of the new one; exactly either of them where that is all."""
    return tl.where(share < 0.5, new + share * (old - new), old - (1.0 - share) * (old - new))


@triton.jit
def keep_old(new, old, zone, mask):
    """Zoneout: the share ``zone`` of the old value stays."""
    return blend(new, tl.load(old, mask=mask, other=0.0), tl.load(zone, mask=mask, other=0.0))


@triton.jit
def split(slope, zone, mask):
    """The gradient of the new value, and of the old one that zoneout kept."""
    kept = slope * tl.load(zone, mask=mask, other=0.0)
    return slope - kept, kept


@triton.jit
def store_state(hidden, low, value, runs, inside):
    """A state in both precisions, zero where the row has ended."""
    value = tl.where(runs, value, 0.0)
    tl.store(hidden, value, mask=inside)
    tl.store(low, value.to(low.dtype.element_ty), mask=inside)


@triton.jit
def store_states(hidden, low, memory, value, cell, runs, inside):
    """As ``store_state``, with a cell state."""
    store_state(hidden, low, value, runs, inside)
    tl.store(memory, tl.where(runs, cell, 0.0), mask=inside)


@triton.jit
def count_up(target):
    """Add one: the least that shows whether kernels run here."""
    tl.store(target, tl.load(target) + 1)
