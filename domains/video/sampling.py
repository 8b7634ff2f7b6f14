"""Which frames of a video make a clip: a pure function of the frames' times, the settings and a seed.

``uniform`` takes one frame from each of ``num_frames`` equal parts (Wang et al. 2016, temporal segments); ``dense``
takes ``num_frames`` neighbours at a fixed distance; ``all`` takes everything at that distance. Distances are counted
in frames (``stride``) or in seconds (1 / ``fps``); by time, the frame that is on the screen at that moment is taken,
so that clips of any frame rate, a changing one too, move alike.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy
from numpy.typing import NDArray

from suite.effects import Declared, one_of
from suite.errors import UsageError

SamplingKind = Literal["uniform", "dense", "all"]
Unit = Literal["frame", "time"]
Indices = NDArray[numpy.int64]
_TICK = 0.6e-3  # seconds


@dataclass(frozen=True)
class SamplingConfig:
    """Which frames make a clip.

    Args:
        kind: One frame from each of num_frames equal parts (uniform), neighbours (dense), or the whole video (all).
        unit: Count distances in frames, or in seconds, whatever the frame rate.
        num_frames: Frames of a clip, for uniform and dense; a video that has fewer gives a shorter clip,
            but with uniform by time frames more than once, as they are on the screen.
        stride: Frames from one to the next, for dense and all by frame.
        fps: Frames a second, for dense and all by time.
        test_clips: Clips of each video in evaluation and prediction, whose probabilities are averaged.
    """

    only_with: ClassVar[Declared] = {
        "num_frames": one_of("kind", "uniform", "dense"),
        "stride": (one_of("kind", "dense", "all"), one_of("unit", "frame")),
        "fps": (one_of("kind", "dense", "all"), one_of("unit", "time")),
        "test_clips": one_of("kind", "uniform", "dense"),
    }

    kind: SamplingKind = "uniform"
    unit: Unit = "frame"
    num_frames: int = 16
    stride: int = 1
    fps: float = 10.0
    test_clips: int = 1

    def check(self) -> None:
        """Refuse what means nothing.

        Raises:
            UsageError: naming the setting.
        """
        for name in ("num_frames", "stride", "test_clips"):
            if getattr(self, name) < 1:
                raise UsageError(f"data.sampling.{name} is {getattr(self, name)}, allowed is 1 or more")
        if not 0 < self.fps < float("inf"):
            raise UsageError(f"data.sampling.fps is {self.fps}, allowed is more than 0")
        if self.kind == "all" and self.test_clips > 1:
            raise UsageError("data.sampling.test_clips needs kind uniform or dense: all takes every frame in one clip")


def clip_length(count: int, duration: float, config: SamplingConfig) -> int:
    """Frames of a clip from a video of ``count`` frames that lasts ``duration`` seconds."""
    if config.kind == "uniform" and config.unit == "time":
        return config.num_frames
    if config.kind == "uniform":
        return min(config.num_frames, count)
    steps = _steps(count, duration, config)
    return steps if config.kind == "all" else min(config.num_frames, steps)


def train_clip(times: NDArray[numpy.float64], config: SamplingConfig, *, seed: int) -> Indices:
    """Frames of a clip drawn from ``seed``: a place in each part (uniform), where it begins (dense)."""
    length = clip_length(len(times), _duration(times, config), config)
    if config.kind == "all":
        return _in_row(times, length, 0.0, config)
    draw = numpy.random.default_rng(seed)
    if config.kind == "uniform":
        return _in_parts(times, length, draw.random(length), config)
    return _in_row(times, length, float(draw.random()), config)


def test_clips(times: NDArray[numpy.float64], config: SamplingConfig) -> list[Indices]:
    """Frames of each of ``config.test_clips`` clips, evenly placed: the middle for a single one."""
    length = clip_length(len(times), _duration(times, config), config)
    clips = []
    for number in range(config.test_clips):
        place = (number + 0.5) / config.test_clips
        if config.kind == "uniform":
            clips.append(_in_parts(times, length, numpy.full(length, place), config))
        else:
            clips.append(_in_row(times, length, place, config))
    return clips


def duration_of(times: NDArray[numpy.float64]) -> float:
    """Seconds from the first frame until the last one leaves the screen, which it does after the usual time."""
    if len(times) < 2:
        return 0.0
    return float(times[-1] + numpy.median(numpy.diff(times)))


def _duration(times: NDArray[numpy.float64], config: SamplingConfig) -> float:
    """As ``duration_of``, where it is needed."""
    return duration_of(times) if config.unit == "time" else 0.0


def _steps(count: int, duration: float, config: SamplingConfig) -> int:
    """Places in a video at the distance asked for."""
    if config.unit == "frame":
        return -(-count // config.stride)
    return max(1, round(duration * config.fps))


def _in_parts(
    times: NDArray[numpy.float64], length: int, places: NDArray[numpy.float64], config: SamplingConfig
) -> Indices:
    """One frame from each of ``length`` equal parts, at ``places`` (0 to 1) inside them."""
    if config.unit == "time":
        return _at(times, (numpy.arange(length) + places) / length * duration_of(times))
    edges = numpy.arange(length + 1) * len(times) // length  # parts of whole frames: none can be drawn twice
    return edges[:-1] + (places * numpy.diff(edges)).astype(numpy.int64)


def _in_row(times: NDArray[numpy.float64], length: int, place: float, config: SamplingConfig) -> Indices:
    """``length`` frames at a fixed distance, beginning at ``place`` (0 to 1) of where they can begin."""
    if config.unit == "frame":
        span = (length - 1) * config.stride + 1
        start = min(int(place * (len(times) - span + 1)), len(times) - span)
        return start + config.stride * numpy.arange(length)
    spare = 0.0 if config.kind == "all" else max(duration_of(times) - length / config.fps, 0.0)
    return _at(times, place * spare + numpy.arange(length) / config.fps)


def _at(times: NDArray[numpy.float64], moments: NDArray[numpy.float64]) -> Indices:
    """The frame on the screen at each of ``moments``."""
    # A frame's time may be rounded up by half a tick of the clock, which is a millisecond in Matroska and WebM.
    slack = min(_TICK, 0.25 * float(numpy.median(numpy.diff(times)))) if len(times) > 1 else 0.0
    found = numpy.searchsorted(times, moments + slack, side="right") - 1
    return numpy.clip(found, 0, len(times) - 1).astype(numpy.int64)
