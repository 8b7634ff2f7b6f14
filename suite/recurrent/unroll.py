"""A recurrence over time inside one autograd function: the part that all hand-written cells share.

The inputs' share of all gates comes in as one product; the loop adds the state's share, one product a step; backward,
the gradient of the recurrent weight is one product after the loop. Rows are sorted by length and leave the batch as
they end, so padding costs nothing and final states are right without further ado.

What happens between the products is a *recurrence* (``suite/recurrent/steps.py`` in torch, ``kernels.py`` in one pass
over memory): ``forward(t, n)`` turns the gates of step ``t`` into states for the first ``n`` rows, ``backward(t, n)``
turns the states' gradients into the gates'.
"""

from collections.abc import Callable, Sequence
from copy import copy
from itertools import islice
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from suite.recurrent.first_order import first_order

State = tuple[Tensor, ...]
Extras = tuple[Tensor | None, ...]


class Schedule(NamedTuple):
    """Which rows run at which step: ``counts[t]`` of them, the longest first.

    ``order`` sorts a batch so and ``inverse`` undoes it; both are ``None`` where all rows are full. ``lengths`` are
    the sorted ones, on the device.
    """

    counts: list[int]
    lengths: Tensor
    order: Tensor | None
    inverse: Tensor | None


def make_schedule(lengths: Tensor, steps: int, *, full: bool = False) -> Schedule:
    """The schedule of ``lengths (B,)`` within ``steps``; lengths are read on the CPU, as packing does.

    ``full`` runs all rows at all steps, and does not look at the lengths, which would stop an accelerator.
    """
    if full:
        return Schedule([len(lengths)] * steps, lengths, None, None)
    known = lengths.cpu()
    if bool((known == steps).all()):
        return Schedule([len(known)] * steps, lengths, None, None)
    ordered, order = known.sort(descending=True, stable=True)
    longest = int(ordered[0])
    counts = (ordered.unsqueeze(0) > torch.arange(longest).unsqueeze(1)).sum(dim=1)
    order = order.to(lengths.device)
    return Schedule(counts.tolist(), ordered.to(lengths.device), order, order.argsort())


class _Rows(torch.autograd.Function):
    """Rows (dimension 1) in another order; the gradient is a gather as well, and nothing is scattered."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.order, ctx.inverse = order, inverse
        return inputs.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Rows.apply(grads[0], ctx.inverse, ctx.order), None, None


def to_time_major(inputs: Tensor, schedule: Schedule) -> Tensor:
    """``(B, T, D)`` to ``(longest, B, D)``, rows in the schedule's order."""
    turned = inputs[:, : len(schedule.counts)].transpose(0, 1)
    return turned if schedule.order is None else _Rows.apply(turned, schedule.order, schedule.inverse)


def to_batch_major(outputs: Tensor, schedule: Schedule, steps: int) -> Tensor:
    """``(longest, B, H)`` back to ``(B, steps, H)``, zero at padding."""
    if schedule.order is not None:
        outputs = _Rows.apply(outputs, schedule.inverse, schedule.order)
    turned = outputs.transpose(0, 1)
    missing = steps - turned.size(1)
    return torch.nn.functional.pad(turned, (0, 0, 0, missing)) if missing else turned


class Buffers(NamedTuple):
    """What a pass works on. States have one step more than gates: index 0 is the state before the first.

    ``gates (T, B, G)`` hold the inputs' share and are overwritten; ``products (T or 1, B, G)`` the state's share.
    """

    gates: Tensor
    products: Tensor
    hidden: Tensor
    memory: Tensor | None


class Slopes(NamedTuple):
    """Gradients under way: of ``hidden`` and ``memory`` ``(B, H)``, ``gates`` and ``products`` ``(T, B, G)``."""

    hidden: Tensor
    memory: Tensor | None
    gates: Tensor
    products: Tensor
    outputs: Tensor | None


