"""Cross entropy from hidden states and a large output layer, without ever holding all logits.

The usual way writes the logits (M, V) and walks over them five times or more; with thousands of words that traffic
costs as much as the products. Here rows go through in chunks that stay in cache, and the gradient of a chunk is made
while its logits are there (the idea of fused linear cross entropy: Hsu et al. 2024, Liger Kernel).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**21  # logits held at a time: 8 MiB in float32


class CrossEntropy(NamedTuple):
    """Sums over rows: ``loss`` (smoothed, differentiable) and ``nll`` (plain negative log likelihood, nats)."""

    loss: Tensor
    nll: Tensor


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, *, label_smoothing: float = 0.0
) -> CrossEntropy:
    """Cross entropy of ``softmax(hidden @ weight.T + bias)`` against ``targets``, summed over rows.

    Args:
        hidden: ``(M, D)``, valid rows only.
        weight: ``(V, D)``, may be tied to an embedding.
        bias: ``(V,)``.
        targets: ``(M,)`` class indices.
        label_smoothing: mass spread evenly over all V classes (Szegedy et al. 2016), as in ``torch.nn``.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    needs_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    loss, nll = _LinearCrossEntropy.apply(hidden, weight, bias, targets, label_smoothing, dtype, needs_gradient)
    return CrossEntropy(loss, nll)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        smoothing: float,
        dtype: torch.dtype,
        needs_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        accumulate = torch.float64 if dtype == torch.float64 else torch.float32
        rows, output = hidden.to(dtype), weight.to(dtype)
        chunk = max(1, CHUNK_ELEMENTS // weight.size(0))
        loss = torch.zeros((), dtype=accumulate, device=hidden.device)
        nll = torch.zeros_like(loss)
        gradient = rows.new_empty(len(targets), weight.size(0)) if needs_gradient else None
        grad_bias = torch.zeros_like(bias)
        for start in range(0, len(targets), chunk):
            part = slice(start, start + chunk)
            logits = torch.mm(rows[part], output.t()).to(accumulate).add_(bias)
            log_probs = torch.log_softmax(logits, dim=1)
            column = targets[part].unsqueeze(1)
            chosen = -log_probs.gather(1, column).sum()
            nll += chosen
            loss += (1.0 - smoothing) * chosen
            if smoothing:
                loss -= smoothing * log_probs.mean(dim=1).sum()
            if gradient is not None:
                slope = log_probs.exp_()
                if smoothing:
                    slope.sub_(smoothing / weight.size(0))
                slope.scatter_add_(1, column, slope.new_full(column.shape, smoothing - 1.0))
                grad_bias += slope.sum(dim=0)
                gradient[part] = slope
        if gradient is not None:
            ctx.dtypes = hidden.dtype, weight.dtype
            ctx.save_for_backward(torch.mm(gradient, output), torch.mm(gradient.t(), rows), grad_bias)
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        scale, (hidden_dtype, weight_dtype) = grads[0], ctx.dtypes
        return (
            (grad_hidden * scale).to(hidden_dtype),
            (grad_weight.to(weight_dtype)).mul_(scale) if weight_dtype != grad_weight.dtype else grad_weight * scale,
            grad_bias * scale,
            None,
            None,
            None,
            None,
        )
