"""Whether the samples of files can be read, all of them, before a run: looked at once for each state of the files.

What passed is remembered in the cache folder by paths, sizes and times of change. A file that is damaged without a
change of these is found by the check that every reading makes.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from domains.audio.files import Clip, FileClip
from suite.cache import cache_folder
from suite.console import notice
from suite.errors import DataError

_FORMAT = 1
_LONG = 2**28  # samples, of which even the fastest format takes most of a minute


def find_faults(clips: Sequence[Clip], split: str) -> list[str]:
    """What is wrong with samples of those ``clips`` that are files, with the place of the first in each.

    Nothing is read of files whose header and size vouch for them (``FileClip.check``), nor of the same files again.
    """
    files = [clip for clip in clips if isinstance(clip, FileClip) and not clip.sound]
    if not files:
        return []
    passed = cache_folder() / "audio-checked" / _key(files)
    if passed.is_file():
        return []
    samples = sum(clip.own_frames for clip in files)
    if samples > _LONG:
        notice(f"data: reading {len(files):,} files of {split} once ({samples:,} samples), to see that all can be read")
    problems = []
    for clip in files:
        try:
            clip.check()
        except DataError as error:
            problems.append(str(error))
    if not problems:
        _remember(passed)
    return problems


def _remember(passed: Path) -> None:
    try:
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.touch()
    except OSError as error:
        notice(f"data: {passed.parent}: cannot be written ({error.strerror}): these files are read again next time")


def _key(files: Sequence[FileClip]) -> str:
    """Another name where a file is another, or has another size or time of change."""
    states = []
    for clip in files:
        stat = clip.path.stat()
        states.append([os.path.abspath(clip.path), stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps([_FORMAT, sorted(states)]).encode()).hexdigest()[:32]
