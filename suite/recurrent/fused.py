"""One layer, one direction, on the fused kernels of ``torch.nn``, right for ragged lengths on every device.

Packing gives exact final states but leaves the fast path on CPU (it costs more than twice the padded call, forward and
backward), so it is used on accelerators alone. On CPU the padded batch goes through the fused kernel and the final
states are made right by other means:

- the final output of each row is gathered at its last valid step;
- an ``rnn_relu`` that ran on through padding could overflow there, and a gradient of zero times infinity is none: one
  more input, 1 at padding and 0 elsewhere, with a constant weight far below zero, sets it to zero there;
- the cell state of an LSTM does not appear among the outputs, so every step gets one more input, 1 at padding and 0
  elsewhere, with constant weights that close the input gate and open the forget gate there: the sigmoid is then exactly
  0 or 1 in floating point, and the cell state passes through padding unchanged, with its gradient.
"""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from suite.dropout import Dropout
from suite.process import has_bfloat16
from suite.recurrent.dropout import Zoneout
from suite.recurrent.gpu.steps import GRU, PEEPHOLE_LSTM, Cell, runs_on_gpu, vanilla_cell
from suite.recurrent.gpu.unroll import unroll_on_gpu
from suite.recurrent.steps import GRUSteps, LSTMSteps, VanillaSteps
from suite.recurrent.unroll import (
    Extras,
    Recurrence,
    State,
    full_schedule,
    make_schedule,
    run,
    start_of,
    to_time_major,
)
from suite.sequence import last_valid, length_mask, mask_steps

FusedCell = Literal["rnn_tanh", "rnn_relu", "lstm", "gru"]

