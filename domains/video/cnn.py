"""Networks from one picture to a vector of features: a small one, a VGG-style one, and torchvision's ResNet-18.

Each is a stack of groups, from the input upwards, that can be frozen or trained group by group. Mean and deviation of
pixels are part of it, so that its weights are never used with another normalisation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from suite.effects import Declared, Needs, one_of, only_without_source
from suite.errors import UsageError

CNNKind = Literal["small", "vgg", "resnet18"]
NormKind = Literal["batch", "group", "none"]
_GROUP_CHANNELS = 8  # channels that are normalised together


@dataclass(frozen=True)
class CNNConfig:
    """The network from a frame to features.

    Args:
        kind: One convolution of stride 2 a stage (small); two convolutions and a maximum a stage (vgg; Simonyan and
            Zisserman 2015); torchvision's ResNet-18 (He et al. 2016).
        width: Channels of the first stage, twice as many in each one after; for small and vgg.
        stages: Stages, each of which halves height and width; for small and vgg.
        norm: Normalisation after a convolution, for small and vgg. Batch statistics are those of one process; group
            and none make two processes equal one.
        grid: Cells along each side that the last feature map is averaged over; 1 forgets where things are.
        feature_size: Features of a linear layer on top; the averages themselves if not given.
        weights: File with weights to begin with: a checkpoint of this domain, or torchvision's for ResNet-18.
        trained_groups: So many groups of layers are trained, counted from the top; all if not given, 0 freezes all.
        frozen_statistics: Leave the running statistics of batch normalisation as they are, and use them in training.
    """

    only_with: ClassVar[Declared] = {
        **dict.fromkeys(("width", "stages", "norm"), one_of("kind", "small", "vgg")),
        "weights": only_without_source("the weights come from --source"),
        "frozen_statistics": Needs(
            ("norm", "kind"), lambda norm, kind: norm == "batch" or kind == "resnet18", "set {0} to batch"
        ),
    }

    kind: CNNKind = "small"
    width: int = 16
    stages: int = 3
    norm: NormKind = "group"
    grid: int = 4
    feature_size: int | None = 64
    weights: str | None = None
    trained_groups: int | None = None
    frozen_statistics: bool = False


class FrameCNN(nn.Module):
    """Pictures ``(N, 3, H, W)``, 0 to 255, to features ``(N, output_size)``.

    Args:
        config: what it is made of.
        mean: of pixels, 0 to 1, for each colour.
        deviation: likewise.

    Raises:
        UsageError: a size below one, or more groups to train than there are.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: CNNConfig, *, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        for name in ("width", "stages", "grid", "feature_size"):
            value = getattr(config, name)
            if value is not None and value < 1:
                raise UsageError(f"model.cnn.{name} is {value}, allowed is 1 or more")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float32).view(3, 1, 1))
        stages, channels = _resnet_stages() if config.kind == "resnet18" else _plain_stages(config)
        self.stages = nn.ModuleList(stages)
        self.pool = nn.AdaptiveAvgPool2d(config.grid)
        size = channels * config.grid**2
        self.features = nn.Identity() if config.feature_size is None else _project(size, config.feature_size)
        self.output_size = config.feature_size or size
        self.frozen_statistics = config.frozen_statistics
        self.frozen = self._freeze(config.trained_groups)
        self.train()

    def groups(self) -> list[tuple[str, list[nn.Module]]]:
        """Names and modules of the groups, from the input upwards; the linear layer belongs to the topmost."""
        found: list[tuple[str, list[nn.Module]]] = [
            (f"stage{number}", [stage]) for number, stage in enumerate(self.stages, start=1)
        ]
        found[-1][1].append(self.features)
        return found

    def _freeze(self, trained: int | None) -> list[nn.Module]:
        groups = self.groups()
        if trained is None:
            return []
        if not 0 <= trained <= len(groups):
            raise UsageError(f"model.cnn.trained_groups is {trained}, allowed is 0 to {len(groups)} for this network")
        frozen = [module for _, modules in groups[: len(groups) - trained] for module in modules]
        for module in frozen:
            module.requires_grad_(False)
        return frozen

    def train(self, mode: bool = True) -> "FrameCNN":
        """As ``nn.Module``; frozen groups, and with ``frozen_statistics`` all statistics, stay as in evaluation."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        if self.frozen_statistics:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Features of ``pixels``, uint8 or floating; what is laid out with channels last is the fastest."""
        maps = (pixels.to(self.mean.dtype) / 255.0 - self.mean) / self.deviation
        for stage in self.stages:
            maps = stage(maps)
        features: Tensor = self.features(self.pool(maps).flatten(1))
        return features


def _project(size: int, features: int) -> nn.Module:
    return nn.Sequential(nn.Linear(size, features), nn.ReLU())


def _plain_stages(config: CNNConfig) -> tuple[list[nn.Module], int]:
    stages: list[nn.Module] = []
    channels = 3
    for number in range(config.stages):
        width = config.width * 2**number
        if config.kind == "vgg":
            layers = [*_convolve(channels, width, 1, config.norm), *_convolve(width, width, 1, config.norm)]
            layers.append(nn.MaxPool2d(2))
        else:
            layers = _convolve(channels, width, 2, config.norm)
        stages.append(nn.Sequential(*layers))
        channels = width
    return stages, channels


def _convolve(channels: int, width: int, stride: int, norm: NormKind) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=norm == "none")
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    normalised: dict[NormKind, list[nn.Module]] = {
        "batch": [nn.BatchNorm2d(width)],
        "group": [nn.GroupNorm(_groups_of(width), width)],
        "none": [],
    }
    return [convolution, *normalised[norm], nn.ReLU(inplace=True)]


def _groups_of(width: int) -> int:
    """The number of groups whose channels come nearest to eight."""
    return next(width // size for size in range(min(_GROUP_CHANNELS, width), 0, -1) if width % size == 0)


def _resnet_stages() -> tuple[list[nn.Module], int]:
    """torchvision's layers in five groups; ``load_weights`` knows what they are called there."""
    net = resnet18(weights=None)
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    return [stem, net.layer1, net.layer2, net.layer3, net.layer4], net.fc.in_features
