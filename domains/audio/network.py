"""WaveNet (van den Oord et al. 2016): classes in, a distribution over the next class out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from domains.audio.mel import MARGIN
from suite.convolution import GatedResidualStack, dilation_cycle
from suite.errors import UsageError


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a WaveNet: see ``WaveformModule``."""

    channels: int
    num_layers: int
    cycle: int
    skip_channels: int
    condition_size: int
    local_channels: int

    def check(self) -> None:
        """Raises UsageError for sizes below 1 and dilations beyond reason."""
        for name, value in vars(self).items():
            if value < 1:
                raise UsageError(f"model.{name} is {value}, allowed is 1 or more")
        if self.cycle > 20:
            raise UsageError(
                f"model.cycle is {self.cycle}: dilations would reach {2 ** (self.cycle - 1)}; allowed is 20"
            )


class WaveNet(nn.Module):
    """Embedded classes, global and local conditions, a causal gated stack and two output layers.

    Args:
        classes: V, of the mu-law.
        conditions: how many values each global condition has.
        mel_bands: features of a frame of the local condition; 0 without.
        hop: steps a frame.
        config: sizes.
    """

    def __init__(
        self, classes: int, *, conditions: Sequence[int], mel_bands: int, hop: int, config: NetworkConfig
    ) -> None:
        super().__init__()
        config.check()
        self.embedding = nn.Embedding.from_pretrained(smooth_rows(classes, config.channels), freeze=False)
        self.conditions = nn.ModuleList(nn.Embedding(count, config.condition_size) for count in conditions)
        self.upsampler = LearnedUpsampler(mel_bands, config.local_channels, hop=hop) if mel_bands else None
        self.stack = GatedResidualStack(
            config.channels,
            dilations=dilation_cycle(config.num_layers, config.cycle),
            skip_channels=config.skip_channels,
            condition_size=config.condition_size * len(conditions),
            local_size=config.local_channels if mel_bands else 0,
        )
        self.hidden = nn.Linear(config.skip_channels, config.skip_channels)
        self.output = nn.Linear(config.skip_channels, classes)

    @property
    def receptive_field(self) -> int:
        """Samples that decide the next one's distribution."""
        return self.stack.receptive_field

    def condition(self, conditions: Tensor) -> Tensor | None:
        """``(B, K)`` classes of the global conditions as features ``(B, condition_size * K)``; ``None`` without."""
        if not len(self.conditions):
            return None
        tables = [cast(nn.Embedding, table) for table in self.conditions]
        return torch.cat([table(column) for table, column in zip(tables, conditions.unbind(1), strict=True)], dim=1)

    def upsample(self, local: Tensor | None, steps: int) -> Tensor | None:
        """Frames ``(B, M, F)`` as features of each step, ``(B, steps, local_channels)``; ``None`` without."""
        if self.upsampler is None:
            return None
        assert local is not None, "the model has a local condition"
        return self.upsampler(local)[:, :, :steps].transpose(1, 2)

    def features(self, codes: Tensor, conditions: Tensor, local: Tensor | None) -> Tensor:
        """What the output layer sees, ``(T, B, S)``, time first.

        Args:
            codes: ``(B, T)``, the sample before each that is predicted.
            conditions: ``(B, K)``.
            local: ``(B, M, F)`` frames, or ``None``.
        """
        inputs = self.embedding(codes.t()).transpose(0, 1)  # time first in memory: what the stack is quickest with
        upsampled = self.upsample(local, codes.size(1))
        skips = self.stack(inputs, condition=self.condition(conditions), local=upsampled)
        return torch.relu(self.hidden(torch.relu(skips.transpose(0, 1))))

    def forward(self, codes: Tensor, conditions: Tensor, local: Tensor | None = None) -> Tensor:
        """Logits ``(B, T, V)`` of the sample after each of ``codes (B, T)``."""
        return self.output(self.features(codes, conditions, local)).transpose(0, 1)


class LearnedUpsampler(nn.Module):
    """From frames to steps by transposed convolutions (van den Oord et al. 2016, section 2.5).

    Frames come with ``MARGIN`` more on each side, as far as the filters reach: a part of a signal is then upsampled
    as the whole would be.

    Raises:
        UsageError: a hop that is not a product of factors up to 16.
    """

    def __init__(self, bands: int, channels: int, *, hop: int) -> None:
        super().__init__()
        self.hop = hop
        stages: list[nn.Module] = [nn.Conv1d(bands, channels, 1)]
        for factor in factors(hop):
            stages.append(nn.LeakyReLU(0.4))
            # Filters of width three factors and padding of one: step t of frame f sees frames f - 1, f and f + 1.
            stages.append(nn.ConvTranspose1d(channels, channels, 3 * factor, stride=factor, padding=factor))
        self.stages = nn.Sequential(*stages)

    def forward(self, frames: Tensor) -> Tensor:
        """``(B, M, F)`` to ``(B, C, (F - 2 * MARGIN) * hop)``."""
        return self.stages(frames)[:, :, MARGIN * self.hop : -MARGIN * self.hop]


def factors(hop: int) -> list[int]:
    """Two factors as near to each other as can be (one, for a small hop)."""
    if hop <= 8:
        return [hop]
    pairs = [(small, hop // small) for small in range(2, math.isqrt(hop) + 1) if hop % small == 0]
    if not pairs or pairs[-1][1] > 32:
        raise UsageError(f"data.mel.hop is {hop}: allowed are products of two factors up to 32, such as 64, 128 or 256")
    return [pairs[-1][1], pairs[-1][0]]


def smooth_rows(classes: int, channels: int) -> Tensor:
    """Embeddings in which neighbouring classes begin as neighbours: waves of the class's place, random in each channel.

    With independent rows the model would have to learn first which classes sound alike.
    """
    place = torch.linspace(-1.0, 1.0, classes).unsqueeze(1)
    speed = torch.exp(torch.empty(1, channels).uniform_(math.log(0.5), math.log(30.0)))
    return torch.sin(speed * place + torch.empty(1, channels).uniform_(-math.pi, math.pi))
