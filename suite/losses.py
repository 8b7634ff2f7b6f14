"""Cross entropy from hidden states and a large output layer, without ever holding all logits.

The usual way writes the logits (M, V) and walks over them five times or more; with thousands of words that traffic
costs as much as the products. Here rows go through in chunks that stay in cache, and what the gradient needs of a chunk
is kept while its logits are there (the idea of fused linear cross entropy: Hsu et al. 2024, Liger Kernel).
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
    needs_gradient = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad or bias.requires_grad)
    loss, nll = _LinearCrossEntropy.apply(hidden, weight, bias, targets, label_smoothing, dtype, needs_gradient)
    return CrossEntropy(loss, nll)


class _LinearCrossEntropy(torch.autograd.Function):
    """Softmax goes straight into the buffer of gradients; what label smoothing adds is the same for every row or every
    class, so it is added to the small results instead: sums of logits come from the sum of the output rows."""

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
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        rows, output, offset = hidden.to(dtype), weight.to(dtype), bias.to(dtype)
        count, classes = len(targets), weight.size(0)
        chunk = max(1, CHUNK_ELEMENTS // classes)
        columns = targets.unsqueeze(1)
        log_sums = torch.empty(count, dtype=exact, device=hidden.device)
        chosen = torch.empty_like(log_sums)
        cells = torch.arange(count, device=hidden.device) * classes + targets
        logits = rows.new_empty(min(chunk, count), classes)
        slopes = rows.new_empty(count if needs_gradient else 0, classes)
        for start in range(0, count, chunk):
            part = slice(start, min(start + chunk, count))
            scores = torch.addmm(offset, rows[part], output.t(), out=logits[: part.stop - start])
            chosen[part] = scores.gather(1, columns[part]).squeeze(1)
            if needs_gradient:
                shares = torch.softmax(scores, dim=1, out=slopes[part])
            else:
                shares = torch.softmax(scores.to(exact), dim=1)
            log_sums[part] = _log_sums(scores, shares, columns[part], exact)
        nll = (log_sums - chosen).sum()
        loss, output_sum = nll.clone(), None
        if smoothing:
            output_sum = weight.to(exact).sum(dim=0)
            mean = (hidden.to(exact) @ output_sum + bias.to(exact).sum()) / classes
            loss = (1.0 - smoothing) * nll + smoothing * (log_sums - mean).sum()
        if needs_gradient:
            flat = slopes.view(-1)  # indexing touches M cells; scatter_add_ in bfloat16 copies the whole buffer
            flat[cells] = flat[cells] - (1.0 - smoothing)
            ctx.save_for_backward(*_gradients(slopes, rows, output, output_sum, smoothing))
            ctx.dtypes = hidden.dtype, weight.dtype, bias.dtype
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        assert not torch.is_grad_enabled(), "linear_cross_entropy has no second derivative"
        scale = grads[0]
        if scale.device.type == "cpu" and float(scale) == 1.0:  # a pass over the output layer's gradient is saved
            return (
                *(g.to(dtype) for g, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)),
                None,
                None,
                None,
                None,
            )
        kept = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return (*(gradient.to(dtype) * scale.to(dtype) for gradient, dtype in kept), None, None, None, None)


def _log_sums(scores: Tensor, shares: Tensor, columns: Tensor, exact: torch.dtype) -> Tensor:
    """Logarithm of the sum of exponentials of each row of ``scores``, from any of its cells and that cell's share."""
    share = shares.gather(1, columns).squeeze(1).to(exact)
    if share.device.type == "cpu" and bool((share > 1e-30).all()):
        return scores.gather(1, columns).squeeze(1).to(exact) - share.log()
    # The largest share is at least 1 / V, so its logarithm is finite; the chosen one's may not be.
    return scores.amax(dim=1).to(exact) - shares.amax(dim=1).to(exact).log()


def _gradients(
    slopes: Tensor, rows: Tensor, output: Tensor, output_sum: Tensor | None, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of hidden, weight and bias; ``slopes (M, V)`` lacks the even share ``smoothing / V``."""
    to_hidden, to_weight, to_bias = slopes @ output, slopes.t() @ rows, slopes.sum(dim=0)
    if output_sum is not None:
        share = smoothing / output.size(0)
        to_hidden = to_hidden - (share * output_sum).to(to_hidden.dtype)
        to_weight = to_weight - share * rows.sum(dim=0)
        to_bias = to_bias - share * len(rows)
    return to_hidden, to_weight, to_bias
