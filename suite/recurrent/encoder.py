"""The recurrent encoder that every domain shares: layers, directions, dropout and lengths around one kind of cell."""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from suite.errors import UsageError
from suite.recurrent.build import RecurrentLayer, build_layer, reset_layer
from suite.recurrent.checks import check_begins, check_inputs, check_state
from suite.recurrent.dropout import StepDropout
from suite.recurrent.options import CellName, RecurrentOptions
from suite.recurrent.penalties import activation_penalty, temporal_penalty
from suite.recurrent.state import InitialState, with_empty_rows, without_empty_rows
from suite.recurrent.unroll import State
from suite.sequence import mask_steps, reverse_valid


class Encoded(NamedTuple):
    """What an encoder gives: ``outputs (B, T, output_size)``, zero at padding, the final state, ``lengths (B,)``.

    ``undropped`` are the outputs before output dropout, where an encoder has that.
    """

    outputs: Tensor
    state: State
    lengths: Tensor
    undropped: Tensor | None = None


class RecurrentEncoder(nn.Module):
    """A stack of recurrent layers over padded sequences with explicit lengths.

    The state is a value handed in and out, batch first: a tuple of tensors ``(B, num_layers * num_directions, H)``,
    hidden and for an LSTM also the cell, in the order of ``torch.nn`` (layer by layer, forward before backward).
    Outputs and states of ``torch.nn``'s cells equal those of ``torch.nn`` on a packed sequence, without packing on CPU.

    Args:
        input_size: features of an input step (D).
        hidden_size: features of the state in each direction (H).
        cell: which recurrence.
        num_layers: layers on top of each other.
        bidirectional: read each layer's input backwards too, and concatenate.
        dropout: probability of dropping a layer's output before the next layer.
        condition_size: features of a condition (C) that every layer reads beside its input; 0 without.
        options: everything else that can be chosen around a cell.

    Raises:
        UsageError: a size below one, a dropout outside [0, 1), or an option that the cell does not have.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        cell: CellName = "lstm",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        condition_size: int = 0,
        options: RecurrentOptions | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if size < 1:
                raise UsageError(f"{name} is {size}, allowed is 1 or more")
        if condition_size < 0:
            raise UsageError(f"condition_size is {condition_size}, allowed is 0 or more")
        if options is not None and not isinstance(options, RecurrentOptions):
            raise UsageError(f"options are a {type(options).__name__}, expected RecurrentOptions(...)")
        self.options = options or RecurrentOptions()
        self.options.check(cell)
        self.cell, self.input_size, self.hidden_size, self.num_layers = cell, input_size, hidden_size, num_layers
        self.num_directions = 2 if bidirectional else 1
        self.output_size = hidden_size * self.num_directions
        self.condition_size = condition_size
        sizes = [input_size] + [self.output_size] * (num_layers - 1)
        if self.options.residual and self.output_size not in sizes:
            raise UsageError(
                f"residual needs a layer whose input and output have the same size; here they are {input_size} and "
                f"{self.output_size}: add layers, or leave it out"
            )
        self.layers = nn.ModuleList(
            build_layer(cell, size + condition_size, hidden_size, options=self.options)
            for size in sizes
            for _ in range(self.num_directions)
        )
        variational = self.options.variational
        self.dropout = StepDropout(dropout, variational=variational)
        self.input_dropout = StepDropout(self.options.input_dropout, variational=variational)
        self.output_dropout = StepDropout(self.options.output_dropout, variational=variational)
        self.reset_parameters()
        self.initial = InitialState(
            self.options.initial_state,
            input_size=input_size,
            hidden_size=hidden_size,
            num_states=self.num_states,
            num_layers=num_layers,
            num_directions=self.num_directions,
        )

    def reset_parameters(self) -> None:
        """Glorot input weights, orthogonal recurrent weights by gate, zero biases, forget gates open (bias one)."""
        for layer in self.layers:
            reset_layer(cast(RecurrentLayer, layer), self.cell, options=self.options)

    @property
    def num_states(self) -> int:
        """Tensors of H features in the state."""
        return cast(RecurrentLayer, self.layers[0]).num_states

    def recurrent_weights(self) -> list[nn.Parameter]:
        """Weights between states, of all layers: what ``recurrent_l1`` and ``recurrent_l2`` are for."""
        return [weight for layer in self.layers for weight in cast(RecurrentLayer, layer).recurrent_weights()]

    def penalty(self, encoded: Encoded) -> Tensor:
        """Activation and temporal activation regularisation of a pass, each times its weight: a scalar, a mean.

        For a loss that is a sum, multiply with the weight that the sum is divided by.
        """
        total = encoded.outputs.new_zeros(())
        if self.options.activation_penalty:
            total = total + self.options.activation_penalty * activation_penalty(encoded.outputs, encoded.lengths)
        if self.options.temporal_penalty:
            raw = encoded.outputs if encoded.undropped is None else encoded.undropped
            total = total + self.options.temporal_penalty * temporal_penalty(raw, encoded.lengths)
        return total

    def forward(
        self,
        inputs: Tensor,
        lengths: Tensor | None = None,
        state: State | None = None,
        condition: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> Encoded:
        """Encode ``inputs (B, T, D)`` of which the first ``lengths (B,)`` steps of each row are valid; all of them
        without lengths.

        ``condition`` is ``(B, C)``, the same for all steps, or ``(B, T, C)``; without one it counts as zeros.
        ``begins (B,)``, or ``(B, num_layers * num_directions)``, is True where the encoder's own first state takes the
        place of ``state``.

        Raises:
            UsageError: inputs, a state, a condition or begins of another size or type than this encoder's, lengths
                outside 0 to T, or not one length a row.
        """
        lengths = self._check(inputs, lengths, state, begins).long()
        # Whatever stands at padding, not even NaN may reach a gradient or a saturated gate. (Asking whether there is
        # any would stop an accelerator.)
        ragged = inputs.device.type != "cpu" or not bool((lengths == inputs.size(1)).all())
        context = self._context(inputs, condition)
        if ragged:
            inputs = mask_steps(inputs, lengths)
            context = None if context is None else mask_steps(context, lengths)
        first = state
        if state is None:
            state = self.initial(inputs, lengths)
        elif begins is not None:
            state = first = self.begin(state, begins, inputs, lengths)
        if first is not None and ragged:
            state = without_empty_rows(first, lengths)
        inputs = self.input_dropout(inputs)
        finals: list[State] = []
        for number in range(self.num_layers):
            below = self.dropout(inputs) if number else inputs
            seen = below if context is None else torch.cat([below, context], dim=2)
            outputs = []
            for direction in range(self.num_directions):
                index = number * self.num_directions + direction
                start = None if state is None else tuple(part[:, index] for part in state)
                output, final = self._run(index, seen, lengths, start, backward=direction == 1)
                outputs.append(output)
                finals.append(final)
            above = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
            inputs = above + inputs if self.options.residual and above.size(2) == inputs.size(2) else above
        stacked = tuple(torch.stack(parts, dim=1) for parts in zip(*finals, strict=True))
        if first is not None and ragged:
            stacked = with_empty_rows(stacked, first, lengths)
        dropped = self.output_dropout(inputs)
        return Encoded(dropped, stacked, lengths, None if dropped is inputs else inputs)

    def begin(self, state: State, begins: Tensor, inputs: Tensor, lengths: Tensor) -> State:
        """The given ``state``, and the encoder's own first one where ``begins``; all as ``forward`` takes them."""
        where = (begins if begins.dim() == 2 else begins.unsqueeze(1)).unsqueeze(2)
        first = self.initial(inputs, lengths) or ()
        missing = (None,) * (
            len(state) - len(first)
        )  # zeros: of all states, or of the steps that batchnorm_lstm counts
        return tuple(
            part.masked_fill(where, 0.0) if new is None else torch.where(where, new.to(part.dtype), part)
            for part, new in zip(state, (*first, *missing), strict=True)
        )

    def _run(
        self, index: int, inputs: Tensor, lengths: Tensor, start: State | None, *, backward: bool
    ) -> tuple[Tensor, State]:
        layer = cast(RecurrentLayer, self.layers[index])
        weight = layer.draw_weight()
        if not backward:
            return self._over_time(layer, inputs, lengths, start, weight)
        output, final = self._over_time(layer, reverse_valid(inputs, lengths), lengths, start, weight)
        return reverse_valid(output, lengths), final

    def _over_time(
        self, layer: RecurrentLayer, inputs: Tensor, lengths: Tensor, start: State | None, weight: Tensor | None
    ) -> tuple[Tensor, State]:
        """One call, or chunk by chunk with what is inside computed again in the backward pass."""
        size = self.options.checkpoint_steps
        if size is None or not torch.is_grad_enabled() or inputs.size(1) <= size:
            return layer(inputs, lengths, start, weight)
        outputs = []
        for begin in range(0, inputs.size(1), size):
            chunk = inputs[:, begin : begin + size]
            valid = (lengths - begin).clamp(0, chunk.size(1))
            output, start = checkpoint(layer, chunk, valid, start, weight, use_reentrant=False)
            outputs.append(output)
        assert start is not None
        return torch.cat(outputs, dim=1), start

    def _context(self, inputs: Tensor, condition: Tensor | None) -> Tensor | None:
        """The condition at every step, ``(B, T, C)``."""
        batch, steps = inputs.shape[:2]
        if not self.condition_size:
            if condition is not None:
                raise UsageError("a condition is given, but this encoder has condition_size 0")
            return None
        if condition is None:
            return inputs.new_zeros(batch, steps, self.condition_size)
        allowed = ((batch, self.condition_size), (batch, steps, self.condition_size))
        if not isinstance(condition, Tensor):
            raise UsageError(f"the condition is a {type(condition).__name__}, expected a torch.Tensor")
        if tuple(condition.shape) not in allowed:
            raise UsageError(
                f"the condition has shape {tuple(condition.shape)}, allowed are {allowed[0]} and {allowed[1]}"
            )
        condition = condition.to(inputs.dtype)
        return condition if condition.dim() == 3 else condition.unsqueeze(1).expand(-1, steps, -1)

    def _check(self, inputs: Tensor, lengths: Tensor | None, state: State | None, begins: Tensor | None) -> Tensor:
        """The lengths, full ones where none are given."""
        lengths = check_inputs(inputs, lengths, input_size=self.input_size, weight=next(self.layers.parameters()))
        shape = (inputs.size(0), len(self.layers), self.hidden_size)
        if begins is not None:
            check_begins(begins, shape=shape[:2])
        if state is not None:
            check_state(state, shape=shape, count=self.num_states, counts_steps=self.cell == "batchnorm_lstm")
        return lengths
