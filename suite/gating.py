"""The gate of WaveNet, ``tanh(a) * sigmoid(b)`` (van den Oord et al. 2016, equation 2), and its slopes, in place.

Each is a few passes over memory in torch and a single one in the CPU kernels here, which float32 takes where numba is
installed. The kernels' tanh is a rational function fitted to 2e-8 over [-9, 9]; in float32 it is within 4e-7 of exact.
"""

from typing import Any

import numpy
import torch
from torch import Tensor

from suite.kernels import AVAILABLE, kernel

_ONE, _HALF, _END = numpy.float32(1.0), numpy.float32(0.5), numpy.float32(9.0)
_HALVES = (torch.bfloat16, torch.float16)
_P0, _P1, _P2, _P3, _P4 = (
    numpy.float32(value)
    for value in (0.999999979463802, 0.1338102682006491, 3.4955894422941e-3, 2.06091003977961e-5, 1.33546798891153e-8)
)
_Q1, _Q2, _Q3, _Q4 = (
    numpy.float32(value) for value in (0.4671434241617483, 0.02587698743002814, 3.2856368150324e-4, 7.77656723910583e-7)
)


def _tanh(value: Any) -> Any:
    value = _END if value > _END else value
    value = -_END if value < -_END else value
    square = value * value
    above = (((_P4 * square + _P3) * square + _P2) * square + _P1) * square + _P0
    below = (((_Q4 * square + _Q3) * square + _Q2) * square + _Q1) * square + _ONE
    found = value * above / below
    found = _ONE if found > _ONE else found
    return -_ONE if found < -_ONE else found


fast_tanh = kernel(_tanh, inline=True)
"""tanh of a float32 number, for other kernels."""


def _forward(gates: Any, bias: Any, gated: Any) -> None:
    size, period = gated.shape[1], bias.shape[0]
    place = 0
    for row in range(gates.shape[0]):
        gate, offset, output = gates[row], bias[place], gated[row]
        for column in range(size):
            tanh = fast_tanh(gate[column] + offset[column])
            sigmoid = _HALF + _HALF * fast_tanh(_HALF * (gate[size + column] + offset[size + column]))
            gate[column], gate[size + column] = tanh, sigmoid
            output[column] = tanh * sigmoid
        place = place + 1 if place + 1 < period else 0


def _backward(slopes: Any, gates: Any, to_gates: Any, gated: Any, to_bias: Any) -> None:
    size, period = gated.shape[1], to_bias.shape[0]
    place = 0
    for row in range(gates.shape[0]):
        slope, gate, to_gate, output, total = slopes[row], gates[row], to_gates[row], gated[row], to_bias[place]
        for column in range(size):
            tanh, sigmoid = gate[column], gate[size + column]
            product = tanh * sigmoid
            first = slope[column] * sigmoid * (_ONE - tanh * tanh)
            second = slope[column] * product * (_ONE - sigmoid)
            output[column] = product
            to_gate[column], to_gate[size + column] = first, second
            total[column] += first
            total[size + column] += second
        place = place + 1 if place + 1 < period else 0


_forward_kernel, _backward_kernel = kernel(_forward), kernel(_backward)


def gate_(gates: Tensor, bias: Tensor, gated: Tensor) -> None:
    """``gated = tanh(a + bias_a) * sigmoid(b + bias_b)``; ``gates = [a, b]`` becomes the two factors.

    Args:
        gates: ``(M, 2C)``, overwritten.
        bias: ``(P, 2C)``; row m takes that of m modulo P, and P divides M.
        gated: ``(M, C)``, written.
    """
    if gates.dtype in _HALVES:  # tanh is slow there on CPU, and coarse everywhere
        wide, product = gates.float(), gated.float()
        gate_(wide, bias.float(), product)
        gates.copy_(wide)
        gated.copy_(product)
    elif _by_kernel(gates):
        _forward_kernel(gates.numpy(), bias.numpy(), gated.numpy())
    else:
        size = gated.size(1)
        gates.view(-1, *bias.shape).add_(bias)
        gates[:, :size].tanh_()
        gates[:, size:].sigmoid_()
        torch.mul(gates[:, :size], gates[:, size:], out=gated)


def gate_backward_(slopes: Tensor, gates: Tensor, to_gates: Tensor, gated: Tensor, to_bias: Tensor) -> None:
    """From the ``slopes (M, C)`` of ``gated`` to those of a and b, ``to_gates (M, 2C)``.

    ``gates`` are the two factors that ``gate_`` left; ``gated (M, C)`` is written once more; ``to_bias (P, 2C)``,
    float32 at least, gets the sums of ``to_gates`` over rows with the same m modulo P added to it.
    """
    if gates.dtype in _HALVES:
        wide, product = to_gates.float(), gated.float()
        gate_backward_(slopes.float(), gates.float(), wide, product, to_bias)
        to_gates.copy_(wide)
        gated.copy_(product)
    elif _by_kernel(gates):
        _backward_kernel(slopes.numpy(), gates.numpy(), to_gates.numpy(), gated.numpy(), to_bias.numpy())
    else:
        size = gated.size(1)
        tanh, sigmoid = gates[:, :size], gates[:, size:]
        torch.mul(tanh, sigmoid, out=gated)
        to_gates[:, :size] = slopes * sigmoid * (1.0 - tanh * tanh)
        to_gates[:, size:] = slopes * gated * (1.0 - sigmoid)
        to_bias.add_(to_gates.view(-1, *to_bias.shape).sum(dim=0))


def _by_kernel(gates: Tensor) -> bool:
    return AVAILABLE and gates.device.type == "cpu" and gates.dtype == torch.float32
