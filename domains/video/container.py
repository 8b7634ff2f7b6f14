"""How long a video file says it is: a file that ends before that was cut, even where a decoder does not mind.

Only the outermost boxes are read. Formats: ISO base media (mp4, mov), RIFF (avi), Matroska (mkv, webm).
"""

import os
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067


def missing_bytes(path: Path) -> int:
    """Bytes that the file's own outer boxes promise and that are not there; 0 where it promises nothing.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            end = _iso_end(file, size)
        elif head[:4] == b"RIFF":
            end = 8 + int.from_bytes(head[4:8], "little")
        elif head[:4] == _EBML.to_bytes(4, "big"):
            end = _matroska_end(file)
        else:
            end = 0
    return max(end - size, 0)


def _iso_end(file: BinaryIO, size: int) -> int:
    """Where the last of the outer boxes ends."""
    position = 0
    while position < size:
        file.seek(position)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length == 0:  # to the end of the file
            return size
        if length < 8:  # not a box: whatever follows the last one promises nothing
            return position
        position += length
    return position


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment ends; 0 where its length is unknown, as in a recording that was streamed."""
    identifier, length = _element(file)
    if identifier != _EBML or length is None:
        return 0
    file.seek(length, os.SEEK_CUR)
    identifier, length = _element(file)
    return file.tell() + length if identifier == _SEGMENT and length is not None else 0


def _element(file: BinaryIO) -> tuple[int, int | None]:
    """Identifier and length of the element that begins here; the length is ``None`` where it is unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, None
    identifier = int.from_bytes(first + file.read(8 - first[0].bit_length()), "big")
    first = file.read(1)
    if not first or not first[0]:
        return identifier, None
    width = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(width - 1), "big") & ((1 << 7 * width) - 1)
    return identifier, None if value == (1 << 7 * width) - 1 else value
