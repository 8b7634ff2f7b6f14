"""From the outputs of an encoder over time to one vector for each sequence; padding never counts."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from suite.attention import masked_softmax
from suite.errors import UsageError
from suite.sequence import last_valid, length_mask, mask_steps

PoolingKind = Literal["last", "mean", "max", "concat", "attention"]


class Pooled(NamedTuple):
    """``features (B, F)`` and, from attention alone, ``weights (B, T)``: zero at padding, each row summing to one."""

    features: Tensor
    weights: Tensor | None


class Pooling(nn.Module):
    """Pools ``outputs (B, T, H)`` of which the first ``lengths (B,)`` steps are valid; empty rows give zeros.

    ``last`` takes the last valid output and, of a bidirectional encoder, the backward half from the first step: the
    final state of each direction. ``mean`` and ``max`` go over valid steps. ``concat`` puts last, max and mean side by
    side (Howard and Ruder 2018). ``attention`` is a mean weighted by ``softmax(v . tanh(W h + b))`` (Yang et al. 2016).

    Args:
        input_size: features of an output (H), both directions together.
        kind: which pooling.
        bidirectional: the second half of the features comes from the backward direction; matters to last and concat.

    Raises:
        UsageError: a size below one, an odd one with two directions, or a kind that there is not.
    """

    def __init__(self, input_size: int, *, kind: PoolingKind = "concat", bidirectional: bool = False) -> None:
        super().__init__()
        if input_size < 1 or (bidirectional and input_size % 2):
            wanted = "an even number" if bidirectional else "1 or more"
            raise UsageError(f"input_size is {input_size}, allowed is {wanted}")
        if kind not in get_args(PoolingKind):
            raise UsageError(f"pooling is {kind}, allowed are {', '.join(get_args(PoolingKind))}")
        self.kind: PoolingKind = kind
        self.bidirectional = bidirectional
        self.output_size = input_size * (3 if kind == "concat" else 1)
        if kind == "attention":
            self.key = nn.Linear(input_size, input_size)
            self.score = nn.Linear(input_size, 1, bias=False)

    def extra_repr(self) -> str:
        return f"kind={self.kind}, output_size={self.output_size}"

    def forward(self, outputs: Tensor, lengths: Tensor) -> Pooled:
        """Pool each row.

        Raises:
            UsageError: not one length a row, or lengths outside 0 to T (on a CPU, where looking costs nothing).
        """
        if tuple(lengths.shape) != (outputs.size(0),):
            raise UsageError(f"lengths have shape {tuple(lengths.shape)}, expected one a row: ({outputs.size(0)},)")
        if lengths.device.type == "cpu" and lengths.numel():
            if int(lengths.max()) > outputs.size(1):
                raise UsageError(f"lengths reach {int(lengths.max())}, but the outputs have {outputs.size(1)} steps")
            if int(lengths.min()) < 0:
                raise UsageError(f"lengths go down to {int(lengths.min())}, allowed is 0 or more")
        if not outputs.size(1):  # a batch of nothing but empty rows
            outputs = outputs.new_zeros(outputs.size(0), 1, outputs.size(2))
        outputs = mask_steps(outputs, lengths)  # whatever stands at padding, NaN too, reaches nothing
        if self.kind == "attention":
            return self._attend(outputs, lengths)
        if self.kind == "concat":
            parts = [self._last(outputs, lengths), self._max(outputs, lengths), self._mean(outputs, lengths)]
            return Pooled(torch.cat(parts, dim=1), None)
        pool = {"last": self._last, "mean": self._mean, "max": self._max}[self.kind]
        return Pooled(pool(outputs, lengths), None)

    def _last(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        last = last_valid(outputs, lengths)  # an empty row gives its first step, which is masked
        if not self.bidirectional:
            return last
        half = outputs.size(2) // 2
        return torch.cat([last[:, :half], outputs[:, 0, half:]], dim=1)

    def _mean(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        return outputs.sum(dim=1) / lengths.clamp_min(1).unsqueeze(1).to(outputs.dtype)

    def _max(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        padding = ~length_mask(lengths, outputs.size(1)).unsqueeze(2)
        highest = outputs.masked_fill(padding, torch.finfo(outputs.dtype).min).amax(dim=1)
        return highest.masked_fill((lengths == 0).unsqueeze(1), 0.0)

    def _attend(self, outputs: Tensor, lengths: Tensor) -> Pooled:
        scores = self.score(torch.tanh(self.key(outputs))).squeeze(2)
        weights = masked_softmax(scores, length_mask(lengths, outputs.size(1))).to(outputs.dtype)
        return Pooled(torch.bmm(weights.unsqueeze(1), outputs).squeeze(1), weights)
