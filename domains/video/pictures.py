"""Image files, and image files inside an archive, to pixels of one size. Archives are read, never unpacked."""

import io
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from domains.video.archives import Links, is_archive, read_members
from domains.video.decoding import Fit, scaled_size
from domains.video.depth import samples_of, to_eight_bits
from domains.video.listing import Item, refuse_two_labels
from domains.video.png import SIGNATURE, check_png
from domains.video.transparency import composite
from suite.console import one_line
from suite.errors import DataError, gather
from suite.file_digests import digest_of, remembered
from suite.labels import clean_name
from suite.splits import SPLITS

UNREAD = "cannot be read"
"""How the reason begins of a file that the system did not hand out; another time it may."""
_MANY_PIXELS, _MOST_PIXELS = 1 << 25, 1000  # in all, and beyond that for each byte of the file
_DISPLAY_GAMMA, _GAMMA_SLACK = 1 / 2.2, 0.05


class Outcome(NamedTuple):
    """What became of the item at ``place``: ``pixels (S, S, 3)`` or a ``problem``, and what is unusual about it."""

    place: int
    pixels: NDArray[numpy.uint8] | None
    problem: str | None
    notes: list[str]


def list_archive(path: Path) -> list[Item]:
    """The files SPLIT/CLASS/FILE of an archive, in its order; names as they stand in it, hidden ones left out.

    Links inside the archive are followed; others are counted and named.

    Raises:
        DataError: not a whole archive, or something else than such files in it; a file with two labels.
    """
    links = Links(path)
    for member, _ in read_members(path, content=False, links=links):
        links.files[member] = member  # a file that was added again stands there once: its last contents count
    items: list[Item] = []
    others = []
    names = links.followed()
    targets = {member for name, member in names.items() if name != member}
    for name, member in names.items():
        parts = PurePosixPath(name).parts
        if any(part.startswith(".") and part != ".." for part in parts):
            continue
        if len(parts) == 3 and parts[0] in SPLITS:
            group = f"file {member}" if member in targets else None
            items.append(Item(path, name, clean_name(parts[1]), group, parts[0], member))
        elif member not in targets:
            others.append(f"{path}: {name} is not SPLIT/CLASS/FILE, where SPLIT is {', '.join(SPLITS)}")
    gather(others)
    if not items:
        raise DataError(f"{path}: there are no files in it")
    refuse_two_labels(path, items)
    return items


def decode_pictures(items: Sequence[Item], *, size: int, fit: Fit) -> tuple[NDArray[numpy.uint8], dict[str, str]]:
    """Pixels ``(N, S, S, 3)`` of ``items``, zeros for those that cannot be read; and the reasons by name.

    Raises:
        DataError: an archive that is not whole.
    """
    pixels = numpy.zeros((len(items), size, size, 3), numpy.uint8)
    problems = {}
    for found in decode_each(items, size=size, fit=fit):
        if found.pixels is not None:
            pixels[found.place] = found.pixels
        else:
            problems[items[found.place].name] = str(found.problem)
    return pixels, problems


def decode_each(items: Sequence[Item], *, size: int, fit: Fit) -> Iterator[Outcome]:
    """Each of ``items`` decoded, in any order, one at a time.

    Raises:
        DataError: an archive that is not whole.
    """
    left = {index for index, item in enumerate(items) if is_archive(item.path)}
    for index, data in _contents(items):
        left.discard(index)
        notes: list[str] = []
        try:
            if isinstance(data, str):
                raise DataError(data)
            yield Outcome(index, decode_picture(data, size=size, fit=fit, notes=notes), None, notes)
        except DataError as error:
            yield Outcome(index, None, str(error), notes)
    for index in sorted(left):
        yield Outcome(index, None, "not in the archive", [])


