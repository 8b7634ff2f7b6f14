"""Gzip files read whole, with a limit to how far they expand: two megabytes can hold two gigabytes of zeros."""

import gzip
import zlib
from pathlib import Path

from suite.errors import DataError

_PIECE = 1 << 20  # bytes read at a time
_FREE = 64 << 20  # bytes that any file may expand to
_MOST_TIMES = 100  # of its compressed size beyond that; text reaches 3 to 20 times


def read_gzip(path: Path) -> bytes:
    """The content of a gzip file, all its members.

    Raises:
        DataError: a damaged or cut file, bytes after its end, or more than 100 times its size in it.
        OSError: the file cannot be read.
    """
    content = bytearray()
    with path.open("rb") as file:
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                while piece := unpacked.read(_PIECE):
                    content += piece
                    if len(content) > max(_FREE, _MOST_TIMES * file.tell()):
                        raise DataError(
                            f"{path}: {file.tell():,} bytes of it expand to more than {len(content):,}, over "
                            f"{_MOST_TIMES} times as many, which no text does; unpack the file if it is meant"
                        )
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path}: not a whole gzip file ({error}); fetch it again") from None
    return bytes(content)
