"""The compiled loop of ``StreamGroup``: float32, a row for each channel and a column for each stream."""

from typing import Any

import numpy

from domains.audio.draws import draw_all
from suite.gating import fast_tanh
from suite.kernels import copy_row, kernel
from suite.tiles import add_tiles

_HALF, _ZERO = numpy.float32(0.5), numpy.float32(0.0)


def _pass_gates(gates: Any, gated: Any) -> None:
    """``gated (C, W)`` from both halves of ``gates (2C, W)``."""
    channels, width = gated.shape
    for row in range(channels):
        above, below, product = gates[row], gates[channels + row], gated[row]
        for item in range(width):
            sigmoid = _HALF + _HALF * fast_tanh(_HALF * below[item])
            product[item] = fast_tanh(above[item]) * sigmoid


pass_gates = kernel(_pass_gates)


def _generate_group(
    embedding: Any, taps: Any, both: Any, offsets: Any, hidden: Any, hidden_bias: Any, output: Any, output_bias: Any,
    extra: Any, dilations: Any, starts: Any, rings: Any, position: int, codes: Any, draws: Any, temperature: float,
    forced: Any, found: Any, logits: Any,
) -> None:  # fmt: skip
    layers, (_, channels, width) = both.shape[0], rings.shape
    classes, skips = embedding.shape[0], hidden.shape[1]
    nothing = numpy.empty((0, width), numpy.float32)
    sums = numpy.zeros((both.shape[1] * both.shape[3], width), numpy.float32)
    gates, gated = numpy.empty_like(offsets[0]), numpy.empty((channels, width), numpy.float32)
    shown, scores = numpy.empty_like(hidden_bias), numpy.empty_like(output_bias)
    weights = numpy.empty((classes, width), numpy.float64)
    highest, totals = numpy.empty(width, numpy.float32), numpy.empty(width, numpy.float64)
    for step in range(draws.shape[0]):
        for item in range(width):
            for row in range(channels):
                sums[row, item] = embedding[codes[item], row]
        for row in range(channels, sums.shape[0]):
            for item in range(width):
                sums[row, item] = _ZERO
        for layer in range(layers):
            ring = rings[starts[layer] + position % dilations[layer]]
            add_tiles(offsets[layer], gates, taps[layer], ring, sums[:channels])
            if extra.shape[0] > 0:
                for row in range(2 * channels):
                    for item in range(width):
                        gates[row, item] += extra[step, layer, row, item]
            for row in range(channels):
                copy_row(sums[row], ring[row])
            pass_gates(gates, gated)
            add_tiles(sums, sums, both[layer], gated, nothing)
        skipped = sums[channels : channels + skips]
        for row in range(skips):
            for item in range(width):
                skipped[row, item] = max(skipped[row, item], _ZERO)
        add_tiles(hidden_bias, shown, hidden, skipped, nothing)
        for row in range(skips):
            for item in range(width):
                shown[row, item] = max(shown[row, item], _ZERO)
        add_tiles(output_bias, scores, output, shown[:skips], nothing)
        if forced.shape[0] > 0:
            copy_row(forced[step], codes)
        else:
            draw_all(scores, weights, temperature, draws[step], highest, totals, codes)
        copy_row(codes, found[step])
        if logits.shape[0] > 0:
            for place in range(classes):
                for item in range(logits.shape[1]):
                    logits[step, item, place] = scores[place, item]
        position += 1


generate_group = kernel(_generate_group)
