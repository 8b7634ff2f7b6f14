"""Tar archives as streams, with the damage that Python's tarfile passes over.

It ends at a damaged header in the middle as if the archive ended there, takes an archive that was cut between two
files, ignores what follows the end, and never compares the checksum at the end of a compressed archive.
"""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tarfile import ReadError
from typing import Any, BinaryIO, cast

from suite.console import notice_once
from suite.errors import DataError
from suite.packed import PackedReader

_PIECE = 1 << 20
_BLOCK = 512
_MAGIC = b"ustar"  # of a header, from byte 257 on
_UNPACK: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x5d\0\0": lzma.open,
}


class _Header(tarfile.TarInfo):
    @classmethod
    def fromtarfile(cls, tarfile: Any) -> "_Header":
        """The next header; damage and a missing end are told apart from the end."""
        try:
            found = super().fromtarfile(tarfile)
        except _errors("EOFHeaderError"):
            raise
        except _errors("EmptyHeaderError") as error:
            if tarfile.offset:
                tarfile.is_cut = True
            raise error
        except _errors("HeaderError") as error:
            if not tarfile.offset:
                raise
            raise ReadError(f"damaged {tarfile.offset:,} bytes after its beginning: {error}") from None
        tarfile.check_offset()
        return found


def _errors(name: str) -> type[Exception]:
    found: type[Exception] = getattr(tarfile, name)
    return found


class _Archive(tarfile.TarFile):
    tarinfo = _Header
    is_cut = False
    most: int | None = None
    """Bytes that the archive can have; ``None`` while it is opened."""

    def check_offset(self) -> None:
        """Refuse a file that ends where nothing can be: tarfile would pass over the gap in small steps."""
        if self.most is not None and self.offset > self.most + _BLOCK:
            raise ReadError(f"a file in it ends at byte {self.offset:,}, and the archive before that")


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """An archive, plain or compressed, to be read once in its order; afterwards its end is checked.

    Raises:
        tarfile.TarError, DataError: an archive that is not whole, or to which another one was joined.
        OSError: it cannot be read.
    """
    with _content(path) as file, _Archive.open(fileobj=file, mode="r|") as archive:
        archive.most = file.most if isinstance(file, PackedReader) else path.stat().st_size
        archive.check_offset()
        yield archive
        _check_end(path, archive)


def _content(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(8)
    for magic, unpack in _UNPACK.items():
        if head.startswith(magic):
            return PackedReader(path, unpack)
    return path.open("rb")


def _check_end(path: Path, archive: _Archive) -> None:
    if archive.is_cut:
        notice_once(f"data: {path}: the mark at the end of the archive is missing: it may have been cut short")
        return
    stream = cast(BinaryIO, archive.fileobj)
    after = 0
    while piece := stream.read(_PIECE):
        if not after and not any(piece):
            continue
        if any(piece[place + 257 : place + 262] == _MAGIC for place in range(0, len(piece), _BLOCK)):
            raise DataError(f"{path}: another archive is joined to its end: unpack both and pack them into one")
        after += len(piece)
    if after:
        notice_once(f"data: {path}: {after:,} bytes after the end of the archive are ignored")
