"""The linear recurrence ``h_t = a_t h_{t-1} + b_t`` of the minimal cells, three ways, with a backward pass by hand.

- ``loop``: step by step, the definition.
- ``blocked``: blocks of about the square root of T steps, all blocks at once; then from block to block. Two times
  the square root of T calls of torch, and memory linear in T.
- ``scan``: doubling; the logarithm of T calls, each over everything, for devices with thousands of lanes.

All in linear space: in the space of logarithms float32 loses every digit at extreme gates. ``a`` in [0, 1] keeps all
three stable. The backward pass is the same recurrence, backwards in time.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from suite.recurrent.first_order import first_order

Method = Literal["loop", "blocked", "scan"]


def linear_recurrence(decay: Tensor, inputs: Tensor, start: Tensor, *, method: Method | None = None) -> Tensor:
    """All states ``(B, T, H)`` from ``decay`` and ``inputs (B, T, H)`` and ``start (B, H)``.

    ``method`` is blocked on CPU and scan elsewhere, if not given.
    """
    chosen = method or ("blocked" if inputs.device.type == "cpu" else "scan")
    return _Recurrence.apply(decay, inputs, start, chosen)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decay: Tensor, inputs: Tensor, start: Tensor, method: Method) -> Tensor:
        states = _solve(decay, inputs, start, method)
        ctx.save_for_backward(decay, states, start)
        ctx.method = method
        return states

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        decay, states, start = ctx.saved_tensors
        if not states.size(1):
            return decay, states, torch.zeros_like(start), None  # of no steps
        # The gradient at t is what comes in at t, and what t + 1 passes on through its own decay.
        passed = torch.zeros_like(decay)
        passed[:, :-1] = decay[:, 1:]
        slope = _solve(passed.flip(1), grads[0].flip(1), torch.zeros_like(start), ctx.method).flip(1)
        before = torch.cat([start.unsqueeze(1), states[:, :-1]], dim=1)
        return slope * before, slope, slope[:, 0] * decay[:, 0], None


def _solve(decay: Tensor, inputs: Tensor, start: Tensor, method: Method) -> Tensor:
    if not inputs.size(1):
        return torch.empty_like(inputs)
    return {"loop": _loop, "blocked": _blocked, "scan": _scan}[method](decay, inputs, start)


def _loop(decay: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    states, state = torch.empty_like(inputs), start
    for step in range(inputs.size(1)):
        state = torch.addcmul(inputs[:, step], decay[:, step], state)
        states[:, step] = state
    return states


def _blocked(decay: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    batch, steps, size = inputs.shape
    length = math.ceil(math.sqrt(steps))
    blocks = math.ceil(steps / length)
    missing = blocks * length - steps
    pad = (0, 0, 0, missing)
    decays = torch.nn.functional.pad(decay, pad, value=1.0).view(batch, blocks, length, size)
    states = torch.nn.functional.pad(inputs, pad).view(batch, blocks, length, size)
    decays, states = (decays, states) if missing else (decays.clone(), states.clone())
    for step in range(1, length):  # inside all blocks at once, each from zero
        states[:, :, step].addcmul_(decays[:, :, step], states[:, :, step - 1])
        decays[:, :, step] *= decays[:, :, step - 1]
    carried = torch.empty_like(states[:, :, 0])
    state = start
    for block in range(blocks):
        carried[:, block] = state
        state = torch.addcmul(states[:, block, -1], decays[:, block, -1], state)
    states.addcmul_(decays, carried.unsqueeze(2))
    return states.view(batch, blocks * length, size)[:, :steps]


def _scan(decay: Tensor, inputs: Tensor, start: Tensor) -> Tensor:
    states = inputs.clone()
    states[:, 0].addcmul_(decay[:, 0], start)
    reach = 1
    while reach < inputs.size(1):
        # Both sides are read before either is written: the pass is parallel over time.
        states = torch.cat([states[:, :reach], states[:, reach:] + decay[:, reach:] * states[:, :-reach]], dim=1)
        if 2 * reach < inputs.size(1):
            decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], dim=1)
        reach *= 2
    return states
