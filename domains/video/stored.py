"""Clips that stay in the cache while a batch is evaluated: a video of any length needs little memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.video.cache import read_frames
from suite.errors import DataError


class StoredClip(NamedTuple):
    """Which frames of a cache ``file`` make a clip; there is no file where there are none."""

    file: Path | None
    indices: NDArray[numpy.int64]


class StoredClips:
    """The frames of R clips, read when they are needed.

    It has what networks and plots use of a tensor ``(R, T, 3, S, S)``.
    """

    def __init__(self, clips: Sequence[StoredClip], *, size: int) -> None:
        self.clips, self.side = clips, size

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, rows: slice) -> "StoredClips":
        return StoredClips(self.clips[rows], size=self.side)

    def size(self, dim: int) -> int:
        """As a tensor's."""
        longest = max(len(clip.indices) for clip in self.clips)
        return (len(self.clips), longest, 3, self.side, self.side)[dim]

    def read(self, row: int, places: Sequence[int] | slice) -> Tensor:
        """The frames ``(N, 3, S, S)`` uint8 at ``places`` of a clip.

        Raises:
            DataError: the cache has gone.
        """
        file, indices = self.clips[row]
        chosen = indices[places]
        if file is None:
            return torch.zeros((len(chosen), 3, self.side, self.side), dtype=torch.uint8)
        try:
            frames = read_frames(file, chosen, size=self.side)
        except OSError:
            raise DataError(f"{file}: gone from the cache during the run: begin again") from None
        return torch.from_numpy(frames).permute(0, 3, 1, 2)

    def pieces(self, row: int, length: int) -> Iterator[tuple[Tensor, Tensor]]:
        """A clip in pieces of ``length`` frames at most, each ``(N, 3, S, S)``, with the frame before it ``(1, ...)``.

        Before the first frame of a clip there is the same frame.
        """
        for start in range(0, len(self.clips[row].indices), length):
            first = max(start - 1, 0)
            frames = self.read(row, slice(first, start + length))
            yield frames[start - first :], frames[:1]
