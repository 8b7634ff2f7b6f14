"""Independent decoders: what a file holds, by libraries that the readers do not use where there are such.

They are strict: a checksum, a length or a count in the file that contradicts its content is a DamagedError.
"""

import csv
import gzip
import hashlib
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import av
import numpy
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tests.corruption.containers import DamagedError, check_ogg, check_png, pages_of, tar_headers
from tests.corruption.samples import COLUMNS, SIZE, TOKENIZER

Rows = list[tuple[str, ...]]
_AV_ERRORS = (av.FFmpegError, ValueError, StopIteration, IndexError, MemoryError, OverflowError)


def _decoded_audio(data: bytes, *, strict: bool = True) -> tuple[int, NDArray[Any]]:
    """Rate and samples ``(N, C)`` by FFmpeg; with ``strict`` a frame that is not whole is an error."""
    parts, rate = [], 0
    try:
        with av.open(io.BytesIO(data), metadata_errors="ignore") as container:
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise DamagedError("FFmpeg: no decoder")
            if strict:
                stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
            for frame in _frames(container, stream, strict=strict):
                rate, channels = frame.sample_rate, frame.layout.nb_channels
                if frame.format.is_planar and len(frame.planes) != channels:
                    raise DamagedError("another number of channels in the middle")
                samples = frame.to_ndarray()
                parts.append(samples.T if frame.format.is_planar else samples.reshape(-1, channels))
    except _AV_ERRORS as error:
        raise DamagedError(f"FFmpeg: {error}") from None
    if len({part.shape[1] for part in parts}) != 1:
        raise DamagedError("no samples, or another number of channels in the middle")
    return rate, numpy.concatenate(parts)


def _frames(container: Any, stream: Any, *, strict: bool) -> Iterator[Any]:
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.FFmpegError:
            if strict:
                raise


def _scaled(samples: NDArray[Any]) -> NDArray[numpy.float32]:
    """Mono, with whole numbers scaled to 1."""
    if samples.dtype.kind in "iu":
        width = samples.dtype.itemsize * 8
        shift = 2 ** (width - 1) if samples.dtype.kind == "u" else 0
        samples = (samples.astype(numpy.float64) - shift) / 2 ** (width - 1)
    return samples.astype(numpy.float64).mean(axis=1).astype(numpy.float32)


