"""Decoded frames in memory-mapped files, one a video, keyed by the file (path, size, time of change) and settings.

Files are written beside their final place and renamed: several processes may fill one cache, and one that is stopped
leaves nothing half. A cache may be deleted at any time.
"""

import hashlib
import json
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy
from numpy.typing import NDArray

from suite.errors import SuiteError

_FORMAT = 1
HEADER = 128  # bytes of numpy's header before the first frame


def cache_root(folder: str | None) -> Path:
    """``folder``, or ``$SUITE_CACHE_DIR``, or the user's own cache folder; made if it is not there.

    Raises:
        SuiteError: it cannot be made.
    """
    given = folder or os.environ.get("SUITE_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(given).expanduser() if given else Path(home) / "sequence-suite"
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
        stat = path.stat()
        state = [stat.st_size, stat.st_mtime_ns]
    except OSError:
        state = []
    parts = [_FORMAT, str(path.resolve()), *state, settings]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write ``array`` so that ``path`` is there whole or not at all.

    Raises:
        SuiteError: the folder cannot be written or the disk is full.
    """
    with _written(path) as file:
        numpy.save(file, array, allow_pickle=False)


def open_array(path: Path) -> NDArray[Any] | None:
    """The array of a cache file as a read-only memory map; ``None`` where it is not there or not whole."""
    try:
        return numpy.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def open_frames(path: Path, *, count: int, size: int) -> NDArray[numpy.uint8] | None:
    """As ``open_array`` for ``count`` frames ``(T, S, S, 3)``: several times as fast, since nothing is parsed."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    if len(mapped) != HEADER + count * size * size * 3:
        return None
    return numpy.frombuffer(mapped, numpy.uint8, offset=HEADER).reshape(count, size, size, 3)


@contextmanager
def frame_file(path: Path, *, size: int) -> Iterator[Callable[[NDArray[numpy.uint8]], None]]:
    """A function that appends frames ``(S, S, 3)`` to ``path``, which is there afterwards, whole; not after an error.

    The file is numpy's own format. Frames go to it one by one: a long video need not fit into memory.

    Raises:
        SuiteError: the folder cannot be written or the disk is full.
    """
    count = 0
    with _written(path) as file:
        file.write(bytes(HEADER))

        def append(frame: NDArray[numpy.uint8]) -> None:
            nonlocal count
            assert frame.shape == (size, size, 3)
            file.write(frame.data)
            count += 1

        yield append
        file.seek(0)
        layout = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
        numpy.lib.format.write_array_header_1_0(file, layout)
        assert file.tell() == HEADER


def save_plain(path: Path, value: Any) -> None:
    """Write plain data as JSON, as ``save_array`` does it."""
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
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        raise SuiteError(_refusal(path.parent, error)) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
