"""Cross entropy from hidden states and a large output layer, without ever holding all logits.

The usual way writes the logits (M, V) and walks over them five times or more; with thousands of words that traffic
costs as much as the products. Here rows go through in chunks that stay in cache, and what the gradient needs of a chunk
is kept while its logits are there (the idea of fused linear cross entropy: Hsu et al. 2024, Liger Kernel).
"""

from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from suite.kernels import AVAILABLE

CHUNK_ELEMENTS = 2**21  # logits held at a time: 8 MiB in float32
GROUP_CHUNKS = 16
COMPILED_CLASSES = 1000  # fewer are not worth the half second that the kernel takes to load


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
        chunk = min(max(1, CHUNK_ELEMENTS // classes), max(count, 1))
        # In half precision a sum over chunks would have to be kept in float32, and a product sorts the output layer's
        # weights anew each time: several chunks then go into one.
        group = chunk * (1 if dtype == exact else GROUP_CHUNKS)
        slopes = _Slopes(rows, output, exact) if needs_gradient else None
        if slopes is not None and _runs_compiled(rows, classes):
            log_sums, chosen, mean = _compiled_pass(slopes, offset, targets, smoothing, chunk)
            nll = (log_sums - chosen).sum()
            loss = (1.0 - smoothing) * nll + smoothing * (log_sums - mean).sum() if smoothing else nll.clone()
            return _keep(ctx, loss, nll, slopes.gradients(None, smoothing), (hidden, weight, bias))
        columns = targets.unsqueeze(1)
        log_sums = torch.empty(count, dtype=exact, device=hidden.device)
        chosen = torch.empty_like(log_sums)
        held = min(chunk if slopes is None else group, max(count, 1))
        logits = rows.new_empty(held, classes)
        for start in range(0, count, held):
            part = slice(start, min(start + held, count))
            scores = torch.addmm(offset, rows[part], output.t(), out=logits[: part.stop - start])
            if slopes is None:
                chosen[part] = scores.gather(1, columns[part]).squeeze(1)
                log_sums[part] = torch.logsumexp(scores.to(exact), dim=1)
            else:
                log_sums[part], chosen[part] = _softmax_(scores, columns[part], exact, (rows[part], output, offset))
                slopes.add(scores, part, targets[part], 1.0 - smoothing)
        nll = (log_sums - chosen).sum()
        loss, output_sum = nll.clone(), None
        if smoothing:
            with torch.autocast(hidden.device.type, enabled=False):
                output_sum = weight.to(exact).t() @ weight.new_ones(classes, dtype=exact)  # faster than a sum over rows
                mean = (hidden.to(exact) @ output_sum + bias.to(exact).sum()) / classes
            loss = (1.0 - smoothing) * nll + smoothing * (log_sums - mean).sum()
        gradients = () if slopes is None else slopes.gradients(output_sum, smoothing)
        return _keep(ctx, loss, nll, gradients, (hidden, weight, bias))

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


def _keep(
    ctx: Any, loss: Tensor, nll: Tensor, gradients: tuple[Tensor, ...], of: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    ctx.save_for_backward(*gradients)
    ctx.dtypes = tuple(each.dtype for each in of)
    ctx.mark_non_differentiable(nll)
    return loss, nll


@cache
def _kernels() -> Any:
    return import_module("suite.loss_kernels")


def _runs_compiled(rows: Tensor, classes: int) -> bool:
    """Where one pass was faster than torch's calls: see docs/benchmarks.md. With AVX-512 those were."""
    known = rows.device.type == "cpu" and rows.dtype == torch.float32 and classes >= COMPILED_CLASSES
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return known and AVAILABLE and not wide and torch.get_num_threads() == 1


def _compiled_pass(
    slopes: "_Slopes", offset: Tensor, targets: Tensor, smoothing: float, chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """All chunks; gives each row's logarithm of summed exponentials, target's logit and mean logit ``(M,)``."""
    (count, _), classes = slopes.rows.shape, slopes.output.size(0)
    offset, targets = offset.detach().contiguous(), targets.contiguous()
    found = slopes.rows.new_empty(3, count)
    logits = slopes.rows.new_empty(min(chunk, count), classes)
    for start in range(0, count, chunk):
        part = slice(start, min(start + chunk, count))
        scores = torch.mm(slopes.rows[part], slopes.output.t(), out=logits[: part.stop - start])
        arrays = [each.numpy() for each in (scores, offset, targets[part], *found[:, part], slopes.to_bias)]
        _kernels().softmax_slopes(*arrays, 1.0 - smoothing, smoothing / classes)
        slopes.multiply(scores, part)
    log_sums, chosen, sums = found
    return log_sums, chosen, sums / classes


def _softmax_(
    scores: Tensor, columns: Tensor, exact: torch.dtype, operands: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Softmax in place; gives each row's logarithm of summed exponentials, and the logit at ``columns (N, 1)``.

    The sum follows from any logit and its share: from the target's, which costs no pass, where that share is not below
    the normal range; else from the largest, made again of ``operands`` (hidden rows, output layer, bias).
    """
    chosen = scores.gather(1, columns).squeeze(1).to(exact)
    if scores.device.type != "cpu":  # asking how small a share is would wait for the device
        top = scores.amax(dim=1).to(exact)
        torch.softmax(scores, dim=1, out=scores)
        return top - scores.amax(dim=1).to(exact).log(), chosen
    torch.softmax(scores, dim=1, out=scores)
    shares = scores.gather(1, columns).squeeze(1).to(exact)
    log_sums = chosen - shares.log()
    lost = shares < torch.finfo(scores.dtype).tiny
    if bool(lost.any()):
        rows, output, offset = operands
        top, place = scores[lost].max(dim=1)
        logits = (rows[lost].to(exact) * output[place].to(exact)).sum(dim=1) + offset[place].to(exact)
        log_sums[lost] = logits.to(scores.dtype).to(exact) - top.to(exact).log()
    return log_sums, chosen


class _Slopes:
    """Gradients of hidden, weight and bias, chunk by chunk while the chunk is in cache."""

    def __init__(self, rows: Tensor, output: Tensor, exact: torch.dtype) -> None:
        self.rows, self.output = rows, output
        self.to_hidden = torch.empty_like(rows)
        self.to_weight: Tensor | None = None
        self.to_bias = output.new_zeros(output.size(0), dtype=exact)

    def add(self, shares: Tensor, part: slice, targets: Tensor, mass: float) -> None:
        """Count in the chunk ``part``: its ``shares`` (softmax) less ``mass`` at the targets, in place."""
        cells = torch.arange(len(targets), device=targets.device) * shares.size(1) + targets
        flat = shares.view(-1)  # indexing touches a cell a row; scatter_add_ in bfloat16 copies the whole buffer
        flat[cells] = flat[cells] - mass
        self.multiply(shares, part)
        if shares.dtype == self.to_bias.dtype:
            self.to_bias += shares.sum(dim=0)
        else:  # as a product, which walks over low precision faster than a sum
            self.to_bias += torch.mm(shares.new_ones(1, len(shares)), shares)[0]

    def multiply(self, shares: Tensor, part: slice) -> None:
        """Gradients of hidden and weight from those of the logits of ``part``."""
        torch.mm(shares, self.output, out=self.to_hidden[part])
        if self.to_weight is None:
            self.to_weight = torch.mm(shares.t(), self.rows[part])
        elif shares.dtype == self.to_bias.dtype:
            self.to_weight.addmm_(shares.t(), self.rows[part])
        else:  # sums over groups keep the precision that sums within one have
            self.to_weight = self.to_weight.to(self.to_bias.dtype) + torch.mm(shares.t(), self.rows[part])

    def gradients(self, output_sum: Tensor | None, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
        """All three; with the even share ``smoothing / V`` taken off, which is the same for each row or each class."""
        if self.to_weight is None:
            self.to_weight = torch.zeros_like(self.output)
        if output_sum is not None:
            share = smoothing / self.output.size(0)
            self.to_hidden -= (share * output_sum).to(self.to_hidden.dtype)
            self.to_weight -= share * self.rows.sum(dim=0)
            self.to_bias -= share * len(self.rows)
        return self.to_hidden, self.to_weight, self.to_bias
