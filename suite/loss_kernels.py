"""Softmax and its sums in one pass over a row of logits while it is in cache, compiled for CPU: see ``losses.py``."""

from typing import Any

import numpy as np

from suite.recurrent.vector_math import SUMS, compiled, exp


def _softmax_slopes(
    scores: Any, bias: Any, targets: Any, log_sums: Any, chosen: Any, sums: Any, to_bias: Any, mass: float, even: float
) -> None:
    number = scores.dtype.type
    largest = np.finfo(scores.dtype).max
    for i in range(scores.shape[0]):
        row, target = scores[i], targets[i]
        top, seen = row[0] + bias[0], number(0)
        for j in range(row.size):
            value = row[j] + bias[j]
            row[j] = value
            top = max(top, value)
            seen += value
        sums[i], chosen[i] = seen, row[target]
        total = number(0)
        for j in range(row.size):
            value = exp(row[j] - top)
            row[j] = value
            total += value
        if not abs(seen) <= largest:  # the bounds of the exponential would hide what is not finite
            total = number(np.nan)
        log_sums[i] = top + np.log(total)
        row[target] -= number(mass) * total
        scale, share = number(1) / total, number(even)
        for j in range(row.size):
            value = row[j] * scale - share
            row[j] = value
            to_bias[j] += value


softmax_slopes = compiled(_softmax_slopes, fastmath=SUMS | {"arcp"})
"""``(scores, bias, targets, log_sums, chosen, sums, to_bias, mass, even)``.

``scores (N, V)`` come without ``bias (V,)`` and become softmax less ``even``, and less ``mass`` at each row's target;
their sum over rows is added to ``to_bias (V,)``. Of each row's logits ``log_sums``, ``chosen`` and ``sums`` ``(N,)``
get the logarithm of the summed exponentials, the target's, and the sum. A row with a logit that is not finite becomes
NaN, and so does its ``log_sums``.
"""
