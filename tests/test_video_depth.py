"""Pictures of all depths, with transparency and with several frames: against values computed by numpy."""

import io
import struct
import zlib
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray
from PIL import Image

from domains.video.pictures import decode_picture
from domains.video.transparency import BACKGROUND
from suite.errors import DataError

GREY = BACKGROUND[0]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: Any, *, depth: int, colour: int, extra: bytes = b"") -> bytes:
    """A PNG (ISO/IEC 15948) of samples ``(H, W, C)``, 8 or 16 bits each, or packed rows below 8 bits."""
    samples = numpy.asarray(values)
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in samples)
    height, width = samples.shape[:2]
    width = width * 8 // depth if depth < 8 else width
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


def read(content: bytes, size: int = 8) -> tuple[NDArray[numpy.uint8], list[str]]:
    notes: list[str] = []
    return decode_picture(content, size=size, fit="stretch", notes=notes), notes


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


RAMP = numpy.linspace(0, 65535, 64).astype(int).reshape(8, 8, 1)


def test_sixteen_bits_fill_the_range_in_every_format() -> None:
    expected = RAMP[..., 0] >> 8
    grey = Image.fromarray(RAMP[..., 0].astype(numpy.uint16))
    header = b"P5 8 8 65535\n"
    for content in (
        *(png(RAMP, depth=16, colour=0), png(RAMP.repeat(3, 2), depth=16, colour=2)),
        *(saved(grey, "TIFF"), header + RAMP.astype(">u2").tobytes()),
    ):
        found, notes = read(content)
        numpy.testing.assert_array_equal(found, expected[..., None].repeat(3, axis=2))
        assert notes == []


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_significant_bits_are_followed(bits: int) -> None:
    """Data at the lower end, as many programs write them, and at the upper end, as the standard has it."""
    low = RAMP >> (16 - bits)
    mark = chunk(b"sBIT", bytes([bits]))
    expected = low[..., 0] * 255 // (2**bits - 1)
    found, notes = read(png(low, depth=16, colour=0, extra=mark))
    numpy.testing.assert_array_equal(found[..., 0], expected)
    assert notes == []
    found, notes = read(png(low << (16 - bits), depth=16, colour=0, extra=mark))
    assert abs(found[..., 0].astype(int) - expected).max() <= 1
    assert notes == []
    # A dark picture with data at the upper end stays dark.
    dark = RAMP >> 12 << (16 - bits)
    found, _ = read(png(dark, depth=16, colour=0, extra=mark))
    numpy.testing.assert_array_equal(found[..., 0], dark[..., 0] >> 8)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_unmarked_low_bits_are_reported(bits: int) -> None:
    low = RAMP >> (16 - bits)
    for content in (png(low, depth=16, colour=0), png(low.repeat(3, 2), depth=16, colour=2)):
        found, notes = read(content)
        numpy.testing.assert_array_equal(found[..., 0], low[..., 0] >> 8)
        assert len(notes) == 1
        assert f"the highest takes {bits} bits" in notes[0]


