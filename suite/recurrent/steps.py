"""Recurrences between the products, in torch, forward and backward by hand: see ``suite/recurrent/unroll.py``.

They run on every device and in every precision; ``kernels.py`` has those that are worth one pass over memory on CPU.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from suite.recurrent.normalisation import StepNorm
from suite.recurrent.unroll import Buffers, Extras, Slopes

Zone = Tensor | None  # (T or 1, B, H): the share of the old value that each unit keeps


def zone_of(zone: Zone, step: int, rows: int) -> Tensor | None:
    """The zoneout of one step; a single one serves all steps."""
    return None if zone is None else zone[min(step, zone.size(0) - 1), :rows]


def keep_part(slope: Tensor, zone: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A gradient split between the new value and the one that was kept."""
    if zone is None:
        return slope, None
    kept = slope * zone
    return slope - kept, kept


_aten: Any = torch.ops.aten
# Of each activation: the function, and its gradient from (gradient, value before, value after).
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "tanh": (torch.tanh, lambda slope, before, after: _aten.tanh_backward(slope, after)),
    "relu": (torch.relu, lambda slope, before, after: _aten.threshold_backward(slope, after, 0)),
    "leaky_relu": (
        functional.leaky_relu,
        lambda slope, before, after: _aten.leaky_relu_backward(slope, before, 0.01, False),
    ),
    "elu": (functional.elu, lambda slope, before, after: _aten.elu_backward(slope, 1.0, 1.0, 1.0, False, before)),
    "gelu": (functional.gelu, lambda slope, before, after: _aten.gelu_backward(slope, before)),
    "softsign": (functional.softsign, lambda slope, before, after: slope / (1.0 + before.abs()).square()),
    "sigmoid": (torch.sigmoid, lambda slope, before, after: _aten.sigmoid_backward(slope, after)),
}


class VanillaSteps:
    """``h = f(gates + product)``; no extras."""

    keeps_products = own_slopes = False

    def __init__(self, activation: str, *, zone: Zone = None) -> None:
        self.function, self.slope = ACTIVATIONS[activation]
        self.zones: Extras = (zone,)
        self.direct = zone is not None

    def begin(self, buffers: Buffers, extras: Extras) -> None:
        self.buffers = buffers

    def forward(self, step: int, rows: int) -> None:
        gates, hidden = self.buffers.gates[step, :rows], self.buffers.hidden
        gates += self.buffers.products[0, :rows]
        new, zone = self.function(gates), zone_of(self.zones[0], step, rows)
        hidden[step + 1, :rows] = new if zone is None else torch.lerp(new, hidden[step, :rows], zone)

    def release(self) -> list[Tensor]:
        return []

    def begin_backward(self, buffers: Buffers, extras: Extras, kept: Sequence[Tensor], slopes: Slopes) -> None:
        self.buffers, self.slopes = buffers, slopes

    def backward(self, step: int, rows: int) -> None:
        before, slope = self.buffers.gates[step, :rows], self.slopes.hidden[:rows]
        if self.slopes.outputs is not None:
            slope += self.slopes.outputs[step, :rows]
        share, kept = keep_part(slope, zone_of(self.zones[0], step, rows))
        after = self.buffers.hidden[step + 1, :rows] if kept is None else self.function(before)
        self.slopes.gates[step, :rows] = self.slope(share, before, after)
        if kept is not None:
            slope.copy_(kept)

    def gradients(self) -> Extras:
        return ()


