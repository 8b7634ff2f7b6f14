"""The MD5 of all samples that a FLAC file carries in its header (RFC 9639, 8.2)."""

import hashlib
from pathlib import Path

import numpy

from domains.audio.decoding import Samples
from domains.audio.parts import Layout, Part

_MARK = b"fLaC"
_EXACT = 24  # bits of a sample that a 32-bit float holds


class FlacDigest:
    """Compares the samples of a file with the MD5 in the header of each of its streams; of other files nothing.

    Raises:
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        with path.open("rb") as file:
            self._streams = []
            for part in layout.parts:
                file.seek(part.start)
                self._streams.append(_Stream(part, part.prefix or file.read(64)))
        self._place = 0

    def add(self, block: Samples) -> None:
        """Take the next samples ``(n, channels)``."""
        while len(block) and self._place < len(self._streams):
            stream = self._streams[self._place]
            taken, block = block[: stream.left], block[stream.left :]
            stream.add(taken)
            self._place += not stream.left

    @property
    def is_wrong(self) -> bool:
        """Whether the samples of a stream have another MD5 than its header."""
        return any(stream.is_wrong for stream in self._streams)


class _Stream:
    def __init__(self, part: Part, head: bytes) -> None:
        packed, self.wanted = int.from_bytes(head[18:26], "big"), head[26:42]
        self.bits = (packed >> 36 & 31) + 1
        self.used = head[:4] == _MARK and head[4] & 0x7F == 0 and any(self.wanted) and self.bits <= _EXACT
        self.left = part.frames
        self.found = hashlib.md5(usedforsecurity=False)

    def add(self, block: Samples) -> None:
        self.left -= len(block)
        if self.used:
            stored = numpy.rint(block.astype(numpy.float64) * 2 ** (self.bits - 1)).astype("<i4")
            self.found.update(stored.view(numpy.uint8).reshape(-1, 4)[:, : -(-self.bits // 8)].tobytes())

    @property
    def is_wrong(self) -> bool:
        return self.used and not self.left and self.found.digest() != self.wanted
