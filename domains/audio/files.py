"""Audio files as clips: any stretch of samples by seeking, mono, at one rate, checked."""

import difflib
import math
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy
import soundfile
import torch
from numpy.typing import NDArray
from torchaudio.functional import resample

from suite.errors import DataError

ENDINGS = (".wav", ".flac", ".ogg", ".mp3")
_FILTER_WIDTH = 6  # zero crossings on each side, as torchaudio has it by default
_LOSSY, _KEPT = ("OGG", "MP3"), 8  # formats of which whole files are decoded, and how many are kept
_PART = 2**20  # samples that are read at a time where a file is read only to see whether it can be
_UNKNOWN = (0, 0xFFFFFFFF)  # what writers to a pipe leave in a header

Samples = NDArray[numpy.float32]


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

    Raises:
        DataError: a file that is missing, empty, no audio, or shorter than its header says.
    """

    def __init__(self, path: Path, *, rate: int) -> None:
        self.path, self.name, self.rate = path, str(path), rate
        self.own_rate, self.own_frames, self.seeks, self.sound = _look_at(path)
        divisor = math.gcd(self.own_rate, rate)
        self.old, self.new = self.own_rate // divisor, rate // divisor
        self.frames = -(-self.own_frames * self.new // self.old)

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
        """Decode all samples, where the header and the size do not vouch for them.

        Raises:
            DataError: as ``read``.
        """
        if self.sound:
            return
        for start in range(0, self.own_frames, _PART):
            self._decode(start, min(start + _PART, self.own_frames))

    def _decode(self, start: int, stop: int) -> Samples:
        try:
            mono = _mono(self.path, start, stop) if self.seeks else _whole(self.path)[start:stop]
        except (soundfile.SoundFileError, OSError, RuntimeError) as error:
            reason = _reason(error) if os.path.isfile(self.path) else "the file is gone"
            raise DataError(f"{self.path}: samples {start} to {stop} cannot be decoded ({reason})") from None
        if len(mono) != stop - start:
            raise DataError(
                f"{self.path}: ends after {start + len(mono)} samples, its header says {self.own_frames}: "
                "it is cut short; fetch it again or leave it out"
            )
        if not numpy.isfinite(mono).all():
            place = start + int(numpy.flatnonzero(~numpy.isfinite(mono))[0])
            raise DataError(f"{self.path}: sample {place} is not a finite number: repair the file or leave it out")
        return mono


def _mono(path: Path, start: int, stop: int) -> Samples:
    with soundfile.SoundFile(path) as file:
        file.seek(start)
        return file.read(stop - start, dtype="float32", always_2d=True).mean(axis=1)


@lru_cache(maxsize=_KEPT)
def _whole(path: Path) -> Samples:
    """Seeking in a lossy format lands near the place that was asked for, not on it: such a file is decoded whole."""
    with soundfile.SoundFile(path) as file:
        return file.read(dtype="float32", always_2d=True).mean(axis=1)


def open_clips(paths: Sequence[Path], *, rate: int) -> tuple[list[FileClip], list[str]]:
    """Every file as a clip, and what is wrong with those that cannot be one."""
    clips, problems = [], []
    for path in paths:
        try:
            clips.append(FileClip(path, rate=rate))
        except DataError as error:
            problems.append(str(error))
    return clips, problems


def _look_at(path: Path) -> tuple[int, int, bool, bool]:
    """Rate, number of frames, whether samples can be sought, and whether they are whole numbers that are all there."""
    try:
        return _facts(path)
    except OSError as error:  # no right to, a name that is too long, gone a moment ago
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _facts(path: Path) -> tuple[int, int, bool, bool]:
    if not os.path.isfile(path):  # and not path.is_file(), which raises for a name that is too long
        near = difflib.get_close_matches(path.name, [e.name for e in path.parent.glob("*")], n=1)
        raise DataError(f"{path}: no such file" + (f"; near it is {near[0]}" if near else ""))
    if os.path.getsize(path) == 0:
        raise DataError(f"{path}: the file is empty")
    try:
        found = soundfile.info(path)
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise DataError(f"{path}: not audio that can be read ({_reason(error)}); allowed: {_shown()}") from None
    missing = _missing_bytes(path)
    if missing:
        raise DataError(f"{path}: {missing} bytes shorter than its header says: it is cut short; fetch it again")
    if found.frames < 1:
        raise DataError(f"{path}: no samples in it")
    sound = found.format in ("WAV", "WAVEX") and found.subtype.startswith(("PCM", "ULAW", "ALAW"))
    return int(found.samplerate), int(found.frames), found.format not in _LOSSY, sound


def _missing_bytes(path: Path) -> int:
    """How many bytes of samples a RIFF WAVE file's header announces that are not there; 0 for other files.

    The library behind soundfile reads a cut file to its end and says nothing.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return 0
        size, place = path.stat().st_size, 12
        while place + 8 <= size:
            file.seek(place)
            chunk = file.read(8)
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                return 0 if length in _UNKNOWN else max(0, place + 8 + length - size)
            place += 8 + length + length % 2
    return 0


def write_header(path: Path, *, rate: int) -> soundfile.SoundFile:
    """A new wav file of 16 bits, mono, to write samples to.

    Raises:
        DataError: it cannot be written.
    """
    try:
        return soundfile.SoundFile(path, "w", samplerate=rate, channels=1, subtype="PCM_16", format="WAV")
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"{path}: cannot be written ({_reason(error)}): choose another --output") from None


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "error_string", error)).split())


def _shown() -> str:
    return ", ".join(ending.removeprefix(".") for ending in ENDINGS)
