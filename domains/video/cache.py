"""Decoded frames in memory-mapped files, one a video, keyed by the file (path and state) and settings.

Files are written beside their final place and renamed: several processes may fill one cache, and one that is stopped
leaves nothing half. A cache may be deleted at any time.
"""

import hashlib
import json
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy
from numpy.typing import NDArray

from suite.cache import cache_folder, file_state
from suite.errors import SuiteError

_FORMAT = 3
HEADER = 128  # bytes of numpy's header before the first frame
_TIME = 8  # bytes of a frame's time, float64
_WAITING = 2**20  # bytes of frames that are written at a time


def cache_root(folder: str | None) -> Path:
    """``folder``, or ``$SUITE_CACHE_DIR``, or the user's own cache folder; made if it is not there.

    Raises:
        SuiteError: it cannot be made, or counts from a home folder that is not there.
    """
    root = cache_folder(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SuiteError(_refusal(root, error)) from None
    return root


def _refusal(path: Path, error: OSError) -> str:
    return f"{path}: the cache cannot be written ({error.strerror}): give another folder with --data.cache"


def file_key(path: Path, settings: dict[str, Any]) -> str:
    """Another name for another file, another content or other settings; for a file that is not there, one too."""
    try:
        state = file_state(path)
    except OSError:
        state = []
    parts = [_FORMAT, os.path.abspath(path), *state, settings]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class PictureWriter:
    """Pictures on their way into a cache file, in any order; those that are not written are zeros."""

    def __init__(self, file: BinaryIO, *, count: int, size: int) -> None:
        self._file, self._bytes, self._count = file, size * size * 3, count
        _write_header(file, count=count, size=size)
        file.truncate(HEADER + count * self._bytes)

    def write(self, index: int, pixels: NDArray[numpy.uint8]) -> None:
        """Copy pixels ``(S, S, 3)`` to their place."""
        assert pixels.nbytes == self._bytes
        assert 0 <= index < self._count
        self._file.seek(HEADER + index * self._bytes)
        self._file.write(numpy.ascontiguousarray(pixels).data)


@contextmanager
def picture_file(path: Path, *, count: int, size: int) -> Iterator[PictureWriter]:
    """Takes ``count`` pictures for ``path``, which is there afterwards, whole; not after an error.

    Raises:
        SuiteError: the folder cannot be written or the disk is full.
    """
    with _written(path) as file:
        yield PictureWriter(file, count=count, size=size)


def _write_header(file: BinaryIO, *, count: int, size: int) -> None:
    """numpy's header of an array ``(count, size, size, 3)`` uint8, at the beginning of ``file``."""
    file.seek(0)
    layout = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    numpy.lib.format.write_array_header_1_0(file, layout)
    assert file.tell() == HEADER


def open_array(path: Path) -> NDArray[Any] | None:
    """The array of a cache file as a read-only memory map; ``None`` where it is not there or not whole."""
    try:
        return numpy.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def read_times(path: Path, *, size: int) -> NDArray[numpy.float64] | None:
    """Times ``(T,)`` of the frames in a cache file; ``None`` where it is not there or not whole."""
    try:
        with path.open("rb") as file:
            count, rest = divmod(os.fstat(file.fileno()).st_size - HEADER, size * size * 3 + _TIME)
            if count < 1 or rest:
                return None
            file.seek(-count * _TIME, os.SEEK_END)
            return numpy.frombuffer(file.read(), numpy.float64)
    except (OSError, ValueError):
        return None


def open_frames(path: Path, *, count: int, size: int) -> NDArray[numpy.uint8] | None:
    """The ``count`` frames ``(T, S, S, 3)`` of a cache file as a read-only memory map, ``None`` as ``read_times``.

    Several times as fast as numpy's own way, since nothing is parsed.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    if len(mapped) != HEADER + count * (size * size * 3 + _TIME):
        return None
    return numpy.frombuffer(mapped, numpy.uint8, count * size * size * 3, HEADER).reshape(count, size, size, 3)


def read_frames(path: Path, indices: NDArray[numpy.int64], *, size: int) -> NDArray[numpy.uint8]:
    """Copies ``(N, S, S, 3)`` of the frames at ``indices`` of a cache file.

    For long videos: pages of a memory map would count as memory of the process.

    Raises:
        OSError: it is not there or not whole.
    """
    frames = numpy.empty((len(indices), size, size, 3), numpy.uint8)
    length = size * size * 3
    with path.open("rb", buffering=0) as file:
        for index, frame in zip(indices.tolist(), frames, strict=True):
            file.seek(HEADER + index * length)
            if file.readinto(frame.data) != length:
                raise OSError(f"{path}: cut")
    return frames


class FrameWriter:
    """Frames on their way into a cache file; a long video need not fit into memory."""

    def __init__(self, file: BinaryIO, *, size: int) -> None:
        self._file, self._size, self._count = file, size, 0
        self._waiting = numpy.empty((max(1, _WAITING // (size * size * 3)), size, size, 3), numpy.uint8)
        file.write(bytes(HEADER))

    def append(self, frame: NDArray[numpy.uint8]) -> None:
        """Copy a frame ``(S, S, 3)``, however it lies in memory."""
        assert frame.shape == self._waiting.shape[1:]
        place = self._count % len(self._waiting)
        self._waiting[place] = frame
        self._count += 1
        if place + 1 == len(self._waiting):
            self._file.write(self._waiting.data)

    def finish(self, times: NDArray[numpy.float64]) -> None:
        """Write what waits, the frames' ``times (T,)`` and the header."""
        assert len(times) == self._count
        self._file.write(self._waiting[: self._count % len(self._waiting)].data)
        self._file.write(times.data)
        _write_header(self._file, count=self._count, size=self._size)


@contextmanager
def frame_file(path: Path, *, size: int) -> Iterator[FrameWriter]:
    """Takes frames for ``path``, which is there afterwards, whole; not after an error.

    The file is numpy's own format with the frames' times behind the array: one file a video, since making one takes
    as long as decoding several frames.

    Raises:
        SuiteError: the folder cannot be written or the disk is full.
    """
    with _written(path) as file:
        yield FrameWriter(file, size=size)


def save_plain(path: Path, value: Any) -> None:
    """Write plain data as JSON, so that ``path`` is there whole or not at all.

    Raises:
        SuiteError: the folder cannot be written or the disk is full.
    """
    with _written(path) as file:
        file.write(json.dumps(value, ensure_ascii=False).encode())


def open_plain(path: Path) -> Any:
    """The plain data of a cache file; ``None`` where it is not there or not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """A file beside ``path`` that takes its place when all went well."""
    temporary = None
    try:
        handle, temporary = _temporary(path.parent)
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise SuiteError(_refusal(path.parent, error)) from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _temporary(folder: Path) -> tuple[int, str]:
    """A new file in ``folder``, which is made if it is not there."""
    try:
        return tempfile.mkstemp(dir=folder, suffix=".tmp")
    except FileNotFoundError:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.mkstemp(dir=folder, suffix=".tmp")
