"""Archives of files, read and never unpacked: tar, plain or compressed, and zip. Links inside are followed."""

import posixpath
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Container, Iterator
from functools import partial
from lzma import LZMAError
from pathlib import Path
from typing import IO

from domains.video.tars import open_tar
from suite.console import notice, one_line
from suite.errors import DataError

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz")
_ZIP = (".zip",)
_UNSUPPORTED = (".tar.zst", ".tzst", ".tar.lz4", ".tar.z", ".7z", ".rar")
_LOCAL_HEADER = b"PK\3\4"
_MOST_BYTES = 64 << 20  # of one picture
_MOST_STEPS = 40  # from link to link, as Linux has it
_LONGEST_LINK = 4096  # bytes
_NAMED = 3  # links that a message names
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, LZMAError, OSError, ValueError, IndexError,
    NotImplementedError, struct.error,
)  # fmt: skip


def is_archive(path: Path) -> bool:
    """Whether ``path`` is called like an archive, of a kind that is read or not."""
    return path.name.lower().endswith((*_TAR, *_ZIP, *_UNSUPPORTED))


class Links:
    """Links in the archive at ``path``, and the plain files that they may lead to.

    ``files`` has each plain file; ``targets`` where each link leads, counted from the root of the archive, ``None`` for
    out of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, str] = {}
        self.targets: dict[str, str | None] = {}
        self.others = 0

    def add(self, name: str, target: str, *, hard: bool) -> None:
        """A link; soft ones count from their own folder, hard ones from the root."""
        place = posixpath.normpath(target if hard else posixpath.join(posixpath.dirname(name), target))
        self.targets[name] = None if place.startswith(("/", "../")) or place == ".." else place

    def followed(self) -> dict[str, str]:
        """The plain file by each name that leads to one. Links that lead to none are counted in a notice."""
        names = dict(self.files)
        lost = []
        for link in self.targets:
            place = self._resolve(link)
            below = {} if place is None else self._below(place, link)
            names |= below
            if not below:
                lost.append(link)
        if lost:
            named = ", ".join(lost[:_NAMED]) + (", ..." if len(lost) > _NAMED else "")
            notice(one_line(f"data: {self.path}: {len(lost):,} links to no file in the archive are left out ({named})"))
        if self.others:
            notice(f"data: {self.path}: {self.others:,} entries that are no files are left out (devices, pipes)")
        return names

    def _resolve(self, name: str) -> str | None:
        """Where ``name`` leads through links, its folders included; ``None`` out of the archive or in a circle."""
        for _ in range(_MOST_STEPS):
            parts = name.split("/")
            heads = ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
            head = next((head for head in heads if head in self.targets), None)
            if head is None:
                return name
            target = self.targets[head]
            if target is None:
                return None
            name = posixpath.normpath(target + name[len(head) :])
        return None

    def _below(self, place: str, link: str) -> dict[str, str]:
        """The file at ``place`` under the name of ``link``, or those in the folder ``place``."""
        if place in self.files:
            return {link: place}
        root = "" if place == "." else f"{place}/"
        if link.startswith(root):  # a folder inside itself
            return {}
        found = {f"{link}/{name[len(root) :]}": name for name in self.files if name.startswith(root)}
        for name in self.targets:
            target = self._resolve(name) if name.startswith(root) else None
            if target in self.files:
                found[f"{link}/{name[len(root) :]}"] = str(target)
        return found


def read_members(
    path: Path, *, content: bool, wanted: Container[str] | None = None, links: Links | None = None
) -> Iterator[tuple[str, bytes | str]]:
    """Names of the plain files in an archive, with their bytes, or as text the reason why one cannot be had.

    Args:
        path: the archive.
        content: whether to read the files, or give empty bytes.
        wanted: which files to give; all if ``None``.
        links: takes the links, and the number of what is neither file nor folder.

    Raises:
        DataError: no such file, an archive of a kind that is not read, or one that is not whole.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    name = path.name.lower()
    if name.endswith(_UNSUPPORTED):
        raise DataError(f"{path}: this kind of archive is not supported; repack it as {', '.join((*_TAR, *_ZIP))}")
    read, kind = (_read_zip, "zip") if name.endswith(_ZIP) else (_read_tar, "tar")
    try:
        for member, give in read(path, links):
            if wanted is None or member in wanted:
                yield member, give() if content else b""
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"{path}: not a whole {kind} archive ({one_line(str(error))}): fetch it again") from None


_Member = tuple[str, Callable[[], bytes | str]]


def _read_tar(path: Path, links: Links | None) -> Iterator[_Member]:
    with open_tar(path) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.isfile():
                yield name, partial(_bounded, partial(archive.extractfile, member), member.size)
            elif links is not None and (member.issym() or member.islnk()):
                links.add(name, member.linkname, hard=member.islnk())
            elif links is not None and not member.isdir():
                links.others += 1


def _read_zip(path: Path, links: Links | None) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        before = min((member.header_offset for member in members), default=0)
        if before and _begins_like_zip(path):
            raise DataError(f"{path}: another archive of {before:,} bytes is joined in front of it: pack them into one")
        for member in members:
            name, mode = member.filename.removeprefix("./"), member.external_attr >> 16
            if member.is_dir():
                continue
            if not stat.S_ISLNK(mode):
                yield name, partial(_from_zip, archive, member)
            elif links is not None and member.file_size <= _LONGEST_LINK:
                links.add(name, archive.read(member).decode(errors="replace"), hard=False)
            elif links is not None:
                links.others += 1


def _begins_like_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == _LOCAL_HEADER


def _from_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | str:
    """The bytes of a file in a zip, or why they cannot be had: each file has a checksum of its own."""
    try:
        return _bounded(partial(archive.open, member), member.file_size)
    except RuntimeError:  # also NotImplementedError
        return "encrypted, or compressed in a way that is not supported"
    except _BROKEN as error:
        return f"damaged in the archive ({one_line(str(error))})"


def _bounded(opened: Callable[[], IO[bytes] | None], size: int) -> bytes | str:
    if size > _MOST_BYTES:
        return f"larger than {_MOST_BYTES >> 20} MiB"
    file = opened()
    return b"" if file is None else file.read(_MOST_BYTES + 1)
