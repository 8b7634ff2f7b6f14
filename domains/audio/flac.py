"""FLAC files: where the streams in one begin, and how many samples each has by its last frame.

The library behind soundfile reads as many samples as the header announces: none where a stream writer left 0, too few
where the header is wrong, and only the first of several files that were joined. Format: RFC 9639.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from domains.audio.parts import Layout, Part, shown_list, skip_tags
from suite.errors import DataError

_MARK = b"fLaC"
_INFO_SIZE = 34
_RATES = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
_BITS = (0, 8, 12, 3, 16, 20, 24, 32)  # of a sample, by code; 0 is that of the header, 3 is no size
_TAIL = 2**16  # bytes at the end in which the last frame is looked for first


class _Info(NamedTuple):
    """The STREAMINFO block: ``content`` as it is, and where the frames begin."""

    content: bytes
    block: int
    rate: int
    channels: int
    bits: int
    total: int
    frames_start: int


class _Frame(NamedTuple):
    """A frame header: the first sample, and how many."""

    position: int
    samples: int


def read_flac(path: Path, data: Any, *, start: int) -> Layout:
    """The layout of a FLAC file whose stream marker is at ``start`` of ``data``, its bytes.

    Raises:
        DataError: damage, missing or left-over samples, or joined streams of different kinds.
    """
    starts = [start, *_joined(data, start + 4)]
    parts, infos = [], []
    for begin, following in zip(starts, [*starts[1:], len(data)], strict=True):
        info = _read_info(path, data, begin)
        stop = _audio_end(data, info, following)
        frames = _count(path, data, info, stop)
        known = info.total == frames and begin == 0
        parts.append(_part(data, info, begin, -1 if known and len(starts) == 1 else stop, frames))
        infos.append(info)
    kinds = {(info.rate, info.channels) for info in infos}
    if len(kinds) > 1:
        raise DataError(
            f"{path}: {len(parts)} streams are joined in it, at {shown_list(info.rate for info in infos)} Hz with "
            f"{shown_list(info.channels for info in infos)} channels: split them"
        )
    notes = (f"{len(parts)} joined streams",) if len(parts) > 1 else ()
    return Layout(infos[0].rate, infos[0].channels, "integer", True, False, tuple(parts), notes)


def _joined(data: Any, place: int) -> list[int]:
    found = []
    while (place := data.find(_MARK, place)) >= 0:
        if data[place + 4] & 0x7F == 0 and data[place + 5 : place + 8] == b"\0\0" + bytes([_INFO_SIZE]):
            found.append(place)
        place += 4
    return found


def _read_info(path: Path, data: Any, start: int) -> _Info:
    place, content, last = start + 4, b"", False
    while not last:
        head = data[place : place + 4]
        if len(head) < 4 or head[0] & 0x7F == 127:
            raise DataError(f"{path}: its FLAC header is cut short or damaged; fetch it again")
        last, size = bool(head[0] & 0x80), int.from_bytes(head[1:4], "big")
        if head[0] & 0x7F == 0:
            content = data[place + 4 : place + 4 + size]
        place += 4 + size
    if len(content) < _INFO_SIZE or place > len(data):
        raise DataError(f"{path}: its FLAC header is cut short or damaged; fetch it again")
    packed = int.from_bytes(content[10:18], "big")
    rate, channels, bits = packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1
    return _Info(bytes(content), int.from_bytes(content[:2], "big"), rate, channels, bits, packed & (2**36 - 1), place)


def _part(data: Any, info: _Info, begin: int, stop: int, frames: int) -> Part:
    if info.total == frames:
        return Part(b"", begin, stop, frames)
    packed = int.from_bytes(info.content[10:18], "big") >> 36 << 36 | frames
    content = info.content[:10] + packed.to_bytes(8, "big") + info.content[18:]
    # The other metadata blocks are left out with it: a seek table for another length would mislead.
    return Part(_MARK + b"\x80\0\0" + bytes([_INFO_SIZE]) + content, info.frames_start, stop, frames)


def _audio_end(data: Any, info: _Info, stop: int) -> int:
    """Where the frames end: before tags and padding of zeros."""
    window = max(info.frames_start, stop - 2**20)
    tail = data[window:stop]
    for mark in (b"APETAGEX", b"ID3", b"TAG"):
        place = tail.rfind(mark)
        while place >= 0:
            if skip_tags(data, window + place, stop) == stop:
                stop = window + place
                tail = tail[:place]
            place = tail.rfind(mark, 0, place) if place else -1
    zeros = len(tail) - len(tail.rstrip(b"\0"))
    return stop - zeros if zeros > 64 else stop


def _count(path: Path, data: Any, info: _Info, stop: int) -> int:
    """Samples by the last frame.

    Raises:
        DataError: no whole frame at the end, a beginning that is missing, or another number than the header has.
    """
    first = _frame_at(data, info, info.frames_start)
    if first is None:
        raise DataError(f"{path}: no FLAC frame follows its header: it is cut short or damaged; fetch it again")
    if first.position:
        raise DataError(f"{path}: its first {first.position} samples are missing: it is part of a stream; convert it")
    last = _last_frame(data, info, stop)
    if last is None:
        raise DataError(f"{path}: no whole FLAC frame at its end: it is cut short or damaged; fetch it again")
    end = last.position + last.samples
    if info.total and info.total != end:
        what = "it is cut short; fetch it again" if end < info.total else "the header is wrong; write the file again"
        raise DataError(f"{path}: its header announces {info.total} samples, its last frame ends at {end}: {what}")
    return end


def _last_frame(data: Any, info: _Info, stop: int) -> _Frame | None:
    """The frame that ends at ``stop`` with its checksum."""
    reach = _TAIL
    while True:
        low = max(info.frames_start, stop - reach)
        for place in _candidates(data, low, stop):
            frame = _frame_at(data, info, place)
            # Up to two zero bytes that were taken for padding may belong to the checksum.
            if frame is not None and any(_crc16(data[place : stop + more]) == 0 for more in range(3)):
                return frame
        if low == info.frames_start or reach > 2**22:
            return None
        reach *= 8


def _candidates(data: Any, low: int, stop: int) -> Iterator[int]:
    """Places of sync codes, the last first."""
    tail = data[low:stop]
    place = len(tail)
    while (place := tail.rfind(b"\xff", 0, place)) >= 0:
        if tail[place + 1 : place + 2] in (b"\xf8", b"\xf9"):
            yield low + place


def _frame_at(data: Any, info: _Info, place: int) -> _Frame | None:
    """The frame header at ``place``, if there is one that fits the stream."""
    head = data[place : place + 16]
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    block_code, rate_code, channel_code = head[2] >> 4, head[2] & 15, head[3] >> 4
    channels = channel_code + 1 if channel_code < 8 else 2
    if block_code == 0 or rate_code == 15 or channel_code > 10 or channels != info.channels:
        return None
    if 0 < rate_code < len(_RATES) and _RATES[rate_code] != info.rate:
        return None
    if _BITS[head[3] >> 1 & 7] not in (0, info.bits):
        return None
    number, at = _coded_number(head, 4)
    if number is None:
        return None
    samples = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}, **{code: 1 << code for code in range(8, 16)}}
    count = samples.get(block_code, 0)
    if block_code in (6, 7):
        width = block_code - 5
        count = int.from_bytes(head[at : at + width], "big") + 1
        at += width
    at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if at >= len(head) or _crc8(head[:at]) != head[at]:
        return None
    return _Frame(number if head[1] & 1 else number * info.block, count)


def _coded_number(head: bytes, place: int) -> tuple[int | None, int]:
    """A number coded as UTF-8 does characters, and the place after it."""
    first = head[place]
    length = next((count for count in range(8) if not first & 0x80 >> count), 8)
    if length == 0:
        return first, place + 1
    if length in (1, 8) or place + length > len(head):
        return None, place
    number = first & (0x7F >> length)
    for byte in head[place + 1 : place + length]:
        if byte & 0xC0 != 0x80:
            return None, place
        number = number << 6 | byte & 0x3F
    return number, place + length


@cache
def _table(polynomial: int, bits: int) -> list[int]:
    top, mask = 1 << bits - 1, (1 << bits) - 1
    table = []
    for value in range(256):
        value <<= bits - 8
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
        table.append(value)
    return table


def _crc8(data: bytes) -> int:
    table, value = _table(0x07, 8), 0
    for byte in data:
        value = table[value ^ byte]
    return value


def _crc16(data: bytes) -> int:
    """0 over a frame with its checksum."""
    table, value = _table(0x8005, 16), 0
    for byte in data:
        value = (value << 8 & 0xFFFF) ^ table[value >> 8 ^ byte]
    return value