class LSTMSteps:
    """Gates in the order input, forget, cell, output; extras: peepholes ``(3, H)`` or ``None``.

    With peepholes the input and forget gates see the cell state before the step, the output gate the one after it
    (Gers, Schraudolph and Schmidhuber 2002). ``norms`` normalise the inputs' share, the product, and the new cell state
    on its way to the hidden state; the extras go on with the gain and the bias of each.
    """

    keeps_products = False

    def __init__(
        self, *, zone: Zone = None, zone_memory: Zone = None, norms: tuple[StepNorm | None, ...] = (None, None, None)
    ) -> None:
        self.zones: Extras = (zone, zone_memory)
        self.norms = norms
        self.direct = zone is not None
        self.own_slopes = norms[0] is not None or norms[1] is not None

    def begin(self, buffers: Buffers, extras: Extras) -> None:
        self._bind(buffers, extras)
        self.squashed = torch.empty_like(self.memory[1:])

    def _bind(self, buffers: Buffers, extras: Extras) -> None:
        assert buffers.memory is not None
        self.buffers, self.memory = buffers, buffers.memory
        self.peepholes, *affine = extras
        for norm in filter(None, self.norms):
            norm.begin(*affine[:2])
            del affine[:2]

    def forward(self, step: int, rows: int) -> None:
        gates, product = self.buffers.gates[step, :rows], self.buffers.products[0, :rows]
        outer, inner, last = self.norms
        old, new = self.memory[step, :rows], self.memory[step + 1, :rows]
        if outer is not None:
            gates.copy_(outer.forward(step, gates))
        gates += product if inner is None else inner.forward(step, product)
        enter, keep, cell, leave = gates.chunk(4, dim=1)
        if self.peepholes is not None:
            enter.addcmul_(old, self.peepholes[0])
            keep.addcmul_(old, self.peepholes[1])
        gates[:, : 2 * old.size(1)].sigmoid_()
        cell.tanh_()
        torch.mul(keep, old, out=new)
        new.addcmul_(enter, cell)
        if self.peepholes is not None:
            leave.addcmul_(new, self.peepholes[2])
        leave.sigmoid_()
        shown = new if last is None else last.forward(step, new)
        squashed = torch.tanh(shown, out=self.squashed[step, :rows])
        self._keep(step, rows, leave * squashed)

    def _keep(self, step: int, rows: int, hidden: Tensor) -> None:
        before, after = self.buffers.hidden[step, :rows], self.buffers.hidden[step + 1, :rows]
        zone, zone_memory = zone_of(self.zones[0], step, rows), zone_of(self.zones[1], step, rows)
        after.copy_(hidden if zone is None else torch.lerp(hidden, before, zone))
        if zone_memory is not None:
            self.memory[step + 1, :rows].lerp_(self.memory[step, :rows], zone_memory)

    def release(self) -> list[Tensor]:
        return [self.squashed, *(part for norm in self.norms if norm is not None for part in norm.release())]

    def begin_backward(self, buffers: Buffers, extras: Extras, kept: Sequence[Tensor], slopes: Slopes) -> None:
        assert slopes.memory is not None
        self._bind(buffers, extras)
        self.squashed, *rest = kept
        self.slopes, self.memory_slope = slopes, slopes.memory
        for norm in filter(None, self.norms):
            rest = norm.begin_backward(rest)
        self.peephole_slope = None if self.peepholes is None else torch.zeros_like(self.peepholes)

    def backward(self, step: int, rows: int) -> None:
        enter, keep, cell, leave = self.buffers.gates[step, :rows].chunk(4, dim=1)
        slope, memory, old = self.slopes.hidden[:rows], self.memory_slope[:rows], self.memory[step, :rows]
        squashed = self.squashed[step, :rows]
        if self.slopes.outputs is not None:
            slope += self.slopes.outputs[step, :rows]
        share, kept = keep_part(slope, zone_of(self.zones[0], step, rows))
        inside, memory_kept = keep_part(memory, zone_of(self.zones[1], step, rows))
        leave_slope = _aten.sigmoid_backward(share * squashed, leave)
        shown = _aten.tanh_backward(share * leave, squashed)
        last = self.norms[2]
        inside = inside + (shown if last is None else last.backward(step, shown))
        if self.peepholes is not None:
            inside.addcmul_(leave_slope, self.peepholes[2])
        enter_slope = _aten.sigmoid_backward(inside * cell, enter)
        keep_slope = _aten.sigmoid_backward(inside * old, keep)
        cell_slope = _aten.tanh_backward(inside * enter, cell)
        torch.mul(inside, keep, out=memory)
        if self.peepholes is not None and self.peephole_slope is not None:
            memory.addcmul_(enter_slope, self.peepholes[0]).addcmul_(keep_slope, self.peepholes[1])
            new = torch.addcmul(enter * cell, keep, old)  # what the output gate saw, before zoneout
            pairs = ((enter_slope, old), (keep_slope, old), (leave_slope, new))
            self.peephole_slope += torch.stack([(one * other).sum(dim=0) for one, other in pairs])
        if memory_kept is not None:
            memory += memory_kept
        if kept is not None:
            slope.copy_(kept)
        self._write(step, rows, torch.cat([enter_slope, keep_slope, cell_slope, leave_slope], dim=1))

    def _write(self, step: int, rows: int, gates: Tensor) -> None:
        """Gradients of the gates through the normalisations of their two shares."""
        outer, inner, _ = self.norms
        if self.own_slopes:
            self.slopes.products[step, :rows] = gates if inner is None else inner.backward(step, gates)
        self.slopes.gates[step, :rows] = gates if outer is None else outer.backward(step, gates)

    def gradients(self) -> Extras:
        norms = [part for norm in self.norms if norm is not None for part in norm.gradients()]
        return self.peephole_slope, *norms


