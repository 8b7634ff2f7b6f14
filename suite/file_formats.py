"""Formats that are known but not read as text or tables: recognised by extension or by their first bytes.

Read as text, such a file would give header lines, markup or random bytes as prose, or an error about a byte.
"""

import os
from pathlib import Path
from typing import NamedTuple

from suite.errors import DataError, UsageError


class Format(NamedTuple):
    """What a file is, and what to do with it."""

    name: str
    remedy: str


_SHEET, _FRAME = "save the sheet as .csv", "save the table as .parquet or .csv"
_UNPACK, _TEXT = "unpack it and name the files in it", "save it as plain text (.txt)"
_EXCEL, _OFFICE = Format("an Excel workbook", _SHEET), Format("a word processor document", _TEXT)
_ARRAY, _PICKLE = Format("a NumPy array file", _FRAME), Format("a Python pickle", _FRAME)
_ARROW, _HDF5 = Format("an Arrow or Feather file", _FRAME), Format("an HDF5 file", _FRAME)
_ZIP, _TAR = Format("a zip archive", _UNPACK), Format("a tar archive", _UNPACK)
_ODS = Format("an OpenDocument spreadsheet", _SHEET)
_SQLITE = Format("an SQLite database", _FRAME)
_PARQUET = Format("a Parquet file", "give it the extension .parquet, and name it where a table is read")
_PDF = Format("a PDF document", _TEXT)
_COMPRESSED = "unpack it, or compress it with gzip (.gz)"
_TABS = Format("a table of another delimiter", "rename it to .csv and set --data.delimiter")
_TENSORS = Format("a file of model weights or tensors", "name a text file or a table")
_MEDIA = Format("a media file", "name a text file or a table")
_GZIP = Format("gzip-compressed", "give it an extension that ends in .gz, such as .csv.gz or .txt.gz")
_UTF16 = Format("text in UTF-16 or UTF-32", "convert it to UTF-8")

BY_EXTENSION: dict[str, Format] = {
    ".json": Format("a JSON document", "write one object a line and name the file .jsonl"),
    ".json5": Format("a JSON document", "write one object a line and name the file .jsonl"),
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".xlsb"), _EXCEL),
    ".ods": _ODS,
    **dict.fromkeys((".feather", ".arrow", ".ipc"), _ARROW),
    ".orc": Format("an ORC file", _FRAME),
    ".avro": Format("an Avro file", _FRAME),
    **dict.fromkeys((".parq", ".pq"), _PARQUET),
    **dict.fromkeys((".dta", ".sav", ".rds", ".rdata", ".sas7bdat"), Format("a file of a statistics program", _FRAME)),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), _PICKLE),
    **dict.fromkeys((".npy", ".npz"), _ARRAY),
    ".mat": Format("a MATLAB file", _FRAME),
    **dict.fromkeys((".h5", ".hdf5", ".hdf"), _HDF5),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), _SQLITE),
    **dict.fromkeys((".pth", ".ckpt", ".safetensors", ".onnx", ".tfrecord"), _TENSORS),
    **dict.fromkeys((".tab", ".psv", ".ssv"), _TABS),
    ".zip": _ZIP,
    **dict.fromkeys((".tar", ".tgz", ".tbz2", ".txz"), _TAR),
    ".7z": Format("a 7-Zip archive", _UNPACK),
    ".rar": Format("a RAR archive", _UNPACK),
    ".bz2": Format("bzip2-compressed", _COMPRESSED),
    ".xz": Format("xz-compressed", _COMPRESSED),
    ".lzma": Format("LZMA-compressed", _COMPRESSED),
    ".zst": Format("Zstandard-compressed", _COMPRESSED),
    ".lz4": Format("LZ4-compressed", _COMPRESSED),
    **dict.fromkeys((".docx", ".doc", ".odt", ".rtf"), _OFFICE),
    ".epub": Format("an e-book", _TEXT),
    ".pdf": _PDF,
    **dict.fromkeys((".wav", ".flac", ".ogg", ".mp3", ".mp4", ".mkv", ".webm", ".avi", ".mov"), _MEDIA),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff"), _MEDIA),
}
"""Extensions, in lower case, of known formats that are not read. Codes of languages are none of them: ``train.pt``."""

