"""Ogg files: the pages, which a decoder skips without a word where they are damaged, and the streams in them.

The library behind soundfile reads the first of several chained streams. Format: RFC 3533.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from domains.audio.parts import Part, is_zero, skip_tags
from suite.errors import DataError

_CONTINUED, _BEGINS, _ENDS = 1, 2, 4
_FIRST = 2**21  # more samples than the packets of a page can have
_NO_GRANULE = 2**64 - 1  # of a page in which no packet ends
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


class _Page(NamedTuple):
    start: int
    stop: int
    flags: int
    serial: int
    number: int
    granule: int


class _Link:
    """One stream of a chain."""

    def __init__(self, page: _Page) -> None:
        self.start, self.stop, self.serial, self.next = page.start, page.stop, page.serial, page.number
        self.ended = False
        self.is_vorbis, self.granules = False, list[int]()

    @property
    def announced(self) -> int | None:
        """Samples by the positions of a Vorbis stream's pages; ``None`` if they are those of a longer stream."""
        if not self.is_vorbis or not self.granules:
            return None
        first, last = self.granules[0], self.granules[-1]
        return None if len(self.granules) > 1 and first > _FIRST else last


def read_ogg(path: Path, data: Any, *, start: int) -> tuple[list[Part], list[int | None], list[str]]:
    """The byte range of each stream (how many samples it has is left open), the samples announced, and what is odd.

    Raises:
        DataError: damaged or missing pages, or streams beside each other.
    """
    links: list[_Link] = []
    notes = []
    for page in _pages(path, data, start):
        if page.flags & _BEGINS:
            if links and links[-1].next == 1 and not links[-1].ended:
                raise DataError(f"{path}: several streams beside each other, such as sound and pictures: extract one")
            if links and not links[-1].ended:
                notes.append(f"stream {len(links)} has no end mark")
            links.append(_Link(page))
            links[-1].is_vorbis = b"\x01vorbis" in data[page.start : page.start + 64]
        if not links:
            raise DataError(f"{path}: its beginning is missing: no Ogg stream begins in it before other pages")
        link = links[-1]
        if page.serial != link.serial:
            raise DataError(f"{path}: byte {page.start}: a page of another stream: extract one stream")
        if page.number != link.next:
            raise DataError(
                f"{path}: byte {page.start}: page {page.number} follows page {link.next - 1}: pages are missing; "
                "fetch it again"
            )
        if 0 < page.granule < _NO_GRANULE:
            link.granules.append(page.granule)
        link.next, link.stop, link.ended = page.number + 1, page.stop, bool(page.flags & _ENDS)
    if not links:
        raise DataError(f"{path}: no Ogg page in it; fetch it again")
    if not links[-1].ended:
        notes.append("no end mark: a recorded stream, or cut short between two pages")
    if len(links) > 1:
        notes.append(f"{len(links)} joined streams")
    if len(links) == 1 and start == 0:
        return [Part(b"", 0, -1, -1)], [links[0].announced], notes
    announced = [link.announced for link in links]
    return [Part(b"", link.start, link.stop, -1) for link in links], announced, notes


def _pages(path: Path, data: Any, place: int) -> Iterator[_Page]:
    size = len(data)
    while place < size:
        head = data[place : place + 27]
        if head[:4] != b"OggS":
            after = skip_tags(data, place, size)
            if after == size or is_zero(data, after, size):
                return
            if data[after : after + 4] == b"OggS":
                place = after
                continue
            raise DataError(f"{path}: byte {place}: no Ogg page where one is due: it is damaged; fetch it again")
        if len(head) < 27 or place + 27 + head[26] > size:
            raise DataError(f"{path}: its last page is cut short; fetch it again")
        stop = place + 27 + head[26] + sum(data[place + 27 : place + 27 + head[26]])
        if stop > size:
            raise DataError(
                f"{path}: {stop - size} bytes shorter than its last page says: it is cut short; fetch it again"
            )
        page = data[place:stop]
        if _checksum(page) != int.from_bytes(page[22:26], "little"):
            raise DataError(f"{path}: byte {place}: an Ogg page with a wrong checksum: it is damaged; fetch it again")
        granule, serial, number = (int.from_bytes(page[at:end], "little") for at, end in ((6, 14), (14, 18), (18, 22)))
        yield _Page(place, stop, head[5], serial, number, granule)
        place = stop


def _checksum(page: bytes) -> int:
    """Ogg's CRC: the polynomial of zlib's with bits in the other order, from 0."""
    cleared = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    found = zlib.crc32(cleared, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{found:032b}"[::-1], 2)
