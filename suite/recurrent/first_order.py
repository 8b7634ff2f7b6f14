"""Backward passes written by hand have no derivative of their own: whoever asks for one is told so."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Tensor | None, ...]


class _Once(torch.autograd.Function):
    """Gradients as they are; their own gradient is refused."""

    @staticmethod
    def forward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient.view_as(gradient) for gradient in gradients)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, ...]:
        raise RuntimeError(
            "this recurrence has a backward pass written by hand, which has no derivative: gradients of gradients need "
            "a cell of torch.nn (rnn_tanh, rnn_relu, lstm or gru, without zoneout)"
        )


def first_order(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """A ``backward`` whose gradients can be asked for in a graph (``create_graph``), but not differentiated.

    ``torch.autograd.function.once_differentiable`` refuses that only where the incoming gradient itself requires one;
    after a plain sum it would let gradients of gradients pass without the part that goes through what was saved.
    """

    @wraps(backward)
    def refusing(ctx: Any, *grads: Tensor | None) -> Gradients:
        with torch.no_grad():
            found = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return found
        known = [gradient.detach().requires_grad_() for gradient in found if gradient is not None]
        marked = iter(_Once.apply(*known))
        return tuple(None if gradient is None else next(marked) for gradient in found)

    return refusing
