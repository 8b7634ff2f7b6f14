"""A WaveNet's weights as generation uses them."""

from typing import NamedTuple

import torch
from torch import Tensor

from domains.audio.network import WaveNet
from suite.convolution import GatedLayer


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