class GRUSteps:
    """Gates in the order reset, update, new; the new gate's product is multiplied with the reset gate, as in torch.

    Extras: the product's gains (with ``norms``: of reset and update together, and of new alone) and its bias.
    """

    keeps_products, own_slopes, direct = True, True, True

    def __init__(self, *, zone: Zone = None, norms: tuple[StepNorm, StepNorm] | None = None) -> None:
        self.zones: Extras = (zone,)
        self.norms = norms

    def begin(self, buffers: Buffers, extras: Extras) -> None:
        self._bind(buffers, extras)

    def _bind(self, buffers: Buffers, extras: Extras) -> None:
        self.buffers, (self.gain, self.bias) = buffers, extras
        self.size = buffers.hidden.size(2)
        if self.norms is not None:
            assert self.gain is not None
            self.norms[0].begin(self.gain[: 2 * self.size], None)
            self.norms[1].begin(self.gain[2 * self.size :], None)

    def forward(self, step: int, rows: int) -> None:
        gates, product = self.buffers.gates[step, :rows], self.buffers.products[step, :rows]
        old, size = self.buffers.hidden[step, :rows], self.size
        if self.norms is not None:
            product[:, : 2 * size] = self.norms[0].forward(step, product[:, : 2 * size])
            product[:, 2 * size :] = self.norms[1].forward(step, product[:, 2 * size :])
        if self.bias is not None:
            product += self.bias
        gates[:, : 2 * size].add_(product[:, : 2 * size]).sigmoid_()
        reset, update, new = gates.chunk(3, dim=1)
        new.addcmul_(reset, product[:, 2 * size :]).tanh_()
        hidden, zone = torch.lerp(new, old, update), zone_of(self.zones[0], step, rows)
        self.buffers.hidden[step + 1, :rows] = hidden if zone is None else torch.lerp(hidden, old, zone)

    def release(self) -> list[Tensor]:
        return [part for norm in self.norms or () for part in norm.release()]

    def begin_backward(self, buffers: Buffers, extras: Extras, kept: Sequence[Tensor], slopes: Slopes) -> None:
        self._bind(buffers, extras)
        self.slopes, rest = slopes, list(kept)
        self.bias_slope = None if self.bias is None else torch.zeros_like(self.bias)
        for norm in self.norms or ():
            rest = norm.begin_backward(rest)

    def backward(self, step: int, rows: int) -> None:
        reset, update, new = self.buffers.gates[step, :rows].chunk(3, dim=1)
        slope, old, size = self.slopes.hidden[:rows], self.buffers.hidden[step, :rows], self.size
        inner = self.buffers.products[step, :rows, 2 * size :]
        if self.slopes.outputs is not None:
            slope += self.slopes.outputs[step, :rows]
        share, kept = keep_part(slope, zone_of(self.zones[0], step, rows))
        update_slope = _aten.sigmoid_backward(share * (old - new), update)
        new_slope = _aten.tanh_backward(share * (1.0 - update), new)
        reset_slope = _aten.sigmoid_backward(new_slope * inner, reset)
        slope.copy_(share * update)
        if kept is not None:
            slope += kept
        self.slopes.gates[step, :rows] = torch.cat([reset_slope, update_slope, new_slope], dim=1)
        products = torch.cat([reset_slope, update_slope, new_slope * reset], dim=1)
        if self.bias_slope is not None:
            self.bias_slope += products.sum(dim=0)
        if self.norms is not None:
            parts = products[:, : 2 * size], products[:, 2 * size :]
            normed = [norm.backward(step, part) for norm, part in zip(self.norms, parts, strict=True)]
            products = torch.cat(normed, dim=1)
        self.slopes.products[step, :rows] = products

    def gradients(self) -> Extras:
        if self.norms is None:
            return None, self.bias_slope
        gains = [norm.gradients()[0] for norm in self.norms]
        return torch.cat([part for part in gains if part is not None]), self.bias_slope
