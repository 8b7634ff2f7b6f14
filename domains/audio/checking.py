"""Whether the samples of files can be read, all of them, before a run: looked at once for each state of a file.

What passed is remembered (``remembered``). A file that is damaged without a change of its state is found by the check
that every reading makes.
"""

from collections import defaultdict
from collections.abc import Sequence

from domains.audio.files import Clip, FileClip
from domains.audio.levels import describe
from domains.audio.remembered import key_of, recall, remember
from suite.console import notice, one_line
from suite.errors import DataError

_LONG = 2**28  # samples, of which even the fastest format takes most of a minute


def find_faults(clips: Sequence[Clip], split: str) -> list[str]:
    """What is wrong with samples of those ``clips`` that are files, with the place of the first in each."""
    return list(check_files([clip for clip in clips if isinstance(clip, FileClip)], split).values())


def check_files(files: Sequence[FileClip], split: str) -> dict[str, str]:
    """What is wrong with samples of ``files``, by name.

    Nothing is read of mono files whose header and size vouch for their samples, nor of one that has passed. What is odd
    but no fault is reported: samples that will be clipped, channels that cancel, joined streams.
    """
    doubtful = [clip for clip in files if not clip.is_vouched]
    known = recall()
    left = []
    for clip in doubtful:
        found = known.get(key_of(clip.path))
        if not found or not clip.take(found):
            left.append(clip)
    samples = sum(clip.own_frames for clip in left)
    if samples > _LONG:
        notice(f"data: reading {len(left):,} files of {split} once ({samples:,} samples), to see that all can be read")
    problems: dict[str, str] = {}
    passed = {}
    for clip in left:
        key = key_of(clip.path)
        try:
            clip.check()
        except DataError as error:
            problems[clip.name] = str(error)
            continue
        if key is not None and key == key_of(clip.path):
            passed[key] = clip.found()
    remember(passed)
    _report(files, split)
    return problems


def _report(files: Sequence[FileClip], split: str) -> None:
    levels = [(clip.name, clip.levels) for clip in files if clip.levels is not None]
    for line in describe(levels, total=len(files), split=split):
        notice(one_line(line))
    notes: dict[str, list[str]] = defaultdict(list)
    for clip in files:
        for note in clip.layout.notes:
            notes[note].append(clip.name)
    for note, names in list(notes.items())[:20]:
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        notice(one_line(f"data: {split}: {names[0]}{more}: {note}"))
    if len(notes) > 20:
        notice(f"data: {split}: {len(notes) - 20:,} more kinds of notes on files")
