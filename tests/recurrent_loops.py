"""The papers' equations, one row and one step at a time: what the fast cells are compared with."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from suite.recurrent import RecurrentEncoder, State
from suite.recurrent.fused import FusedLayer

EPSILON = 1e-5
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": lambda value: torch.where(value > 0, value, 0.01 * value),
    "elu": lambda value: torch.where(value > 0, value, torch.exp(value) - 1.0),
    "gelu": lambda value: value * 0.5 * (1.0 + torch.erf(value / 2**0.5)),
    "softsign": lambda value: value / (1.0 + value.abs()),
    "sigmoid": lambda value: 1.0 / (1.0 + torch.exp(-value)),
}


def norm(values: Tensor, gain: Tensor | float, bias: Tensor | float = 0.0) -> Tensor:
    """Layer normalisation of one row."""
    centred = values - values.mean()
    return gain * centred / (centred.square().mean() + EPSILON).sqrt() + bias


def vanilla(layer: Any, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    recurrent = layer.weight_hh * h if layer.weight_hh.dim() == 1 else layer.weight_hh @ h
    return (FUNCTIONS[layer.activation](layer.weight_ih @ x + recurrent + layer.bias),)


def peephole_lstm(layer: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    i, f, g, o = (layer.weight_ih @ x + layer.weight_hh @ h + layer.bias).chunk(4)
    p_i, p_f, p_o = layer.peepholes
    new = torch.sigmoid(f + p_f * c) * c + torch.sigmoid(i + p_i * c) * torch.tanh(g)
    return torch.sigmoid(o + p_o * new) * torch.tanh(new), new


def layernorm_lstm(layer: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    gates = norm(layer.weight_hh @ h, layer.gain_hh) + norm(layer.weight_ih @ x, layer.gain_ih) + layer.bias
    i, f, g, o = gates.chunk(4)
    new = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(norm(new, layer.gain_memory, layer.bias_memory)), new


def layernorm_gru(layer: Any, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    size = len(h)
    two, one = slice(0, 2 * size), slice(2 * size, 3 * size)
    seen, kept = layer.weight_ih @ x, layer.weight_hh @ h
    first = norm(seen[two], layer.gain_ih[two], layer.bias[two])
    second = norm(kept[two], layer.gain_hh[two], layer.bias_hh[two])
    r, z = torch.sigmoid(first + second).chunk(2)
    inner = norm(kept[one], layer.gain_hh[one], layer.bias_hh[one])
    n = torch.tanh(norm(seen[one], layer.gain_ih[one], layer.bias[one]) + r * inner)
    return ((1.0 - z) * n + z * h,)


def mingru(layer: Any, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    z, candidate = (layer.weight_ih @ x + layer.bias).chunk(2)
    return ((1.0 - torch.sigmoid(z)) * h + torch.sigmoid(z) * candidate,)


def minlstm(layer: Any, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    f, i, candidate = (layer.weight_ih @ x + layer.bias).chunk(3)
    f, i = torch.sigmoid(f), torch.sigmoid(i)
    return (f / (f + i) * h + i / (f + i) * candidate,)


def fused(layer: FusedLayer, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
    rnn, h = layer.rnn, state[0]
    seen, kept = rnn.weight_ih_l0 @ x + rnn.bias_ih_l0, rnn.weight_hh_l0 @ h + rnn.bias_hh_l0
    if layer.cell == "lstm":
        i, f, g, o = (seen + kept).chunk(4)
        new = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(new), new
    if layer.cell == "gru":
        (r, z, n), (hr, hz, hn) = seen.chunk(3), kept.chunk(3)
        r, z = torch.sigmoid(r + hr), torch.sigmoid(z + hz)
        return ((1.0 - z) * torch.tanh(n + r * hn) + z * h,)
    return (FUNCTIONS[layer.cell.removeprefix("rnn_")](seen + kept),)


STEPS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "rnn": vanilla,
    "indrnn": vanilla,
    "peephole_lstm": peephole_lstm,
    "layernorm_lstm": layernorm_lstm,
    "layernorm_gru": layernorm_gru,
    "mingru": mingru,
    "minlstm": minlstm,
    **dict.fromkeys(("rnn_tanh", "rnn_relu", "lstm", "gru"), fused),
}


def run(
    encoder: RecurrentEncoder, inputs: Tensor, lengths: Tensor, state: State, *, keep: tuple[float, float] = (0.0, 0.0)
) -> tuple[Tensor, State]:
    """A whole encoder, step by step; ``keep`` is what zoneout's mean keeps of hidden and cell state."""
    finals: list[list[tuple[Tensor, ...]]] = []
    for index, layer in enumerate(encoder.layers):
        backward = encoder.num_directions == 2 and index % 2 == 1
        if not backward:
            below, halves = inputs, []
        rows, ends = [], []
        for row in range(len(inputs)):
            parts = tuple(part[row, index] for part in state)
            outputs = [torch.zeros_like(parts[0])] * inputs.size(1)
            steps = range(int(lengths[row]))
            for step in reversed(steps) if backward else steps:
                new = STEPS[encoder.cell](layer, below[row, step], *parts)
                parts = tuple(p * old + (1.0 - p) * value for p, old, value in zip(keep, parts, new, strict=False))
                outputs[step] = parts[0]
            rows.append(torch.stack(outputs))
            ends.append(parts)
        halves.append(torch.stack(rows))
        finals.append(ends)
        inputs = torch.cat(halves, dim=2)
    return inputs, tuple(
        torch.stack([torch.stack([row[part] for row in layer]) for layer in finals], dim=1)
        for part in range(len(state))
    )


def batchnorm_lstm(
    layer: Any, inputs: Tensor, state: State, *, moments: dict[str, tuple[Tensor, Tensor]] | None = None
) -> tuple[Tensor, State]:
    """Full rows ``(B, T, D)`` through one layer, by the batch's own moments, or by given ones ``(T, F)``."""
    h, c = state
    outputs = []

    def normalise(values: Tensor, name: str, step: int, gain: Tensor, bias: Tensor | float) -> Tensor:
        if moments is None:
            mean, variance = values.mean(0), values.var(0, correction=0)
        else:
            mean, variance = (part[min(step, len(part) - 1)] for part in moments[name])
        return gain * (values - mean) / (variance + 1e-3).sqrt() + bias

    for step in range(inputs.size(1)):
        gates = normalise(functional.linear(inputs[:, step], layer.weight_ih), "ih", step, layer.gain_ih, layer.bias)
        gates = gates + normalise(functional.linear(h, layer.weight_hh), "hh", step, layer.gain_hh, 0.0)
        i, f, g, o = gates.chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(normalise(c, "memory", step, layer.gain_memory, layer.bias_memory))
        outputs.append(h)
    return torch.stack(outputs, dim=1), (h, c)
