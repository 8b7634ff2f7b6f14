"""The minimal cells from gates to states, and back, in one pass over memory, compiled for CPU.

Arrays are batch first: ``gates (B, T, G)``, ``states (B, T, H)``; rows stop at their length and are zero after it.
"""

from typing import Any

from suite.recurrent.vector_math import compiled, exp, sigmoid


def _mingru(gates: Any, start: Any, lengths: Any, states: Any) -> None:
    size = start.shape[1]
    for b in range(start.shape[0]):
        for step in range(lengths[b]):
            gate, state = gates[b, step], states[b, step]
            old = states[b, step - 1] if step else start[b]
            for j in range(size):
                state[j] = old[j] + sigmoid(gate[j]) * (gate[size + j] - old[j])


def _mingru_slope(
    gates: Any, start: Any, lengths: Any, states: Any, slopes: Any, carried: Any, gates_slope: Any
) -> None:
    size = start.shape[1]
    one = gates.dtype.type(1)
    for b in range(start.shape[0]):
        passed = carried[b]
        for back in range(lengths[b]):
            step = lengths[b] - 1 - back
            gate, coming, slope = gates[b, step], slopes[b, step], gates_slope[b, step]
            old = states[b, step - 1] if step else start[b]
            for j in range(size):
                update = sigmoid(gate[j])
                share = coming[j] + passed[j]
                slope[j] = share * (gate[size + j] - old[j]) * update * (one - update)
                slope[size + j] = share * update
                passed[j] = share - share * update


def _minlstm(gates: Any, start: Any, lengths: Any, states: Any) -> None:
    size = start.shape[1]
    zero = gates.dtype.type(0)
    for b in range(start.shape[0]):
        for step in range(lengths[b]):
            gate, state = gates[b, step], states[b, step]
            old = states[b, step - 1] if step else start[b]
            for j in range(size):
                forget, enter = -gate[j], -gate[size + j]
                # forget / (forget + input) of two sigmoids, multiplied out and scaled so that nothing overflows
                top = max(forget, enter, zero)
                unit = exp(-top)
                share = unit + exp(enter - top)
                keep = share / (share + (unit + exp(forget - top)))
                state[j] = gate[2 * size + j] + keep * (old[j] - gate[2 * size + j])


def _minlstm_slope(
    gates: Any, start: Any, lengths: Any, states: Any, slopes: Any, carried: Any, gates_slope: Any
) -> None:
    size = start.shape[1]
    zero, one = gates.dtype.type(0), gates.dtype.type(1)
    for b in range(start.shape[0]):
        passed = carried[b]
        for back in range(lengths[b]):
            step = lengths[b] - 1 - back
            gate, coming, slope = gates[b, step], slopes[b, step], gates_slope[b, step]
            old = states[b, step - 1] if step else start[b]
            for j in range(size):
                forget, enter = -gate[j], -gate[size + j]
                top = max(forget, enter, zero)
                unit = exp(-top)
                share = unit + exp(enter - top)
                keep = share / (share + (unit + exp(forget - top)))
                arrived = coming[j] + passed[j]
                both = arrived * (old[j] - gate[2 * size + j]) * keep * (one - keep)
                slope[j] = both * sigmoid(forget)
                slope[size + j] = -both * sigmoid(enter)
                slope[2 * size + j] = arrived * (one - keep)
                passed[j] = arrived * keep


mingru, mingru_slope = compiled(_mingru), compiled(_mingru_slope)
minlstm, minlstm_slope = compiled(_minlstm), compiled(_minlstm_slope)
