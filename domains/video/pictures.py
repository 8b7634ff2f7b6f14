"""Image files, and image files inside a tar archive, to pixels of one size. Archives are read, never unpacked."""

import io
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from domains.video.decoding import Fit, scaled_size
from domains.video.listing import Item, is_archive
from suite.errors import DataError, gather
from suite.file_digests import digest_of, remembered
from suite.splits import SPLITS

UNREAD = "cannot be read"
"""How the reason begins of a file that the system did not hand out; another time it may."""
_MOST_BYTES = 64 << 20  # of one picture
_BROKEN = (tarfile.TarError, EOFError, zlib.error, OSError)


def list_archive(path: Path) -> list[Item]:
    """The files SPLIT/CLASS/FILE of a tar archive, in its order; names as they stand in it, hidden ones left out.

    Raises:
        DataError: not a whole archive, or something else than such files in it.
    """
    items: dict[str, Item] = {}  # a file that was added again stands there once: its last contents count
    others = []
    for member, _ in _members(path, content=False):
        parts = PurePosixPath(member).parts
        if any(part.startswith(".") and part != ".." for part in parts):
            continue
        if len(parts) == 3 and parts[0] in SPLITS:
            items[member] = Item(path, member, parts[1], split=parts[0])
        else:
            others.append(f"{path}: {member} is not SPLIT/CLASS/FILE, where SPLIT is {', '.join(SPLITS)}")
    gather(others)
    if not items:
        raise DataError(f"{path}: there are no files in it")
    return list(items.values())


def _members(path: Path, *, content: bool) -> Iterator[tuple[str, bytes]]:
    """Names of the plain files in an archive, and what is in them; links and devices are no files."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isfile():
                    file = archive.extractfile(member) if content and member.size <= _MOST_BYTES else None
                    yield member.name.removeprefix("./"), file.read() if file is not None else b""
    except _BROKEN as error:
        raise DataError(f"{path}: not a whole tar archive ({error}): fetch it again") from None


def decode_pictures(items: Sequence[Item], *, size: int, fit: Fit) -> tuple[NDArray[numpy.uint8], dict[str, str]]:
    """Pixels ``(N, S, S, 3)`` of ``items``, zeros for those that cannot be read; and the reasons by name.

    Raises:
        DataError: an archive that is not whole.
    """
    pixels = numpy.zeros((len(items), size, size, 3), numpy.uint8)
    problems = {item.name: "not in the archive" for item in items if is_archive(item.path)}
    for index, data in _contents(items):
        name = items[index].name
        problems.pop(name, None)
        if isinstance(data, str):
            problems[name] = data
            continue
        try:
            pixels[index] = decode_picture(data, size=size, fit=fit)
        except DataError as error:
            problems[name] = str(error)
    return pixels, problems


def _contents(items: Sequence[Item]) -> Iterator[tuple[int, bytes | str]]:
    """What is in each of ``items``, or why it cannot be had, in any order; an archive is passed through once."""
    inside: dict[Path, dict[str, int]] = defaultdict(dict)
    for index, item in enumerate(items):
        if is_archive(item.path):
            inside[item.path][item.name] = index
            continue
        try:
            yield index, item.path.read_bytes()
        except OSError as error:
            yield index, f"{UNREAD} ({error.strerror})"
    for archive, wanted in inside.items():
        for name, data in _members(archive, content=True):
            if name in wanted:
                yield wanted[name], data


def digest_pictures(items: Sequence[Item]) -> list[bytes]:
    """A digest of the content of each file, or member of an archive, as ``suite.file_digests`` remembers them."""

    def read(left: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        for place, data in _contents([items[index] for index in left]):
            yield left[place], digest_of(data.encode() if isinstance(data, str) else data)

    return remembered([(item.path, item.name if is_archive(item.path) else "") for item in items], read)


def _upright(file: Image.Image) -> Image.Image:
    """Turned as its EXIF block says; as it lies where that block is damaged in any of the ways that blocks can be."""
    try:
        return ImageOps.exif_transpose(file)
    except Exception:
        return file


def decode_picture(data: bytes, *, size: int, fit: Fit) -> NDArray[numpy.uint8]:
    """An encoded picture as upright RGB ``(size, size, 3)``, scaled as frames of videos are.

    Raises:
        DataError: empty, cut, or not a picture.
    """
    if not data:
        raise DataError("the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as file:
            file.load()
            picture = _upright(file)
            if picture.mode.startswith("I;16"):  # what is above 255 would become white
                picture = Image.fromarray((numpy.asarray(picture) >> 8).astype(numpy.uint8))
            elif picture.mode in ("I", "F"):
                raise DataError(f"pixels of mode {picture.mode} have no range that is known: convert to 8 or 16 bits")
            picture = picture.convert("RGB")
    except UnidentifiedImageError:
        raise DataError("not a picture") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"damaged ({error})") from None
    width, height = scaled_size(picture.width, picture.height, size=size, fit=fit)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    top, left = (height - size) // 2, (width - size) // 2
    return numpy.asarray(picture)[top : top + size, left : left + size]
