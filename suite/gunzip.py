"""Gzip files, with a limit to how far they expand: two megabytes can hold two gigabytes of zeros."""

import gzip
import io
import zlib
from pathlib import Path
from typing import Any

from suite.errors import DataError

_PIECE = 1 << 20  # bytes read at a time
_FREE = 64 << 20  # bytes that any file may expand to
_MOST_TIMES = 100  # of its compressed size beyond that; text reaches 3 to 20 times


class GzipReader(io.RawIOBase):
    """The content of a gzip file, all its members, to be read once from beginning to end.

    Reading raises DataError for a damaged or cut file, bytes after its end, or more than 100 times its size in it.
    Opening it raises OSError if the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        self._unpacked = gzip.GzipFile(fileobj=self._file)
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            size = self._unpacked.readinto(buffer)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{self.path}: not a whole gzip file ({error}); fetch it again") from None
        self._size += size
        if self._size > max(_FREE, _MOST_TIMES * self._file.tell()):
            raise DataError(
                f"{self.path}: {self._file.tell():,} bytes of it expand to more than {self._size:,}, over {_MOST_TIMES} "
                "times as many; unpack the file first if it is meant"
            )
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def read_gzip(path: Path) -> bytes:
    """The content of a gzip file.

    Raises:
        DataError: as ``GzipReader``.
        OSError: the file cannot be read.
    """
    content = bytearray()
    with GzipReader(path) as reader:
        while piece := reader.read(_PIECE):
            content += piece
    return bytes(content)
