"""Samples of a layout: any stretch by seeking where that is exact, otherwise from a whole that is decoded once.

What is decoded whole is kept for later stretches: up to ``_BUDGET`` bytes in memory, and longer files in a temporary
file, so that memory does not grow with the length of a file.
"""

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy
from numpy.typing import NDArray

from domains.audio.layout import open_sound
from domains.audio.parts import Layout, Part, open_view
from suite.cache import cache_folder
from suite.errors import SuiteError

Samples = NDArray[numpy.float32]

BLOCK = 2**20  # samples of all channels that are decoded at a time
_BUDGET = 2**28  # bytes of decoded samples that a process keeps in memory
_SPOOLED = 16  # longer files that it keeps in temporary files
_kept: OrderedDict[tuple[str, tuple[int, ...]], Samples] = OrderedDict()
_lock = threading.Lock()


def decode_blocks(path: Path, layout: Layout) -> Iterator[Samples]:
    """All samples in order, ``(n, channels)`` at a time.

    Raises:
        SoundFileError, av.FFmpegError, OSError: what cannot be decoded.
    """
    for part in layout.parts:
        yield from _av_blocks(path, part) if part.decoder == "av" else _sound_blocks(path, part, layout.channels)


def read_mono(path: Path, layout: Layout, start: int, stop: int, *, state: Sequence[int]) -> Samples:
    """Samples ``start`` to ``stop`` as the mean of the channels; fewer if the file has fewer.

    Raises:
        As ``decode_blocks``; SuiteError for a temporary file that cannot be written.
    """
    if not layout.seeks:
        return numpy.array(_whole(path, layout, state)[start:stop])
    found, first = [], 0
    for part in layout.parts:
        low, high = max(start, first), min(stop, first + part.frames)
        if low < high or (start == stop == low):
            with open_sound(path, part) as file:
                file.seek(low - first)
                found.append(file.read(high - low, dtype="float32", always_2d=True).mean(axis=1))
        first += part.frames
    return found[0] if len(found) == 1 else numpy.concatenate(found or [numpy.zeros(0, numpy.float32)])


def _sound_blocks(path: Path, part: Part, channels: int) -> Iterator[Samples]:
    with open_sound(path, part) as file:
        while len(block := file.read(max(1, BLOCK // channels), dtype="float32", always_2d=True)):
            yield block


def _av_blocks(path: Path, part: Part) -> Iterator[Samples]:
    with open_view(path, part) as view, av.open(view, mode="r", format="mp3") as container:
        waiting: list[Samples] = []
        for frame in container.decode(audio=0):
            waiting.append(_floats(frame))
            if sum(map(len, waiting)) >= BLOCK // 4:
                yield numpy.concatenate(waiting)
                waiting = []
        if waiting:
            yield numpy.concatenate(waiting)


def _floats(frame: Any) -> Samples:
    """``(n, channels)`` of a decoded frame."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, len(frame.layout.channels)).T
    if values.dtype.kind == "i":
        values = values / float(2 ** (8 * values.itemsize - 1))
    return values.T.astype(numpy.float32)


def _whole(path: Path, layout: Layout, state: Sequence[int]) -> Samples:
    """The mean of the channels of a whole file, decoded once for each state of the file."""
    key = (str(path), tuple(state))
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    found = _decode_whole(path, layout)
    with _lock:
        _kept[key] = found
        _make_room()
    return found


def _make_room() -> None:
    """Let go of what was used longest ago, beyond the limits; the newest stays."""
    for kind, limit in ((numpy.memmap, _SPOOLED), (numpy.ndarray, _BUDGET)):
        names = [name for name, samples in _kept.items() if type(samples) is kind]
        used = sum(1 if kind is numpy.memmap else _kept[name].nbytes for name in names)
        for name in names[:-1]:
            if used <= limit:
                break
            used -= 1 if kind is numpy.memmap else _kept[name].nbytes
            del _kept[name]


def _decode_whole(path: Path, layout: Layout) -> Samples:
    frames = layout.frames
    if 4 * frames <= _BUDGET // 4:
        blocks = [block.mean(axis=1) for block in decode_blocks(path, layout)]
        return numpy.concatenate(blocks or [numpy.zeros(0, numpy.float32)])
    folder = cache_folder() / "audio-decoded"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (gone with the last view of it)
    except OSError as error:
        raise _no_space(path, frames, error) from None
    with file:
        count = 0
        for block in decode_blocks(path, layout):
            mono = block.mean(axis=1)
            try:
                file.write(mono.tobytes())
                file.flush()
            except OSError as error:
                raise _no_space(path, frames, error) from None
            count += len(mono)
        return numpy.memmap(file, dtype=numpy.float32, mode="r", shape=(count,))


def _no_space(path: Path, frames: int, error: OSError) -> SuiteError:
    return SuiteError(
        f"{path}: {4 * frames:,} bytes of decoded samples cannot be written to the cache folder ({error.strerror}): "
        "free some space, set SUITE_CACHE_DIR, or convert the file to flac"
    )
