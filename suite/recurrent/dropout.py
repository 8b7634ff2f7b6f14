"""What is dropped around and inside a recurrence; all of it is off, or its mean, in eval."""

import torch
from torch import Tensor, nn

from suite.dropout import Dropout, draw_mask
from suite.errors import UsageError


class StepDropout(Dropout):
    """Dropout on sequences ``(B, T, D)``; with ``variational`` one mask for all steps of a sequence.

    Gal and Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks", 2016.

    Raises:
        UsageError: ``p`` outside [0, 1).
    """

    def __init__(self, p: float, *, variational: bool = False) -> None:
        super().__init__(p)
        self.variational = variational

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, variational={self.variational}"

    def forward(self, inputs: Tensor) -> Tensor:
        """Drop features of ``inputs (B, T, D)``."""
        if not self.variational:
            return super().forward(inputs)
        if not self.training or not self.p:
            return inputs
        return inputs * draw_mask((inputs.size(0), 1, inputs.size(2)), self.p, like=inputs)


class Zoneout(nn.Module):
    """Units that keep their value for a step with probability ``p``; in eval each keeps that share of it.

    Krueger et al., "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", 2017.

    Raises:
        UsageError: ``p`` outside [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise UsageError(f"zoneout is {p}, allowed is 0 up to but not including 1")
        self.p = p

    def extra_repr(self) -> str:
        return f"p={self.p}"

    def draw(self, steps: int, start: Tensor) -> Tensor | None:
        """The share of the old value that each unit keeps, ``(T, B, H)`` for a state ``start (B, H)``.

        A single step, for all, in eval; nothing where there is no zoneout.
        """
        if not self.p:
            return None
        if not self.training:
            return torch.full((1, *start.shape), self.p, dtype=start.dtype, device=start.device)
        return draw_mask((steps, *start.shape), 1.0 - self.p, like=start).ne(0).to(start.dtype)
