"""A recurrence over time on a GPU inside one autograd function: ``unroll.py`` for the cells of ``gpu_steps.py``."""

from typing import Any

import torch
from torch import Tensor

from suite.recurrent.first_order import first_order
from suite.recurrent.gpu_graphs import BLOCK, find_block
from suite.recurrent.gpu_sequences import IndRNN
from suite.recurrent.gpu_steps import (
    Arrays,
    Cell,
    backward_arrays,
    backward_steps,
    forward_arrays,
    forward_steps,
)
from suite.recurrent.unroll import Schedule

_FORWARD_RESULTS = ("gates", "hidden", "memory", "kept", "scales")
_UNDER_WAY = ("direct", "through", "memory_slope")
_BACKWARD_INPUTS = (*_FORWARD_RESULTS, "outputs")


def unroll_on_gpu(
    cell: Cell, schedule: Schedule, gates: Tensor, weight: Tensor, hidden: Tensor, memory: Tensor | None, *extras: Any
) -> tuple[Tensor | None, ...]:
    """As ``Unroll.apply``, for a cell with kernels."""
    lengths = schedule.lengths.to(gates.device).clamp(0, len(gates))  # wrong ones are not seen without waiting
    if cell.name == "indrnn":
        return IndRNN.apply(cell.activation, lengths, gates, weight.contiguous(), hidden.contiguous())
    return GPUUnroll.apply(cell, lengths, gates, weight.contiguous(), hidden, memory, *extras)


class GPUUnroll(torch.autograd.Function):
    """``apply(cell, lengths, gates, weight, hidden, memory, *extras)``.

    ``gates (T, B, G)`` belong to this function from now on: they are overwritten. ``weight (G, H)``, ``hidden`` and
    ``memory`` ``(B, H)``, which may be ``None``. Gives the hidden states ``(T, B, H)``, zero where a row has ended, and
    both final ones.
    """

    @staticmethod
    def forward(
        ctx: Any, cell: Cell, lengths: Tensor, gates: Tensor, weight: Tensor, hidden: Tensor, memory: Tensor | None,
        *extras: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        named: Arrays = {name: extra.contiguous() for name, extra in zip(cell.extras, extras, strict=True)}
        arrays = {"gates": gates, "left": lengths.int(), **named, **forward_arrays(cell, gates, weight)}
        arrays["hidden"][0] = hidden
        if memory is not None:
            arrays["memory"][0] = memory
        block = find_block(cell, gates, weight, named, backward=False)
        if block is None:
            forward_steps(cell, arrays, weight)
        else:
            block.begin(weight, named)
            for begin in range(0, len(gates), BLOCK):
                block.put("left", lengths - begin)
                block.put("gates", gates, begin)
                for name in ("hidden", "memory"):
                    if name in arrays:
                        block.put(name, arrays[name][: begin + 1], begin)
                block.graph.replay()
                for name in _FORWARD_RESULTS:
                    if name in arrays:
                        block.get(name, arrays[name], begin)
        ctx.cell, ctx.names = cell, [name for name in _FORWARD_RESULTS if name in arrays]
        ctx.save_for_backward(lengths, weight, *(arrays[name] for name in ctx.names), *named.values())
        ctx.set_materialize_grads(False)
        rows = torch.arange(len(lengths), device=lengths.device)
        last = None if memory is None else arrays["memory"][lengths, rows]
        return arrays["hidden"][1:], arrays["hidden"][lengths, rows], last

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        cell, (lengths, weight, *saved) = ctx.cell, ctx.saved_tensors
        kept: Arrays = dict(zip(ctx.names, saved, strict=False))
        extras: Arrays = dict(zip(cell.extras, saved[len(ctx.names) :], strict=True))
        gates, (outputs, *finals) = kept["gates"], grads
        arrays = {"left": lengths.int(), **kept, **extras, **backward_arrays(cell, gates, weight, extras)}
        arrays["outputs"] = torch.zeros_like(kept["hidden"][1:]) if outputs is None else outputs.contiguous()
        for name, final in zip(("direct", "memory_slope"), finals, strict=True):
            if final is not None:
                arrays[name].copy_(final)
        block = find_block(cell, gates, weight, extras, backward=True)
        if block is None:
            backward_steps(cell, arrays, weight)
        else:
            block.begin(weight, extras)
            carried = [*_UNDER_WAY[: 2 + cell.memory], *(f"{name}_slope" for name in extras)]
            for name in carried:
                block.put(name, arrays[name])
            for begin in reversed(range(0, len(gates), BLOCK)):
                block.put("left", lengths - begin)
                for name in _BACKWARD_INPUTS:
                    if name in arrays:
                        block.put(name, arrays[name], begin)
                block.graph.replay()
                block.get("gates_slope", arrays["gates_slope"], begin)
                if arrays["products_slope"] is not arrays["gates_slope"]:
                    block.get("products_slope", arrays["products_slope"], begin)
            for name in carried:
                block.get(name, arrays[name])
        products, states = arrays["products_slope"].flatten(0, 1), kept["hidden"][:-1].flatten(0, 1)
        slope = products.t() @ states.to(products.dtype)
        first = arrays["direct"] + arrays["through"].to(arrays["direct"].dtype)
        own = [arrays[f"{name}_slope"].sum(dim=0).view_as(extra) for name, extra in extras.items()]
        return None, None, arrays["gates_slope"], slope, first, arrays.get("memory_slope"), *own

