"""Whether the samples of files can be read, all of them, before a run: looked at once for each state of a file.

What passed is remembered in the cache folder by path, size and time of change, a line for each file. A file that is
damaged without a change of these is found by the check that every reading makes.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from domains.audio.files import Clip, FileClip
from suite.cache import cache_folder
from suite.console import notice
from suite.errors import DataError, SuiteError

_FORMAT = 2
_LONG = 2**28  # samples, of which even the fastest format takes most of a minute


def find_faults(clips: Sequence[Clip], split: str) -> list[str]:
    """What is wrong with samples of those ``clips`` that are files, with the place of the first in each.

    Nothing is read of files whose header and size vouch for them (``FileClip.check``), nor of one that has passed.
    """
    files = [clip for clip in clips if isinstance(clip, FileClip) and not clip.sound]
    if not files:
        return []
    place = _place()
    known = _read(place)
    left = [(clip, key) for clip in files if (key := _key(clip.path)) not in known]
    samples = sum(clip.own_frames for clip, _ in left)
    if samples > _LONG:
        notice(f"data: reading {len(left):,} files of {split} once ({samples:,} samples), to see that all can be read")
    passed, problems = [], []
    for clip, key in left:
        try:
            clip.check()
            passed.append(key)
        except DataError as error:
            problems.append(str(error))
    _remember(place, passed)
    return problems


def _place() -> Path | None:
    """The file with a line for each file that passed, if there is a place for it."""
    try:
        return cache_folder() / "audio-checked" / "passed.txt"
    except SuiteError as error:
        notice(f"data: {error}: files are read again next time")
        return None


def _read(place: Path | None) -> set[str]:
    """The lines of ``place``; none where it cannot be read, which ``_remember`` says if it matters."""
    try:
        return set(place.read_text(encoding="ascii", errors="replace").split("\n")) if place else set()
    except OSError:
        return set()


def _remember(place: Path | None, keys: Iterable[str | None]) -> None:
    """Append to ``place`` in one piece, as another process may too. What is cut short there is no file's line."""
    lines = "".join(f"\n{key}" for key in keys if key)
    if not place or not lines:
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("ab", buffering=0) as file:
            file.write(lines.encode("ascii"))
    except OSError as error:
        notice(f"data: {place.parent}: cannot be written ({error.strerror}): these files are read again next time")


def _key(path: Path) -> str | None:
    """Another line where a file is another, or has another size or time of change; ``None`` if it is gone."""
    try:
        stat = path.stat()
    except OSError:
        return None  # what reads it says so
    state = [_FORMAT, os.path.abspath(path), stat.st_size, stat.st_mtime_ns]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]
