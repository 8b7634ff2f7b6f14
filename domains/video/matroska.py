"""Blocks of Matroska and WebM files: FFmpeg passes over what it cannot read and goes on at the next cluster."""

import os
from pathlib import Path
from typing import BinaryIO

from domains.video.container import read_element

_EBML, _SEGMENT, _TRACKS, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0x1F43B675
_TRACK_ENTRY, _TRACK_NUMBER = 0xAE, 0xD7
_BLOCKS, _GROUP = (0xA3, 0xA1), 0xA0
# What may stand in a cluster or in a group of blocks, RFC 9559: times, positions, references, padding, checksums.
_INSIDE = frozenset(
    (*_BLOCKS, _GROUP, 0xE7, 0xA7, 0xAB, 0x5854, 0xAF, 0xEC, 0xBF, 0x75A1, 0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A2, 0x8E)
)
_TOP_LEVEL = frozenset(
    (_SEGMENT, _EBML, _TRACKS, _CLUSTER, 0x1C53BB6B, 0x114D9B74, 0x1549A966, 0x1043A770, 0x1941A469, 0x1254C367)
)


def damaged_blocks(path: Path) -> str | None:
    """What is wrong with the blocks of a file; ``None`` for a sound one, and for other formats.

    Raises:
        OSError: the file cannot be read.
    """
    size, tracks = path.stat().st_size, set[int]()
    with path.open("rb") as file:
        if file.read(4) != _EBML.to_bytes(4, "big"):
            return None
        position = 0
        while position < size:
            file.seek(position)
            identifier, length = read_element(file)
            start = file.tell()
            if identifier == _SEGMENT:
                position = start
            elif identifier == _CLUSTER:
                end = size if length is None else start + length
                stop = _end_of_blocks(file, end, tracks, open_end=length is None)
                if isinstance(stop, str):
                    return stop
                position = stop
            elif length is None or identifier not in (*_TOP_LEVEL, 0xEC, 0xBF):
                return None  # bytes after the end
            else:
                if identifier == _TRACKS:
                    tracks |= _track_numbers(file, start + length)
                position = start + length
    return None


def _track_numbers(file: BinaryIO, end: int) -> set[int]:
    found = set()
    while file.tell() < end:
        identifier, length = read_element(file)
        if not identifier:  # also at the end of the file
            break
        if identifier == _TRACK_NUMBER:
            found.add(int.from_bytes(file.read(min(length or 0, 8)), "big"))
        elif identifier != _TRACK_ENTRY:
            file.seek(length or 0, os.SEEK_CUR)
    return found


def _end_of_blocks(file: BinaryIO, end: int, tracks: set[int], *, open_end: bool) -> int | str:
    """Where a cluster ends, whose first element begins here; or what is wrong with it."""
    while (position := file.tell()) < end:
        identifier, length = read_element(file)
        if open_end and identifier in _TOP_LEVEL:
            return position
        start = file.tell()
        if identifier not in _INSIDE or length is None or start + length > end:
            return f"damaged: no whole block at byte {position:,}"
        if identifier == _GROUP:
            continue
        if identifier in _BLOCKS:
            number = _number(file)
            if tracks and number not in tracks:
                return f"damaged: a block of track {number} at byte {position:,}, which the file does not announce"
        file.seek(start + length)
    return end


def _number(file: BinaryIO) -> int:
    """A number of variable length, as blocks have in front."""
    first = file.read(1)
    if not first or not first[0]:
        return 0
    width = 9 - first[0].bit_length()
    return int.from_bytes(first + file.read(width - 1), "big") & ((1 << 7 * width) - 1)
