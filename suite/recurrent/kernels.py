"""What stands between the products of a step, in one pass over memory, compiled for CPU.

Each kernel does what its namesake of ``steps.py`` does in ten to thirty calls of torch: rows of a few hundred features
stay in the first cache from the product to the state. See ``kernel_steps.py`` for who calls them, and ``unroll.py`` for
the arrays: ``gates``, ``products`` ``(T, B, G)``, ``hidden``, ``memory`` ``(T + 1, B, H)``.
"""

from typing import Any

import numpy as np

from suite.recurrent.vector_math import compiled, sigmoid, standardise, standardise_slope, tanh


def _peephole_lstm(gates: Any, products: Any, hidden: Any, memory: Any, peepholes: Any, step: int, rows: int) -> None:
    size = hidden.shape[2]
    for b in range(rows):
        gate, product = gates[step, b], products[0, b]
        old, new, shown = memory[step, b], memory[step + 1, b], hidden[step + 1, b]
        for j in range(size):
            gate[j] = sigmoid(gate[j] + product[j] + peepholes[0, j] * old[j])
            gate[size + j] = sigmoid(gate[size + j] + product[size + j] + peepholes[1, j] * old[j])
            gate[2 * size + j] = tanh(gate[2 * size + j] + product[2 * size + j])
            new[j] = gate[size + j] * old[j] + gate[j] * gate[2 * size + j]
        for j in range(size):
            gate[3 * size + j] = sigmoid(gate[3 * size + j] + product[3 * size + j] + peepholes[2, j] * new[j])
            shown[j] = gate[3 * size + j] * tanh(new[j])


def _peephole_lstm_slope(
    gates: Any, memory: Any, peepholes: Any, hidden_slope: Any, memory_slope: Any, outputs_slope: Any,
    gates_slope: Any, peepholes_slope: Any, step: int, rows: int,
) -> None:  # fmt: skip
    size = memory.shape[2]
    one = gates.dtype.type(1)
    parts = np.zeros((3, size), gates.dtype)  # of this step alone: sums of few terms lose little
    for b in range(rows):
        gate, slope = gates[step, b], gates_slope[step, b]
        old, new = memory[step, b], memory[step + 1, b]
        from_memory, from_hidden, from_output = memory_slope[b], hidden_slope[b], outputs_slope[step, b]
        for j in range(size):
            enter, keep, cell, leave = gate[j], gate[size + j], gate[2 * size + j], gate[3 * size + j]
            squashed = tanh(new[j])
            share = from_hidden[j] + from_output[j]
            leave_slope = share * squashed * leave * (one - leave)
            inside = from_memory[j] + share * leave * (one - squashed * squashed) + leave_slope * peepholes[2, j]
            enter_slope = inside * cell * enter * (one - enter)
            keep_slope = inside * old[j] * keep * (one - keep)
            slope[j] = enter_slope
            slope[size + j] = keep_slope
            slope[2 * size + j] = inside * enter * (one - cell * cell)
            slope[3 * size + j] = leave_slope
            from_memory[j] = inside * keep + enter_slope * peepholes[0, j] + keep_slope * peepholes[1, j]
            parts[0, j] += enter_slope * old[j]
            parts[1, j] += keep_slope * old[j]
            parts[2, j] += leave_slope * new[j]
    for place in range(3):
        for j in range(size):
            peepholes_slope[place, j] += parts[place, j]


def _layernorm_lstm(
    gates: Any, products: Any, hidden: Any, memory: Any, scales: Any, gain: Any, memory_gain: Any, memory_bias: Any,
    epsilon: float, step: int, rows: int,
) -> None:  # fmt: skip
    size = hidden.shape[2]
    for b in range(rows):
        gate, product = gates[step, b], products[step, b]
        old, new, shown = memory[step, b], memory[step + 1, b], hidden[step + 1, b]
        scales[step, b] = standardise(product, epsilon)
        for j in range(size):
            gate[j] = sigmoid(gate[j] + gain[j] * product[j])
            gate[size + j] = sigmoid(gate[size + j] + gain[size + j] * product[size + j])
            gate[2 * size + j] = tanh(gate[2 * size + j] + gain[2 * size + j] * product[2 * size + j])
            gate[3 * size + j] = sigmoid(gate[3 * size + j] + gain[3 * size + j] * product[3 * size + j])
            new[j] = gate[size + j] * old[j] + gate[j] * gate[2 * size + j]
            shown[j] = new[j]
        standardise(shown, epsilon)
        for j in range(size):
            shown[j] = gate[3 * size + j] * tanh(memory_gain[j] * shown[j] + memory_bias[j])


