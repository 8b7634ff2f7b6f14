"""Drawing classes from logits in compiled loops: one stream a call, or all columns of a group."""

from typing import Any

import numpy

from suite.kernels import copy_row, kernel

_LOG2E, _LOW = 1.4426950408889634, -708.0
_LN2_HIGH, _LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10
_SHIFT = 6755399441055744.0  # 1.5 * 2**52: added to a whole number, its lowest bits are that number


def _draw(scores: Any, weights: Any, temperature: float, draw: float) -> int:
    """The class in whose part of the cumulative distribution ``draw`` falls."""
    highest = scores[0]
    for place in range(scores.shape[0]):
        highest = max(highest, scores[place])
    total = 0.0
    for place in range(scores.shape[0]):
        weights[place] = numpy.exp((scores[place] - highest) / temperature)
        total += weights[place]
    reached, edge = 0.0, draw * total
    for place in range(scores.shape[0]):
        reached += weights[place]
        if edge < reached:
            return place
    return int(scores.shape[0] - 1)


draw_class = kernel(_draw, inline=True)


def _exp(value: Any) -> Any:
    """``exp`` of a float64 in [-inf, 0], within 1e-13 of exact above -708: operations that a vector has, no call."""
    value = max(value, _LOW)
    whole = numpy.rint(value * _LOG2E)
    rest = (value - whole * _LN2_HIGH) - whole * _LN2_LOW
    result = 1.0 / 479001600.0
    for factor in (
        1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0, 1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0,
        1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0,
    ):  # fmt: skip
        result = result * rest + factor
    power = (numpy.float64(whole + _SHIFT).view(numpy.int64) + 1023) << 52
    return result * numpy.int64(power).view(numpy.float64)


fast_exp = kernel(_exp, inline=True)


def _draw_all(scores: Any, weights: Any, temperature: float, draws: Any, highest: Any, totals: Any, codes: Any) -> None:
    """``draw_class`` for every column of ``scores (V, W)`` and ``draws (W)``, into ``codes (W)``; the rest: scratch."""
    classes, width = weights.shape
    factor = 1.0 / temperature
    copy_row(scores[0], highest)
    for place in range(1, classes):
        for item in range(width):
            highest[item] = max(highest[item], scores[place, item])
    for item in range(width):
        totals[item] = 0.0
    for place in range(classes):
        for item in range(width):
            weight = fast_exp(numpy.float64(scores[place, item] - highest[item]) * factor)
            weights[place, item] = weight
            totals[item] += weight
    for item in range(width):
        totals[item] *= draws[item]
        codes[item] = 0
    # What is left of the draw's part of the total: the class is where it runs out.
    for place in range(classes - 1):
        for item in range(width):
            totals[item] -= weights[place, item]
            codes[item] += totals[item] >= 0.0


draw_all = kernel(_draw_all)
