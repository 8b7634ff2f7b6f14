"""Damage in Matroska blocks and PNG pixels, which FFmpeg and Pillow pass over."""

import io
import struct
import zlib
from pathlib import Path

import numpy
import pytest
from PIL import Image

from domains.video.decoding import decode
from domains.video.matroska import damaged_blocks
from domains.video.pictures import decode_picture
from suite.errors import DataError
from tests.corruption.bombs import BOMBS
from tests.corruption.samples import FRAMES, MAKERS, SIZE

BLOCK = b"\xa3"


def blocks(data: bytes) -> list[int]:
    """Places of simple blocks of track 1, behind the first cluster."""
    first = data.index(b"\x1f\x43\xb6\x75")
    return [place for place in range(first, len(data) - 4) if data[place : place + 1] == BLOCK and _size(data, place)]


def _size(data: bytes, place: int) -> bool:
    """Whether a length of two bytes and the number of track 1 follow."""
    return data[place + 1] & 0xC0 == 0x40 and data[place + 3] == 0x81


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(MAKERS["mkv"](0))
    assert damaged_blocks(path) is None
    assert len(decode(path, size=SIZE).frames) == FRAMES


@pytest.mark.parametrize(("offset", "value"), [(3, 0x85), (0, 0xB3), (0, 0x00)])
def test_a_block_that_would_be_passed_over_is_refused(tmp_path: Path, offset: int, value: int) -> None:
    """Of another track, under another name, or none: FFmpeg reads the other frames and says nothing."""
    data = bytearray(MAKERS["mkv"](0))
    data[blocks(bytes(data))[-1] + offset] = value
    path = tmp_path / "a.mkv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"damaged: (a block of track 5|no whole block) at byte [\d,]+"):
        decode(path, size=SIZE)


def test_tracks_that_end_beyond_the_file_end_the_search(tmp_path: Path) -> None:
    """With a length of eight bytes that is far too large."""
    data = bytearray(MAKERS["mkv"](0))
    place = data.index(b"\x16\x54\xae\x6b") + 4
    data[place : place + 8] = b"\x01" + b"\x7f" * 7
    path = tmp_path / "a.mkv"
    path.write_bytes(data)
    assert damaged_blocks(path) is None  # what is wrong with it is found by the length


def test_other_formats_have_no_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(MAKERS["mp4"](0))
    assert damaged_blocks(path) is None


def _png() -> tuple[bytes, int]:
    """A picture, and where its chunk of pixels is."""
    data = MAKERS["png"](0)
    return data, data.index(b"IDAT") - 4


def test_a_png_with_other_pixels_than_its_checksum_is_refused() -> None:
    """Made with a right stream of other pixels, which Pillow takes."""
    data, place = _png()
    length = struct.unpack(">I", data[place : place + 4])[0]
    rows = bytearray(zlib.decompress(data[place + 8 : place + 8 + length]))
    rows[-1] ^= 128
    pixels = zlib.compress(bytes(rows))
    checksum = data[place + 8 + length : place + 12 + length]
    changed = data[:place] + struct.pack(">I", len(pixels)) + b"IDAT" + pixels + checksum + data[-12:]
    with Image.open(io.BytesIO(changed)) as image:
        assert numpy.asarray(image).shape == (SIZE, SIZE, 3)
    with pytest.raises(DataError, match="damaged \\(its pixels do not have the checksum that the file says\\)"):
        decode_picture(changed, size=SIZE, fit="crop")


def test_a_png_without_its_end_is_reported() -> None:
    data, _ = _png()
    notes: list[str] = []
    decode_picture(data[:-12], size=SIZE, fit="crop", notes=notes)
    assert notes == ["PNG files without their end: all pixels are there"]
    decode_picture(data, size=SIZE, fit="crop", notes=notes)
    assert len(notes) == 1


def test_a_picture_that_fills_memory_from_a_few_bytes_is_refused() -> None:
    with pytest.raises(DataError, match=r"too large \(13,000 x 13,000 pixels in [\d,]+ bytes\)"):
        decode_picture(BOMBS["png-13000x13000-whole"].make(), size=SIZE, fit="crop")
