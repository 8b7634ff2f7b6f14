"""Small files that announce or expand to far more than memory holds."""

import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from tests.corruption.containers import PNG_SIGNATURE, repair_ogg
from tests.corruption.samples import MAKERS

_ZEROS = 1 << 26


class Bomb(NamedTuple):
    """How to make a file, and as what it is read."""

    format: str
    make: Callable[[], bytes]


def _gzip(content: bytes, times: int) -> bytes:
    """A gzip file of ``times`` members."""
    return gzip.compress(content, mtime=0) * times


def _text() -> bytes:
    return _gzip((b"text,label\n" + b"a" * 52 + b",good\n") * (_ZEROS // 69), 32)


def _one_member() -> bytes:
    """Two gigabytes in one member: a flushed piece of a deflate stream may be repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(b"a" * _ZEROS) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + piece * 32


def _png(width: int, height: int, *, rows: int) -> bytes:
    """Black, one bit a pixel; ``rows`` of them are there."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(bytes((width + 7) // 8 + 1) * rows, 9)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return PNG_SIGNATURE + b"".join(parts)


def _edited(format: str, *edits: tuple[int, bytes]) -> bytes:
    data = bytearray(MAKERS[format](1))
    for place, content in edits:
        data[place : place + len(content)] = content
    return bytes(data)


def _jpeg() -> bytes:
    data = MAKERS["jpeg"](1)
    place = data.index(b"\xff\xc0")
    return data[: place + 5] + b"\xff\xff\xff\xff" + data[place + 9 :]


def _tar(mode: str, *, size: int) -> bytes:
    """A member of ``size`` zeros behind a picture."""
    file = io.BytesIO()
    opened: Any = tarfile.open(fileobj=file, mode=f"w{mode}")  # type: ignore[call-overload]  # noqa: SIM115
    with opened as archive:
        for name, length in (("train/a/1.png", 0), ("test/a/2.png", size)):
            data = MAKERS["png"](1)
            member = tarfile.TarInfo(name)
            member.size = length or len(data)
            archive.addfile(member, _Zeros() if length else io.BytesIO(data))
    return file.getvalue()


class _Zeros(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        return bytes(size)


def _sparse_tar() -> bytes:
    """A member of a terabyte, all of it a hole (GNU sparse format 1.0)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(_member("train/a/1.png", MAKERS["png"](1)), io.BytesIO(MAKERS["png"](1)))
        hole = b"0\n".ljust(512, b"\0")
        member = _member("test/a/2.png", hole)
        member.pax_headers = {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "test/a/2.png",
            "GNU.sparse.realsize": str(1 << 40),
        }  # fmt: skip
        archive.addfile(member, io.BytesIO(hole))
    return file.getvalue()


def _member(name: str, data: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member


def _zip(*, honest: bool) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/a/1.png", MAKERS["png"](1))
        archive.writestr("test/a/2.png", bytes(_ZEROS * 8))
    data = file.getvalue()
    return data if honest else data.replace(struct.pack("<I", _ZEROS * 8), struct.pack("<I", 4000))


def _parquet() -> bytes:
    """A hundred million equal rows in some hundred kilobytes."""
    file = io.BytesIO()
    column = pa.DictionaryArray.from_arrays(pa.array(numpy.zeros(5_000_000, numpy.int8)), pa.array(["a" * 100]))
    table = pa.table({"text": column, "label": column})
    with pq.ParquetWriter(file, table.schema) as writer:
        for _ in range(20):
            writer.write_table(table)
    return file.getvalue()


def _flac() -> bytes:
    """A total of 2^36 - 1 samples."""
    return _edited("flac", (21, bytes([MAKERS["flac"](1)[21] | 15])), (22, b"\xff" * 4))


def _ogg() -> bytes:
    """A last page that says 2^62 samples."""
    data = bytearray(MAKERS["ogg"](1))
    place = data.rindex(b"OggS")
    data[place + 6 : place + 14] = (1 << 62).to_bytes(8, "little")
    return repair_ogg(bytes(data))


def _mp3() -> bytes:
    data = MAKERS["mp3"](1)
    place = max(data.find(b"Info"), data.find(b"Xing"))
    return data[: place + 8] + b"\x7f\xff\xff\xff" + data[place + 12 :]


def _silence() -> bytes:
    """A day of silence in a FLAC file."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", samplerate=8000, channels=1, format="FLAC") as sound:
        for _ in range(24):
            sound.write(numpy.zeros(8000 * 3600, numpy.int16))
    return file.getvalue()


BOMBS: dict[str, Bomb] = {
    "gz-csv-2GB": Bomb("csv.gz", _text),
    "gz-txt-2GB-one-member": Bomb("txt.gz", _one_member),
    "png-60000x60000": Bomb("png", lambda: _png(60_000, 60_000, rows=10)),
    "png-13000x13000-whole": Bomb("png", lambda: _png(13_000, 13_000, rows=13_000)),
    "jpeg-65535x65535": Bomb("jpeg", _jpeg),
    "gif-65535x65535": Bomb("gif", lambda: _edited("gif", (6, b"\xff" * 4))),
    "tar-member-4GB-gz": Bomb("tar.gz", lambda: _tar(":gz", size=1 << 30)),
    "tar-sparse-1TB": Bomb("tar", _sparse_tar),
    "zip-512MB": Bomb("pictures.zip", lambda: _zip(honest=True)),
    "zip-512MB-that-says-4kB": Bomb("pictures.zip", lambda: _zip(honest=False)),
    "parquet-100M-rows": Bomb("parquet", _parquet),
    "flac-total-2^36": Bomb("flac", _flac),
    "ogg-end-2^62": Bomb("ogg", _ogg),
    "mp3-frames-2^31": Bomb("mp3", _mp3),
    "xz-1GB": Bomb("tar.gz", lambda: lzma.compress(bytes(_ZEROS))),
}  # fmt: skip
