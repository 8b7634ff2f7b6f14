"""Generation sample by sample with cached layers (Paine et al. 2016): two engines, the same samples.

Each layer keeps its inputs of as many steps back as its dilation; a step costs one product a tap. ``TorchEngine`` runs
batches on any device, ``KernelEngine`` machine code on a CPU. Both draw a class by where a uniform number falls in the
cumulative distribution. Logits of the two differ by rounding (1e-6 of their size); so do their samples where a number
falls as near as that to an edge between two classes: 3 to 10 times in a million samples.
"""

from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from domains.audio.kernel_engine import KernelEngine
from domains.audio.network import WaveNet
from domains.audio.requests import Engine, check_engine
from domains.audio.weights import Weights, weights_of
from suite import kernels
from suite.console import notice
from suite.gating import gate_
from suite.mu_law import silence


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


def make_engine(network: WaveNet, conditions: Tensor, *, kind: Engine = "auto") -> Stepper:
    """What is asked for; ``auto`` is the kernel on a CPU with numba, and the torch engine without or elsewhere.

    Raises:
        UsageError: the kernel, where it cannot run.
    """
    device = conditions.device.type
    check_engine(kind, device=device)
    weights = weights_of(network, conditions)
    if kind == "torch" or device != "cpu":
        return TorchEngine(weights)
    if not kernels.AVAILABLE:
        _say_that_torch_stands_in()
        return TorchEngine(weights)
    return KernelEngine(weights)


@cache
def _say_that_torch_stands_in() -> None:
    """Once, however many batches and samples are generated."""
    notice("generation: without numba (not installed, or switched off) the torch engine stands in, which is slower")


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
        self.sums, self.change = new(streams, channels + skips), new(streams, channels + skips)
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
            torch.mm(self.gated, both, out=self.change)
            self.sums.add_(self.change)  # once a layer, as the convolution does: the sums are large and would round
        self.position += 1
        hidden = torch.addmm(weights.hidden_bias, self.skips.relu(), weights.hidden).relu_()
        return torch.addmm(weights.output_bias, hidden, weights.output)
