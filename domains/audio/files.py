"""Audio files as clips: any stretch of samples, mono, at one rate, checked."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy
import soundfile
import torch
from torchaudio.functional import resample

from domains.audio.decoding import Samples, decode_blocks, read_mono
from domains.audio.flac_digest import FlacDigest
from domains.audio.layout import DECODER_ERRORS, ENDINGS, look_at, reason_of
from domains.audio.levels import Levels, Meter
from domains.audio.parts import Layout, layout_from_json
from domains.audio.remembered import key_of, recall
from suite.cache import file_state
from suite.errors import DataError

__all__ = ["ENDINGS", "ArrayClip", "Clip", "FileClip", "Samples", "open_clip", "open_clips", "write_header"]

_OTHER_MD5 = "its samples do not have the MD5 of its header: one of them is damaged"
_FILTER_WIDTH = 6  # zero crossings on each side, as torchaudio has it by default
_LARGEST_FILTER = 2**25  # numbers in the filters of a resampling; rates with a common divisor need few


class Clip(Protocol):
    """Audio that can be read in parts: ``frames`` samples in all, ``rate`` a second."""

    name: str
    frames: int
    rate: int

    def read(self, start: int, stop: int) -> Samples:
        """Samples ``start`` to ``stop``, both inside."""


class ArrayClip:
    """A clip in memory."""

    def __init__(self, samples: Samples, *, name: str, rate: int) -> None:
        self.samples, self.name, self.frames, self.rate = samples, name, len(samples), rate

    def read(self, start: int, stop: int) -> Samples:
        return self.samples[start:stop]


class FileClip:
    """A file, mixed down to mono and resampled to ``rate`` hertz.

    Args:
        path: of the file.
        rate: hertz.
        known: what ``found`` gave of the same state of the file.

    Raises:
        DataError: a file that is missing, empty, no audio, damaged, or of another size than its header says.
    """

    def __init__(self, path: Path, *, rate: int, known: Mapping[str, Any] | None = None) -> None:
        self.path, self.name, self.rate = path, str(path), rate
        self.state = _state_of(path)
        self.layout: Layout = layout_from_json(known["layout"]) if known else look_at(path)
        self.levels: Levels | None = Levels(*known["levels"]) if known else None
        self.own_rate, self.own_frames = self.layout.rate, self.layout.frames
        divisor = math.gcd(self.own_rate, rate)
        self.old, self.new = self.own_rate // divisor, rate // divisor
        if self.old != self.new and self.new * (self.old + 12 * max(1, self.old // self.new)) > _LARGEST_FILTER:
            raise DataError(
                f"{path}: its sample rate, {self.own_rate} Hz, has too little in common with {rate} Hz to be "
                "resampled: convert it to a usual rate"
            )
        self.frames = -(-self.own_frames * self.new // self.old)

    @property
    def is_vouched(self) -> bool:
        """Whether nothing can be wrong with samples that are not read: mono, whole numbers, all there."""
        return self.layout.vouched and self.layout.channels == 1

    def found(self) -> dict[str, Any]:
        """What ``check`` found, as plain values."""
        assert self.levels is not None, "not checked"
        return {"layout": self.layout.to_json(), "levels": list(self.levels)}

    def take(self, known: Mapping[str, Any]) -> bool:
        """Take what was found before of the same state of the file; whether it is about the same samples."""
        layout = layout_from_json(known["layout"])
        same = layout._replace(notes=()) == self.layout._replace(notes=())
        if same:
            self.layout = layout
            self.levels = Levels(*known["levels"])
        return same

    def read(self, start: int, stop: int) -> Samples:
        """As ``Clip.read``; where rates differ, only the samples that the filter reaches are read.

        Raises:
            DataError: samples that cannot be decoded, are not there or not finite, naming the file and the place.
        """
        if self.old == self.new:
            return self._decode(start, stop)
        # A resampling filter repeats after `new` outputs and `old` inputs: whole periods are cut out, and one more
        # on each side than the filter is wide, so that a part has the samples that the whole would have.
        margin = 1 + math.ceil(_FILTER_WIDTH / 0.99 * max(1.0, self.old / self.new) / self.old)
        first = max(0, start // self.new - margin)
        last = -(-stop // self.new) + margin
        samples = self._decode(first * self.old, min(last * self.old, self.own_frames))
        found = resample(
            torch.from_numpy(samples), self.old, self.new, lowpass_filter_width=_FILTER_WIDTH, rolloff=0.99
        ).numpy()
        part = found[start - first * self.new : stop - first * self.new]
        return numpy.ascontiguousarray(part)

    def check(self) -> None:
        """Decode all samples once, and measure them.

        Raises:
            DataError: as ``read``; samples that look like integers.
        """
        meter, place = Meter(floating=self.layout.kind == "float"), 0
        try:
            digest = FlacDigest(self.path, self.layout)
            for block in decode_blocks(self.path, self.layout):
                mono = block.mean(axis=1)
                self._check_finite(mono, place)
                meter.add(block, mono)
                digest.add(block)
                place += len(block)
        except DECODER_ERRORS as error:
            raise self._undecodable(place, self.own_frames, error) from None
        if place != self.own_frames:
            raise self._other_length(place)
        levels = meter.read()
        if levels.looks_integer:
            raise DataError(
                f"{self.path}: {meter.loud:,} samples of floating point are above 1, the largest is {levels.peak:g}: "
                "integer range? Divide them by 32768 (16 bits) or write them as integers"
            )
        self.levels = levels
        if digest.is_wrong and _OTHER_MD5 not in self.layout.notes:
            self.layout = self.layout._replace(notes=(*self.layout.notes, _OTHER_MD5))

    def _decode(self, start: int, stop: int) -> Samples:
        try:
            if not self.layout.is_plain and (state := file_state(self.path)) != self.state:
                self._look_again(state)
            mono = read_mono(self.path, self.layout, start, stop, state=self.state)
        except DECODER_ERRORS as error:
            raise self._undecodable(start, stop, error) from None
        if len(mono) != stop - start:
            raise self._other_length(start + len(mono))
        self._check_finite(mono, start)
        return mono

    def _look_again(self, state: list[int]) -> None:
        """Byte ranges of a file that was exchanged in the meantime say nothing about it."""
        layout = look_at(self.path)
        if (layout.rate, layout.frames) != (self.own_rate, self.own_frames):
            raise DataError(f"{self.path}: was exchanged for another file while it was in use: start again")
        self.layout, self.state = layout, state

    def _check_finite(self, mono: Samples, start: int) -> None:
        if not numpy.isfinite(mono).all():
            place = start + int(numpy.flatnonzero(~numpy.isfinite(mono))[0])
            raise DataError(f"{self.path}: sample {place} is not a finite number: repair the file or leave it out")

    def _undecodable(self, start: int, stop: int, error: Exception) -> DataError:
        reason = reason_of(error) if os.path.isfile(self.path) else "the file is gone"
        return DataError(f"{self.path}: samples {start} to {stop} cannot be decoded ({reason})")

    def _other_length(self, found: int) -> DataError:
        if found > self.own_frames:
            return DataError(f"{self.path}: has {found} samples, its header says {self.own_frames}: convert it again")
        return DataError(
            f"{self.path}: ends after {found} samples, its header says {self.own_frames}: it is cut short; fetch it "
            "again or leave it out"
        )


def open_clips(paths: Sequence[Path], *, rate: int) -> tuple[list[FileClip], list[str]]:
    """Every file as a clip, and what is wrong with those that cannot be one."""
    known = recall()
    clips, problems = [], []
    for path in paths:
        try:
            clips.append(FileClip(path, rate=rate, known=known.get(key_of(path))))
        except DataError as error:
            problems.append(str(error))
    return clips, problems


def open_clip(path: Path, *, rate: int) -> FileClip:
    """A file as a clip.

    Raises:
        DataError: as ``FileClip``.
    """
    return FileClip(path, rate=rate, known=recall().get(key_of(path)))


def _state_of(path: Path) -> list[int]:
    try:
        return file_state(path)
    except OSError:
        return []  # what reads it says so


def write_header(path: Path, *, rate: int) -> soundfile.SoundFile:
    """A new wav file of 16 bits, mono, to write samples to.

    Raises:
        DataError: it cannot be written.
    """
    try:
        return soundfile.SoundFile(path, "w", samplerate=rate, channels=1, subtype="PCM_16", format="WAV")
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"{path}: cannot be written ({reason_of(error)}): choose another --output") from None