def test_a_tiff_says_its_highest_value_and_what_is_white() -> None:
    low = (RAMP[..., 0] >> 4).astype(numpy.uint16)
    found, notes = read(saved(Image.fromarray(low), "TIFF", tiffinfo={281: 4095}))
    numpy.testing.assert_array_equal(found[..., 0], low.astype(int) * 255 // 4095)
    assert notes == []
    white_first = saved(Image.fromarray(RAMP[..., 0].astype(numpy.uint16)), "TIFF", tiffinfo={262: 0})
    numpy.testing.assert_array_equal(read(white_first)[0][..., 0], 255 - (RAMP[..., 0] >> 8))


@pytest.mark.parametrize("kind", [numpy.float32, numpy.int32])
def test_pixels_without_a_range_are_refused(kind: Any) -> None:
    with pytest.raises(DataError, match=r"pixels of mode [FI] have no known range: convert the picture to 8 or 16"):
        read(saved(Image.fromarray(RAMP[..., 0].astype(kind)), "TIFF"))


def test_transparent_pixels_show_the_background() -> None:
    """The left half is hidden red, the right half opaque blue, in every way that a file can say so."""
    colours = numpy.zeros((8, 8, 4), numpy.uint8)
    colours[:, :4], colours[:, 4:] = (255, 0, 0, 0), (0, 0, 255, 255)
    rgba = Image.fromarray(colours)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(0, (0, 0, 4, 8))
    deep = colours.astype(int) * 257
    files = {
        "rgba": saved(rgba, "PNG"),
        "16 bits": png(deep, depth=16, colour=6),
        "palette": saved(palette, "PNG", transparency=b"\x00\xff"),
        "gif": saved(palette, "GIF", transparency=0),
        "webp": saved(rgba, "WEBP", lossless=True, exact=True),
        "tiff": saved(rgba, "TIFF"),
        "key": png(colours[..., :3], depth=8, colour=2, extra=chunk(b"tRNS", struct.pack(">3H", 255, 0, 0))),
        "deep key": png(deep[..., :3], depth=16, colour=2, extra=chunk(b"tRNS", struct.pack(">3H", 65535, 0, 0))),
    }
    expected = numpy.zeros((8, 8, 3), int)
    expected[:, :4], expected[:, 4:] = BACKGROUND, (0, 0, 255)
    for name, content in files.items():
        found, notes = read(content)
        numpy.testing.assert_array_equal(found, expected, err_msg=name)
        assert notes == []


def test_transparent_greys_show_the_background() -> None:
    grey = numpy.full((8, 8, 1), 200)
    grey[:, :4] = 90
    pairs = numpy.concatenate([grey, numpy.where(grey == 90, 0, 255)], axis=2)
    two_bits = numpy.full((8, 2, 1), 0b11111111)
    two_bits[:, 0] = 0b01010101  # shade 1 of 0 to 3
    expected = numpy.full((8, 8), 200)
    expected[:, :4] = GREY
    for content in (
        png(pairs, depth=8, colour=4),
        png(pairs * 257, depth=16, colour=4),
        png(grey, depth=8, colour=0, extra=chunk(b"tRNS", struct.pack(">H", 90))),
        png(grey * 257, depth=16, colour=0, extra=chunk(b"tRNS", struct.pack(">H", 90 * 257))),
    ):
        numpy.testing.assert_array_equal(read(content)[0][..., 0], expected)
    found, _ = read(png(two_bits, depth=2, colour=0, extra=chunk(b"tRNS", struct.pack(">H", 1))))
    assert (found[:, :4] == GREY).all()
    assert (found[:, 4:] == 255).all()


def test_half_transparent_pixels_are_mixed_before_scaling() -> None:
    pixels = numpy.zeros((8, 8, 4), numpy.uint8)
    pixels[:, ::2], pixels[:, 1::2] = (255, 255, 255, 0), (0, 0, 0, 51)
    found, _ = read(saved(Image.fromarray(pixels), "PNG"))
    expected = round(GREY * (255 - 51) / 255)
    assert (found[:, ::2] == GREY).all()
    assert (found[:, 1::2] == expected).all()
    small, _ = read(saved(Image.fromarray(pixels), "PNG"), size=1)
    assert expected <= small.min() <= small.max() <= GREY


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_pictures_is_used_and_reported(form: str) -> None:
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    found, notes = read(saved(pictures[0], form, save_all=True, append_images=pictures[1:], **options))
    assert abs(found.astype(int) - (250, 0, 0)).max() <= 2
    assert notes == ["animations or several pages: the first of 3 pictures is used"]
    assert read(saved(pictures[0], form, **options))[1] == []


def test_cmyk_single_bits_and_gamma() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    found, notes = read(saved(cmyk, "JPEG", quality=100))
    assert abs(found.astype(int) - (255, 0, 0)).max() <= 4
    assert notes == []
    bits = Image.fromarray(numpy.eye(8, dtype=bool))
    numpy.testing.assert_array_equal(read(saved(bits, "PNG"))[0][..., 0], numpy.eye(8) * 255)
    mark = chunk(b"gAMA", struct.pack(">I", 100_000))
    _, notes = read(png(RAMP >> 8, depth=8, colour=0, extra=mark))
    assert notes == ["an unusual gamma: 1 is not applied; shades are taken as they are stored"]
    assert read(png(RAMP >> 8, depth=8, colour=0, extra=chunk(b"gAMA", struct.pack(">I", 45_455))))[1] == []


def test_a_picture_of_too_many_pixels_is_one_bad_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match=r"too large \(.*64 pixels"):
        read(saved(Image.new("RGB", (8, 8)), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # Pillow only warns up to twice its limit
    assert read(saved(Image.new("RGB", (8, 8), (9, 9, 9)), "PNG"))[1] == []
