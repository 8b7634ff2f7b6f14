"""A recurrence over time on a GPU inside one autograd function: ``unroll.py`` for the cells of ``gpu/steps.py``."""

from typing import Any

import torch
from torch import Tensor

from suite.recurrent.first_order import first_order
from suite.recurrent.gpu.graphs import BLOCK, LOCK, Block, find_block
from suite.recurrent.gpu.sequences import IndRNN
from suite.recurrent.gpu.steps import (
    STATES,
    ZONES,
    Arrays,
    Cell,
    backward_arrays,
    backward_steps,
    forward_arrays,
    forward_steps,
)
from suite.recurrent.unroll import Extras, Schedule

_FORWARD_RESULTS = ("gates", "hidden", "memory", "kept", "scales")
_UNDER_WAY = ("direct", "through", "memory_slope")
_BACKWARD_INPUTS = (*_FORWARD_RESULTS, *ZONES, "outputs")


def unroll_on_gpu(
    cell: Cell,
    schedule: Schedule,
    gates: Tensor,
    weight: Tensor,
    hidden: Tensor,
    memory: Tensor | None,
    *extras: Any,
    zones: Extras = (),
) -> tuple[Tensor | None, ...]:
    """As ``Unroll.apply``, for a cell with kernels; ``zones`` are what zoneout keeps of each of its states."""
    lengths = schedule.lengths.to(gates.device).clamp(0, len(gates))  # wrong ones are not seen without waiting
    weight, hidden = weight.contiguous(), hidden.contiguous()
    if any(zone is not None for zone in zones):
        cell = cell._replace(zoned=True)
    # One zone serves all steps in eval; where one state has one, the other keeps nothing.
    shape = (len(gates), *hidden.shape)
    used = zones[: 1 + cell.memory] if cell.zoned else ()
    full = [(torch.zeros_like(hidden).unsqueeze(0) if zone is None else zone).expand(shape) for zone in used]
    with torch.cuda.device_of(gates):  # Triton starts kernels on the current one
        if cell.name == "indrnn":
            return IndRNN.apply(cell, lengths, gates, weight, hidden, *full)
        return GPUUnroll.apply(cell, lengths, gates, weight, hidden, memory, len(full), *full, *extras)


class GPUUnroll(torch.autograd.Function):
    """``apply(cell, lengths, gates, weight, hidden, memory, number_of_zones, *zones, *extras)``.

    ``gates (T, B, G)`` belong to this function from now on: they are overwritten. ``weight (G, H)``, ``hidden`` and
    ``memory`` ``(B, H)``, which may be ``None``, ``zones (T, B, H)``. Gives the hidden states ``(T, B, H)``, zero where
    a row has ended, and both final ones.
    """

    @staticmethod
    def forward(
        ctx: Any, cell: Cell, lengths: Tensor, gates: Tensor, weight: Tensor, hidden: Tensor, memory: Tensor | None,
        count: int, *others: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        zones: Arrays = dict(zip(ZONES, others[:count], strict=False))
        extras: Arrays = {name: extra.contiguous() for name, extra in zip(cell.extras, others[count:], strict=True)}
        arrays = {"gates": gates, "left": lengths.int(), **zones, **extras, **forward_arrays(cell, gates, weight)}
        arrays["hidden"][0] = hidden
        if memory is not None:
            arrays["memory"][0] = memory
        with LOCK:
            block = find_block(cell, gates, weight, extras, backward=False)
            if block is not None:
                _forward_in_blocks(block, cell, arrays, lengths, weight, extras)
        if block is None:
            forward_steps(cell, arrays, weight)
        kept = {name: arrays[name] for name in (*_FORWARD_RESULTS, *zones, *extras) if name in arrays}
        ctx.cell, ctx.names, ctx.zones = cell, list(kept), count
        ctx.save_for_backward(lengths, weight, *kept.values())
        ctx.set_materialize_grads(False)
        rows = torch.arange(len(lengths), device=lengths.device)
        last = None if memory is None else arrays["memory"][lengths, rows]
        return arrays["hidden"][1:], arrays["hidden"][lengths, rows], last

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        cell, (lengths, weight, *saved) = ctx.cell, ctx.saved_tensors
        kept: Arrays = dict(zip(ctx.names, saved, strict=True))
        extras: Arrays = {name: kept[name] for name in cell.extras}
        gates, (outputs, *finals) = kept["gates"], grads
        arrays = {"left": lengths.int(), **kept, **backward_arrays(cell, gates, weight, extras)}
        arrays["outputs"] = torch.zeros_like(kept["hidden"][1:]) if outputs is None else outputs.contiguous()
        for name, final in zip(("direct", "memory_slope"), finals, strict=True):
            if final is not None:
                arrays[name].copy_(final)
        with LOCK:
            block = find_block(cell, gates, weight, extras, backward=True)
            if block is not None:
                _backward_in_blocks(block, cell, arrays, lengths, weight, extras)
        if block is None:
            backward_steps(cell, arrays, weight)
        products, states = arrays["products_slope"].flatten(0, 1), kept["hidden"][:-1].flatten(0, 1)
        slope = products.t() @ states.to(products.dtype)
        first = arrays["direct"] + arrays["through"].to(arrays["direct"].dtype)
        own = [arrays[f"{name}_slope"].sum(dim=0).view_as(extra) for name, extra in extras.items()]
        nothing = [None] * (1 + ctx.zones)
        return None, None, arrays["gates_slope"], slope, first, arrays.get("memory_slope"), *nothing, *own


def _forward_in_blocks(
    block: Block, cell: Cell, arrays: Arrays, lengths: Tensor, weight: Tensor, extras: Arrays
) -> None:
    block.begin(weight, extras)
    for begin in range(0, len(arrays["gates"]), BLOCK):
        block.put("left", lengths - begin)
        for name in ("gates", *ZONES):
            if name in arrays:
                block.put(name, arrays[name], begin)
        for name in STATES[: 1 + cell.memory]:
            block.put(name, arrays[name][: begin + 1], begin)
        block.graph.replay()
        for name in _FORWARD_RESULTS:
            if name in arrays:
                block.get(name, arrays[name], begin)


def _backward_in_blocks(
    block: Block, cell: Cell, arrays: Arrays, lengths: Tensor, weight: Tensor, extras: Arrays
) -> None:
    block.begin(weight, extras)
    carried = [*_UNDER_WAY[: 2 + cell.memory], *(f"{name}_slope" for name in extras)]
    for name in carried:
        block.put(name, arrays[name])
    for begin in reversed(range(0, len(arrays["gates"]), BLOCK)):
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
