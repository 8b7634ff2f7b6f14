"""Small matrix products for compiled loops, a tile of the result at a time in vector registers.

Loops that a compiler makes of plain code read and write the result again for every few rows of the weight. Here a tile
of the result stays in registers until it is done (Goto and van de Geijn 2008), small enough that two vectors of it can
be worked on at every moment, and the weight lies in memory in the order in which it is read.
"""

from typing import Any

import torch
from torch import Tensor

from suite.kernels import AVAILABLE, kernel

LANES = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
"""Float32 numbers in a vector of this CPU."""
WIDTHS = (LANES, 2 * LANES, 3 * LANES)
"""Columns that a result can have: a tile is as wide."""
_SUMS = 12  # vectors of a tile: with three of the inputs and one of the weight all 16 registers; 16 sums spill


def packed(weight: Tensor, width: int) -> Tensor:
    """``weight (I, O)`` as ``add_tiles`` reads it for ``width`` columns: ``(tiles, I, rows)``, zeros at the end."""
    inputs, outputs = weight.shape
    rows = _SUMS * LANES // width
    tiles = -(-outputs // rows)
    full = torch.nn.functional.pad(weight, (0, tiles * rows - outputs))
    return full.view(inputs, tiles, rows).transpose(0, 1).contiguous()


def padded_rows(columns: Tensor, weight: Tensor) -> Tensor:
    """``columns (O, W)`` with as many rows more as ``weight``, which is packed, has outputs."""
    missing = weight.size(0) * weight.size(2) - columns.size(0)
    return torch.nn.functional.pad(columns, (0, 0, 0, missing)).contiguous()


def tile_intrinsic(vectors: int, lanes: int) -> Any:
    """One tile, ``12 / vectors`` rows of ``vectors * lanes`` columns, as LLVM's instructions; for ``add_tiles``.

    Called with start, sums, weight, first, second and the tile's number. ``None`` without numba.
    """
    if not AVAILABLE:
        return None
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    rows, width = _SUMS // vectors, vectors * lanes
    long, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), lanes)
    first_lane = ir.Constant(ir.IntType(32), 0)
    empty, zeros = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)

    def compose(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def moved(base: Any, *factors: Any) -> Any:
            place = ir.Constant(long, 1)
            for factor in factors:
                place = builder.mul(place, ir.Constant(long, factor) if isinstance(factor, int) else factor)
            return builder.gep(base, [place])

        def vector_at(base: Any, place: int) -> Any:
            return builder.bitcast(moved(base, place), vector.as_pointer())

        arrays = [
            cgutils.create_struct_proxy(kind)(context, builder, value=value)
            for kind, value in zip(signature.args[:5], arguments[:5], strict=True)
        ]
        number = arguments[5]
        depths = [builder.extract_value(array.shape, 0) for array in arrays[3:]]
        start, sums = (moved(array.data, number, rows * width) for array in arrays[:2])
        weight = moved(arrays[2].data, number, builder.add(*depths), rows)
        places = [row * width + part * lanes for row in range(rows) for part in range(vectors)]
        totals = [cgutils.alloca_once(builder, vector) for _ in places]  # LLVM keeps them in registers
        for total in totals:
            builder.store(ir.Constant(vector, None), total)
        for array, depth in zip(arrays[3:], depths, strict=True):
            with cgutils.for_range(builder, depth) as loop:
                inputs, factors = moved(array.data, loop.index, width), moved(weight, loop.index, rows)
                values = [builder.load(vector_at(inputs, part * lanes), align=4) for part in range(vectors)]
                for row in range(rows):
                    factor = builder.insert_element(empty, builder.load(moved(factors, row)), first_lane)
                    factor = builder.shuffle_vector(factor, empty, zeros)
                    for total, value in zip(totals[row * vectors :], values, strict=False):
                        product = builder.fmul(factor, value, flags=("contract",))
                        builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
            weight = moved(weight, depth, rows)
        for total, place in zip(totals, places, strict=True):  # added once: a large start would round every step
            begin = builder.load(vector_at(start, place), align=4)
            builder.store(builder.fadd(begin, builder.load(total)), vector_at(sums, place), align=4)
        return context.get_dummy_value()

    def tile(typing: Any, start: Any, sums: Any, weight: Any, first: Any, second: Any, number: Any) -> Any:
        return types.void(start, sums, weight, first, second, types.intp), compose

    return intrinsic(tile)


_tile1, _tile2, _tile3 = (tile_intrinsic(vectors, LANES) for vectors in (1, 2, 3))


def _add_tiles(start: Any, sums: Any, weight: Any, first: Any, second: Any) -> None:
    tiles, width = weight.shape[0], sums.shape[1]
    if width == LANES:
        for number in range(tiles):
            _tile1(start, sums, weight, first, second, number)
    elif width == 2 * LANES:
        for number in range(tiles):
            _tile2(start, sums, weight, first, second, number)
    else:
        for number in range(tiles):
            _tile3(start, sums, weight, first, second, number)


add_tiles = kernel(_add_tiles)
"""``sums (R, W) = start (R, W) + weight.T @ [first; second]``, for other kernels.

``first (I, W)`` lies above ``second (J, W)``, either of which may have no rows; ``weight`` is ``packed`` from
``(I + J, O)`` for W columns, one of ``WIDTHS``; R is the number of its outputs with those that fill the last tile up.
``start`` may be ``sums`` itself. All are float32 and contiguous, and nothing is checked: it is machine code.
"""
