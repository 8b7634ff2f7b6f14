"""The recurrent encoder that every domain shares: layers, directions, dropout and lengths around one kind of cell."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from suite.dropout import Dropout
from suite.errors import UsageError
from suite.recurrent.fused import FusedCell, FusedLayer, State
from suite.sequence import mask_steps, reverse_valid


class Encoded(NamedTuple):
    """What an encoder gives: ``outputs (B, T, output_size)``, zero at padding, the final state, ``lengths (B,)``."""

    outputs: Tensor
    state: State
    lengths: Tensor


class RecurrentEncoder(nn.Module):
    """A stack of recurrent layers over padded sequences with explicit lengths.

    The state is a value handed in and out, batch first: a tuple of tensors ``(B, num_layers * num_directions, H)``,
    hidden and for an LSTM also the cell, in the order of ``torch.nn`` (layer by layer, forward before backward).
    Outputs and states equal those of ``torch.nn`` on a packed sequence, without packing on CPU.

    Args:
        input_size: features of an input step (D).
        hidden_size: features of the state in each direction (H).
        cell: which recurrence.
        num_layers: layers on top of each other.
        bidirectional: read each layer's input backwards too, and concatenate.
        dropout: probability of dropping a layer's output before the next layer.

    Raises:
        UsageError: a size below one, or a dropout outside [0, 1).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        cell: FusedCell = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if size < 1:
                raise UsageError(f"{name} is {size}, allowed is 1 or more")
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.num_directions = 2 if bidirectional else 1
        self.output_size = hidden_size * self.num_directions
        sizes = [input_size] + [self.output_size] * (num_layers - 1)
        self.layers = nn.ModuleList(
            FusedLayer(size, hidden_size, cell=cell) for size in sizes for _ in range(self.num_directions)
        )
        self.dropout = Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot input weights, orthogonal recurrent weights by gate, zero biases, forget gates open (bias one)."""
        for layer in self.layers:
            assert isinstance(layer, FusedLayer)
            for name, parameter in layer.rnn.named_parameters():
                if name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(parameter)
                elif name.startswith("weight_hh"):
                    for gate in parameter.data.split(self.hidden_size):
                        nn.init.orthogonal_(gate)
                else:
                    nn.init.zeros_(parameter)
            if layer.cell == "lstm":  # the gates stand in the order input, forget, cell, output
                layer.rnn.bias_ih_l0.data[self.hidden_size : 2 * self.hidden_size] = 1.0

    @property
    def num_states(self) -> int:
        """Tensors in the state."""
        layer = self.layers[0]
        assert isinstance(layer, FusedLayer)
        return layer.num_states

    def forward(self, inputs: Tensor, lengths: Tensor, state: State | None = None) -> Encoded:
        """Encode ``inputs (B, T, D)`` of which the first ``lengths (B,)`` steps of each row are valid.

        Raises:
            UsageError: a state of another size than this encoder's, lengths outside 0 to T, or not one length a row.
        """
        self._check(inputs, lengths, state)
        # Whatever stands at padding, not even NaN may reach a gradient or a saturated gate. (Asking whether there is
        # any would stop an accelerator.)
        if inputs.device.type != "cpu" or not bool((lengths == inputs.size(1)).all()):
            inputs = mask_steps(inputs, lengths)
        finals: list[State] = []
        for number in range(self.num_layers):
            if number:
                inputs = self.dropout(inputs)
            outputs = []
            for direction in range(self.num_directions):
                index = number * self.num_directions + direction
                start = None if state is None else tuple(part[:, index] for part in state)
                output, final = self._run(index, inputs, lengths, start, backward=direction == 1)
                outputs.append(output)
                finals.append(final)
            inputs = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
        stacked = tuple(torch.stack(parts, dim=1) for parts in zip(*finals, strict=True))
        return Encoded(inputs, stacked, lengths)

    def _run(
        self, index: int, inputs: Tensor, lengths: Tensor, start: State | None, *, backward: bool
    ) -> tuple[Tensor, State]:
        layer = self.layers[index]
        if not backward:
            return layer(inputs, lengths, start)
        output, final = layer(reverse_valid(inputs, lengths), lengths, start)
        return reverse_valid(output, lengths), final

    def _check(self, inputs: Tensor, lengths: Tensor, state: State | None) -> None:
        if tuple(lengths.shape) != (inputs.size(0),):
            raise UsageError(f"lengths have shape {tuple(lengths.shape)}, expected one a row: ({inputs.size(0)},)")
        if inputs.device.type == "cpu" and lengths.numel():
            if int(lengths.max()) > inputs.size(1):
                raise UsageError(f"lengths reach {int(lengths.max())}, but the inputs have {inputs.size(1)} steps")
            if int(lengths.min()) < 0:
                raise UsageError(f"lengths go down to {int(lengths.min())}, allowed is 0 or more")
        if state is None:
            return
        expected = (inputs.size(0), len(self.layers), self.hidden_size)
        if len(state) != self.num_states or any(tuple(part.shape) != expected for part in state):
            given = [tuple(part.shape) for part in state]
            raise UsageError(f"the state has shapes {given}, expected {self.num_states} of {expected}")
