"""What a recurrence starts from when no state is handed in."""

import torch
from torch import Tensor, nn

from suite.recurrent.options import InitialStateKind
from suite.recurrent.unroll import State
from suite.sequence import last_valid

DEVIATION = 0.1  # of a random state


class InitialState(nn.Module):
    """The first state of all layers: tensors ``(B, N, H)``.

    ``zero``; ``random``: normal with deviation 0.1 in training, zero in eval; ``learned``: a parameter, zero at first;
    ``input``: tanh of a linear layer on the first valid step, for the backward direction on the last.

    Args:
        kind: one of the four.
        input_size: features of an input step (D).
        hidden_size: features of a state (H).
        num_states: tensors in the state.
        num_layers: layers on top of each other.
        num_directions: 1 or 2.
    """

    def __init__(
        self,
        kind: InitialStateKind,
        *,
        input_size: int,
        hidden_size: int,
        num_states: int,
        num_layers: int,
        num_directions: int,
    ) -> None:
        super().__init__()
        self.kind, self.directions = kind, num_directions
        self.shape = (num_states, num_layers * num_directions, hidden_size)
        if kind == "learned":
            self.value = nn.Parameter(torch.zeros(self.shape))
        if kind == "input":
            width = num_states * num_layers * hidden_size
            self.project = nn.ModuleList(nn.Linear(input_size, width) for _ in range(num_directions))

    def forward(self, inputs: Tensor, lengths: Tensor) -> State | None:
        """The state for ``inputs (B, T, D)``; ``None`` stands for zeros."""
        if self.kind == "learned":
            return tuple(part.expand(len(inputs), -1, -1) for part in self.value)
        if self.kind == "random" and self.training:
            shape = (self.shape[0], len(inputs), *self.shape[1:])
            return tuple((torch.randn(shape, device=inputs.device) * DEVIATION).to(inputs.dtype))
        if self.kind == "input" and inputs.size(1):
            seen = (inputs[:, 0], last_valid(inputs, lengths))
            mapped = [
                layer(step).tanh().unflatten(1, (self.shape[0], -1, 1, self.shape[2]))
                for layer, step in zip(self.project, seen, strict=False)
            ]
            return torch.cat(mapped, dim=3).flatten(2, 3).unbind(1)
        return None


def without_empty_rows(state: State, lengths: Tensor) -> State:
    """``state`` with zeros for rows without a step: what stands there may be no number, and zero times that neither."""
    empty = (lengths == 0).view(-1, 1, 1)
    return tuple(part.masked_fill(empty, 0) for part in state)


def with_empty_rows(final: State, first: State, lengths: Tensor) -> State:
    """``final``, for rows without a step that of ``first``, as far as it goes."""
    empty = (lengths == 0).view(-1, 1, 1)
    kept = tuple(torch.where(empty, old.to(new.dtype), new) for old, new in zip(first, final, strict=False))
    return kept + final[len(kept) :]
