"""What was found out about files by reading all of them, remembered in the cache folder by their state.

A line for each file: a key of its path, size, inode and times of change, then what was found as JSON.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from suite.cache import cache_folder, file_state
from suite.console import notice
from suite.errors import SuiteError

_FORMAT = 3


class Known:
    """What is remembered, by key; each line is parsed when it is asked for, as there may be a million of them."""

    def __init__(self, text: str = "") -> None:
        pairs = (line.partition(" ") for line in text.split("\n"))
        self._lines = {key: value for key, _, value in pairs if len(key) == 32 and value}

    def get(self, key: str | None) -> dict[str, Any] | None:
        """What was found under a key; ``None`` for nothing, and for a line that was cut short."""
        if key not in self._lines:
            return None
        try:
            found = json.loads(self._lines[key])
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


_tables: dict[Path, tuple[list[int], Known]] = {}


def key_of(path: Path) -> str | None:
    """Another key where a file is another or was changed; ``None`` if it is gone."""
    try:
        state = [_FORMAT, os.path.abspath(path), *file_state(path)]
    except OSError:
        return None  # what reads it says so
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]


def recall() -> Known:
    """What is remembered; nothing where it cannot be read."""
    place = _place()
    if place is None:
        return Known()
    try:
        state = file_state(place)
        if place not in _tables or _tables[place][0] != state:
            _tables[place] = state, Known(place.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return Known()
    return _tables[place][1]


def remember(found: Mapping[str, Any]) -> None:
    """Append what was found in one piece, as another process may too."""
    if not found:
        return
    place = _place(told=True)
    if place is None:
        return
    lines = "".join(f"\n{key} {json.dumps(value)}" for key, value in found.items())
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("ab", buffering=0) as file:
            file.write(lines.encode("utf-8"))
    except OSError as error:
        notice(f"data: {place.parent}: cannot be written ({error.strerror}): these files are read again next time")


def _place(*, told: bool = False) -> Path | None:
    """The file of all lines, if there is a place for it."""
    try:
        return cache_folder() / "audio-checked" / "files.txt"
    except SuiteError as error:
        if told:
            notice(f"data: {error}: files are read again next time")
        return None
