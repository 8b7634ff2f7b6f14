"""Checksums and outer structure of PNG, Ogg and tar files, from their specifications: RFC 2083, RFC 3533 and POSIX.

The references use them to find damage that a decoder conceals; mutations use them to edit a field and make the checksum
right again.
"""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BLOCK = 512


class DamagedError(Exception):
    """A file that an independent reader finds damaged, and why."""


class Page(NamedTuple):
    """An Ogg page; ``start`` to ``stop`` are its bytes."""

    start: int
    stop: int
    flags: int
    granule: int
    serial: int
    number: int
    valid: bool


def _ogg_table() -> list[int]:
    table = []
    for value in range(256):
        rest = value << 24
        for _ in range(8):
            rest = (rest << 1) ^ (0x04C11DB7 if rest & 0x80000000 else 0)
        table.append(rest & 0xFFFFFFFF)
    return table


_TABLE = _ogg_table()


def ogg_checksum(page: bytes) -> int:
    """Of a page with zeros in place of its checksum."""
    value = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        value = ((value << 8) & 0xFFFFFFFF) ^ _TABLE[(value >> 24) ^ byte]
    return value


def pages_of(data: bytes) -> Iterator[Page]:
    """The pages of an Ogg file, which zeros may follow. Raises DamagedError where no whole page is."""
    place = 0
    while any(data[place:]):
        count = data[place + 26] if place + 27 <= len(data) else 0
        stop = place + 27 + count + sum(data[place + 27 : place + 27 + count])
        if data[place : place + 4] != b"OggS" or place + 27 > len(data) or stop > len(data):
            raise DamagedError(f"no whole Ogg page at byte {place}")
        page = data[place:stop]
        places = ((6, 14), (14, 18), (18, 22), (22, 26))
        granule, serial, number, checksum = (int.from_bytes(page[a:b], "little") for a, b in places)
        yield Page(place, stop, page[5], granule, serial, number, valid=ogg_checksum(page) == checksum)
        place = stop


def check_ogg(data: bytes) -> None:
    """Raises DamagedError for a page with a wrong checksum, pages that are missing or left over, or no end."""
    expected: dict[int, int] = {}
    for page in pages_of(data):
        if not page.valid:
            raise DamagedError(f"wrong checksum of the page at byte {page.start}")
        if page.flags & 2:
            expected[page.serial] = 0
        if expected.get(page.serial) != page.number:
            raise DamagedError(f"page {page.number} at byte {page.start} where {expected.get(page.serial)} is due")
        expected[page.serial] = page.number + 1
        if page.flags & 4:
            del expected[page.serial]
    if expected:
        raise DamagedError("the last page is missing")


def repair_ogg(data: bytes) -> bytes:
    """Right checksums in all pages up to the first place where no page is."""
    found = bytearray(data)
    try:
        for page in pages_of(data):
            found[page.start + 22 : page.start + 26] = ogg_checksum(data[page.start : page.stop]).to_bytes(4, "little")
    except DamagedError:
        pass
    return bytes(found)


def with_serial(data: bytes, serial: int) -> bytes:
    """An Ogg file with another serial number."""
    found = bytearray(data)
    for page in pages_of(data):
        found[page.start + 14 : page.start + 18] = serial.to_bytes(4, "little")
    return repair_ogg(bytes(found))


def chunks_of(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Start, name and length of each PNG chunk up to IEND. Raises DamagedError where no whole chunk is."""
    if not data.startswith(PNG_SIGNATURE):
        raise DamagedError("no PNG signature")
    place, name = len(PNG_SIGNATURE), b""
    while name != b"IEND":
        length, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if len(name) < 4 or place + 12 + length > len(data):
            raise DamagedError(f"no whole PNG chunk at byte {place}")
        yield place, name, length
        place += 12 + length


def check_png(data: bytes) -> None:
    """Raises DamagedError for a chunk with a wrong checksum."""
    for place, name, length in chunks_of(data):
        content = data[place + 4 : place + 8 + length]
        if zlib.crc32(content) != int.from_bytes(data[place + 8 + length : place + 12 + length], "big"):
            raise DamagedError(f"wrong checksum of chunk {name!r}")


def repair_png(data: bytes) -> bytes:
    """Right checksums in all chunks up to the first place where no chunk is."""
    found = bytearray(data)
    try:
        for place, _, length in chunks_of(data):
            value = zlib.crc32(data[place + 4 : place + 8 + length])
            found[place + 8 + length : place + 12 + length] = value.to_bytes(4, "big")
    except DamagedError:
        pass
    return bytes(found)


def tar_headers(data: bytes) -> Iterator[int]:
    """Starts of the headers of a tar archive. Raises DamagedError unless two empty blocks and only zeros follow."""
    place = 0
    while any(header := data[place : place + _BLOCK]):
        if (
            len(header) < _BLOCK
            or not _is_number(header[148:156])
            or _tar_sum(header) != int(_digits(header[148:156]), 8)
        ):
            raise DamagedError(f"no tar header at byte {place}")
        yield place
        if not _is_number(header[124:136]):
            raise DamagedError(f"no size in the tar header at byte {place}")
        place += _BLOCK + -(-int(_digits(header[124:136]), 8) // _BLOCK) * _BLOCK
    if len(data) < place + 2 * _BLOCK or any(data[place:]):
        raise DamagedError("the end of the archive is missing, or something follows it")


def repair_tar(data: bytes) -> bytes:
    """A right checksum in the headers up to the first place where none is."""
    found = bytearray(data)
    place = 0
    while place + _BLOCK <= len(found) and any(found[place : place + _BLOCK]):
        found[place + 148 : place + 156] = b"%06o\0 " % _tar_sum(found[place : place + _BLOCK])
        if not _is_number(found[place + 124 : place + 136]):
            break
        place += _BLOCK + -(-int(_digits(found[place + 124 : place + 136]), 8) // _BLOCK) * _BLOCK
    return bytes(found)


def _tar_sum(header: bytes | bytearray) -> int:
    return sum(header) - sum(header[148:156]) + 8 * 32


def _digits(field: bytes | bytearray) -> bytes:
    return bytes(field).strip(b" \0")


def _is_number(field: bytes | bytearray) -> bool:
    return bool(_digits(field)) and all(byte in b"01234567" for byte in _digits(field))
