"""Where a video file ends by its own structure: what is missing, what is left over, and whether several were joined.

Only the outermost elements are read. Formats: ISO base media (mp4, mov), RIFF (avi), Matroska (mkv, webm), FLV, GIF and
MPEG transport streams. Others promise no length.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_TOP_LEVEL = (0x1C53BB6B, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1043A770, 0x1941A469, 0x1254C367, _CLUSTER, 0xEC, 0xBF)
_UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # what programs write that cannot go back to the header
_ISO_BOXES = frozenset(
    b"ftyp moov mdat moof mfra sidx ssix styp emsg prft pdin meta meco uuid udta free skip wide pnot PICT bloc imda"
    b" junk".split()
)
_WITHOUT_FRAMES = frozenset(b"free skip wide udta uuid mfra junk PICT pnot sidx ssix emsg prft".split())


class Layout(NamedTuple):
    """How a file ends.

    ``missing`` bytes are announced and not there; ``left_over`` bytes stand behind the end of the video. ``problem`` is
    a reason to refuse the file. ``streamed`` if the program that wrote it never completed the header, whose number of
    frames and duration are then guesses.
    """

    missing: int = 0
    left_over: int = 0
    problem: str | None = None
    streamed: bool = False


def missing_bytes(path: Path) -> int:
    """Bytes that the file's own outer elements announce and that are not there; 0 if it announces nothing.

    Raises:
        OSError: the file cannot be read.
    """
    return read_layout(path).missing


def read_layout(path: Path) -> Layout:
    """How the file at ``path`` ends.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(400)
        file.seek(0)
        reader = _reader_of(head)
        return Layout() if reader is None else reader(file, size)


def _reader_of(head: bytes) -> Callable[[BinaryIO, int], Layout] | None:
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp"):
        return _iso
    if head[:4] == b"RIFF":
        return _riff
    if head[:4] == _EBML.to_bytes(4, "big"):
        return _matroska
    if head[:3] == b"FLV":
        return _flv
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return _gif
    for packet, sync in ((188, 0), (192, 4)):
        if head[sync::packet] and all(byte == 0x47 for byte in head[sync::packet]) and len(head) > packet + sync:
            return _transport_stream(packet, sync)
    return None


def _iso(file: BinaryIO, size: int) -> Layout:
    """Boxes of a size and a type. A type that is unknown is a box only if it ends within the file."""
    position, boxes = 0, []
    while position < size:
        file.seek(position)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length == 0 and kind in _ISO_BOXES:  # up to the end of the file
            length = size - position
        plausible = kind in _ISO_BOXES or (_is_name(kind) and position + length <= size)
        if length < 8 or not plausible:
            break
        if position + length > size:
            if kind in _WITHOUT_FRAMES and b"moov" in boxes:
                break
            return Layout(missing=position + length - size)
        boxes.append(kind)
        position += length
    return Layout(left_over=size - position, problem=_unreadable(boxes))


def _is_name(kind: bytes) -> bool:
    return len(kind) == 4 and all(32 <= byte < 127 or byte == 0xA9 for byte in kind)


def _unreadable(boxes: list[bytes]) -> str | None:
    """Why not all frames would be read: no index, or several, of which FFmpeg takes the first (except of fragments)."""
    if not {b"moov", b"meta"} & {*boxes}:
        return "cut: the index of its frames (moov box) is missing"
    movies = [place for place, kind in enumerate(boxes) if kind == b"moov"]
    for place, end in zip(movies[1:], [*movies[2:], len(boxes)], strict=False):
        if b"moof" not in boxes[place:end]:
            return f"{len(movies)} files joined into one, of which only the first would be read: split it"
    return None


def _riff(file: BinaryIO, size: int) -> Layout:
    """One RIFF chunk, or several in large files (OpenDML)."""
    position = 0
    while position < size:
        file.seek(position)
        header = file.read(12)
        length = int.from_bytes(header[4:8], "little")
        if header[:4] != b"RIFF" or len(header) < 12:
            return Layout(left_over=size - position)
        if length in _UNKNOWN_SIZES:
            return _streamed_riff(file, size, position + 12)
        end = position + 8 + length
        if end > size:
            return Layout(missing=end - size)
        position = end + length % 2
    return Layout()


