"""The classifiers as plain ``nn.Module``: frames through a CNN, features over time through a head, one linear layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from domains.video.cnn import CNNConfig, FrameCNN
from domains.video.stored import StoredClips
from suite.classification import Scores
from suite.dropout import Dropout
from suite.pooling import Pooling, PoolingKind
from suite.recurrent import EncoderConfig, RecurrentEncoder
from suite.sequence import length_mask

StreamsKind = Literal["rgb", "difference", "both"]
HeadKind = Literal["recurrent", "average"]
PIXELS_AT_ONCE = 1 << 20
"""Pixels of the frames that go through a CNN at once in evaluation: 83 frames of 112 x 112."""
_STREAMS: dict[StreamsKind, tuple[str, ...]] = {
    "rgb": ("rgb",),
    "difference": ("difference",),
    "both": ("rgb", "difference"),
}


@dataclass(frozen=True)
class HeadConfig:
    """What stands between the features of frames and the classes; see ``ClipModule`` for the meaning of each."""

    kind: HeadKind
    encoder: EncoderConfig
    pooling: PoolingKind
    dropout: float


class ImageClassifier(nn.Module):
    """Pictures ``(B, 3, S, S)`` to logits ``(B, C)``."""

    def __init__(
        self, classes: int, *, cnn: CNNConfig, dropout: float, mean: Sequence[float], deviation: Sequence[float]
    ) -> None:
        super().__init__()
        self.cnn = FrameCNN(cnn, mean=mean, deviation=deviation)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(self.cnn.output_size, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(self.dropout(self.cnn(images)))
        return logits


class ClipClassifier(nn.Module):
    """Clips ``(R, T, 3, S, S)`` to logits ``(R, C)``.

    A stream has a CNN of its own: pixels, or their difference from the frame before (zero for the first one). CNNs see
    valid frames alone, so that padding costs nothing and is in no statistics.
    """

    def __init__(
        self,
        classes: int,
        *,
        cnn: CNNConfig,
        streams: StreamsKind,
        head: HeadConfig,
        mean: Sequence[float],
        deviation: Sequence[float],
    ) -> None:
        super().__init__()
        means = {"rgb": mean, "difference": [0.0] * 3}
        self.cnns = nn.ModuleDict(
            {name: FrameCNN(cnn, mean=means[name], deviation=deviation) for name in _STREAMS[streams]}
        )
        size = sum(self.cnn(name).output_size for name in self.cnns)
        self.dropout = Dropout(head.dropout)
        self.encoder: RecurrentEncoder | None = None
        if head.kind == "recurrent":
            self.encoder = head.encoder.build(size, dropout=head.dropout)
            self.pooling = Pooling(
                self.encoder.output_size, kind=head.pooling, bidirectional=head.encoder.bidirectional
            )
        else:
            self.pooling = Pooling(size, kind="mean")
        self.output = nn.Linear(self.pooling.output_size, classes)

    def cnn(self, name: str) -> FrameCNN:
        """The CNN of a stream."""
        found = self.cnns[name]
        assert isinstance(found, FrameCNN)
        return found

    def features(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Features ``(R, T, F)`` of each frame, zero at padding."""
        mask = length_mask(lengths, frames.size(1))
        parts = []
        for name in self.cnns:
            pixels = frames if name == "rgb" else _differences(frames)
            # Colours last, as frames are stored: a copy of the valid ones that convolutions take as it is.
            valid = pixels.permute(0, 1, 3, 4, 2)[mask].permute(0, 3, 1, 2)
            found = self._see(name, valid)
            spread = found.new_zeros(*mask.shape, found.size(1))
            spread[mask] = found
            parts.append(spread)
        return torch.cat(parts, dim=2)

    def _see(self, name: str, frames: Tensor) -> Tensor:
        """Features ``(N, F)`` of frames; in evaluation a part of them at a time, since feature maps are large."""
        cnn = self.cnn(name)
        if self.training or torch.is_grad_enabled():
            found: Tensor = cnn(frames)
            return found
        return torch.cat([cnn(part) for part in frames.split(_frames_at_once(frames.size(-1)))])

    def _stored_features(self, clips: StoredClips, row: int) -> Tensor:
        """Features ``(1, T, F)`` of a clip that stays in the cache."""
        pieces = []
        for frames, before in clips.pieces(row, _frames_at_once(clips.side)):
            frames, before = frames.to(self.output.weight.device), before.to(self.output.weight.device)
            changes = (
                _differences(torch.cat([before, frames]).unsqueeze(0))[0, 1:] if "difference" in self.cnns else frames
            )
            seen = {"rgb": frames, "difference": changes}
            pieces.append(torch.cat([self.cnn(name)(seen[name]) for name in self.cnns], dim=1))
        return torch.cat(pieces).unsqueeze(0)

    def forward(self, frames: Tensor | StoredClips, lengths: Tensor) -> Scores:
        """Logits, and the attention over frames ``(R, T)`` of a pooling that has it.

        Clips that stay in the cache go through one by one, so that memory does not grow with their number.
        """
        if isinstance(frames, Tensor):
            return self._classify(self.features(frames, lengths), lengths)
        rows = []
        for row, length in enumerate(lengths.tolist()):
            features = self._stored_features(frames, row) if length else self._no_features()
            rows.append(self._classify(features, lengths[row : row + 1]))
        weights = [
            nn.functional.pad(each.weights, (0, frames.size(1) - each.weights.size(1)))
            for each in rows
            if each.weights is not None
        ]
        return Scores(torch.cat([each.logits for each in rows]), torch.cat(weights) if weights else None)

    def _no_features(self) -> Tensor:
        return self.output.weight.new_zeros(1, 1, sum(self.cnn(name).output_size for name in self.cnns))

    def _classify(self, features: Tensor, lengths: Tensor) -> Scores:
        """Features ``(R, T, F)`` over time to logits."""
        features, penalty = self.dropout(features), None
        if self.encoder is not None:
            encoded = self.encoder(features, lengths)
            features, penalty = encoded.outputs, self.encoder.penalty(encoded)
        pooled = self.pooling(features, lengths)
        return Scores(self.output(self.dropout(pooled.features)), pooled.weights, penalty)


def _frames_at_once(size: int) -> int:
    return max(1, PIXELS_AT_ONCE // size**2)


def _differences(frames: Tensor) -> Tensor:
    """Each frame less the one before it, in the units of pixels; zero for the first."""
    signed = frames.to(torch.int16)
    changes = torch.zeros_like(signed)
    changes[:, 1:] = signed[:, 1:] - signed[:, :-1]
    return changes