def _layernorm_lstm_slope(
    gates: Any, products: Any, memory: Any, scales: Any, gain: Any, memory_gain: Any, memory_bias: Any, epsilon: float,
    hidden_slope: Any, memory_slope: Any, outputs_slope: Any, gates_slope: Any, products_slope: Any, gain_slope: Any,
    memory_gain_slope: Any, memory_bias_slope: Any, step: int, rows: int,
) -> None:  # fmt: skip
    size = memory.shape[2]
    one = gates.dtype.type(1)
    normed, inner = np.empty(size, gates.dtype), np.empty(size, gates.dtype)
    gains, affine = np.zeros(4 * size, gates.dtype), np.zeros((2, size), gates.dtype)
    for b in range(rows):
        gate, slope, product_slope = gates[step, b], gates_slope[step, b], products_slope[step, b]
        old, new, product = memory[step, b], memory[step + 1, b], products[step, b]
        from_memory, from_hidden, from_output = memory_slope[b], hidden_slope[b], outputs_slope[step, b]
        for j in range(size):
            normed[j] = new[j]
        scale = standardise(normed, epsilon)
        for j in range(size):
            leave = gate[3 * size + j]
            squashed = tanh(memory_gain[j] * normed[j] + memory_bias[j])
            share = from_hidden[j] + from_output[j]
            slope[3 * size + j] = share * squashed * leave * (one - leave)
            shown = share * leave * (one - squashed * squashed)
            affine[0, j] += shown * normed[j]
            affine[1, j] += shown
            inner[j] = shown * memory_gain[j]
        standardise_slope(inner, normed, scale)
        for j in range(size):
            enter, keep, cell = gate[j], gate[size + j], gate[2 * size + j]
            inside = from_memory[j] + inner[j]
            slope[j] = inside * cell * enter * (one - enter)
            slope[size + j] = inside * old[j] * keep * (one - keep)
            slope[2 * size + j] = inside * enter * (one - cell * cell)
            from_memory[j] = inside * keep
        for j in range(4 * size):
            gains[j] += slope[j] * product[j]
            product_slope[j] = slope[j] * gain[j]
        standardise_slope(product_slope, product, scales[step, b])
    for j in range(4 * size):
        gain_slope[j] += gains[j]
    for j in range(size):
        memory_gain_slope[j] += affine[0, j]
        memory_bias_slope[j] += affine[1, j]


def _layernorm_gru(
    gates: Any, products: Any, hidden: Any, scales: Any, gain: Any, bias: Any, epsilon: float, step: int, rows: int
) -> None:
    size = hidden.shape[2]
    for b in range(rows):
        gate, product, old, shown = gates[step, b], products[step, b], hidden[step, b], hidden[step + 1, b]
        scales[step, b, 0] = standardise(product[: 2 * size], epsilon)
        scales[step, b, 1] = standardise(product[2 * size :], epsilon)
        for j in range(2 * size):
            gate[j] = sigmoid(gate[j] + gain[j] * product[j] + bias[j])
        for j in range(size):
            inner = gain[2 * size + j] * product[2 * size + j] + bias[2 * size + j]
            gate[2 * size + j] = tanh(gate[2 * size + j] + gate[j] * inner)
            shown[j] = gate[2 * size + j] + gate[size + j] * (old[j] - gate[2 * size + j])


def _layernorm_gru_slope(
    gates: Any, products: Any, hidden: Any, scales: Any, gain: Any, bias: Any, hidden_slope: Any, outputs_slope: Any,
    gates_slope: Any, products_slope: Any, gain_slope: Any, bias_slope: Any, step: int, rows: int,
) -> None:  # fmt: skip
    size = hidden.shape[2]
    one = gates.dtype.type(1)
    gains, biases = np.zeros(3 * size, gates.dtype), np.zeros(3 * size, gates.dtype)
    for b in range(rows):
        gate, product, old = gates[step, b], products[step, b], hidden[step, b]
        slope, product_slope = gates_slope[step, b], products_slope[step, b]
        from_hidden, from_output = hidden_slope[b], outputs_slope[step, b]
        for j in range(size):
            reset, update, new = gate[j], gate[size + j], gate[2 * size + j]
            share = from_hidden[j] + from_output[j]
            inner = gain[2 * size + j] * product[2 * size + j] + bias[2 * size + j]
            new_slope = share * (one - update) * (one - new * new)
            slope[j] = new_slope * inner * reset * (one - reset)
            slope[size + j] = share * (old[j] - new) * update * (one - update)
            slope[2 * size + j] = new_slope
            product_slope[2 * size + j] = new_slope * reset
            from_hidden[j] = share * update
        for j in range(2 * size):
            product_slope[j] = slope[j]
        for j in range(3 * size):
            biases[j] += product_slope[j]
            gains[j] += product_slope[j] * product[j]
            product_slope[j] *= gain[j]
        standardise_slope(product_slope[: 2 * size], product[: 2 * size], scales[step, b, 0])
        standardise_slope(product_slope[2 * size :], product[2 * size :], scales[step, b, 1])
    for j in range(3 * size):
        gain_slope[j] += gains[j]
        bias_slope[j] += biases[j]


peephole_lstm, peephole_lstm_slope = compiled(_peephole_lstm), compiled(_peephole_lstm_slope)
layernorm_lstm, layernorm_lstm_slope = compiled(_layernorm_lstm), compiled(_layernorm_lstm_slope)
layernorm_gru, layernorm_gru_slope = compiled(_layernorm_gru), compiled(_layernorm_gru_slope)
