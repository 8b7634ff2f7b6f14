"""Streams and the compiled loop that goes on with them: ``FewStreams`` up to ``FEW``, ``StreamGroup`` for more."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.audio.groups import generate_group
from domains.audio.streams import generate_streams
from domains.audio.weights import Weights
from suite.mu_law import silence
from suite.tiles import LANES, WIDTHS, packed, padded_rows

FEW = LANES * 5 // 8  # up to here the one loop is quicker than a group of which most is empty
_EXTRA_ELEMENTS = 2**21  # what a local condition adds to all gates of a few steps, held at a time


class Loop(ABC):
    """B streams in W columns of the loop's arrays; its state is where the streams are."""

    generate: Callable[..., None]

    def __init__(self, weights: Weights, *, width: int) -> None:
        self.weights, self.width, self.position = weights, width, 0
        self.classes = len(weights.output_bias)
        self.dilations = numpy.array(weights.dilations)
        self.starts = numpy.concatenate([[0], numpy.cumsum(self.dilations)[:-1]])
        self.codes = numpy.full(width, silence(self.classes))
        self.arrays: list[NDArray[numpy.float32]] = []
        self.rings: NDArray[numpy.float32]

    @abstractmethod
    def arranged(self, product: Tensor) -> Tensor:
        """What the local condition adds to gates, ``(T, B, L, 2C)``, as the loop reads it."""

    def run(
        self, draws: Tensor, *, temperature: float, local: Tensor | None, forced: Tensor | None, with_logits: bool
    ) -> tuple[Tensor, Tensor]:
        """Classes ``(T, B)`` and, if asked for, logits ``(T, B, V)``; otherwise these are empty."""
        steps, streams = draws.shape
        layers, _, double = self.weights.offsets.shape
        size = steps if local is None else max(1, _EXTRA_ELEMENTS // (layers * self.width * double))
        uniform = self._columns(draws)
        given = numpy.empty((0, 0), dtype=numpy.int64) if forced is None else self._columns(forced)
        found = numpy.empty((steps, self.width), dtype=numpy.int64)
        logits = numpy.empty((steps, streams, self.classes) if with_logits else (0, 0, 0), dtype=numpy.float32)
        for begin in range(0, steps, size):
            part = slice(begin, min(begin + size, steps))
            self.generate(
                *self.arrays,
                self._extra(None if local is None else local[part]),
                self.dilations,
                self.starts,
                self.rings,
                self.position,
                self.codes,
                uniform[part],
                temperature,
                given[part],
                found[part],
                logits[part],
            )
            self.position += part.stop - part.start
        return torch.from_numpy(found[:, :streams]), torch.from_numpy(logits)

    def _columns(self, values: Tensor) -> NDArray[Any]:
        """``(T, B)`` in W columns."""
        return torch.nn.functional.pad(values, (0, self.width - values.size(1))).contiguous().numpy()

    def _extra(self, local: Tensor | None) -> NDArray[numpy.float32]:
        """What ``local (T, B, D)`` adds to the gates; empty without."""
        if local is None:
            return numpy.empty((0, 0, 0, 0), dtype=numpy.float32)
        assert self.weights.local is not None, "the network has no local condition"
        layers, _, double = self.weights.offsets.shape
        steps, streams, _ = local.shape
        with torch.autocast("cpu", enabled=False):  # the engine's numbers are float32
            product = local.reshape(steps * streams, -1).float() @ self.weights.local
        return self.arranged(product.view(steps, streams, layers, double)).contiguous().numpy()


class FewStreams(Loop):
    """One stream or a few, each a row.

    The weights of a large model do not fit a core's cache, and reading them is all the time. What the past adds is
    known ahead for as many steps as a layer's dilation: it is computed for several steps at once, so that those
    weights are read once for all of them.
    """

    generate = staticmethod(generate_streams)

    def __init__(self, weights: Weights) -> None:
        streams, double = weights.offsets.shape[1:]
        super().__init__(weights, width=streams)
        self.rings = numpy.zeros((int(self.dilations.sum()), streams, double // 2), dtype=numpy.float32)
        self.arrays = [part.numpy() for part in (*weights[:5], *weights[6:10]) if isinstance(part, Tensor)]

    def arranged(self, product: Tensor) -> Tensor:
        """``(T, L, B, 2C)``."""
        return product.transpose(1, 2)


class StreamGroup(Loop):
    """As many streams as a tile of a product is wide, or fewer, each a column.

    A weight is read once for all of them, so that the time goes into products.
    """

    generate = staticmethod(generate_group)

    def __init__(self, weights: Weights) -> None:
        streams, double = weights.offsets.shape[1:]
        width = next(width for width in WIDTHS if width >= streams)
        super().__init__(weights, width=width)
        self.rings = numpy.zeros((int(self.dilations.sum()), double // 2, width), dtype=numpy.float32)
        pairs = zip(weights.past, weights.current, strict=True)
        taps = torch.stack([packed(torch.cat(pair), width) for pair in pairs])
        both = torch.stack([packed(weight, width) for weight in weights.both])
        offsets = torch.nn.functional.pad(weights.offsets.transpose(1, 2), (0, width - streams))
        hidden, output = packed(weights.hidden, width), packed(weights.output, width)
        biases = [bias.unsqueeze(1).expand(-1, width) for bias in (weights.hidden_bias, weights.output_bias)]
        parts = [
            weights.embedding, taps, both, padded_rows(offsets, taps[0]), hidden, padded_rows(biases[0], hidden),
            output, padded_rows(biases[1], output),
        ]  # fmt: skip
        self.arrays = [part.numpy() for part in parts]

    def arranged(self, product: Tensor) -> Tensor:
        """``(T, L, 2C, W)``."""
        return torch.nn.functional.pad(product.permute(0, 2, 3, 1), (0, self.width - product.size(1)))