def wav(data: bytes) -> tuple[int, NDArray[numpy.float32]]:
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise DamagedError("no RIFF WAVE file")
    place, chunks = 12, {}
    while place + 8 <= len(data):
        name, length = struct.unpack("<4sI", data[place : place + 8])
        if name == b"data" and length in (0, 0x7FFFFFFF, 0xFFFFFFFF):  # a stream: to the end of the file
            length = len(data) - place - 8
        if place + 8 + length > len(data):
            raise DamagedError(f"chunk {name!r} ends after the file")
        if name in chunks:
            raise DamagedError(f"chunk {name!r} twice")
        chunks[name] = data[place + 8 : place + 8 + length]
        place += 8 + length + length % 2
    if any(data[place:]) or len(chunks.get(b"fmt ", b"")) < 16 or b"data" not in chunks:
        raise DamagedError("bytes are left over, or chunks are missing")
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", chunks[b"fmt "][:16])
    kinds = {(1, 8): "u1", (1, 16): "<i2", (1, 32): "<i4", (3, 32): "<f4", (3, 64): "<f8"}
    size = -(-bits // 8)  # bytes of a sample, which may have unused bits
    if (tag, 8 * size) not in kinds:
        return _other_wav(data)
    if not channels or not rate or block != size * channels or not len(chunks[b"data"]):
        raise DamagedError("a format chunk that contradicts itself")
    if len(chunks[b"data"]) % block:
        raise DamagedError("an incomplete last sample")
    samples = numpy.frombuffer(chunks[b"data"], kinds[tag, 8 * size]).reshape(-1, channels)
    if not numpy.isfinite(samples).all():
        raise DamagedError("samples that are not finite")
    return rate, _scaled(samples)


def _other_wav(data: bytes) -> tuple[int, NDArray[numpy.float32]]:
    rate, samples = _decoded_audio(data)
    return rate, _scaled(samples)


def flac(data: bytes) -> tuple[int, NDArray[numpy.float32]]:
    """Every file that was joined; each must have the samples, and the MD5 of them, that its header says."""
    mark = b"fLaC\0\0\0\x22"
    if not data.startswith(mark):
        raise DamagedError("no FLAC file")
    parts, rates = [], set()
    for part in data.split(mark)[1:]:
        rate, samples = _decoded_audio(mark + part)
        info = int.from_bytes(part[10:18], "big")
        bits, total, digest = (info >> 36 & 31) + 1, info & (1 << 36) - 1, part[18:34]
        if total not in (0, len(samples)):
            raise DamagedError(f"{len(samples)} samples where the header says {total}")
        stored = samples >> (samples.dtype.itemsize * 8 - bits) if bits != 16 else samples
        if any(digest) and hashlib.md5(stored.astype("<i2").tobytes()).digest() != digest:
            raise DamagedError("the MD5 of the samples is another")
        parts.append(_scaled(samples))
        rates.add(rate)
    if len(rates) != 1:
        raise DamagedError("parts with other rates")
    return rates.pop(), numpy.concatenate(parts)


def ogg(data: bytes) -> tuple[int, NDArray[numpy.float32]]:
    """Every chained stream, each up to the granule position of its last page; zeros may follow."""
    check_ogg(data)
    pages = list(pages_of(data))
    starts = [page.start for page in pages if page.flags & 2]
    parts, rates = [], set()
    for start, stop in zip(starts, [*starts[1:], pages[-1].stop], strict=True):
        rate, samples = _decoded_audio(data[start:stop])
        total = [page.granule for page in pages if page.start < stop][-1]
        if total > len(samples):
            raise DamagedError(f"{len(samples)} samples where the last page says {total}")
        parts.append(_scaled(samples[:total]))
        rates.add(rate)
    if len(rates) != 1:
        raise DamagedError("parts with other rates")
    return rates.pop(), numpy.concatenate(parts)


def mp3(data: bytes) -> tuple[int, NDArray[numpy.float32]]:
    """Frames that cannot be decoded are left out: MPEG audio may begin and end anywhere."""
    rate, samples = _decoded_audio(data, strict=False)
    return rate, _scaled(samples)


def picture(data: bytes) -> NDArray[numpy.uint8]:
    """By Pillow, turned as EXIF says, over middle grey, the shorter side scaled and the middle cut out."""
    if data.startswith(b"\x89PNG"):
        check_png(data)
    try:
        with Image.open(io.BytesIO(data)) as file:
            file.load()
            if getattr(file, "n_frames", 1) > 1:
                raise DamagedError("several pictures")
            image: Image.Image = file
            try:
                image = ImageOps.exif_transpose(file)
            except Exception:
                image = file
            if image.mode.startswith("I;16"):
                image = Image.fromarray((numpy.asarray(image) >> 8).astype(numpy.uint8))
            if image.has_transparency_data:
                pixels = numpy.asarray(image.convert("RGBA")).astype(int)
                alpha = pixels[..., 3:]
                image = Image.fromarray(
                    ((pixels[..., :3] * alpha + 128 * (255 - alpha) + 127) // 255).astype(numpy.uint8)
                )
            image = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DamagedError(f"Pillow: {error}") from None
    scale = SIZE / min(image.size)
    width, height = (max(SIZE, round(side * scale)) for side in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    top, left = (height - SIZE) // 2, (width - SIZE) // 2
    return numpy.asarray(image)[top : top + SIZE, left : left + SIZE]


def video(data: bytes) -> NDArray[numpy.uint8]:
    """Every frame by a loop of PyAV."""
    frames: list[NDArray[numpy.uint8]] = []
    try:
        with av.open(io.BytesIO(data), mode="r", metadata_errors="ignore") as container:
            stream: Any = container.streams.best("video")
            if stream is None or stream.codec_context is None:
                raise DamagedError("no video stream")
            stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
            aspect = float(stream.sample_aspect_ratio or 1) or 1.0
            for frame in container.decode(stream):
                scale = SIZE / min(frame.width * aspect, frame.height)
                width, height = (max(SIZE, round(side * scale)) for side in (frame.width * aspect, frame.height))
                pixels = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR")
                top, left = (height - SIZE) // 2, (width - SIZE) // 2
                turned = numpy.rot90(pixels[top : top + SIZE, left : left + SIZE], round(frame.rotation / 90) % 4)
                frames.append(turned)
    except _AV_ERRORS as error:
        raise DamagedError(f"FFmpeg: {error}") from None
    if not frames:
        raise DamagedError("no frames")
    return numpy.stack(frames)


def _text(data: bytes) -> str:
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedError(str(error)) from None


def _chosen(rows: list[list[str]]) -> Rows:
    """The columns by their names, in rows as wide as the header; empty lines ahead of the header count for nothing."""
    while rows and not rows[0]:
        rows = rows[1:]
    header = [name.strip() for name in rows[0]] if rows else []
    if any(header.count(column) != 1 for column in COLUMNS) or len(rows) < 2:
        raise DamagedError(f"header {header}, {len(rows)} rows")
    if any(len(row) != len(header) for row in rows):
        raise DamagedError("rows of another width than the header")
    places = [header.index(column) for column in COLUMNS]
    return [tuple(row[place] for place in places) for row in rows[1:]]


def csv_table(data: bytes) -> Rows:
    csv.field_size_limit(2**31 - 1)
    try:
        return _chosen(list(csv.reader(io.StringIO(_text(data), newline=""), strict=True)))
    except csv.Error as error:
        raise DamagedError(str(error)) from None


def lines(data: bytes) -> list[str]:
    text = _text(data)
    if not text:
        raise DamagedError("empty")
    found = text.replace("\r\n", "\n").split("\n")
    return found[:-1] if found[-1] == "" else found


def tsv_table(data: bytes) -> Rows:
    return _chosen([line.split("\t") if line else [] for line in lines(data)])


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise DamagedError("a key twice")
    return dict(pairs)


def _shown(value: Any) -> str:
    """A value as text; a missing one is empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise DamagedError(f"a {type(value).__name__} where text is needed")


def jsonl_table(data: bytes) -> Rows:
    rows = []
    try:
        records = [json.loads(line, object_pairs_hook=_no_repeats) for line in lines(data) if line.strip()]
        if not all(isinstance(record, dict) for record in records):
            raise DamagedError("a line that is no object")
        if not all(any(column in record for record in records) for column in COLUMNS):
            raise DamagedError("a column is missing")
        for record in records:
            rows.append(tuple(_shown(record.get(column)) for column in COLUMNS))
            "".join(rows[-1]).encode()
    except (ValueError, RecursionError) as error:
        raise DamagedError(str(error)) from None
    return rows


def parquet_table(data: bytes) -> Rows:
    try:
        with pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True) as file:
            table = file.read(columns=list(COLUMNS))  # damage elsewhere does no harm
        table.validate(full=True)
        names = file.schema_arrow.names
        if any(names.count(column) != 1 for column in COLUMNS) or table.num_rows != file.metadata.num_rows:
            raise DamagedError("no such columns, or another number of rows than the footer says")
        values = [table.column(column).to_pylist() for column in COLUMNS]
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DamagedError(str(error)) from None
    return [tuple(map(_shown, row)) for row in zip(*values, strict=True)]


def unpacked(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error, struct.error) as error:
        raise DamagedError(str(error)) from None


def tar(data: bytes) -> dict[str, Any]:
    """The pixels of each picture by name; ``None`` for a member that is no picture."""
    list(tar_headers(data))
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members: Iterator[Any] = (member for member in archive if not member.isdir())
            return {member.name: _member(archive, member) for member in members}
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DamagedError(str(error)) from None


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    if not member.isfile():
        raise DamagedError(f"{member.name} is no file")
    file = archive.extractfile(member)
    assert file is not None
    try:
        return picture(file.read())
    except DamagedError:
        return None


def pictures_zip(data: bytes) -> dict[str, Any]:
    """As ``tar``: a member with a wrong checksum is ``None``; nothing may follow the archive or be left out of it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = {}
            for member in archive.infolist():
                found[member.filename] = _zip_member(archive, member)
            if len(found) != len(archive.infolist()) or data.count(b"PK\3\4") != len(found):
                raise DamagedError("members are left out")
            return found
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, struct.error) as error:
        raise DamagedError(str(error)) from None


def _zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    try:
        return picture(archive.read(member))
    except (DamagedError, zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError):
        return None


def glove(data: bytes) -> dict[str, list[float]]:
    """Vectors of the words of the tokenizer; every line must be a word and D numbers, and none of them come twice.

    A file of one line has as many numbers as that line; others have 8, as they were made.
    """
    found: dict[str, list[float]] = {}
    rows = [line.rstrip().split(" ") for line in lines(data)]
    if rows and len(rows[0]) == 2 and all(field.isdigit() for field in rows[0]):
        rows = rows[1:]
    size = 8 if len(rows) > 1 else len(rows[0]) - 1 if rows else 0
    wanted = {piece.strip() for piece in TOKENIZER.pieces}
    for row in rows:
        word = " ".join(row[:-size])
        try:
            numbers = [float(field) for field in row[-size:]]
        except ValueError as error:
            raise DamagedError(str(error)) from None
        again = word in found and word in wanted
        if not word.strip() or again or len(numbers) != size or not numpy.isfinite(numbers).all():
            raise DamagedError(f"the line of {word!r}")
        found[word] = numbers
    return found


def _inside(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    return lambda data: decode(unpacked(data))


REFERENCES: dict[str, Callable[[bytes], Any]] = {
    "wav": wav, "wav-float": wav, "flac": flac, "ogg": ogg, "mp3": mp3,
    "png": picture, "png-alpha": picture, "jpeg": picture, "gif": picture, "webp": picture, "webp-lossy": picture,
    "mp4": video, "mkv": video, "avi": video,
    "csv": csv_table, "tsv": tsv_table, "jsonl": jsonl_table, "txt": lines, "zip-as-csv": csv_table,
    "pictures.zip": pictures_zip,
    "parquet": parquet_table, "parquet-checked": parquet_table,
    "csv.gz": _inside(csv_table), "txt.gz": _inside(lines), "tar": tar, "tar.gz": _inside(tar), "glove": glove,
}  # fmt: skip
