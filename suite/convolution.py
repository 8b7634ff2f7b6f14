"""The causal dilated stack of WaveNet (van den Oord et al. 2016, section 2): gated, residual, with skips.

Layer l adds what its gate lets through to the residual stream and to the skips:
``h = tanh(a) * sigmoid(b)`` with ``[a, b] = past(x[t - d]) + current(x[t]) + condition``, ``x += residual(h)``,
``skips += skip(h)``. Filters have width 2. Steps before the first count as zero.

Rows are laid out time first: the past of a whole block of rows is then one contiguous block too, each filter tap one
matrix product, and nothing is padded, gathered or unfolded. ``suite/causal.py`` has the pass over them.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from suite.causal import causal_stack
from suite.errors import UsageError


def receptive_field(dilations: Sequence[int]) -> int:
    """How many inputs decide an output: the current step and all that filters of width 2 reach back to."""
    return 1 + sum(dilations)


def dilation_cycle(num_layers: int, cycle: int) -> list[int]:
    """Dilations 1, 2, 4, ... doubling ``cycle`` times, then from 1 again."""
    return [2 ** (layer % cycle) for layer in range(num_layers)]


class GatedLayer(nn.Module):
    """The weights of one layer, each stored ``(inputs, outputs)`` so that rows are multiplied from the left.

    Args:
        channels: C, features of the residual stream; the gate has as many.
        skip_channels: features of the skips.
        dilation: steps between the two taps.
        condition_size: features of what holds for a whole row; 0 without.
        local_size: features of what changes from step to step; 0 without.
        last: nothing follows, so there is no residual output.
    """

    def __init__(
        self, channels: int, skip_channels: int, *, dilation: int, condition_size: int, local_size: int, last: bool
    ) -> None:
        super().__init__()
        self.dilation = dilation
        self.past = nn.Parameter(_uniform(channels, 2 * channels, fan=2 * channels))
        self.current = nn.Parameter(_uniform(channels, 2 * channels, fan=2 * channels))
        self.bias = nn.Parameter(torch.zeros(2 * channels))
        self.skip = nn.Parameter(_uniform(channels, skip_channels, fan=channels))
        self.residual = None if last else nn.Parameter(_uniform(channels, channels, fan=channels))
        self.condition = nn.Parameter(_uniform(condition_size, 2 * channels)) if condition_size else None
        self.local = nn.Parameter(_uniform(local_size, 2 * channels)) if local_size else None

    def offset(self, condition: Tensor | None) -> Tensor:
        """What every step of a row adds to its gates: ``(B, 2C)``, or ``(1, 2C)`` where all rows have the same."""
        if self.condition is None:
            return self.bias.unsqueeze(0)
        assert condition is not None, "the layer has a condition"
        return torch.addmm(self.bias, condition, self.condition)


class GatedResidualStack(nn.Module):
    """Causal dilated gated layers with residuals and skips.

    Args:
        channels: features of inputs and residual stream.
        dilations: one for each layer.
        skip_channels: features of the summed skips, the output.
        condition_size: features of a condition that holds for a whole row (speaker, pitch); 0 without.
        local_size: features of a condition at each step (a spectrum); 0 without.

    Raises:
        UsageError: no layer, or a dilation below 1.
    """

    def __init__(
        self,
        channels: int,
        *,
        dilations: Sequence[int],
        skip_channels: int,
        condition_size: int = 0,
        local_size: int = 0,
    ) -> None:
        super().__init__()
        if not dilations or min(dilations) < 1:
            raise UsageError(f"dilations are {list(dilations)}, needed is at least one, each 1 or more")
        self.channels, self.skip_channels, self.dilations = channels, skip_channels, list(dilations)
        self.layers = nn.ModuleList(
            GatedLayer(
                channels,
                skip_channels,
                dilation=dilation,
                condition_size=condition_size,
                local_size=local_size,
                last=number == len(dilations) - 1,
            )
            for number, dilation in enumerate(dilations)
        )
        self.output_size = skip_channels

    @property
    def receptive_field(self) -> int:
        """Inputs that an output depends on, its own step included."""
        return receptive_field(self.dilations)

    def gated_layers(self) -> list[GatedLayer]:
        """The layers, typed."""
        return [cast(GatedLayer, layer) for layer in self.layers]

    def offsets(self, condition: Tensor | None) -> Tensor:
        """Biases with the row's condition in them, for every layer: ``(L, B or 1, 2C)``."""
        return torch.stack([layer.offset(condition) for layer in self.gated_layers()])

    def forward(self, inputs: Tensor, *, condition: Tensor | None = None, local: Tensor | None = None) -> Tensor:
        """Summed skips ``(B, T, S)`` of ``inputs (B, T, C)``.

        Args:
            inputs: quickest where their memory is laid out time first (a transposed ``(T, B, C)``).
            condition: ``(B, condition_size)`` where the stack has one.
            local: ``(B, T, local_size)`` where the stack has one.
        """
        batch, steps = inputs.shape[:2]
        rows = inputs.transpose(0, 1).reshape(steps * batch, -1)
        extra = None if local is None else local.transpose(0, 1).reshape(steps * batch, -1)
        layers = self.gated_layers()
        skips = causal_stack(
            rows,
            self.offsets(condition),
            extra,
            batch=batch,
            dilations=self.dilations,
            past=[layer.past for layer in layers],
            current=[layer.current for layer in layers],
            local_weights=[layer.local for layer in layers if layer.local is not None],
            residual=[layer.residual for layer in layers if layer.residual is not None],
            skip=[layer.skip for layer in layers],
        )
        return skips.view(steps, batch, -1).transpose(0, 1)


def _uniform(rows: int, columns: int, *, fan: int | None = None) -> Tensor:
    """Uniform with variance one over the fan-in."""
    bound = (3.0 / (fan or rows)) ** 0.5
    return torch.empty(rows, columns).uniform_(-bound, bound)
