"""The decoded content of one text file or of standard input: read whole, or refused with file, line and remedy."""

import difflib
import os
import sys
from pathlib import Path
from typing import NoReturn

from suite.console import notice_once
from suite.errors import DataError, UsageError, gather
from suite.file_formats import extension_of, refuse_content, refuse_extension
from suite.packed import read_gzip

_BOM, _BOM_CHARACTER = b"\xef\xbb\xbf", "\ufeff"
_GZIP = b"\x1f\x8b\x08"
_OWN_MARKS = ("utf-8", "utf8", "ascii")  # encodings in which the marks of UTF-16 and NUL bytes mean another format


def read_text(
    path: str | os.PathLike[str], *, encoding: str = "utf-8", pipes: bool = False, empty: bool = False
) -> str:
    """The content of a text file, plain or ``.gz``; a UTF-8 byte order mark is dropped.

    ``pipes`` also takes a pipe or a device (``/dev/stdin``), which is read a single time; ``empty`` accepts an empty
    file.

    Raises:
        DataError: the file is missing, empty, a damaged gzip file, of a format that is no text, or has bytes that are
            not ``encoding`` (with the lines and bytes).
        UsageError: an encoding that Python does not know, or the extension of a format that is not read.
    """
    file = Path(path)
    data = _bytes(file, pipes=pipes).removeprefix(_BOM)
    if not data and not empty:
        raise DataError(f"{file}: the file is empty")
    text = _decode(str(file), data, encoding=encoding, remedy="convert the file")
    if not empty:  # of inputs to predict each line has its result, whatever stands in it
        _report_odd_characters(file, text)
    return text


def read_standard_text() -> str:
    """The content of standard input.

    Raises:
        DataError: it is closed, of a format that is no text, or has bytes that are not UTF-8 (with the lines).
    """
    if sys.stdin is None:  # so Python starts where the shell closed it
        raise DataError("standard input is closed: hand lines in, or name a file")
    data = sys.stdin.buffer.read().removeprefix(_BOM)
    return _decode("standard input", data, encoding="utf-8", remedy="convert it")


def split_lines(where: str, text: str) -> list[str]:
    """The lines of ``text``, which end at ``\\n`` or ``\\r\\n``. Raises DataError if all of them end in ``\\r``."""
    if "\n" not in text and "\r" in text.removesuffix("\r"):
        raise DataError(f"{where}: the lines end in CR only, as on old Macs; convert the line ends to LF")
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def need_file(path: Path) -> None:
    """Raise DataError for a file that is not there, with names near it, and for a folder."""
    if path.is_file():
        return
    if path.exists():
        raise DataError(f"{path}: a folder or device where a file is needed")
    if not path.parent.is_dir():
        here = "" if path.is_absolute() else f" (a relative path counts from {Path.cwd()})"
        raise DataError(f"{path}: no such file, and no such folder {path.parent}{here}")
    near = difflib.get_close_matches(path.name, sorted(entry.name for entry in path.parent.iterdir()), n=3)
    hint = f"; near names there: {', '.join(near)}" if near else ""
    if not near and not path.is_absolute():
        hint = f" (a relative path counts from {Path.cwd()})"
    raise DataError(f"{path}: no such file{hint}")


def _bytes(path: Path, *, pipes: bool) -> bytes:
    if not (pipes and (path.is_fifo() or path.is_char_device())):
        need_file(path)
    refuse_extension(path)
    try:
        if not extension_of(path).endswith(".gz"):
            return path.read_bytes()
        data = read_gzip(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if data.startswith(_GZIP):
        raise DataError(f"{path}: the file is compressed twice with gzip; unpack it once")
    return data


def _decode(where: str, data: bytes, *, encoding: str, remedy: str) -> str:
    if encoding.lower() in _OWN_MARKS:
        refuse_content(where, data)
    try:
        text = data.decode(encoding)
    except LookupError:
        raise UsageError(f"{where}: {encoding!r} is not the name of an encoding, such as utf-8 or latin-1") from None
    except UnicodeDecodeError as error:
        _refuse_bytes(where, data, encoding=encoding, first=error, remedy=remedy)
    return text


def _report_odd_characters(path: Path, text: str) -> None:
    """Report characters that joined or damaged files leave; they stay in the text."""
    for character, name in ((_BOM_CHARACTER, "byte order marks inside it (U+FEFF)"), ("\0", "NUL characters")):
        if character in text:
            line = text.count("\n", 0, text.index(character)) + 1
            notice_once(f"data: {path}: {text.count(character)} {name}, first in line {line}; they are kept")


def _refuse_bytes(where: str, data: bytes, *, encoding: str, first: UnicodeDecodeError, remedy: str) -> NoReturn:
    """Name the lines of ``data`` that are not ``encoding``; ``first`` is what Python reports about the whole."""
    problems = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            line.decode(encoding)
        except UnicodeDecodeError as error:
            byte = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
            problems.append(f"{where}, line {number}: {byte} is not {encoding.upper()}; {remedy}")
    gather(problems)
    raise DataError(f"{where}: not {encoding.upper()} ({first})")  # Encodings that cannot be cut at line ends.
