"""The attention decoder: every step of a teacher-forced pass goes through a few large calls.

The first recurrent layer reads the target alone, attention is asked once for all its outputs, and further layers read
what attention found (Luong, Pham and Manning 2015 without input feeding; layers above attention as in Wu et al. 2016).
Nothing that a later step needs depends on an attention result below it, so there is no loop over time.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from suite.attention import Memory
from suite.dropout import Dropout
from suite.effects import Declared, Needs, one_of
from suite.errors import UsageError
from suite.recurrent import CELLS_WITH, CellName, RecurrentEncoder, RecurrentOptions, State


@dataclass(frozen=True)
class DecoderConfig:
    """The recurrent decoder.

    Args:
        cell: Which recurrence.
        hidden_size: Features of the state.
        num_layers: Recurrent layers; attention stands after the first.
        options: What else can be chosen around the cell; not residual, initial_state or penalties.
    """

    only_with: ClassVar[Declared] = {
        **{f"options.{name}": one_of("cell", *cells) for name, cells in CELLS_WITH.items()},
        "options.variational": Needs(  # dropout between the layers above attention needs two of them
            ("num_layers", "model.dropout", "options.input_dropout", "options.output_dropout"),
            lambda layers, dropout, first, last: bool(first or last or (layers > 2 and dropout)),
            "set {2} or {3} above 0",
        ),
    }

    cell: CellName = "lstm"
    hidden_size: int = 256
    num_layers: int = 1
    options: RecurrentOptions = field(default_factory=RecurrentOptions)


class Decoded(NamedTuple):
    """``features (B, T, H)`` for the output layer, the final state, attention ``weights (B, T, S)`` if there is any."""

    features: Tensor
    state: State
    weights: Tensor | None


class AttentionDecoder(nn.Module):
    """Recurrent layers around one attention.

    Args:
        input_size: features of an embedded target token (E).
        memory_size: features of an encoder output (M).
        config: the recurrent part.
        attention: asked with the first layer's outputs; ``None`` decodes from the state alone.
        dropout: probability of dropping the attended features, and each further layer's output.
    """

    def __init__(
        self, input_size: int, memory_size: int, *, config: DecoderConfig, attention: nn.Module | None, dropout: float
    ) -> None:
        super().__init__()
        hidden, options = config.hidden_size, config.options
        own = ("residual", "initial_state", "activation_penalty", "temporal_penalty")
        if given := [name for name in own if getattr(options, name) != getattr(RecurrentOptions(), name)]:
            raise UsageError(
                f"{', '.join(given)} cannot be chosen for a decoder (its upper layers add to what is "
                "below them, its first state comes over the bridge, penalties are the encoder's): leave it out"
            )
        self.lower = RecurrentEncoder(input_size, hidden, cell=config.cell, options=options)
        self.attention = attention
        self.combine = nn.Linear(hidden + (memory_size if attention is not None else 0), hidden)
        layers = config.num_layers - 1
        self.upper = (
            RecurrentEncoder(hidden, hidden, cell=config.cell, num_layers=layers, dropout=dropout, options=options)
            if layers
            else None
        )
        self.dropout = Dropout(dropout)
        self.num_states = self.lower.num_states

    def forward(self, embedded: Tensor, lengths: Tensor, state: State, memory: Memory | None) -> Decoded:
        """Decode ``embedded (R, T, E)`` from ``state`` (tensors ``(R, num_layers, H)``).

        ``memory`` has B rows; R is B, or B times K with the K rows of a sentence next to each other, as in beam search.
        """
        below = self.lower(embedded, lengths, tuple(part[:, :1] for part in state))
        outputs, weights = below.outputs, None
        if self.attention is not None:
            assert memory is not None
            context, weights = self._attend(outputs, memory)
            outputs = torch.cat([outputs, context], dim=2)
        features = self.dropout(torch.tanh(self.combine(outputs)))
        if self.upper is None:
            return Decoded(features, below.state, weights)
        above = self.upper(features, lengths, tuple(part[:, 1:] for part in state))
        joined = tuple(torch.cat(parts, dim=1) for parts in zip(below.state, above.state, strict=True))
        return Decoded(features + self.dropout(above.outputs), joined, weights)

    def _attend(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        assert self.attention is not None
        rows, steps, size = queries.shape
        grouped = queries.reshape(memory.mask.size(0), -1, size)
        context, weights = self.attention(grouped, memory)
        return context.reshape(rows, steps, -1), weights.reshape(rows, steps, -1)


BridgeKind = Literal["linear", "copy", "zero"]


class Bridge(nn.Module):
    """From the encoder's final state to the decoder's first: ``(B, layers * directions, He)`` to ``(B, N, Hd)``.

    ``linear`` maps the encoder's last layer (both directions) by a layer of its own for each decoder layer and state
    tensor; ``copy`` hands it over unchanged, which needs equal sizes; ``zero`` hands over nothing.

    Hidden states go through tanh, cell states do not: squashed, both saturate within a few hundred steps at a high
    learning rate, and a decoder without attention then starts every sentence alike, for good.
    """

    def __init__(self, kind: BridgeKind, encoder: RecurrentEncoder, *, config: DecoderConfig, num_states: int) -> None:
        super().__init__()
        self.kind, self.num_layers, self.size = kind, config.num_layers, config.hidden_size
        self.directions, self.num_states = encoder.num_directions, num_states
        if kind == "copy" and encoder.output_size != config.hidden_size:
            raise UsageError(
                f"bridge copy needs the encoder's output size ({encoder.output_size}) to equal decoder.hidden_size "
                f"({config.hidden_size}): change one of them, or use bridge linear"
            )
        self.source_states = encoder.num_states
        targets = config.num_layers * num_states * config.hidden_size
        self.project = nn.Linear(encoder.output_size * encoder.num_states, targets) if kind == "linear" else None

    def forward(self, state: State) -> State:
        """Map an encoder's final state (the count of steps that batchnorm_lstm adds to it is left behind)."""
        last = [part[:, -self.directions :].flatten(1) for part in state[: self.source_states]]
        if self.project is not None:
            # A cell state is unbounded: as an input it counts by its size alone once it is large.
            mapped = self.project(torch.cat([last[0], *(part.tanh() for part in last[1:])], dim=1))
            hidden, *memory = mapped.unflatten(1, (self.num_states, self.num_layers, self.size)).unbind(1)
            return (hidden.tanh(), *memory)
        start = last[0].unsqueeze(1).expand(-1, self.num_layers, -1)
        if self.kind == "zero":
            start = start.new_zeros(start.size(0), self.num_layers, self.size)
        # Between cells of different kinds the hidden state is handed on and a cell state starts empty.
        rest = (
            [last[1].unsqueeze(1).expand_as(start)]
            if self.kind == "copy" and len(last) > 1
            else [torch.zeros_like(start)]
        )
        return (start, *rest)[: self.num_states]