class Recurrence(Protocol):
    """What stands between the products of a step. ``extras`` are its own parameters, in a fixed order."""

    keeps_products: bool  # the backward pass needs the products of all steps
    own_slopes: bool  # the gradient of the products is another than that of the gates
    direct: bool  # the state before a step has a gradient that does not go through the product
    zones: Extras  # zoneout's masks

    def begin(self, buffers: Buffers, extras: Extras) -> None:
        """Before the first step."""

    def forward(self, step: int, rows: int) -> None:
        """Gates, products and the states before the step to the states after it."""

    def release(self) -> list[Tensor]:
        """What the backward pass needs beside buffers, extras and zones; nothing of it is held on to."""

    def begin_backward(self, buffers: Buffers, extras: Extras, kept: Sequence[Tensor], slopes: Slopes) -> None:
        """Before the last step, with what was released."""

    def backward(self, step: int, rows: int) -> None:
        """Gradients of gates and products from those of the states, whose direct part is left in their place."""

    def gradients(self) -> Extras:
        """Of ``extras``, in their order."""


class Unroll(torch.autograd.Function):
    """``apply(recurrence, schedule, gates, weight, hidden, memory, *extras)``.

    ``gates (T, B, G)`` belong to this function from now on: they are overwritten. ``weight (G, H)``, or ``(H,)`` for a
    state that is multiplied element by element. ``hidden`` and ``memory`` ``(B, H)`` in the schedule's order;
    ``memory`` may be ``None``. Gives the hidden states ``(T, B, H)``, zero where a row has ended, and both final ones.
    """

    @staticmethod
    def forward(
        ctx: Any,
        recurrence: Recurrence,
        schedule: Schedule,
        gates: Tensor,
        weight: Tensor,
        hidden: Tensor,
        memory: Tensor | None,
        *extras: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        counts, (steps, batch, width) = schedule.counts, gates.shape
        products = gates.new_empty(steps if recurrence.keeps_products else 1, batch, width)
        buffers = Buffers(gates, products, _states(hidden, schedule), _maybe_states(memory, schedule))
        worker = copy(recurrence)
        worker.begin(buffers, extras)
        multiply = _product(weight)
        for step, rows in enumerate(counts):
            target = products[step if recurrence.keeps_products else 0]
            multiply(buffers.hidden[step], target, rows)
            worker.forward(step, rows)
        # Tensors go through autograd, which can let go of them and compute them again (checkpointing over time).
        ctx.recurrence, ctx.schedule, ctx.counts = recurrence, schedule, (4, len(extras), len(recurrence.zones))
        ctx.save_for_backward(weight, *buffers, *extras, *recurrence.zones, *worker.release())
        recurrence.zones = ()
        ctx.set_materialize_grads(False)
        last = None if buffers.memory is None else _last(buffers.memory, schedule)
        return buffers.hidden[1:], _last(buffers.hidden, schedule), last

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor | None) -> Extras:
        outputs, hidden, memory = grads
        recurrence, schedule, saved = copy(ctx.recurrence), ctx.schedule, iter(ctx.saved_tensors)
        weight = next(saved)
        own, extras, recurrence.zones = (tuple(islice(saved, count)) for count in ctx.counts)
        buffers = Buffers(*own)
        empty = torch.empty_like if schedule.order is None else torch.zeros_like
        gates = empty(buffers.gates)
        slopes = Slopes(
            _start(hidden, buffers.hidden),
            None if buffers.memory is None else _start(memory, buffers.memory),
            gates,
            empty(buffers.gates) if recurrence.own_slopes else gates,
            None if outputs is None else outputs.contiguous(),
        )
        recurrence.begin_backward(buffers, extras, tuple(saved), slopes)
        for step in reversed(range(len(schedule.counts))):
            rows = schedule.counts[step]
            recurrence.backward(step, rows)
            _add_slope(slopes.hidden[:rows], slopes.products[step, :rows], weight, direct=recurrence.direct)
        slope = _weight_gradient(slopes.products, buffers.hidden[:-1], weight)
        gradients = recurrence.gradients()
        recurrence.release()
        return None, None, gates, slope, slopes.hidden, slopes.memory, *gradients


def _states(start: Tensor, schedule: Schedule) -> Tensor:
    shape = (len(schedule.counts) + 1, *start.shape)
    # Rows that have ended are outputs too, and meet zeros in the weight's gradient.
    states = start.new_empty(shape) if schedule.order is None else start.new_zeros(shape)
    states[0] = start
    return states


