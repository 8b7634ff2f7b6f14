"""Compressed files, with a limit to how far they expand: two megabytes can hold two gigabytes of zeros."""

import gzip
import io
import zlib
from collections.abc import Callable
from lzma import LZMAError
from pathlib import Path
from typing import Any, BinaryIO

from suite.errors import DataError

_PIECE = 1 << 20  # bytes read at a time
_FREE = 64 << 20  # bytes that any file may expand to
_MOST_TIMES = 100  # of its compressed size beyond that; text reaches 3 to 20 times


class PackedReader(io.RawIOBase):
    """The content of a compressed file, to be read once from beginning to end, where its checksums are compared.

    Reading raises DataError for a damaged or cut file, for other bytes after the end of a gzip file, and for content of
    more than 100 times the compressed size. Opening raises OSError if the file cannot be read.

    Args:
        path: the file.
        unpack: opens the content of an opened file, such as ``gzip.open`` and ``bz2.open``.
    """

    def __init__(self, path: Path, unpack: Callable[[BinaryIO], Any] = gzip.open) -> None:
        self.path = path
        self._file = path.open("rb")
        self._content = unpack(self._file)
        self._size = 0
        self.most = max(_FREE, _MOST_TIMES * path.stat().st_size)
        """Bytes that the content can have."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            size = int(self._content.readinto(buffer))
        except (EOFError, OSError, zlib.error, LZMAError) as error:
            raise DataError(f"{self.path}: not a whole {self._kind()} file ({error}); fetch it again") from None
        self._size += size
        if self._size > max(_FREE, _MOST_TIMES * self._file.tell()):
            raise DataError(
                f"{self.path}: {self._file.tell():,} bytes of it expand to more than {self._size:,}, over "
                f"{_MOST_TIMES} times as many; unpack the file first if it is meant"
            )
        return size

    def close(self) -> None:
        self._file.close()
        super().close()

    def _kind(self) -> str:
        names = {"GzipFile": "gzip", "BZ2File": "bzip2", "LZMAFile": "xz"}
        return names.get(type(self._content).__name__, "compressed")


def read_gzip(path: Path) -> bytes:
    """The content of a gzip file, all its members.

    Raises:
        DataError: as ``PackedReader``.
        OSError: the file cannot be read.
    """
    content = bytearray()
    with PackedReader(path) as reader:
        while piece := reader.read(_PIECE):
            content += piece
    return bytes(content)
