"""Seeded mutations of a file: what disks, networks, interrupted programs and careless scripts do to it."""

import gzip
import random
from collections.abc import Callable
from typing import NamedTuple

from tests.corruption.containers import repair_ogg, repair_png, repair_tar

KINDS = (
    "flip", "flips", "truncate", "cut", "duplicate", "twice", "joined", "foreign", "zeros", "swap", "junk", "header",
    "header", "header",
)  # fmt: skip
"""Kinds by seed; header edits come more often, since each format has many fields."""


class Field(NamedTuple):
    """Where a number in a header is."""

    start: int
    width: int
    order: str  # little, big, or octal in tar


def mutate(data: bytes, *, format: str, seed: int, other: bytes, foreign: bytes) -> tuple[bytes, str]:
    """A changed copy of ``data``, and the kind of change.

    Args:
        data: a file.
        format: of it.
        seed: of all that is drawn.
        other: another file of the format.
        foreign: a file of another format.
    """
    kind = KINDS[seed % len(KINDS)]
    draws = random.Random(f"{format} {seed}")
    for _ in range(100):
        changed = _change(data, kind, draws, format=format, other=other, foreign=foreign)
        if changed != data:
            return changed, kind
    raise AssertionError(f"{format}, seed {seed}: {kind} changes nothing")