def _streamed_riff(file: BinaryIO, size: int, position: int) -> Layout:
    """The chunks from ``position`` on, inside and after the list of frames, whose own length is unknown too."""
    while position + 8 <= size:
        file.seek(position)
        kind, length = file.read(4), int.from_bytes(file.read(4), "little")
        if not _is_name(kind):
            return Layout(left_over=size - position, streamed=True)
        if kind == b"LIST" and file.read(4) == b"movi":
            position += 12
            continue
        position += 8 + length + length % 2
    return Layout(missing=max(position - size - 1, 0), streamed=True)


def _matroska(file: BinaryIO, size: int) -> Layout:
    """An EBML header and a segment, which may be repeated; in a segment of unknown length, its children."""
    position = 0
    while position < size:
        file.seek(position)
        identifier, length = read_element(file)
        start = file.tell()
        inside = position > 0 and identifier in _TOP_LEVEL
        if identifier not in (_EBML, _SEGMENT) and not inside:
            return Layout(left_over=size - position)
        if length is None:
            if identifier == _SEGMENT:
                position = start
                continue
            if identifier == _CLUSTER:
                position = _end_of_cluster(file, size)
                continue
            return Layout(missing=1)
        position = start + length
    return Layout(missing=position - size)


def _end_of_cluster(file: BinaryIO, size: int) -> int:
    """Where a cluster of unknown length ends: before the next element that cannot stand in a cluster."""
    while (position := file.tell()) < size:
        identifier, length = read_element(file)
        if length is None or identifier in (*_TOP_LEVEL[:-2], _SEGMENT, _EBML) or not identifier:
            return position
        if file.tell() + length > size:
            return file.tell() + length
        file.seek(length, os.SEEK_CUR)
    return position


def read_element(file: BinaryIO) -> tuple[int, int | None]:
    """Identifier and length of the element that begins here; the length is ``None`` if it is unknown."""
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


def _flv(file: BinaryIO, size: int) -> Layout:
    """Tags of sound, pictures and data, each followed by its own length."""
    file.seek(5)
    position = int.from_bytes(file.read(4), "big") + 4
    while position < size:
        file.seek(position)
        header = file.read(11)
        if header[:3] == b"FLV":
            return Layout(problem="several files joined into one, of which only the first would be read: split it")
        if header[0] & 0x1F not in (8, 9, 18):
            return Layout(left_over=size - position)
        if len(header) < 11:
            return Layout(missing=11 - len(header))
        length = int.from_bytes(header[1:4], "big")
        if position + 11 + length > size:
            return Layout(missing=position + 11 + length - size)
        position += 11 + length + 4
    return Layout()


def _gif(file: BinaryIO, size: int) -> Layout:
    """Blocks up to the trailer; another GIF may follow, which FFmpeg reads too."""
    content = file.read()
    position = 0
    while content[position : position + 3] == b"GIF":
        position += 13 + _colours(content[position + 10 : position + 11])
        while content[position : position + 1] in (b"!", b","):
            if content[position] == 0x21:
                position += 2
            else:
                position += 11 + _colours(content[position + 9 : position + 10])
            while position < size and content[position]:
                position += 1 + content[position]
            position += 1
        if position >= size:
            return Layout(missing=max(position - size, 1))
        if content[position] != 0x3B:
            return Layout()  # damaged, as the decoder will find
        position += 1
    return Layout(left_over=size - position)


def _colours(flags: bytes) -> int:
    """Bytes of a colour table."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _transport_stream(packet: int, sync: int) -> Callable[[BinaryIO, int], Layout]:
    """Packets of one length: one that is not whole was cut, or is something else behind the last."""

    def read(file: BinaryIO, size: int) -> Layout:
        rest = size % packet
        if not rest:
            return Layout()
        file.seek(size - rest)
        tail = file.read(rest)
        return Layout(missing=packet - rest) if tail[sync : sync + 1] == b"\x47" else Layout(left_over=rest)

    return read