def _contents(items: Sequence[Item]) -> Iterator[tuple[int, bytes | str]]:
    """What is in each of ``items``, or why it cannot be had, in any order; an archive is passed through once."""
    inside: dict[Path, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, item in enumerate(items):
        if is_archive(item.path):
            inside[item.path][item.member or item.name].append(index)
            continue
        try:
            if not item.path.exists():
                yield index, "no such file"
            elif not item.path.is_file():
                yield index, "a folder or device where a file is needed"
            else:
                yield index, item.path.read_bytes()
        except OSError as error:
            yield index, f"{UNREAD} ({error.strerror})"
    for archive, wanted in inside.items():
        for name, data in read_members(archive, content=True, wanted=wanted):
            for index in wanted[name]:
                yield index, data


def digest_pictures(items: Sequence[Item]) -> list[bytes]:
    """A digest of the content of each file, or member of an archive, as ``suite.file_digests`` remembers them."""

    def read(left: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        for place, data in _contents([items[index] for index in left]):
            yield left[place], digest_of(data.encode() if isinstance(data, str) else data)

    members = [item.member or item.name if is_archive(item.path) else "" for item in items]
    return remembered([(item.path, member) for item, member in zip(items, members, strict=True)], read)


def _upright(file: Image.Image, notes: list[str]) -> Image.Image:
    """Turned as its EXIF block says; as it lies where that block is damaged in any of the ways that blocks can be."""
    try:
        return ImageOps.exif_transpose(file)
    except Exception:
        notes.append("a damaged EXIF block: the picture is taken as it is stored")
        return file


def decode_picture(data: bytes, *, size: int, fit: Fit, notes: list[str] | None = None) -> NDArray[numpy.uint8]:
    """An encoded picture as upright RGB ``(size, size, 3)``, scaled as frames of videos are.

    Transparency is laid over one colour. ``notes`` takes what is unusual about the picture.

    Raises:
        DataError: empty, cut, or not a picture.
    """
    notes = [] if notes is None else notes
    if not data:
        raise DataError("the file is empty")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            picture = _open(data, notes)
    except UnidentifiedImageError:
        raise DataError("not a picture") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"too large ({error})") from None
    except DataError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads to
        raise DataError(f"damaged ({one_line(str(error)) or type(error).__name__})") from None
    notes += [f"warnings of the decoder: {each.message}" for each in caught if each.category is UserWarning]
    width, height = scaled_size(picture.width, picture.height, size=size, fit=fit)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    top, left = (height - size) // 2, (width - size) // 2
    return numpy.asarray(picture)[top : top + size, left : left + size]


def _open(data: bytes, notes: list[str]) -> Image.Image:
    """The picture as upright opaque RGB."""
    with Image.open(io.BytesIO(data)) as file:
        _check_size(file, data)
        if data.startswith(SIGNATURE):
            check_png(data, notes)
        _note_frames(file, notes)
        samples = samples_of(file, data)
        file.load()
        _note_gamma(file, notes)
        picture = to_eight_bits(_upright(file, notes), samples, notes)
        if picture.has_transparency_data:
            return Image.fromarray(composite(numpy.asarray(picture.convert("RGBA"))))
        return picture.convert("RGB")


def _check_size(file: Image.Image, data: bytes) -> None:
    """Refuse a picture that fills memory from a few bytes; Pillow refuses the largest itself."""
    pixels = file.width * file.height
    if pixels > max(_MANY_PIXELS, _MOST_PIXELS * len(data)):
        raise DataError(f"too large ({file.width:,} x {file.height:,} pixels in {len(data):,} bytes)")


def _note_frames(file: Image.Image, notes: list[str]) -> None:
    """Note an animation or several pages, of which only the first is used."""
    try:
        count = int(getattr(file, "n_frames", 1))
    except Exception:
        notes.append("animations or several pages: only the first picture is used, and a later one is damaged")
        return
    if count > 1 and file.format != "PSD":  # a PSD's frames are the layers of one picture
        notes.append(f"animations or several pages: the first of {count} pictures is used")


def _note_gamma(file: Image.Image, notes: list[str]) -> None:
    gamma = file.info.get("gamma")
    if isinstance(gamma, float) and "srgb" not in file.info and abs(gamma - _DISPLAY_GAMMA) > _GAMMA_SLACK:
        notes.append(f"an unusual gamma: {gamma:g} is not applied; shades are taken as they are stored")