def _maybe_states(start: Tensor | None, schedule: Schedule) -> Tensor | None:
    return None if start is None else _states(start, schedule)


def _last(states: Tensor, schedule: Schedule) -> Tensor:
    if schedule.order is None:
        return states[-1].clone()
    return states[schedule.lengths, torch.arange(states.size(1), device=states.device)]


def _start(slope: Tensor | None, states: Tensor) -> Tensor:
    if slope is None:
        return states.new_zeros(states.shape[1:])
    return slope.to(states.dtype).clone(memory_format=torch.contiguous_format)


def _product(weight: Tensor) -> Any:
    """A function that writes ``states @ weight.T`` of the first rows into ``target``."""
    if weight.dim() == 1:
        return lambda states, target, rows: torch.mul(states[:rows], weight, out=target[:rows])
    turned = weight.t().contiguous()  # a quarter faster than multiplying with the transposed view, step by step

    def multiply(states: Tensor, target: Tensor, rows: int) -> None:
        if states.dtype == turned.dtype:
            torch.mm(states[:rows], turned, out=target[:rows])
        else:  # autocast: products in its precision, states in float32
            target[:rows] = torch.mm(states[:rows].to(turned.dtype), turned)

    return multiply


def _add_slope(hidden: Tensor, products: Tensor, weight: Tensor, *, direct: bool) -> None:
    if weight.dim() == 1:
        torch.addcmul(hidden, products, weight, out=hidden) if direct else torch.mul(products, weight, out=hidden)
    elif products.dtype != weight.dtype:
        through = torch.mm(products.to(weight.dtype), weight)
        hidden.add_(through) if direct else hidden.copy_(through)
    elif direct:
        hidden.addmm_(products, weight)
    else:
        torch.mm(products, weight, out=hidden)


def _weight_gradient(products: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    if weight.dim() == 1:
        return torch.einsum("tbh,tbh->h", products, hidden)
    rows, states = products.flatten(0, 1).to(weight.dtype), hidden.flatten(0, 1).to(weight.dtype)
    return rows.t() @ states


def exact(values: Tensor) -> Tensor:
    """In at least float32: the precision of states, also under autocast."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def start_of(
    state: State | None, gates: Tensor, schedule: Schedule, *, batch: int, size: int, count: int
) -> tuple[Tensor, ...]:
    """The first state in the schedule's order and the precision of states, zeros if none is given."""
    dtype = torch.float64 if gates.dtype == torch.float64 else torch.float32
    if state is None:
        zeros = gates.new_zeros(batch, size, dtype=dtype)
        return (zeros,) * count
    parts = [part.to(dtype) for part in state[:count]]
    return tuple(part if schedule.order is None else part.index_select(0, schedule.order) for part in parts)


def run(
    recurrence: Any,
    gates: Tensor,
    weight: Tensor,
    start: tuple[Tensor, ...],
    schedule: Schedule,
    *,
    extras: Extras,
    steps: int,
    unroll: Callable[..., tuple[Tensor | None, ...]] = Unroll.apply,
) -> tuple[Tensor, State]:
    """Unroll over time; outputs batch first in the precision of ``gates``, the final state in that of states.

    ``unroll`` takes what ``Unroll.apply`` does and gives the same; what a recurrence is to it is its own affair.
    """
    device = gates.device.type
    if weight.dim() == 1:
        weight = weight.to(start[0].dtype)
    elif weight.dtype == torch.float32 and torch.is_autocast_enabled(device):
        weight = weight.to(torch.get_autocast_dtype(device))
    memory = start[1] if len(start) > 1 else None
    own = [None if part is None else part.to(start[0].dtype) for part in extras]
    outputs, *final = unroll(recurrence, schedule, exact(gates).contiguous(), weight, start[0], memory, *own)
    assert outputs is not None
    parts = [part for part in final if part is not None]
    if schedule.inverse is not None:
        parts = [part.index_select(0, schedule.inverse) for part in parts]
    return to_batch_major(outputs.to(gates.dtype), schedule, steps), tuple(parts)
