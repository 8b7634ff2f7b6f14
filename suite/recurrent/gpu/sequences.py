"""Cells that need no product between steps, on a GPU: a whole sequence in a few launches.

``minimal`` is mingru and minlstm by a scan over chunks of time (``kernels/minimal.py``); ``indrnn`` goes step by step
inside one kernel (``kernels/vanilla.py``).
"""

import math
from typing import Any

import torch
from torch import Tensor

from suite.recurrent.first_order import first_order
from suite.recurrent.gpu.steps import Cell, triton_kernels

_FEATURES = 64  # of a program


def chunk_size(steps: int) -> int:
    """Steps of a chunk: about the square root, so that no launch has many more in a row than another."""
    return min(max(1 << math.ceil(math.log2(max(steps, 1)) / 2), 8), 128)


class Minimal(torch.autograd.Function):
    """``apply(cell, gates, start, lengths)``: states ``(B, T, H)`` of ``gates (B, T, G)``, zero after a row's end.

    Gates may be in low precision, states are in that of ``start (B, H)``.
    """

    @staticmethod
    def forward(ctx: Any, cell: str, gates: Tensor, start: Tensor, lengths: Tensor) -> Tensor:
        (batch, steps, width), size = gates.shape, start.size(1)
        lengths = lengths.to(gates.device).clamp(0, steps)  # wrong ones are not seen without waiting for the GPU
        states = start.new_empty(batch, steps, size)
        if states.numel():
            kernels = triton_kernels("minimal")
            chunk, wide, shape = _plan(gates, size)
            decays, ends = start.new_empty(2, batch, shape[1], size)
            options = {"span": chunk, "block": _FEATURES, "is_lstm": cell == "minlstm", "num_warps": 2}
            kernels.reduce[shape](gates, lengths, decays, ends, steps, size, width, **options)
            kernels.carry[(batch, wide)](
                start.clone(), decays, ends, shape[1], size, block=_FEATURES, backward=False, num_warps=2
            )
            kernels.apply[shape](gates, lengths, ends, states, steps, size, width, **options)
        ctx.cell = cell
        ctx.save_for_backward(gates, start, lengths, states)
        return states

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor, None]:
        gates, start, lengths, states = ctx.saved_tensors
        (batch, steps, width), size = gates.shape, start.size(1)
        slope, passed = torch.empty_like(gates), torch.zeros_like(start)
        if states.numel():
            kernels = triton_kernels("minimal")
            chunk, wide, shape = _plan(gates, size)
            decays, ends = start.new_empty(2, batch, shape[1], size)
            options = {"span": chunk, "block": _FEATURES, "is_lstm": ctx.cell == "minlstm", "num_warps": 2}
            coming = grads[0].contiguous()
            kernels.reduce_slope[shape](gates, lengths, coming, decays, ends, steps, size, width, **options)
            kernels.carry[(batch, wide)](
                passed, decays, ends, shape[1], size, block=_FEATURES, backward=True, num_warps=2
            )
            kernels.apply_slope[shape](
                gates, lengths, ends, start, states, coming, slope, steps, size, width, **options
            )
        return None, slope, passed, None


def _plan(gates: Tensor, size: int) -> tuple[int, int, tuple[int, int, int]]:
    """Steps of a chunk, programs side by side, and the grid."""
    chunk, wide = chunk_size(gates.size(1)), -(-size // _FEATURES)
    return chunk, wide, (gates.size(0), -(-gates.size(1) // chunk), wide)


class IndRNN(torch.autograd.Function):
    """``apply(cell, lengths, gates, weight, start, *zones)``: outputs ``(T, B, H)`` and the final state ``(B, H)``.

    ``gates (T, B, H)`` belong to this function from now on; ``weight (H,)``, ``start (B, H)``, ``zones``: none, or the
    share of the old state that each unit keeps, ``(T, B, H)``.
    """

    @staticmethod
    def forward(
        ctx: Any, cell: Cell, lengths: Tensor, gates: Tensor, weight: Tensor, start: Tensor, *zones: Tensor
    ) -> tuple[Tensor, Tensor]:
        steps, batch, size = gates.shape
        hidden = gates.new_zeros(steps + 1, batch, size)
        hidden[0] = start
        zone = zones[0].contiguous() if zones else gates
        if gates.numel():
            kernels = triton_kernels(cell.module)
            kernels.indrnn[(batch, -(-size // _FEATURES))](
                gates, weight, hidden, zone, lengths, batch, size,
                block=_FEATURES, zoned=cell.zoned, activation=cell.activation, num_warps=2,
            )  # fmt: skip
        ctx.cell = cell
        ctx.save_for_backward(lengths, gates, weight, hidden, zone)
        ctx.set_materialize_grads(False)
        return hidden[1:], hidden[lengths, torch.arange(batch, device=lengths.device)]

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        cell, (lengths, gates, weight, hidden, zone) = ctx.cell, ctx.saved_tensors
        batch, size = gates.shape[1:]
        outputs, final = grads
        coming = torch.zeros_like(gates) if outputs is None else outputs.contiguous()
        passed = torch.zeros_like(hidden[0]) if final is None else final.clone(memory_format=torch.contiguous_format)
        slope, shares = torch.zeros_like(gates), torch.zeros_like(hidden[0])
        if gates.numel():
            kernels = triton_kernels(cell.module)
            kernels.indrnn_slope[(batch, -(-size // _FEATURES))](
                gates, weight, hidden, zone, coming, passed, slope, shares, lengths, batch, size,
                block=_FEATURES, zoned=cell.zoned, activation=cell.activation, num_warps=2,
            )  # fmt: skip
        return None, None, slope, shares.sum(dim=0), passed, *[None] * cell.zoned
