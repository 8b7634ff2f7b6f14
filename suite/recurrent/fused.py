"""One layer, one direction, on the fused kernels of ``torch.nn``, right for ragged lengths on every device.

Packing gives exact final states but leaves the fast path on CPU (it costs more than twice the padded call, forward and
backward), so it is used on accelerators alone. On CPU the padded batch goes through the fused kernel and the final
states are made right by other means:

- the final output of each row is gathered at its last valid step;
- the cell state of an LSTM does not appear among the outputs, so every step gets one more input, 1 at padding and 0
  elsewhere, with constant weights that close the input gate and open the forget gate there: the sigmoid is then exactly
  0 or 1 in floating point, and the cell state passes through padding unchanged, with its gradient.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from suite.sequence import last_valid, length_mask, mask_steps

FusedCell = Literal["rnn_tanh", "rnn_relu", "lstm", "gru"]
State = tuple[Tensor, ...]

_MODULES = {"rnn_tanh": nn.RNN, "rnn_relu": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
# Far beyond where a sigmoid saturates in float32, float64 and bfloat16, and far from overflow in float16.
_SATURATED = 1e4


class FusedLayer(nn.Module):
    """A single recurrent layer in one direction.

    Args:
        input_size: features of an input step (D).
        hidden_size: features of the state (H).
        cell: which recurrence.
    """

    def __init__(self, input_size: int, hidden_size: int, *, cell: FusedCell) -> None:
        super().__init__()
        self.cell = cell
        options = {"nonlinearity": cell.removeprefix("rnn_")} if cell.startswith("rnn_") else {}
        self.rnn = _MODULES[cell](input_size, hidden_size, batch_first=True, **options)

    @property
    def num_states(self) -> int:
        """Tensors in the state: hidden, and for an LSTM also the cell."""
        return 2 if self.cell == "lstm" else 1

    def forward(self, inputs: Tensor, lengths: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run over ``inputs (B, T, D)``; gives outputs ``(B, T, H)``, zero at padding, and the final state.

        ``state`` is a tuple of ``num_states`` tensors ``(B, H)``, as is the final state: the one after each row's last
        valid step. A row of length zero keeps the state that it came with.
        """
        if inputs.size(1) == 1:
            return self._single_step(inputs, lengths, state)
        if inputs.device.type != "cpu":
            return self._packed(inputs, lengths, state)
        return self._padded(inputs, lengths, state)

    def _single_step(self, inputs: Tensor, lengths: Tensor, state: State | None) -> tuple[Tensor, State]:
        outputs, final = self._run(inputs, state)
        return self._keep_empty_rows(outputs, final, lengths, state)

    def _packed(self, inputs: Tensor, lengths: Tensor, state: State | None) -> tuple[Tensor, State]:
        # Packing refuses empty rows: they run one step, which is undone afterwards.
        packed = pack_padded_sequence(inputs, lengths.clamp_min(1).cpu(), batch_first=True, enforce_sorted=False)
        outputs, final = self.rnn(packed, self._expand(state))
        outputs = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.size(1))[0]
        return self._keep_empty_rows(outputs, self._squeeze(final), lengths, state)

    def _padded(self, inputs: Tensor, lengths: Tensor, state: State | None) -> tuple[Tensor, State]:
        if bool((lengths == inputs.size(1)).all()):
            return self._run(inputs, state)
        if self.cell != "lstm":
            outputs, _ = self._run(inputs, state)
            final: State = (last_valid(outputs, lengths),)
        else:
            outputs, (_, memory) = self._run_with_frozen_padding(inputs, lengths, state)
            final = (last_valid(outputs, lengths), memory)
        return self._keep_empty_rows(mask_steps(outputs, lengths), final, lengths, state)

    def _run(self, inputs: Tensor, state: State | None) -> tuple[Tensor, State]:
        outputs, final = self.rnn(inputs, self._expand(state))
        return outputs, self._squeeze(final)

    def _run_with_frozen_padding(self, inputs: Tensor, lengths: Tensor, state: State | None) -> tuple[Tensor, State]:
        batch, steps, _ = inputs.shape
        hidden = self.rnn.hidden_size
        padding = ~length_mask(lengths, steps).unsqueeze(2)
        gates = inputs.new_zeros(4, hidden, dtype=self.rnn.weight_ih_l0.dtype)  # input, forget, cell, output
        gates[0], gates[1] = -_SATURATED, _SATURATED
        weight = torch.cat([self.rnn.weight_ih_l0, gates.view(-1, 1)], dim=1)
        zeros = inputs.new_zeros(batch, hidden, dtype=inputs.dtype)
        start = tuple(part.unsqueeze(0).contiguous() for part in state or (zeros, zeros))
        flat = [weight, self.rnn.weight_hh_l0, self.rnn.bias_ih_l0, self.rnn.bias_hh_l0]
        outputs, *final = torch.lstm(
            torch.cat([inputs, padding.to(inputs.dtype)], dim=2), start, flat, True, 1, 0.0, self.training, False, True
        )
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
