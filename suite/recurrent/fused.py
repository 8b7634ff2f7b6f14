"""One layer, one direction, on the fused kernels of ``torch.nn``, right for ragged lengths on every device.

Packing gives exact final states but leaves the fast path: on CPU it costs more than twice the padded call, on a GPU in
bfloat16 up to eight times, and there it waits for the lengths to reach the CPU. So the padded batch goes through the
fused kernel, and the final states are made right by other means:

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

from suite.dropout import Dropout
from suite.process import has_bfloat16
from suite.recurrent.dropout import Zoneout
from suite.recurrent.gpu.steps import GRU, PEEPHOLE_LSTM, Cell, runs_on_gpu, vanilla_cell
from suite.recurrent.gpu.unroll import unroll_on_gpu
from suite.recurrent.steps import GRUSteps, LSTMSteps, VanillaSteps
from suite.recurrent.unroll import Extras, Recurrence, State, make_schedule, run, start_of, to_time_major
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
        return self._padded(inputs, lengths, state, weight)

    def _single_step(
        self, inputs: Tensor, lengths: Tensor, state: State | None, weight: Tensor | None
    ) -> tuple[Tensor, State]:
        outputs, final = self._run(inputs, state, weight)
        return self._keep_empty_rows(outputs, final, lengths, state)

    def _padded(
        self, inputs: Tensor, lengths: Tensor, state: State | None, weight: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if inputs.device.type == "cpu" and bool((lengths == inputs.size(1)).all()):
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
        rnn = self.rnn
        if weight is None and inputs.device.type == "cpu":
            outputs, final = rnn(inputs, self._expand(state))
            return outputs, self._squeeze(final)
        weights = [rnn.weight_ih_l0, rnn.weight_hh_l0 if weight is None else weight, rnn.bias_ih_l0, rnn.bias_hh_l0]
        return self._call(inputs, state, weights, whole=weight is None)

    def _call(
        self, inputs: Tensor, state: State | None, weights: list[Tensor], *, whole: bool = False
    ) -> tuple[Tensor, State]:
        """The fused kernel on these weights, which a GPU wants in one piece of memory; ``whole`` are those of ``rnn``.

        What training needs is kept wherever gradients are: of a module in eval a GPU would refuse them.
        """
        zeros = inputs.new_zeros(len(inputs), self.rnn.hidden_size)
        start = self._expand(state or (zeros,) * self.num_states)
        if inputs.device.type != "cpu":
            weights = self.rnn._flat_weights if whole else _in_one_piece(weights)
        keeps = self.training or torch.is_grad_enabled()
        outputs, *final = _FUNCTIONS[self.cell](inputs, start, weights, True, 1, 0.0, keeps, False, True)
        return outputs, self._squeeze(tuple(final))

    def _unrolled(
        self, inputs: Tensor, lengths: Tensor, state: State | None, weight: Tensor | None
    ) -> tuple[Tensor, State]:
        rnn, size = self.rnn, self.rnn.hidden_size
        on_gpu = runs_on_gpu(inputs, size=size)
        schedule = make_schedule(lengths, inputs.size(1), full=on_gpu)
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
        width = _flag_columns(inputs)
        padding = ~length_mask(lengths, inputs.size(1)).unsqueeze(2)
        flag = rnn.weight_ih_l0.new_zeros(rnn.weight_ih_l0.size(0), width)
        if self.cell == "lstm":  # input gate, forget gate
            flag[:hidden, 0], flag[hidden : 2 * hidden, 0] = -_SATURATED, _SATURATED
        else:
            flag[:, 0] = -_CLOSED_HALF if _computes_in(inputs) == torch.float16 else -_CLOSED
        recurrent = rnn.weight_hh_l0 if recurrent is None else recurrent
        weights = [torch.cat([rnn.weight_ih_l0, flag], dim=1), recurrent, rnn.bias_ih_l0, rnn.bias_hh_l0]
        seen = torch.cat([inputs, padding.to(inputs.dtype).expand(-1, -1, width)], dim=2)
        return self._call(seen, state, weights)

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


def _in_one_piece(weights: list[Tensor]) -> list[Tensor]:
    """The same weights as parts of one piece of memory, in the order that cuDNN has them in."""
    flat = torch.cat([weight.flatten() for weight in weights])
    parts = flat.split([weight.numel() for weight in weights])
    return [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]


def _flag_columns(inputs: Tensor) -> int:
    """Inputs to add, of which the first is looked at: as many as give a GPU the sizes that its fastest kernels want.

    In half precision cuDNN keeps an LSTM's weights on the chip for sizes that are multiples of 128: seven times faster.
    """
    if inputs.device.type == "cpu":
        return 1
    unit = 8 if _computes_in(inputs) in (torch.float32, torch.float64) else 128
    return unit - inputs.size(2) % unit


def _computes_in(inputs: Tensor) -> torch.dtype:
    """Of torch's cells; under autocast, to whatever, those of a GPU run in float16."""
    device = inputs.device.type
    if not torch.is_autocast_enabled(device) or inputs.dtype == torch.float64:
        return inputs.dtype
    return torch.get_autocast_dtype(device) if device == "cpu" else torch.float16


def _lacks_kernels(inputs: Tensor) -> bool:
    """Whether autocast asks for a precision that torch's LSTM has no kernel for on this CPU: float32 stays."""
    if inputs.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return False
    asked = torch.get_autocast_dtype("cpu")
    return asked == torch.float16 or (asked == torch.bfloat16 and not has_bfloat16("cpu"))
