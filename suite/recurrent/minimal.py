"""minGRU and minLSTM: gates that see the input alone, so that the recurrence is linear and parallel over time.

Feng et al., "Were RNNs All We Needed?", 2024; in linear space, and in float32 even under autocast.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from suite.recurrent.dropout import Zoneout
from suite.recurrent.first_order import first_order
from suite.recurrent.gpu.sequences import Minimal
from suite.recurrent.gpu.steps import runs_on_gpu
from suite.recurrent.kernel_steps import compiled_kernels, runs_compiled
from suite.recurrent.scan import linear_recurrence
from suite.recurrent.unroll import State
from suite.sequence import last_valid, mask_steps

MinimalCell = Literal["mingru", "minlstm"]


class MinimalLayer(nn.Module):
    """A single layer in one direction. Gates: update and candidate (minGRU), or forget, input and candidate (minLSTM).

    minGRU: ``z = sigmoid(gate)``, ``h = (1 - z) h + z candidate``. minLSTM: ``f`` and ``i`` are sigmoids divided by
    their sum, ``h = f h + i candidate``.

    Args:
        input_size: features of an input step (D).
        hidden_size: features of the state (H).
        cell: which of the two.
        zoneout: probability that a unit keeps its value for a step.
    """

    num_states = 1

    def __init__(self, input_size: int, hidden_size: int, *, cell: MinimalCell, zoneout: float = 0.0) -> None:
        super().__init__()
        self.cell, self.hidden_size = cell, hidden_size
        gates = (2 if cell == "mingru" else 3) * hidden_size
        self.weight_ih = nn.Parameter(torch.empty(gates, input_size))
        self.bias = nn.Parameter(torch.zeros(gates))
        self.zoneout = Zoneout(zoneout)

    def forward(
        self, inputs: Tensor, lengths: Tensor, state: State | None = None, weight: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run over ``inputs (B, T, D)``; as ``FusedLayer.forward``. There is no recurrent ``weight``."""
        gates = nn.functional.linear(inputs, self.weight_ih, self.bias)
        given = gates.dtype
        kind = torch.float64 if given == torch.float64 else torch.float32
        zeros = gates.new_zeros(len(inputs), self.hidden_size, dtype=kind)
        start = zeros if state is None else state[0].to(kind)
        if runs_on_gpu(gates, size=1) and not self.zoneout.p:  # which reads gates of any precision
            with torch.cuda.device_of(gates):  # Triton starts kernels on the current one
                outputs = Minimal.apply(self.cell, gates.contiguous(), start.contiguous(), lengths)
        elif runs_compiled(start) and not self.zoneout.p:
            outputs = _Compiled.apply(self.cell, gates.to(kind).contiguous(), start.contiguous(), lengths)
        else:
            outputs = mask_steps(self._by_parts(gates.to(kind), start), lengths)
        final = start
        if inputs.size(1):
            final = torch.where((lengths == 0).unsqueeze(1), start, last_valid(outputs, lengths))
        return outputs.to(given), (final,)

    def _by_parts(self, gates: Tensor, start: Tensor) -> Tensor:
        keep, candidate = _keep_and_candidate(self.cell, gates)
        inputs = (1.0 - keep) * candidate
        zone = self.zoneout.draw(gates.size(1), start)
        if zone is not None:
            zone = zone.transpose(0, 1)
            keep, inputs = zone + (1.0 - zone) * keep, (1.0 - zone) * inputs
        return linear_recurrence(keep, inputs, start)

    def draw_weight(self) -> None:
        """There is no recurrent weight to drop."""

    def recurrent_weights(self) -> list[nn.Parameter]:
        """Weights between states: none."""
        return []


def _keep_and_candidate(cell: str, gates: Tensor) -> tuple[Tensor, Tensor]:
    if cell == "mingru":
        update, candidate = gates.chunk(2, dim=2)
        return torch.sigmoid(-update), candidate
    forget, enter, candidate = gates.chunk(3, dim=2)
    # f / (f + i) is the sigmoid of the difference of their logarithms, which cannot overflow.
    return torch.sigmoid(nn.functional.logsigmoid(forget) - nn.functional.logsigmoid(enter)), candidate


class _Compiled(torch.autograd.Function):
    """From gates to states in one compiled pass, and back in another."""

    @staticmethod
    def forward(ctx: Any, cell: str, gates: Tensor, start: Tensor, lengths: Tensor) -> Tensor:
        states = gates.new_zeros(*gates.shape[:2], start.size(1))
        arrays = [part.detach().numpy() for part in (gates, start, lengths.long(), states)]
        getattr(compiled_kernels("minimal_kernels"), cell)(*arrays)
        ctx.cell = cell
        ctx.save_for_backward(gates, start, lengths, states)
        return states

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor, None]:
        gates, start, lengths, states = ctx.saved_tensors
        carried, slope = torch.zeros_like(start), torch.zeros_like(gates)
        parts = (gates, start, lengths.long(), states, grads[0].contiguous(), carried, slope)
        getattr(compiled_kernels("minimal_kernels"), f"{ctx.cell}_slope")(*(part.detach().numpy() for part in parts))
        return None, slope, carried, None
