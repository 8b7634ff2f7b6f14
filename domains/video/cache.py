"""Decoded frames in memory-mapped files, one a video, keyed by the file (path, size, time of change) and settings.

Files are written beside their final place and renamed: several processes may fill one cache, and one that is stopped
leaves nothing half. A cache may be deleted at any time.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy
from numpy.typing import NDArray

from suite.errors import SuiteError

_FORMAT = 1


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
    _save(path, lambda file: numpy.save(file, array, allow_pickle=False))


def open_array(path: Path) -> NDArray[Any] | None:
    """The array of a cache file as a read-only memory map; ``None`` where it is not there or not whole."""
    try:
        return numpy.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def save_plain(path: Path, value: Any) -> None:
    """Write plain data as JSON, as ``save_array`` does it."""
    _save(path, lambda file: file.write(json.dumps(value, ensure_ascii=False).encode()))


def open_plain(path: Path) -> Any:
    """The plain data of a cache file; ``None`` where it is not there or not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _save(path: Path, write: Callable[[BinaryIO], object]) -> None:
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise SuiteError(_refusal(path.parent, error)) from None
