"""Blocks of steps as CUDA graphs: what takes Python many times as long to start as a GPU to do, recorded once.

A graph works on fixed addresses. So a block of steps has buffers of its own, to which its part of a sequence is copied
and from which the results are; the copies are a few launches for ``BLOCK`` steps. Graphs are kept by what they depend
on (cell, rows, features, precision, device, stream), rows rounded up, so that batches of many sizes share a few of
them; the longest unused ones go when their buffers take more than ``BUDGET``.
"""

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch import Tensor

from suite.recurrent.gpu.steps import (
    BY_STEP,
    STATES,
    ZONES,
    Arrays,
    Cell,
    backward_arrays,
    backward_steps,
    forward_arrays,
    forward_steps,
)

BLOCK = 32  # steps of a graph
SHORTEST = 12  # steps from which a graph is faster than starting each
WIDEST = 1 << 19  # gates of a step up to which starting takes longer than computing
BUDGET = 1 << 30  # bytes of all buffers


class Block:
    """Buffers of a block of steps, and the graph over them."""

    def __init__(self, cell: Cell, rows: int, gates: Tensor, weight: Tensor, extras: Arrays, *, backward: bool) -> None:
        # Recorded by a validation in inference mode, buffers are written in training too: not in that mode's memory.
        with torch.inference_mode(False), torch.no_grad():
            self._allocate(cell, rows, gates, weight, extras, backward=backward)
            self._record(cell, backward_steps if backward else forward_steps)

    def _allocate(
        self, cell: Cell, rows: int, gates: Tensor, weight: Tensor, extras: Arrays, *, backward: bool
    ) -> None:
        self.arrays: Arrays = {name: torch.zeros_like(value) for name, value in extras.items()}
        self.weight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
        own = gates.new_zeros(BLOCK, rows, gates.size(2))
        self.arrays |= {"gates": own, "left": torch.zeros(rows, dtype=torch.int32, device=gates.device)}
        self.arrays |= forward_arrays(cell, own, self.weight)
        zones = ZONES[: cell.zoned * (1 + cell.memory)]
        self.arrays |= {name: torch.zeros_like(self.arrays["hidden"][1:]) for name in zones}
        if backward:
            self.arrays |= backward_arrays(cell, own, self.weight, extras)
            self.arrays["outputs"] = torch.zeros_like(self.arrays["hidden"][1:])
        held = [*self.arrays.values(), self.weight, self.weight]  # the weight also turned
        self.bytes = sum(value.untyped_storage().nbytes() for value in held)

    def _record(self, cell: Cell, run: Callable[[Cell, Arrays, Tensor], None]) -> None:
        device = self.weight.device
        self.graph = torch.cuda.CUDAGraph()
        stream = _recording_stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        try:
            with torch.cuda.stream(stream):
                run(cell, self.arrays, self.weight)  # compiles kernels and sets cuBLAS up, which no graph may
                # Other threads (the one that pins batches) may go on with what a recording forbids its own.
                self.graph.capture_begin(capture_error_mode="thread_local")
                try:
                    run(cell, self.arrays, self.weight)
                except BaseException:
                    with suppress(RuntimeError):
                        self.graph.capture_end()
                    raise
                self.graph.capture_end()
        finally:  # what has begun to write there must have ended before others use the memory
            torch.cuda.current_stream(device).wait_stream(stream)

    def begin(self, weight: Tensor, extras: Arrays) -> None:
        """Parameters to their places."""
        self.weight.copy_(weight)
        for name, value in extras.items():
            self.arrays[name].copy_(value)

    def put(self, name: str, whole: Tensor, begin: int = 0) -> None:
        """Copy what belongs to this block of ``whole`` to its place."""
        target = self.arrays[name]
        if name in BY_STEP or name in STATES:
            whole = whole[begin : begin + len(target)]
            target = target[: len(whole)]
            target[:, : whole.size(1)].copy_(whole)
        else:
            target[: len(whole)].copy_(whole)

    def get(self, name: str, whole: Tensor, begin: int = 0) -> None:
        """Copy the block's results to their place in ``whole``; of states, those after each step."""
        source = self.arrays[name]
        if name in BY_STEP or name in STATES:
            first = int(name in STATES)
            whole = whole[begin + first : begin + len(source)]
            whole.copy_(source[first : first + len(whole), : whole.size(1)])
        else:
            whole.copy_(source[: len(whole)])


LOCK = threading.RLock()
"""Held from finding a block to its last result: other threads with the same sizes use the same buffers."""

_blocks: OrderedDict[Any, Block] = OrderedDict()
_refused: set[Any] = set()  # what could not be recorded


@cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all recordings: cuBLAS keeps memory for each stream that it has seen."""
    return torch.cuda.Stream(device)


def clear_graphs() -> None:
    """Let go of all graphs and their buffers."""
    with LOCK:
        _blocks.clear()
        _refused.clear()


def find_block(cell: Cell, gates: Tensor, weight: Tensor, extras: Arrays, *, backward: bool) -> Block | None:
    """The block for a pass over ``gates (T, B, G)``, or ``None`` where steps are better started one by one.

    Call it, and use what it gives, with ``LOCK`` held. Each stream has blocks of its own: nothing orders two of them.
    """
    steps, batch, width = gates.shape
    if steps < SHORTEST or not batch or batch * width > WIDEST or torch.cuda.is_current_stream_capturing():
        return None
    rounded = 8 if batch <= 64 else 32
    rows = -(-batch // rounded) * rounded
    kinds = (gates.dtype, weight.dtype, torch.backends.cuda.matmul.fp32_precision)
    place = (gates.device, torch.cuda.current_stream(gates.device).cuda_stream)
    key = (cell, rows, width, backward, *kinds, *place)
    if key in _refused:
        return None
    if key not in _blocks:
        try:
            _blocks[key] = Block(cell, rows, gates, weight, extras, backward=backward)
        except torch.OutOfMemoryError:
            return None  # there may be more another time
        except RuntimeError as error:
            if cell.name not in {other[0].name for other in _refused}:
                warnings.warn(
                    f"the steps of {cell.name} run without CUDA graphs, many times slower: {error}", stacklevel=2
                )
            _refused.add(key)
            return None
    _blocks.move_to_end(key)
    while len(_blocks) > 1 and sum(block.bytes for block in _blocks.values()) > BUDGET:
        _blocks.popitem(last=False)
    return _blocks[key]
