"""Building blocks of compiled kernels: exponentials that become vector instructions, sums over a row.

float32 is within 3e-7 relative of the exact value; float64 calls the C library. Compiled code is cached beside this
file, or in Numba's cache folder where that cannot be written; the first use on a machine takes some seconds.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from suite import kernels

_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1.0), np.float32(2.0)
_LOG2E = np.float32(1.0 / math.log(2.0))
_LN2_HIGH = np.float32(355.0 / 512.0)  # few bits, so that its multiples are exact
_LN2_LOW = np.float32(math.log(2.0) - 355.0 / 512.0)
_E3, _E4, _E5, _E6 = (np.float32(1.0 / math.factorial(order)) for order in (3, 4, 5, 6))
_T3, _T5, _T7, _T9 = (np.float32(value) for value in (-1 / 3, 2 / 15, -17 / 315, 62 / 2835))
_SMALL = np.float32(0.25)
_LOWEST, _HIGHEST = np.float32(-87.0), np.float32(88.0)
_SHIFT, _BIAS = np.int32(23), np.int32(127)


def compiled(function: Callable[..., Any], *, fastmath: Any = frozenset({"contract", "nsz"})) -> Any:
    """The function compiled for its arguments' types when it is first called."""
    options: dict[str, Any] = {"fastmath": set(fastmath), "error_model": "numpy", "nogil": True}
    return kernels.compiled(function, options)


@njit(fastmath={"contract", "nsz"})
def _exp32(x: Any) -> Any:
    """``2^k`` by its bits times a Taylor polynomial on half a binade each way (relative error below 2e-7)."""
    x = min(max(x, _LOWEST), _HIGHEST)
    k = np.floor(x * _LOG2E + _HALF)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    series = _ONE + r * (_ONE + r * (_HALF + r * (_E3 + r * (_E4 + r * (_E5 + r * _E6)))))
    return series * np.int32((np.int32(k) + _BIAS) << _SHIFT).view(np.float32)


@njit(fastmath={"contract", "nsz"})
def _sigmoid32(x: Any) -> Any:
    value = _ONE / (_ONE + _exp32(-x))
    return x if x != x else value  # the bounds of the exponential would hide NaN


@njit(fastmath={"contract", "nsz"})
def _tanh32(x: Any) -> Any:
    """By the exponential, and by its own series near zero, where that would cancel."""
    square = x * x
    near = x + x * square * (_T3 + square * (_T5 + square * (_T7 + square * _T9)))
    far = _TWO / (_ONE + _exp32(-_TWO * x)) - _ONE
    return near if not abs(x) > _SMALL else far


def exp(x: float) -> float:
    """The exponential, in the precision of ``x``."""
    return math.exp(x)


def sigmoid(x: float) -> float:
    """The logistic function, in the precision of ``x``."""
    return 1.0 / (1.0 + math.exp(-x))


def tanh(x: float) -> float:
    """The hyperbolic tangent, in the precision of ``x``."""
    return math.tanh(x)


def _in_both(name: Callable[..., Any], narrow: Any, wide: Any) -> None:
    """Make ``name`` callable in kernels: ``narrow`` for float32, ``wide`` for float64."""

    def choose(x: Any) -> Any:
        def narrowly(x: Any) -> Any:
            return narrow(x)

        def widely(x: Any) -> Any:
            return wide(x)

        return narrowly if x == types.float32 else widely

    overload(name)(choose)


_in_both(exp, _exp32, njit(exp))
_in_both(sigmoid, _sigmoid32, njit(sigmoid))
_in_both(tanh, _tanh32, njit(tanh))


# Sums may be taken in any order: eight partial ones fill a vector register.
SUMS = frozenset({"contract", "nsz", "reassoc"})


def _mean_of(row: Any) -> Any:
    total = row.dtype.type(0)
    for j in range(row.size):
        total += row[j]
    return total / row.dtype.type(row.size)


def _mean_of_product(row: Any, other: Any) -> Any:
    total = row.dtype.type(0)
    for j in range(row.size):
        total += row[j] * other[j]
    return total / row.dtype.type(row.size)


mean, mean_of_product = compiled(_mean_of, fastmath=SUMS), compiled(_mean_of_product, fastmath=SUMS)


def _standardise(row: Any, epsilon: float) -> Any:
    """In place, to mean 0 and variance 1; gives one over the deviation."""
    level = mean(row)
    for j in range(row.size):
        row[j] -= level
    scale = row.dtype.type(1) / np.sqrt(mean_of_product(row, row) + row.dtype.type(epsilon))
    for j in range(row.size):
        row[j] *= scale
    return scale


def _standardise_slope(slope: Any, normed: Any, scale: Any) -> None:
    """In place, from the gradient of the normalised row to that of the row."""
    level, along = mean(slope), mean_of_product(slope, normed)
    for j in range(slope.size):
        slope[j] = (slope[j] - level - normed[j] * along) * scale


standardise, standardise_slope = compiled(_standardise), compiled(_standardise_slope)
