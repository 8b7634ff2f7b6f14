"""Where the samples of a file are: byte ranges, each of which a decoder reads like a file of its own."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal["integer", "float", "lossy"]
Decoder = Literal["sndfile", "av"]


class Part(NamedTuple):
    """The bytes ``prefix``, then bytes ``start`` to ``stop`` of the file: ``frames`` samples of each channel.

    A ``stop`` of -1 is a file that the decoder opens by its name, as it is.
    A prefix replaces a header that the decoder would take at its word although it is known to be wrong.
    """

    prefix: bytes
    start: int
    stop: int
    frames: int
    decoder: Decoder = "sndfile"


class Layout(NamedTuple):
    """What a file holds.

    Args:
        rate: hertz.
        channels: of each part.
        kind: how samples are stored: whole numbers, floating point, or lossy compression.
        seeks: whether the decoder seeks exactly to a sample.
        vouched: the header and the size of the file show that all samples are there.
        parts: in order; joined files have several.
        notes: what is odd about the file, although it can be read.
    """

    rate: int
    channels: int
    kind: Kind
    seeks: bool
    vouched: bool
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        return sum(part.frames for part in self.parts)

    @property
    def is_plain(self) -> bool:
        """Whether the decoder opens the file by its name for each stretch: nothing is known of an earlier state."""
        return self.seeks and self.parts[0].stop < 0

    def to_json(self) -> list[Any]:
        """Plain lists, which ``layout_from_json`` takes back."""
        parts = [[part.prefix.hex(), *part[1:]] for part in self.parts]
        return [*self[:5], parts, list(self.notes)]


def layout_from_json(found: list[Any]) -> Layout:
    """The layout that ``Layout.to_json`` gave."""
    rate, channels, kind, seeks, vouched, parts, notes = found
    made = tuple(Part(bytes.fromhex(prefix), *rest) for prefix, *rest in parts)
    return Layout(rate, channels, kind, seeks, vouched, made, tuple(notes))


class _View(io.RawIOBase):
    """A part as a file."""

    def __init__(self, path: Path, part: Part) -> None:
        self._file = path.open("rb", buffering=0)
        self._prefix, self._start = part.prefix, part.start
        self._size, self._place = len(part.prefix) + part.stop - part.start, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted, head = min(len(view), self._size - self._place), len(self._prefix)
        if wanted <= 0:
            return 0
        if self._place < head:
            data = self._prefix[self._place : self._place + wanted]
        else:
            self._file.seek(self._start + self._place - head)
            data = self._file.read(wanted)
        view[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def open_view(path: Path, part: Part) -> io.BufferedReader:
    """A part as a file that is read and sought.

    Raises:
        OSError: the file cannot be opened.
    """
    return io.BufferedReader(_View(path, part), 2**16)


def skip_tags(data: Any, place: int, stop: int) -> int:
    """The place after ID3v2 and APEv2 tags that begin at ``place`` of ``data``, bytes or a memory map."""
    while True:
        if data[place : place + 3] == b"ID3" and stop - place >= 10:
            sizes = data[place + 6 : place + 10]
            if any(byte & 0x80 for byte in sizes):
                return place
            size = sum(byte << shift for byte, shift in zip(sizes, (21, 14, 7, 0), strict=True))
            place = min(stop, place + 10 + size + (10 if data[place + 5] & 0x10 else 0))
        elif data[place : place + 8] == b"APETAGEX" and stop - place >= 32:
            size = int.from_bytes(data[place + 12 : place + 16], "little")  # without a header
            is_header = bool(int.from_bytes(data[place + 20 : place + 24], "little") & 0x20000000)
            place = min(stop, place + 32 + (size if is_header else 0))
        elif data[place : place + 3] == b"TAG" and stop - place == 128:
            return stop
        elif data[place : place + 4] == b"TAG+" and stop - place in (227, 355):
            place += 227
        elif data[place : place + 11] == b"LYRICSBEGIN":
            end = data[place:stop].find(b"LYRICS200")
            if end < 0:
                return place
            place += end + 9
        elif data[place : place + 3] == b"TAG" and data[place + 128 : place + 131] in (b"ID3", b"TAG"):
            place += 128  # of a file that another one was joined to
        else:
            return place


def is_zero(data: Any, place: int, stop: int) -> bool:
    """Whether these bytes are all zero."""
    step = 2**20
    return all(not any(data[at : min(at + step, stop)]) for at in range(place, stop, step))


def shown_list(values: Iterable[object]) -> str:
    """Different values in their order, as words."""
    return " and ".join(dict.fromkeys(map(str, values)))
