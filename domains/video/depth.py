"""Pictures of more than 8 bits a colour to 8 bits, and the transparent colour of pictures without an alpha channel.

Pillow gives grey pictures of 16 bits as they are stored and colour pictures by their upper 8 bits. Where a file says
that fewer bits are in use, grey is scaled by these; if it does not say so and the upper bits are empty, that is noted.
"""

from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from PIL import Image

from suite.errors import DataError

_PNG = b"\x89PNG\r\n\x1a\n"
_DARK_BITS = 14  # as many bits in use, or fewer, are noted: cameras and scanners give 10, 12 or 14
_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE = 258, 262, 281  # TIFF tags


class Samples(NamedTuple):
    """How a file stores its pixels: ``stored`` bits a colour, of which ``used`` hold data if the file says so.

    ``scaled`` if a file with fewer used than stored bits should have them at the upper end. ``inverted`` if 0 is white.
    """

    stored: int = 8
    used: int | None = None
    scaled: bool = False
    inverted: bool = False


def samples_of(file: Image.Image, data: bytes) -> Samples:
    """How the opened ``file``, whose bytes are ``data``, stores its pixels."""
    if data[:8] == _PNG:
        return Samples(stored=data[24], used=_significant_bits(data), scaled=True)
    if file.format == "PPM" and file.mode == "I":  # Pillow scales by the file's own maximum
        return Samples(stored=16, used=16)
    tags: Any = getattr(file, "tag_v2", None)
    if file.format != "TIFF" or tags is None:
        return Samples(stored=16 if file.mode.startswith("I;16") else 8)
    stored = int(_first(tags.get(_BITS_PER_SAMPLE, 1)))
    highest = tags.get(_MAX_SAMPLE)
    used = int(_first(highest)).bit_length() if highest else None
    if 8 < stored < 16:
        used, stored = stored, 16
    return Samples(stored=stored, used=used, inverted=tags.get(_PHOTOMETRIC) == 0 and stored == 16)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def _significant_bits(png: bytes) -> int | None:
    """The number in a PNG's sBIT chunk, the largest of several; ``None`` without such a chunk."""
    position = 8
    while position + 8 <= len(png):
        length, kind = int.from_bytes(png[position : position + 4], "big"), png[position + 4 : position + 8]
        if kind == b"sBIT":
            return max(png[position + 8 : position + 8 + length], default=None)
        if kind == b"IDAT":
            return None
        position += length + 12
    return None


def to_eight_bits(picture: Image.Image, samples: Samples, notes: list[str]) -> Image.Image:
    """The picture with 8 bits a colour; its transparent colour, if it has one, with them.

    Raises:
        DataError: pixels without a known range.
    """
    if picture.mode.startswith("I;16") or (picture.mode == "I" and samples.stored == samples.used == 16):
        return _grey(picture, samples, notes)
    if picture.mode in ("I", "F"):
        raise DataError(f"pixels of mode {picture.mode} have no known range: convert the picture to 8 or 16 bits")
    if samples.stored == 16:
        _note_dark(int(numpy.asarray(picture)[..., :3].max(initial=0)).bit_length() + 8, notes)
    key = picture.info.get("transparency")
    if isinstance(key, tuple) and samples.stored == 16:
        picture.info["transparency"] = tuple(value >> 8 for value in key)
    elif isinstance(key, int) and picture.mode == "L" and samples.stored < 8:
        picture.info["transparency"] = key * 255 // (2**samples.stored - 1)
    return picture


def _grey(picture: Image.Image, samples: Samples, notes: list[str]) -> Image.Image:
    values = numpy.asarray(picture).astype(numpy.uint32)
    bits = _bits_of(values, samples)
    if samples.used is None:
        _note_dark(int(values.max(initial=0)).bit_length(), notes)
    shades = (values >> 8 if bits == 16 else values * 255 // (2**bits - 1)).clip(0, 255).astype(numpy.uint8)
    shades = 255 - shades if samples.inverted else shades
    key = picture.info.get("transparency")
    if key is None:
        return Image.fromarray(shades)
    return Image.fromarray(numpy.stack([shades, numpy.where(values == key, 0, 255).astype(numpy.uint8)], axis=2))


def _bits_of(values: NDArray[numpy.uint32], samples: Samples) -> int:
    """Bits that ``values`` are to be scaled by.

    A PNG with fewer significant bits has them at the upper end (PNG 3rd edition, 11.3.2.7); many programs leave them
    at the lower end, which shows in values that are no multiples of the lowest significant bit.
    """
    if samples.used is None or not 0 < samples.used < 16 or int(values.max(initial=0)) >> samples.used:
        return 16
    if samples.scaled and not (values & (2 ** (16 - samples.used) - 1)).any():
        return 16
    return samples.used


def _note_dark(bits: int, notes: list[str]) -> None:
    if 0 < bits <= _DARK_BITS:
        notes.append(
            f"pixels of 16 bits that use fewer: the highest takes {bits} bits, so the picture is dark; scale it up if "
            "its range is smaller"
        )
