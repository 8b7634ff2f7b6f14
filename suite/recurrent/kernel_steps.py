"""Recurrences on the compiled kernels: what ``steps.py`` has in torch, without zoneout, on CPU."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

from suite.recurrent.normalisation import EPSILON
from suite.recurrent.unroll import Buffers, Extras, Slopes


@cache
def compiled_kernels(name: str = "kernels") -> Any:
    """The module of compiled kernels, or ``None`` without Numba; imported when a cell first runs (half a second)."""
    try:
        return import_module(f"suite.recurrent.{name}")
    except ImportError:
        return None


def runs_compiled(gates: Tensor) -> bool:
    """Whether there are kernels for this device and precision."""
    known = gates.dtype in (torch.float32, torch.float64)
    return gates.device.type == "cpu" and known and compiled_kernels() is not None


class _KernelSteps:
    """Buffers as arrays: what the three have in common."""

    zones: Extras = ()

    def begin(self, buffers: Buffers, extras: Extras) -> None:
        self.scales = self.make_scales(buffers.gates)
        self._bind(buffers, extras)

    def make_scales(self, gates: Tensor) -> Tensor:
        """One over the deviation of each normalised row."""
        return gates.new_empty(0)

    def release(self) -> list[Tensor]:
        return [self.scales]

    def _bind(self, buffers: Buffers, extras: Extras) -> None:
        self.extras = [cast(Tensor, part).detach().contiguous() for part in extras]
        self.arrays = [part.numpy() for part in self.extras]
        self.gates, self.products, self.hidden = (part.numpy() for part in buffers[:3])
        self.memory = None if buffers.memory is None else buffers.memory.numpy()
        self.scales_array = self.scales.numpy()

    def begin_backward(self, buffers: Buffers, extras: Extras, kept: Sequence[Tensor], slopes: Slopes) -> None:
        (self.scales,) = kept
        self._bind(buffers, extras)
        outputs = slopes.outputs
        if outputs is None:
            outputs = slopes.gates.new_zeros(slopes.gates.size(0), *slopes.hidden.shape)
        self.slopes = [slopes.hidden.numpy(), *([] if slopes.memory is None else [slopes.memory.numpy()])]
        self.slopes += [outputs.numpy(), slopes.gates.numpy()]
        self.products_slope = slopes.products.numpy()
        self.extras_slopes = [torch.zeros_like(part) for part in self.extras]
        self.extras_arrays = [part.numpy() for part in self.extras_slopes]

    def gradients(self) -> Extras:
        return tuple(self.extras_slopes)


class PeepholeLSTMKernels(_KernelSteps):
    """As ``LSTMSteps`` with peepholes; extras: peepholes ``(3, H)``."""

    keeps_products = own_slopes = direct = False

    def forward(self, step: int, rows: int) -> None:
        compiled_kernels().peephole_lstm(self.gates, self.products, self.hidden, self.memory, *self.arrays, step, rows)

    def backward(self, step: int, rows: int) -> None:
        compiled_kernels().peephole_lstm_slope(
            self.gates, self.memory, *self.arrays, *self.slopes, *self.extras_arrays, step, rows
        )


class LayerNormLSTMKernels(_KernelSteps):
    """As ``LSTMSteps`` with layer normalisation; extras: the product's gain, the cell state's gain and bias."""

    keeps_products, own_slopes, direct = True, True, False

    def make_scales(self, gates: Tensor) -> Tensor:
        return gates.new_zeros(gates.shape[:2])

    def forward(self, step: int, rows: int) -> None:
        compiled_kernels().layernorm_lstm(
            self.gates, self.products, self.hidden, self.memory, self.scales_array, *self.arrays, EPSILON, step, rows
        )

    def backward(self, step: int, rows: int) -> None:
        compiled_kernels().layernorm_lstm_slope(
            self.gates, self.products, self.memory, self.scales_array, *self.arrays, EPSILON, *self.slopes,
            self.products_slope, *self.extras_arrays, step, rows,
        )  # fmt: skip


class LayerNormGRUKernels(_KernelSteps):
    """As ``GRUSteps`` with layer normalisation; extras: the product's gain and bias."""

    keeps_products, own_slopes, direct = True, True, True

    def make_scales(self, gates: Tensor) -> Tensor:
        return gates.new_zeros(*gates.shape[:2], 2)

    def forward(self, step: int, rows: int) -> None:
        compiled_kernels().layernorm_gru(
            self.gates, self.products, self.hidden, self.scales_array, *self.arrays, EPSILON, step, rows
        )

    def backward(self, step: int, rows: int) -> None:
        compiled_kernels().layernorm_gru_slope(
            self.gates, self.products, self.hidden, self.scales_array, *self.arrays, *self.slopes, self.products_slope,
            *self.extras_arrays, step, rows,
        )  # fmt: skip
