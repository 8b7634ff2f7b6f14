"""The checksums of a PNG file: Pillow compares those of its headers, and not those of its pixels."""

import zlib

from suite.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def check_png(data: bytes, notes: list[str]) -> None:
    """Compare the checksum of every chunk of pixels.

    Raises:
        DataError: a chunk with another checksum, or one that is cut.
    """
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        end = position + 8 + length
        is_whole = end + 4 <= len(data)
        is_right = is_whole and zlib.crc32(data[position + 4 : end]) == int.from_bytes(data[end : end + 4], "big")
        if kind == b"IDAT" and not is_right:
            what = "its pixels do not have the checksum that the file says" if is_whole else "cut short in its pixels"
            raise DataError(f"damaged ({what})")
        if kind == b"IEND" and is_right:
            return
        position = end + 4
    notes.append("PNG files without their end: all pixels are there")