_FUNCTIONS: dict[str, Any] = {
    "rnn_tanh": torch.rnn_tanh,
    "rnn_relu": torch.rnn_relu,
    "lstm": torch.lstm,
    "gru": torch.gru,
}
_MODULES = {"rnn_tanh": nn.RNN, "rnn_relu": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
# Far beyond where a sigmoid saturates in float32, float64 and bfloat16, and far from overflow in float16.
_SATURATED = 1e4
# Far below what any state's share of a ReLU can be, finite in every precision but float16, and what is left there.
_CLOSED, _CLOSED_HALF = 1e30, 6e4


class FusedLayer(nn.Module):
    """A single recurrent layer in one direction.

    Args:
        input_size: features of an input step (D).
        hidden_size: features of the state (H).
        cell: which recurrence.
        weight_dropout: probability of dropping a recurrent weight.
        zoneout: probability that a hidden unit keeps its value for a step; no fused kernel has it, so that such a layer
            runs step by step.
        zoneout_memory: the same for an LSTM's cell state.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        cell: FusedCell,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        zoneout_memory: float = 0.0,
    ) -> None:
        super().__init__()
        self.cell = cell
        options = {"nonlinearity": cell.removeprefix("rnn_")} if cell.startswith("rnn_") else {}
        self.rnn = _MODULES[cell](input_size, hidden_size, batch_first=True, **options)
        self.weight_dropout = Dropout(weight_dropout)
        self.zoneout, self.zoneout_memory = Zoneout(zoneout), Zoneout(zoneout_memory)

    @property
    def num_states(self) -> int:
        """Tensors in the state: hidden, and for an LSTM also the cell."""
        return 2 if self.cell == "lstm" else 1

    def draw_weight(self) -> Tensor | None:
        """The recurrent weight with some of it dropped, for one pass; ``None`` where nothing is."""
        return self.weight_dropout(self.rnn.weight_hh_l0) if self.training and self.weight_dropout.p else None

    def recurrent_weights(self) -> list[nn.Parameter]:
        """Weights between states, which penalties may be for."""
        return [self.rnn.weight_hh_l0]

    def forward(
        self, inputs: Tensor, lengths: Tensor, state: State | None = None, weight: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run over ``inputs (B, T, D)``; gives outputs ``(B, T, H)``, zero at padding, and the final state.

        ``state`` is a tuple of ``num_states`` tensors ``(B, H)``, as is the final state: the one after each row's last
        valid step. A row of length zero keeps the state that it came with. ``weight`` stands in for the recurrent
        weight where some of it is dropped.
        """
        if not inputs.size(1):
            # Sums of nothing: a loss of a batch without a step has a gradient, zero, as with any other cell.
            nothing = inputs.sum() + torch.stack([weight[:0].sum() for weight in self.rnn.parameters()]).sum()
            zeros = inputs.new_zeros(len(inputs), self.rnn.hidden_size) + nothing.to(inputs.dtype)
            return zeros.unsqueeze(1)[:, :0], (zeros,) * self.num_states if state is None else state
        if state is not None and not torch.is_autocast_enabled(inputs.device.type):
            state = tuple(part.to(inputs.dtype) for part in state)
        if _lacks_kernels(inputs):
            with torch.autocast("cpu", enabled=False):
                start = None if state is None else tuple(part.float() for part in state)
                return self.forward(inputs.float(), lengths, start, weight)
        if self.zoneout.p or self.zoneout_memory.p:
            return self._unrolled(inputs, lengths, state, weight)
        if inputs.size(1) == 1:
            return self._single_step(inputs, lengths, state, weight)
        if inputs.device.type != "cpu" and weight is None:
            return self._packed(inputs, lengths, state)
        return self._padded(inputs, lengths, state, weight)

    def _single_step(
        self, inputs: Tensor, lengths: Tensor, state: State | None, weight: Tensor | None
    ) -> tuple[Tensor, State]:
        outputs, final = self._run(inputs, state, weight)
        return self._keep_empty_rows(outputs, final, lengths, state)

    def _packed(self, inputs: Tensor, lengths: Tensor, state: State | None) -> tuple[Tensor, State]:
        # Packing refuses empty rows: they run one step, which is undone afterwards.
        packed = pack_padded_sequence(inputs, lengths.clamp_min(1).cpu(), batch_first=True, enforce_sorted=False)
        outputs, final = self.rnn(packed, self._expand(state))
        outputs = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.size(1))[0]
        return self._keep_empty_rows(outputs, self._squeeze(final), lengths, state)

    def _padded(
        self, inputs: Tensor, lengths: Tensor, state: State | None, weight: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if bool((lengths == inputs.size(1)).all()):
            return self._run(inputs, state, weight)
        if self.cell == "lstm":
            outputs, (_, memory) = self._run_flagged(inputs, lengths, state, weight)
            final: State = (last_valid(outputs, lengths), memory)
        else:
            flagged = self.cell == "rnn_relu"
            outputs, _ = (
                self._run_flagged(inputs, lengths, state, weight) if flagged else self._run(inputs, state, weight)
            )
            final = (last_valid(outputs, lengths),)
        return self._keep_empty_rows(mask_steps(outputs, lengths), final, lengths, state)

    def _run(self, inputs: Tensor, state: State | None, weight: Tensor | None) -> tuple[Tensor, State]:
        if weight is None:
            outputs, final = self.rnn(inputs, self._expand(state))
            return outputs, self._squeeze(final)
        zeros = inputs.new_zeros(len(inputs), self.rnn.hidden_size)
        start = self._expand(state or (zeros,) * self.num_states)
        flat = [self.rnn.weight_ih_l0, weight, self.rnn.bias_ih_l0, self.rnn.bias_hh_l0]
        outputs, *final = _FUNCTIONS[self.cell](inputs, start, flat, True, 1, 0.0, self.training, False, True)
        return outputs, self._squeeze(tuple(final))

    def _unrolled(
        self, inputs: Tensor, lengths: Tensor, state: State | None, weight: Tensor | None
    ) -> tuple[Tensor, State]:
        rnn, size = self.rnn, self.rnn.hidden_size
        on_gpu = runs_on_gpu(inputs, size=size)
        schedule = (full_schedule if on_gpu else make_schedule)(lengths, inputs.size(1))
        bias = rnn.bias_ih_l0 if self.cell == "gru" else rnn.bias_ih_l0 + rnn.bias_hh_l0
        gates = nn.functional.linear(to_time_major(inputs, schedule), rnn.weight_ih_l0, bias)
        start = start_of(state, gates, schedule, batch=len(inputs), size=size, count=self.num_states)
        zone, zone_memory = (each.draw(len(gates), start[0]) for each in (self.zoneout, self.zoneout_memory))
        weight = rnn.weight_hh_l0 if weight is None else weight
        if on_gpu:
            cell, own = self._gpu_cell(start[0])
            unroll = partial(unroll_on_gpu, zones=(zone, zone_memory))
            return run(cell, gates, weight, start, schedule, extras=own, steps=inputs.size(1), unroll=unroll)
        recurrence: Recurrence
        extras: Extras = ()
        if self.cell == "lstm":
            recurrence, extras = LSTMSteps(zone=zone, zone_memory=zone_memory), (None,)
        elif self.cell == "gru":
            recurrence, extras = GRUSteps(zone=zone), (None, rnn.bias_hh_l0)
        else:
            recurrence = VanillaSteps(self.cell.removeprefix("rnn_"), zone=zone)
        return run(recurrence, gates, weight, start, schedule, extras=extras, steps=inputs.size(1))

    def _gpu_cell(self, start: Tensor) -> tuple[Cell, Extras]:
        """The kernels of a hand-written cell that comes to the same, and its own parameters."""
        if self.cell == "lstm":
            return PEEPHOLE_LSTM, (start.new_zeros(3, start.size(1)),)
        if self.cell == "gru":
            return GRU, (start.new_ones(3 * start.size(1)), self.rnn.bias_hh_l0)
        return vanilla_cell(self.cell.removeprefix("rnn_")), ()

    def _run_flagged(
        self, inputs: Tensor, lengths: Tensor, state: State | None, recurrent: Tensor | None
    ) -> tuple[Tensor, State]:
        """Run with one more input, 1 at padding, whose weights keep an LSTM's memory or set a ReLU to zero there."""
        rnn, hidden = self.rnn, self.rnn.hidden_size
        padding = ~length_mask(lengths, inputs.size(1)).unsqueeze(2)
        flag = rnn.weight_ih_l0.new_zeros(rnn.weight_ih_l0.size(0), 1)
        if self.cell == "lstm":  # input gate, forget gate
            flag[:hidden], flag[hidden : 2 * hidden] = -_SATURATED, _SATURATED
        else:
            flag.fill_(-_CLOSED_HALF if _computes_in(inputs) == torch.float16 else -_CLOSED)
        zeros = inputs.new_zeros(len(inputs), hidden)
        start = self._expand(state or (zeros,) * self.num_states)
        recurrent = rnn.weight_hh_l0 if recurrent is None else recurrent
        flat = [torch.cat([rnn.weight_ih_l0, flag], dim=1), recurrent, rnn.bias_ih_l0, rnn.bias_hh_l0]
        seen = torch.cat([inputs, padding.to(inputs.dtype)], dim=2)
        outputs, *final = _FUNCTIONS[self.cell](seen, start, flat, True, 1, 0.0, self.training, False, True)
        return outputs, self._squeeze(tuple(final))

    def _keep_empty_rows(
        self, outputs: Tensor, final: State, lengths: Tensor, state: State | None
    ) -> tuple[Tensor, State]:
        empty = (lengths == 0).unsqueeze(1)
        if outputs.device.type == "cpu" and not bool(empty.any()):
            return outputs, final
        start = state if state is not None else tuple(torch.zeros_like(part) for part in final)
        kept = tuple(torch.where(empty, old.to(new.dtype), new) for old, new in zip(start, final, strict=True))
        return outputs.masked_fill(empty.unsqueeze(2), 0.0), kept

    def _expand(self, state: State | None) -> Tensor | tuple[Tensor, ...] | None:
        if state is None:
            return None
        parts = tuple(part.unsqueeze(0).contiguous() for part in state)
        return parts if self.cell == "lstm" else parts[0]

    def _squeeze(self, final: Tensor | tuple[Tensor, ...]) -> State:
        parts = final if isinstance(final, tuple) else (final,)
        return tuple(part.squeeze(0) for part in parts)


def _computes_in(inputs: Tensor) -> torch.dtype:
    device = inputs.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else inputs.dtype


def _lacks_kernels(inputs: Tensor) -> bool:
    """Whether autocast asks for a precision that torch's LSTM has no kernel for on this CPU: float32 stays."""
    if inputs.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return False
    asked = torch.get_autocast_dtype("cpu")
    return asked == torch.float16 or (asked == torch.bfloat16 and not has_bfloat16("cpu"))