def _change(data: bytes, kind: str, draws: random.Random, *, format: str, other: bytes, foreign: bytes) -> bytes:
    start = draws.randrange(len(data))
    # Damage is often at the beginning, where the headers are, or in pieces of the size of a block.
    if draws.random() < 0.3:
        start = draws.randrange(min(64, len(data)))
    length = draws.choice((1, 7, 64, 512, len(data) // 4))
    stop = min(len(data), start + length)
    if kind == "flip":
        return _flipped(data, [start], draws)
    if kind == "flips":
        return _flipped(data, [draws.randrange(len(data)) for _ in range(draws.choice((2, 5, 30)))], draws)
    if kind == "truncate":
        return data[: draws.choice((start, len(data) - 1, len(data) // 2))]
    if kind == "cut":
        return data[:start] + data[stop:]
    if kind == "duplicate":
        return data[:stop] + data[start:]
    if kind == "twice":
        return data * draws.choice((2, 3))
    if kind == "joined":
        return data + other if draws.random() < 0.7 else other[: len(other) // 2] + data
    if kind == "foreign":
        return draws.choice((data + foreign, foreign + data, data[:start] + foreign[: stop - start] + data[stop:]))
    if kind == "zeros":
        return data[:start] + bytes(stop - start) + data[stop:]
    if kind == "swap":
        middle = draws.randrange(start, stop)
        end = min(len(data), stop + 1)
        return data[:start] + data[middle:end] + data[start:middle] + data[end:]
    if kind == "junk":
        return data + draws.choice((draws.randbytes(draws.choice((1, 3, 100, 3000))), bytes(600), b"\n\n<html>"))
    return _header(data, draws, format=format)


def _flipped(data: bytes, places: list[int], draws: random.Random) -> bytes:
    changed = bytearray(data)
    for place in places:
        changed[place] ^= 1 << draws.randrange(8) if draws.random() < 0.5 else draws.randrange(1, 256)
    return bytes(changed)


def _header(data: bytes, draws: random.Random, *, format: str) -> bytes:
    if format in _TEXTS:
        return _text_header(data, draws)
    if format in ("csv.gz", "txt.gz", "tar.gz") and draws.random() < 0.5:  # damage that gzip itself cannot see
        inside = {"csv.gz": "csv", "txt.gz": "txt", "tar.gz": "tar"}[format]
        return gzip.compress(_header(gzip.decompress(data), draws, format=inside), mtime=0)
    field = draws.choice(_FIELDS[format](data))
    if field.order == "octal":
        return _repaired(_tar_edit(data, field, draws), draws, format)
    old = int.from_bytes(data[field.start : field.start + field.width], field.order)  # type: ignore[arg-type]
    most = (1 << 8 * field.width) - 1
    new = draws.choice(
        (0, 1, most, most // 2, old + 1, old - 1, 2 * old, old // 2, 16 * old, draws.randrange(most + 1))
    )
    content = (new & most).to_bytes(field.width, field.order)  # type: ignore[arg-type]
    return _repaired(data[: field.start] + content + data[field.start + field.width :], draws, format)


def _repaired(data: bytes, draws: random.Random, format: str) -> bytes:
    """Most often with right checksums, as a faulty program writes it."""
    repair = {"ogg": repair_ogg, "png": repair_png, "png-alpha": repair_png, "tar": repair_tar}.get(format)
    return repair(data) if repair and draws.random() < 0.7 else data


def _tar_edit(data: bytes, field: Field, draws: random.Random) -> bytes:
    texts = [b"0" * (field.width - 1), b"7" * (field.width - 1), b"%o" % draws.randrange(2000), b"-1", b"\x80\0\0\1"]
    content = draws.choice(texts)[: field.width].ljust(field.width, b"\0")
    return data[: field.start] + content + data[field.start + field.width :]


def _text_header(data: bytes, draws: random.Random) -> bytes:
    line, end, rest = data.partition(b"\n")
    edits = [
        line.upper(), line[::-1], line + line, line.replace(b"\t", b" "), line.replace(b",", b";"),
        b"\xef\xbb\xbf" + line,
        line.replace(b"text", b"text "), line.replace(b"label", b"text"), line + b"\r", b"\n" + line, b'"' + line, b"",
        line.replace(b" ", b"  "), line + b" 1.5", line.rpartition(b" ")[0], b"8 8", line.decode().encode("utf-16"),
    ]  # fmt: skip
    return draws.choice(edits) + end + rest


def _at(order: str, *places: tuple[int, int]) -> Callable[[bytes], list[Field]]:
    return lambda data: [Field(start, width, order) for start, width in places if start + width <= len(data)]


def _after(order: str, *marks: tuple[bytes, int, int]) -> Callable[[bytes], list[Field]]:
    """Fields at a distance from each place where a mark is found."""

    def find(data: bytes) -> list[Field]:
        found = []
        for mark, distance, width in marks:
            place = data.find(mark)
            while place >= 0:
                if 0 <= place + distance <= len(data) - width:
                    found.append(Field(place + distance, width, order))
                place = data.find(mark, place + 1)
        return found

    return find


def _both(*parts: Callable[[bytes], list[Field]]) -> Callable[[bytes], list[Field]]:
    return lambda data: [field for part in parts for field in part(data)]


def _parquet_fields(data: bytes) -> list[Field]:
    """The length of the footer, the marks, and bytes of the footer."""
    size = len(data)
    footer = int.from_bytes(data[-8:-4], "little")
    return [Field(size - 8, 4, "little"), Field(size - 4, 4, "big"), Field(0, 4, "big")] + [
        Field(place, 1, "big") for place in range(size - 8 - footer, size - 8)
    ]


_FRAME = b"\x2c\0\0\0\0"  # of a GIF, at the left upper corner
_TAR_FIELDS = ((0, 3, "big"), (124, 12, "octal"), (148, 8, "octal"), (156, 1, "big"), (257, 6, "big"))
_TEXTS = ("csv", "tsv", "jsonl", "txt", "glove")
_WAV = _at("little", (4, 4), (16, 4), (20, 2), (22, 2), (24, 4), (28, 4), (32, 2), (34, 2), (40, 4))
_PNG = _both(
    _at("big", (16, 4), (20, 4), (24, 1), (25, 1), (26, 1), (27, 1), (28, 1), (8, 4)), _after("big", (b"IDAT", -4, 4))
)
_WEBP = _both(
    _at("little", (4, 4), (16, 4), (21, 2), (23, 2), (26, 2), (28, 2)), _after("big", (b"VP8", 3, 1), (b"WEBP", 0, 4))
)
_GZIP = _both(_at("little", (0, 2), (2, 1), (3, 1), (4, 4), (8, 1)), lambda data: [Field(len(data) - 4, 4, "little")])
_ZIP = _after(
    "little", *((b"PK\3\4", place, 2) for place in (4, 6, 8, 26, 28)), (b"PK\3\4", 14, 4), (b"PK\3\4", 18, 4),
    (b"PK\1\2", 10, 2), (b"PK\1\2", 20, 4), (b"PK\1\2", 24, 4), (b"PK\1\2", 42, 4), (b"PK\5\6", 10, 2),
    (b"PK\5\6", 12, 4), (b"PK\5\6", 16, 4), (b"PK\5\6", 20, 2),
)  # fmt: skip
_MP4 = _after(
    "big", *((name, -4, 4) for name in (b"ftyp", b"moov", b"mdat", b"trak", b"stbl", b"stsz", b"free", b"avc1")),
    (b"mvhd", 16, 4), (b"mvhd", 20, 4), *((b"tkhd", 44 + 4 * place, 4) for place in range(11)), (b"mdhd", 16, 4),
    (b"mdhd", 20, 4), (b"elst", 8, 4), (b"elst", 12, 4), (b"elst", 16, 4), (b"stts", 8, 4), (b"stts", 12, 4),
    (b"stts", 16, 4), (b"stsc", 8, 4), (b"stsc", 16, 4), (b"stsz", 8, 4), (b"stsz", 12, 4), (b"stsz", 16, 4),
    (b"stsz", 24, 4), (b"stco", 8, 4), (b"stco", 12, 4), (b"ctts", 8, 4), (b"ctts", 16, 4), (b"avc1", 28, 2),
    (b"avc1", 30, 2), (b"avcC", 5, 1), (b"avcC", 8, 1), (b"avcC", 9, 2),
)  # fmt: skip
_MKV = _after(
    "big", (b"\x1a\x45\xdf\xa3", 4, 1), (b"\x18\x53\x80\x67", 4, 8), (b"\x2a\xd7\xb1", 4, 3), (b"\x44\x89", 2, 9),
    (b"\xb0\x81", 1, 2), (b"\xba\x81", 1, 2), (b"\x1f\x43\xb6\x75", 4, 2), (b"\xa3", 1, 2), (b"\xa3", 4, 2),
    (b"\x16\x54\xae\x6b", 4, 2), (b"\x15\x49\xa9\x66", 4, 2), (b"\x86\x8f", 2, 4), (b"\x63\xa2", 2, 2),
)  # fmt: skip
_AVI = _after(
    "little", (b"RIFF", 4, 4), (b"LIST", 4, 4), (b"avih", 8, 4), (b"avih", 20, 4), (b"avih", 24, 4), (b"avih", 40, 4),
    (b"avih", 44, 4), (b"strh", 12, 4), (b"strh", 28, 4), (b"strh", 32, 4), (b"strh", 36, 4), (b"strh", 40, 4),
    (b"strf", 8, 4), (b"strf", 12, 4), (b"strf", 16, 4), (b"strf", 24, 4), (b"idx1", 4, 4), (b"idx1", 16, 4),
    (b"idx1", 20, 4), (b"00dc", 4, 4),
)  # fmt: skip
_FIELDS: dict[str, Callable[[bytes], list[Field]]] = {
    "wav": _WAV,
    "wav-float": _both(_WAV, _after("little", (b"fact", 8, 4), (b"data", 4, 4), (b"PEAK", 4, 4))),
    "flac": _at("big", (4, 1), (5, 3), (8, 2), (10, 2), (12, 3), (15, 3), (18, 3), (20, 1), (21, 1), (22, 4), (26, 8)),
    "ogg": _both(
        _after("little", (b"OggS", 5, 1), (b"OggS", 6, 8), (b"OggS", 14, 4), (b"OggS", 18, 4)),
        _after("little", (b"OggS", 26, 1), (b"OggS", 27, 1)),
        _after("little", (b"\1vorbis", 11, 1), (b"\1vorbis", 12, 4), (b"\1vorbis", 28, 1)),
    ),
    "mp3": _both(
        _at("big", (0, 2), (1, 1), (2, 1), (3, 1)),
        _after("big", (b"Info", 4, 4), (b"Info", 8, 4), (b"Info", 12, 4), (b"Info", 141, 3), (b"Xing", 4, 4),
               (b"Xing", 8, 4), (b"Xing", 12, 4), (b"Xing", 141, 3)),
    ),
    "png": _PNG,
    "png-alpha": _PNG,
    "jpeg": _after(
        "big", (b"\xff\xc0", 2, 2), (b"\xff\xc0", 4, 1), (b"\xff\xc0", 5, 2), (b"\xff\xc0", 7, 2), (b"\xff\xc0", 9, 1),
        (b"\xff\xc0", 11, 1), (b"\xff\xda", 2, 2), (b"\xff\xda", 4, 1), (b"\xff\xdb", 2, 2), (b"\xff\xc4", 2, 2),
        (b"Exif", 10, 4), (b"\x01\x12", 8, 2), (b"\xff\xe1", 2, 2), (b"\x01\x12", 2, 2),
    ),
    "gif": _both(
        _at("little", (6, 2), (8, 2), (10, 1), (11, 1), (0, 3), (3, 3)),
        _after("little", (_FRAME, 5, 2), (_FRAME, 7, 2), (_FRAME, 1, 2), (_FRAME, 9, 1), (_FRAME, 10, 1)),
    ),
    "webp": _WEBP,
    "webp-lossy": _WEBP,
    "mp4": _MP4,
    "mkv": _MKV,
    "avi": _AVI,
    "parquet": _parquet_fields,
    "parquet-checked": _parquet_fields,
    "csv.gz": _GZIP,
    "txt.gz": _GZIP,
    "tar.gz": _GZIP,
    "tar": lambda data: [
        Field(512 * block + start, width, order)
        for block in range(len(data) // 512)
        if data[512 * block + 257 : 512 * block + 262] == b"ustar"
        for start, width, order in _TAR_FIELDS
    ],
    "zip-as-csv": _ZIP,
    "pictures.zip": _ZIP,
    "checkpoint": _ZIP,
    "checkpoint-digest": lambda data: [Field(place, 1, "big") for place in range(len(data))],
    "checkpoint-alone": _ZIP,
}  # fmt: skip
