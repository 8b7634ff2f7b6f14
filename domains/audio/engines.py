"""Generation sample by sample with cached layers (Paine et al. 2016): two engines, the same samples.

Each layer keeps its inputs of as many steps back as its dilation; a step costs one product a tap. ``TorchEngine`` runs
batches on any device, ``KernelEngine`` few streams on a CPU in machine code. Both draw a class by where a uniform
number falls in the cumulative distribution. Logits of the two differ by rounding, a few millionths; so do their
samples where a number falls as near as that to an edge between two classes: about once in a million samples.
"""

from typing import NamedTuple, Protocol

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.audio.network import WaveNet
from domains.audio.requests import Engine
from domains.audio.streams import generate_streams
from suite.convolution import GatedLayer
from suite.gating import gate_
from suite.kernels import AVAILABLE
from suite.mu_law import silence

# Beyond this many, large matrix products are quicker than the kernel's; without AVX-512 they were slower at 64 still.
KERNEL_STREAMS = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 64
_EXTRA_ELEMENTS = 2**21  # what a local condition adds to all gates of a few steps, held at a time


class Weights(NamedTuple):
    """A network's weights as engines use them: L layers, C channels, S skips, V classes, B streams.

    ``both (L, C, C + S)`` are residual and skip side by side; ``offsets (L, B, 2C)`` have bias and condition in them.
    """

    embedding: Tensor
    past: Tensor
    current: Tensor
    both: Tensor
    offsets: Tensor
    local: Tensor | None
    hidden: Tensor
    hidden_bias: Tensor
    output: Tensor
    output_bias: Tensor
    dilations: list[int]


class Stepper(Protocol):
    """An engine: its state is where the streams are."""

    def run(
        self,
        draws: Tensor,
        *,
        temperature: float = 1.0,
        local: Tensor | None = None,
        forced: Tensor | None = None,
        logits: Tensor | None = None,
    ) -> Tensor:
        """Go on by T steps; gives the classes ``(T, B)``, int64 on CPU.

        Args:
            draws: ``(T, B)`` uniform numbers in [0, 1), float64 on CPU.
            temperature: what logits are divided by.
            local: ``(T, B, D)`` upsampled local condition.
            forced: ``(T, B)`` classes to take instead of drawn ones.
            logits: ``(T, B, V)``, written if given.
        """


def weights_of(network: WaveNet, conditions: Tensor) -> Weights:
    """Weights for ``B`` streams with ``conditions (B, K)``, float32, on the network's device."""
    layers = network.stack.gated_layers()
    streams = conditions.size(0)
    both = [torch.cat([_residual_of(layer), layer.skip], dim=1).detach() for layer in layers]
    offsets = network.stack.offsets(network.condition(conditions)).detach()
    local = None
    if network.upsampler is not None:
        local = torch.cat([layer.local.detach() for layer in layers if layer.local is not None], dim=1).float()
    parts = [
        network.embedding.weight,
        torch.stack([layer.past for layer in layers]),
        torch.stack([layer.current for layer in layers]),
        torch.stack(both),
        offsets.expand(-1, streams, -1),
    ]
    head = [network.hidden.weight.t(), network.hidden.bias, network.output.weight.t(), network.output.bias]
    # Copies: what numpy has looked at cannot be freed any more, and FSDP frees weights after their use.
    plain = [
        part.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format) for part in (*parts, *head)
    ]
    return Weights(
        plain[0], plain[1], plain[2], plain[3], plain[4], local, plain[5], plain[6], plain[7], plain[8],
        network.stack.dilations,
    )  # fmt: skip


def _residual_of(layer: GatedLayer) -> Tensor:
    """Zero for the last layer, which has none."""
    size = layer.past.size(0)
    return layer.past.new_zeros(size, size) if layer.residual is None else layer.residual


def make_engine(network: WaveNet, conditions: Tensor, *, kind: Engine = "auto") -> Stepper:
    """The engine asked for, or the quickest; the torch engine where there is no numba or the device is no CPU."""
    weights = weights_of(network, conditions)
    on_cpu = conditions.device.type == "cpu"
    few = conditions.size(0) <= KERNEL_STREAMS
    if AVAILABLE and on_cpu and (kind == "kernel" or (kind == "auto" and few)):
        return KernelEngine(weights)
    return TorchEngine(weights)


