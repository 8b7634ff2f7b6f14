"""The compiled loop of ``FewStreams``: everything in float32, one stream a row."""

from typing import Any

import numpy

from domains.audio.draws import draw_class
from suite.gating import fast_tanh
from suite.kernels import copy_row, kernel

AHEAD = 8  # steps for which the past's part is computed at once, where the dilation allows
_HALF, _ZERO = numpy.float32(0.5), numpy.float32(0.0)


def _add_product(inputs: Any, weight: Any, sums: Any) -> None:
    """``sums (n, O) += inputs (n, I) @ weight (I, O)``: eight rows of the weight at a time go over all inputs."""
    rows, width = weight.shape
    whole = rows - rows % 8
    for row in range(0, whole, 8):
        w0, w1, w2, w3 = weight[row], weight[row + 1], weight[row + 2], weight[row + 3]
        w4, w5, w6, w7 = weight[row + 4], weight[row + 5], weight[row + 6], weight[row + 7]
        for item in range(inputs.shape[0]):
            x0, x1, x2, x3 = inputs[item, row], inputs[item, row + 1], inputs[item, row + 2], inputs[item, row + 3]
            x4, x5, x6, x7 = inputs[item, row + 4], inputs[item, row + 5], inputs[item, row + 6], inputs[item, row + 7]
            total = sums[item]
            for column in range(width):
                total[column] += ((x0 * w0[column] + x1 * w1[column]) + (x2 * w2[column] + x3 * w3[column])) + (
                    (x4 * w4[column] + x5 * w5[column]) + (x6 * w6[column] + x7 * w7[column])
                )
    for row in range(whole, rows):
        one = weight[row]
        for item in range(inputs.shape[0]):
            value, total = inputs[item, row], sums[item]
            for column in range(width):
                total[column] += value * one[column]


add_product = kernel(_add_product)


def _past(rings: Any, start: int, dilation: int, position: int, weight: Any, offsets: Any, ahead: Any) -> None:
    """What the past adds to the gates of the steps from ``position`` on, one for each of ``ahead (n, B, 2C)``."""
    count, streams, double = ahead.shape
    channels = rings.shape[2]
    for step in range(count):
        for item in range(streams):
            copy_row(offsets[item], ahead[step, item])
    slot = position % dilation
    first = min(count, dilation - slot)
    rows = rings[start + slot : start + slot + first].reshape(first * streams, channels)
    add_product(rows, weight, ahead[:first].reshape(first * streams, double))
    if first < count:
        rows = rings[start : start + count - first].reshape((count - first) * streams, channels)
        add_product(rows, weight, ahead[first:].reshape((count - first) * streams, double))


past = kernel(_past)


def _read_out(
    sums: Any, hidden: Any, hidden_bias: Any, output: Any, output_bias: Any, skipped: Any, shown: Any, scores: Any
) -> None:
    """Two output layers: ``scores (B, V)`` from the skips in ``sums (B, C + S)``."""
    streams, skips = skipped.shape
    channels = sums.shape[1] - skips
    for item in range(streams):
        for column in range(skips):
            skipped[item, column] = max(sums[item, channels + column], _ZERO)
            shown[item, column] = hidden_bias[column]
        copy_row(output_bias, scores[item])
    add_product(skipped, hidden, shown)
    for item in range(streams):
        for column in range(skips):
            shown[item, column] = max(shown[item, column], _ZERO)
    add_product(shown, output, scores)


read_out = kernel(_read_out)


def _pass_gates(gates: Any, gated: Any) -> None:
    """``gated (B, C)`` from both halves of ``gates (B, 2C)``."""
    channels = gated.shape[1]
    for item in range(gated.shape[0]):
        gate, product = gates[item], gated[item]
        for column in range(channels):
            sigmoid = _HALF + _HALF * fast_tanh(_HALF * gate[channels + column])
            product[column] = fast_tanh(gate[column]) * sigmoid


pass_gates = kernel(_pass_gates)


def _generate(
    embedding: Any, taps_past: Any, taps_current: Any, both: Any, offsets: Any, hidden: Any, hidden_bias: Any,
    output: Any, output_bias: Any, extra: Any, dilations: Any, starts: Any, rings: Any, position: int, codes: Any,
    draws: Any, temperature: float, forced: Any, found: Any, logits: Any,
) -> None:  # fmt: skip
    layers, channels, wide = both.shape
    skips, streams = wide - channels, codes.shape[0]
    sums, change = numpy.empty((streams, wide), numpy.float32), numpy.empty((streams, wide), numpy.float32)
    gated = numpy.empty((streams, channels), numpy.float32)
    skipped, shown = numpy.empty((streams, skips), numpy.float32), numpy.empty((streams, skips), numpy.float32)
    scores = numpy.empty((streams, output_bias.shape[0]), numpy.float32)
    weights = numpy.empty(output_bias.shape[0], numpy.float64)
    ahead = numpy.empty((layers, AHEAD, streams, 2 * channels), numpy.float32)
    for step in range(draws.shape[0]):
        for item in range(streams):
            copy_row(embedding[codes[item]], sums[item])
            for column in range(channels, wide):
                sums[item, column] = _ZERO
        for layer in range(layers):
            dilation = dilations[layer]
            count = min(dilation, AHEAD)
            phase = (position + layer) % count  # layers take turns: not all of them read their past at the same step
            if phase == 0 or step == 0:
                past(
                    rings, starts[layer], dilation, position, taps_past[layer], offsets[layer],
                    ahead[layer, phase:count],
                )  # fmt: skip
            gates, ring = ahead[layer, phase], rings[starts[layer] + position % dilation]
            for item in range(streams):
                for column in range(channels):  # the part of a row of sums that is the stream
                    ring[item, column] = sums[item, column]
            add_product(ring, taps_current[layer], gates)
            if extra.shape[0] > 0:
                for item in range(streams):
                    for column in range(2 * channels):
                        gates[item, column] += extra[step, layer, item, column]
            pass_gates(gates, gated)
            for item in range(streams):
                for column in range(wide):
                    change[item, column] = _ZERO
            add_product(gated, both[layer], change)
            for item in range(streams):
                for column in range(wide):  # once a layer: the sums are large, and every addition to them rounds
                    sums[item, column] += change[item, column]
        read_out(sums, hidden, hidden_bias, output, output_bias, skipped, shown, scores)
        for item in range(streams):
            codes[item] = (
                forced[step, item]
                if forced.shape[0] > 0
                else draw_class(scores[item], weights, temperature, draws[step, item])
            )
            found[step, item] = codes[item]
            if logits.shape[0] > 0:
                copy_row(scores[item], logits[step, item])
        position += 1


generate_streams = kernel(_generate)