_BY_BYTES: tuple[tuple[int, bytes, Format], ...] = (
    (0, b"\x1f\x8b\x08", _GZIP),
    (0, b"PAR1", _PARQUET),
    (0, b"PARE", Format("an encrypted Parquet file", _FRAME)),
    (0, b"ARROW1\0\0", _ARROW),
    (0, b"FEA1", _ARROW),
    (0, b"\x93NUMPY", _ARRAY),
    (0, b"\x89HDF\r\n\x1a\n", _HDF5),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Format("an old Excel or Word file", "save it as .csv or .txt")),
    *((0, b"\x80" + bytes([protocol]), _PICKLE) for protocol in (2, 3, 4, 5)),
    (0, b"\xfd7zXZ\x00", BY_EXTENSION[".xz"]),
    (0, b"\x28\xb5\x2f\xfd", BY_EXTENSION[".zst"]),
    (0, b"\x04\x22\x4d\x18", BY_EXTENSION[".lz4"]),
    (0, b"7z\xbc\xaf\x27\x1c", BY_EXTENSION[".7z"]),
    (0, b"Rar!\x1a\x07", BY_EXTENSION[".rar"]),
    (0, b"SQLite format 3\0", _SQLITE),
    (0, b"%PDF-1.", _PDF),
    (0, b"%PDF-2.", _PDF),
    (0, b"{\\rtf1", _OFFICE),
    (4, b"1AY&SY", BY_EXTENSION[".bz2"]),
    (257, b"ustar\0", _TAR),
    (257, b"ustar  \0", _TAR),
    *((0, magic, _MEDIA) for magic in (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF89a", b"GIF87a", b"OggS\0", b"fLaC\0")),
    *((0, magic, _MEDIA) for magic in (b"\x1aE\xdf\xa3", b"ID3\x03", b"ID3\x04")),
    (8, b"WAVEfmt ", _MEDIA),
)
_UTF_16_32 = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
_LOOK = 4096
_FEW_NULS = 3  # stray ones, which short text may have
_MOST_NULS = 0.05  # of the first bytes: UTF-16 text in Latin letters has a half, binary formats mostly a tenth or more


def extension_of(path: str | os.PathLike[str]) -> str:
    """The extension in lower case, ``.gz`` with the one before it: ``.csv``, ``.csv.gz``, or an empty string."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def refuse_extension(path: Path) -> None:
    """Raise UsageError for a file whose extension names a known format that is not read."""
    extension = extension_of(path)
    found = BY_EXTENSION.get(extension.removesuffix(".gz"))
    if found is not None:
        raise UsageError(f"{path}: {extension} is not read here ({found.name}); {found.remedy}")


def format_of_bytes(data: bytes) -> Format | None:
    """The format that the first bytes belong to; ``None`` for text, and for what is not known."""
    for offset, magic, found in _BY_BYTES:
        if data[offset : offset + len(magic)] == magic:
            return found
    head = data[:_LOOK]
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _packed(head)
    if head.startswith(_UTF_16_32):
        return _UTF16
    if head.count(0) > max(_FEW_NULS, _MOST_NULS * len(head)):
        return Format("binary, or text in UTF-16", "name a text file or a table in UTF-8")
    return None


def refuse_content(where: str, data: bytes) -> None:
    """Raise DataError for ``data`` that is no text, whatever its file is called."""
    found = format_of_bytes(data)
    if found is not None:
        raise DataError(f"{where}: the content is {found.name}; {found.remedy}")


def _packed(head: bytes) -> Format:
    """A zip archive: many office formats are one."""
    if b"xl/" in head or (b"[Content_Types].xml" in head and b"word/" not in head):
        return _EXCEL
    if b"opendocument.spreadsheet" in head:
        return _ODS
    return _OFFICE if b"word/" in head or b"opendocument.text" in head else _ZIP
