"""Windows of recordings as mu-law classes: which there are, and how one is read, a pure function of its seed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.audio.mel import MelConfig, mel_frames
from domains.audio.recordings import Recording
from suite.mu_law import mu_law_encode, silence


class Window(NamedTuple):
    """One example.

    ``codes (T + 1,)`` are the sample before the first and T samples; the first ``context`` of the T are only seen, the
    others predicted. ``local (M, F)`` are spectrum frames, two more on each side than T steps have.
    """

    number: int
    name: str
    codes: Tensor
    context: int
    conditions: list[int]
    local: Tensor | None


class WaveExamples:
    """Windows of ``size`` samples that tile each recording; in training all but the first begin elsewhere each time.

    Args:
        recordings: clips and their conditions.
        conditions: the values of each condition in the order of their classes.
        size: samples predicted in a window, at most.
        context: samples before a window that the model sees.
        shift: draw where each window begins from its seed (training).
        classes: of the mu-law.
        mel: the local condition, or ``None``.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        *,
        conditions: dict[str, list[str]],
        size: int,
        context: int,
        shift: bool,
        classes: int,
        mel: MelConfig | None,
    ) -> None:
        self.recordings, self.size, self.context, self.shift = list(recordings), size, context, shift
        self.classes, self.mel = classes, mel
        self.values = [
            [names.index(recording.conditions[name]) for name, names in conditions.items()] for recording in recordings
        ]
        self.places = [
            (number, start)
            for number, recording in enumerate(self.recordings)
            for start in range(0, recording.clip.frames, size)
        ]
        frames = [self.recordings[number].clip.frames - start for number, start in self.places]
        self.predicted: NDArray[numpy.int64] = numpy.minimum(numpy.array(frames, dtype=numpy.int64), size)
        seen = [min(start, context) if not shift else context if start else 0 for _, start in self.places]
        self.lengths = self.predicted + numpy.array(seen, dtype=numpy.int64)  # the most that a batch has to hold

    def fetch(self, index: int, seed: int) -> Window:
        """Read window ``index``; only its samples are read from its file."""
        number, start = self.places[index]
        clip = self.recordings[number].clip
        length = int(self.predicted[index])
        if self.shift and start:  # the first window stays: how a clip begins is to be learnt too
            rng = numpy.random.default_rng(seed)
            start = int(rng.integers(0, clip.frames - length + 1))
        if self.mel is not None:
            start -= start % self.mel.hop
        context = min(self.context, start)
        if self.mel is not None:
            context -= context % self.mel.hop
        first = start - context
        before = clip.read(first - 1, first + context + length) if first else clip.read(0, length + context)
        codes = mu_law_encode(torch.from_numpy(numpy.ascontiguousarray(before)), self.classes)
        if not first:
            codes = torch.cat([torch.tensor([silence(self.classes)]), codes])
        local = None if self.mel is None else mel_frames(clip, first, first + context + length, config=self.mel)
        return Window(index, self.recordings[number].clip.name, codes, context, self.values[number], local)