class TorchEngine:
    """All streams in one batch; a few calls a layer and step."""

    def __init__(self, weights: Weights) -> None:
        self.weights, self.position = weights, 0
        _, streams, double = weights.offsets.shape
        channels, skips = double // 2, weights.both.size(2) - double // 2
        new = weights.embedding.new_zeros
        self.rings = [new(dilation, streams, channels).unbind() for dilation in weights.dilations]
        self.codes = torch.full((streams,), silence(len(weights.output_bias)), device=weights.embedding.device)
        self.gates, self.gated = new(streams, double), new(streams, channels)
        self.sums = new(streams, channels + skips)
        self.stream, self.skips = self.sums[:, :channels], self.sums[:, channels:]
        self.layers = [part.unbind() for part in (weights.past, weights.current, weights.both, weights.offsets)]

    @torch.no_grad()
    def run(
        self,
        draws: Tensor,
        *,
        temperature: float = 1.0,
        local: Tensor | None = None,
        forced: Tensor | None = None,
        logits: Tensor | None = None,
    ) -> Tensor:
        device = self.codes.device
        draws, found = draws.to(device), torch.empty(draws.shape, dtype=torch.long, device=device)
        forced = None if forced is None else forced.to(device)
        for step in range(len(draws)):
            extra = None if local is None else self._extra(local[step])
            scores = self._step(extra)
            if logits is not None:
                logits[step] = scores
            if forced is not None:
                self.codes = forced[step]
            else:
                sums = torch.softmax(scores.double() / temperature, dim=1).cumsum(dim=1)
                places = torch.searchsorted(sums, draws[step].unsqueeze(1) * sums[:, -1:], right=True)
                self.codes = places.squeeze(1).clamp_(max=scores.size(1) - 1)
            found[step] = self.codes
        return found.cpu()

    def _extra(self, local: Tensor) -> tuple[Tensor, ...]:
        assert self.weights.local is not None, "the network has no local condition"
        return torch.mm(local.float(), self.weights.local).chunk(len(self.rings), dim=1)

    def _step(self, extra: tuple[Tensor, ...] | None) -> Tensor:
        weights, stream = self.weights, self.stream
        stream.copy_(weights.embedding[self.codes])
        self.skips.zero_()
        for number, (past, current, both, offsets) in enumerate(zip(*self.layers, strict=True)):
            ring = self.rings[number]
            before = ring[self.position % len(ring)]
            torch.mm(before, past, out=self.gates)
            before.copy_(stream)
            self.gates.addmm_(before, current)
            if extra is not None:
                self.gates.add_(extra[number])
            gate_(self.gates, offsets, self.gated)
            self.sums.addmm_(self.gated, both)
        self.position += 1
        hidden = torch.addmm(weights.hidden_bias, self.skips.relu(), weights.hidden).relu_()
        return torch.addmm(weights.output_bias, hidden, weights.output)


class KernelEngine:
    """Few streams, layer by layer in one compiled loop over steps.

    With one stream the weights of a large model do not fit a core's cache, and reading them is all the time. What the
    past adds is known ahead for as many steps as a layer's dilation: it is computed for several steps at once, so that
    those weights are read once for all of them.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights, self.position = weights, 0
        _, streams, double = weights.offsets.shape
        self.classes = len(weights.output_bias)
        self.dilations = numpy.array(weights.dilations)
        self.starts = numpy.concatenate([[0], numpy.cumsum(self.dilations)[:-1]])
        self.rings = numpy.zeros((int(self.dilations.sum()), streams, double // 2), dtype=numpy.float32)
        self.codes = numpy.full(streams, silence(self.classes))
        self.arrays = [part.numpy() for part in (*weights[:5], *weights[6:10]) if isinstance(part, Tensor)]

    @torch.no_grad()
    def run(
        self,
        draws: Tensor,
        *,
        temperature: float = 1.0,
        local: Tensor | None = None,
        forced: Tensor | None = None,
        logits: Tensor | None = None,
    ) -> Tensor:
        steps, streams = draws.shape
        found = numpy.empty((steps, streams), dtype=numpy.int64)
        layers, _, double = self.weights.offsets.shape
        size = steps if local is None else max(1, _EXTRA_ELEMENTS // (layers * streams * double))
        wanted = numpy.empty((0, 0, 0), dtype=numpy.float32) if logits is None else logits.numpy()
        given = numpy.empty((0, 0), dtype=numpy.int64) if forced is None else forced.numpy()
        for begin in range(0, steps, size):
            part = slice(begin, min(begin + size, steps))
            generate_streams(
                *self.arrays,
                self._extra(None if local is None else local[part]),
                self.dilations,
                self.starts,
                self.rings,
                self.position,
                self.codes,
                draws[part].numpy(),
                temperature,
                given[part],
                found[part],
                wanted[part],
            )
            self.position += part.stop - part.start
        return torch.from_numpy(found)

    def _extra(self, local: Tensor | None) -> NDArray[numpy.float32]:
        """What the local condition adds to the gates, ``(T, L, B, 2C)``; empty without."""
        if local is None:
            return numpy.empty((0, 0, 0, 0), dtype=numpy.float32)
        assert self.weights.local is not None, "the network has no local condition"
        layers, _, double = self.weights.offsets.shape
        steps, streams, _ = local.shape
        with torch.autocast("cpu", enabled=False):  # the engine's numbers are float32
            product = local.reshape(steps * streams, -1).float() @ self.weights.local
        found = product.view(steps, streams, layers, double)
        return found.transpose(1, 2).contiguous().numpy()
