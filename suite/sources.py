"""Reading rows of text from files: lines, line-aligned files and tables with named columns.

Nothing is skipped and nothing is repaired: a file is read whole or refused with its name, its line and what to do.
Lines end at ``\\n`` or ``\\r\\n`` only, because the other separators of Unicode (which ``str.splitlines`` cuts at)
occur inside real sentences and would shift one side of a parallel corpus against the other.
"""

import csv
import difflib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, cast, get_args

from suite.console import notice
from suite.downloads import Remote, cached_folder
from suite.errors import DataError, SuiteError, UsageError, gather
from suite.gunzip import read_gzip

TableFormat = Literal["csv", "tsv", "jsonl", "parquet"]
Row = tuple[str, ...]
_BOM = b"\xef\xbb\xbf"
_FIELD_LIMIT = 2**31 - 1
_said: set[str] = set()  # a command may ask for a set once for each of its splits


def read_lines(
    path: str | os.PathLike[str], *, encoding: str = "utf-8", pipes: bool = False, empty: bool = False
) -> list[str]:
    """The lines of a text file, plain or ``.gz``, without their ends; a UTF-8 byte order mark is dropped.

    ``pipes`` also takes a pipe or a device (``/dev/stdin``), for what is read a single time; ``empty`` takes an empty
    file as no lines.
    Raises DataError for a file that is missing, empty, a damaged gzip, or has bytes that are not ``encoding``
    (with the lines and bytes), UsageError for an encoding that Python does not know.
    """
    text = _text(Path(path), encoding=encoding, pipes=pipes, empty=empty)
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_standard_input() -> list[str]:
    """Lines of standard input, as ``read_lines`` gives those of a file; none if it is empty.

    Raises:
        DataError: it is closed, or has bytes that are not UTF-8 (with the lines and bytes).
    """
    if sys.stdin is None:  # so Python starts where the shell closed it
        raise DataError("standard input is closed: hand lines in, or name a file")
    data = sys.stdin.buffer.read().removeprefix(_BOM)
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        _refuse_bytes("standard input", data, encoding="utf-8", first=error, remedy="convert it")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def read_parallel(paths: Sequence[str | os.PathLike[str]]) -> list[Row]:
    """Line ``i`` of every file as one row. Raises DataError as ``read_lines``, and for unequal numbers of lines."""
    if not paths:
        raise UsageError("no files were named: parallel text needs at least one")
    sides: list[list[str]] = []
    problems: list[str] = []
    for path in paths:
        try:
            sides.append(read_lines(path))
        except DataError as error:
            problems.append(str(error))
    gather(problems)
    if len({len(side) for side in sides}) > 1:
        counts = ", ".join(f"{path} has {len(side)}" for path, side in zip(paths, sides, strict=True))
        raise DataError(f"parallel files must have as many lines each: {counts}; align them line by line")
    return list(zip(*sides, strict=True))


def read_table(path: str | os.PathLike[str], *, columns: Sequence[str], format: TableFormat | None = None) -> list[Row]:
    """The named ``columns`` of a table, one tuple a row, in the order asked for; every value as text.

    ``format`` is taken from the ending when it is None: ``.csv`` (with quoting), ``.tsv`` (without), ``.jsonl``, each
    also with ``.gz``, and ``.parquet``. CSV and TSV need a header. Numbers of JSON and Parquet become their text.
    Raises DataError, with all problems of the file at once, for missing columns (listing those there are), rows of
    another width than the header, nulls, damaged lines and wrong bytes; UsageError for an unknown ending.
    """
    file = Path(path)
    if not columns or isinstance(columns, str):
        raise UsageError(f"{file}: columns must name the columns to read as a list, not {columns!r}")
    readers = {"csv": _read_csv, "tsv": _read_tsv, "jsonl": _read_jsonl, "parquet": _read_parquet}
    rows = readers[format or _format_of(file)](file, tuple(columns))
    if not rows:
        raise DataError(f"{file}: the table has no rows")
    return rows


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a table by its ending. Raises DataError where there is none: a misspelt name has no ending."""
    file = Path(path)
    if _table_ending(file) is None:
        _need_file(file)
        return False
    return True


def columns_of(path: str | os.PathLike[str]) -> list[str]:
    """The names of a table's columns; those of the first row, in JSON lines. Raises as ``read_table``."""
    file = Path(path)
    kind = _format_of(file)
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        _need_file(file)
        try:
            return list(pq.read_schema(file).names)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable_parquet(file, error) from None
    if kind == "csv":
        return next(read_csv_rows(file, _text(file)))[1]
    first = read_lines(file)[0]
    if kind == "tsv":
        return first.split("\t")
    try:
        return list(json.loads(first))
    except (ValueError, TypeError, RecursionError):
        return []  # read_table says what is wrong with the line


def data_folder(
    name: str,
    *,
    files: Sequence[str] = (),
    patterns: Sequence[str] = ("*",),
    wanted: str | None = None,
    remotes: Mapping[str, Remote] | None = None,
) -> Path:
    """The folder with the ``files`` of a public set: ``$SUITE_DATA_DIR/<name>``, or else one in the cache.

    That the cache is used although ``SUITE_DATA_DIR`` is set is said once: its files may be other ones.

    Args:
        name: of the set, and of its folder.
        files: that are needed.
        patterns: if none is named, a folder will do in which something matches one of these.
        wanted: says which files to put there where their names are not known.
        remotes: what is downloaded where neither folder has ``files``: these and any that are soon needed with them.

    Raises:
        DataError: the files are not there and cannot be downloaded; it says which to put where.
    """
    folder, problem = _given_folder(name, files=files, patterns=patterns, wanted=wanted or ", ".join(files))
    if problem is None:
        return folder
    if not remotes:
        raise DataError(problem)
    try:
        folder = cached_folder(name, files=files, remotes=remotes)
    except SuiteError as error:
        raise DataError(f"{problem} (not downloaded: {error})") from None
    text = f"data: {problem}; until then {folder} is used"
    if os.environ.get("SUITE_DATA_DIR") and text not in _said:
        _said.add(text)
        notice(text)
    return folder


def _given_folder(name: str, *, files: Sequence[str], patterns: Sequence[str], wanted: str) -> tuple[Path, str | None]:
    """``$SUITE_DATA_DIR/<name>``, and what is wrong with it."""
    root = os.environ.get("SUITE_DATA_DIR")
    if not root:
        return Path(), f"SUITE_DATA_DIR is not set: point it at the folder in which {name}/ holds {wanted}"
    folder = Path(os.path.expanduser(root)) / name
    if not os.path.isdir(folder):  # os.path takes what may not be looked at for what is not there
        return folder, f"{folder}: no such folder (SUITE_DATA_DIR is {root}); make it and put {wanted} there"
    if not files and not any(any(folder.glob(pattern)) for pattern in patterns):
        return folder, f"{folder} has nothing called {' or '.join(patterns)}: put {wanted} there"
    missing = [file for file in files if not os.path.isfile(folder / file)]
    if missing:
        return folder, f"{folder} lacks {', '.join(missing)}: put the missing files there (needed: {wanted})"
    return folder, None


def _read_csv(path: Path, columns: Row) -> list[Row]:
    text = _text(path)
    limit = csv.field_size_limit(_FIELD_LIMIT)  # The default of 128 KiB refuses long documents.
    try:
        return _select(path, read_csv_rows(path, text), columns)
    finally:
        csv.field_size_limit(limit)


def read_csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Of each row of ``text``, which stands in ``path``: the number of the line on which it starts, and its fields.

    Raises DataError for quotes that do not close.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        start = reader.line_num + 1
        try:
            yield start, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}, line {start}: not CSV ({error}); check the quotes of the row") from None


def _read_tsv(path: Path, columns: Row) -> list[Row]:
    lines = read_lines(path)
    return _select(path, ((number, line.split("\t")) for number, line in enumerate(lines, start=1)), columns)


def _select(path: Path, rows: Iterator[tuple[int, list[str]]], columns: Row) -> list[Row]:
    """The ``columns`` of delimited ``rows``, of which the first is the header."""
    header = next(rows)[1]
    _need_columns(path, columns, header)
    indices = [header.index(column) for column in columns]
    selected: list[Row] = []
    problems: list[str] = []
    for number, fields in rows:
        if len(fields) == len(header):
            selected.append(tuple(fields[index] for index in indices))
        else:
            problems.append(f"{path}, line {number}: {len(fields)} fields where the header has {len(header)}")
    gather(problems)
    return selected


def _read_jsonl(path: Path, columns: Row) -> list[Row]:
    rows: list[Row] = []
    problems: list[str] = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            record = json.loads(line, parse_constant=_refuse_constant)
            if not isinstance(record, dict):
                raise ValueError("an object in braces is needed")
            rows.append(tuple(_value(record, column) for column in columns))
        except (ValueError, RecursionError) as error:
            problem = str(error)
            if isinstance(error, json.JSONDecodeError):
                problem = f"not JSON at position {error.pos + 1} ({error.msg})"
            problems.append(f"{path}, line {number}: {problem}")
    gather(problems)
    return rows


def _read_parquet(path: Path, columns: Row) -> list[Row]:
    # Imported where it is used: pyarrow takes longer to load than all the rest of this file.
    import pyarrow as pa
    import pyarrow.parquet as pq

    _need_file(path)
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            _need_columns(path, columns, file.schema_arrow.names)
            table = file.read(columns=list(dict.fromkeys(columns)))
            records = table.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable_parquet(path, error) from None
    rows: list[Row] = []
    problems: list[str] = []
    for number, record in enumerate(records, start=1):
        try:
            rows.append(tuple(_value(record, column) for column in columns))
        except ValueError as error:
            problems.append(f"{path}, row {number}: {error}")
    gather(problems)
    return rows


def _unreadable_parquet(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a Parquet file that can be read ({' '.join(str(error).split())})")


def _value(record: dict[str, Any], column: str) -> str:
    """A field of a JSON or Parquet record as text; ValueError says what is wrong with it."""
    if column not in record:
        raise ValueError(f"no column {column!r}; there are {', '.join(record) or 'none'}")
    value = record[column]
    if value is None:
        raise ValueError(f"column {column!r} is null; fill it in or remove the row")
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise ValueError(f"column {column!r} is a {type(value).__name__}; text or a number is needed")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which no tokenizer takes.
        raise ValueError(f"column {column!r} has half of a surrogate pair, which is not a character") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _need_columns(path: Path, columns: Row, present: Sequence[str]) -> None:
    gather(
        [
            f"{path}: column {column!r} is {'missing' if column not in present else 'there more than once'}; "
            f"there are {', '.join(present) or 'none'}"
            for column in columns
            if present.count(column) != 1
        ]
    )


def extension_of(path: str | os.PathLike[str]) -> str:
    """The extension in lower case, ``.gz`` with the one before it: ``.csv``, ``.csv.gz``, or an empty string."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def _table_ending(path: Path) -> TableFormat | None:
    ending = extension_of(path)
    for name in get_args(TableFormat):
        if ending == f".{name}" or (ending == f".{name}.gz" and name != "parquet"):
            return cast(TableFormat, name)
    return None


def _format_of(path: Path) -> TableFormat:
    if found := _table_ending(path):
        return found
    _need_file(path)
    raise UsageError(
        f"{path}: the ending does not tell the format of the table; "
        "allowed are .csv, .tsv, .jsonl (each also with .gz) and .parquet, or set the format"
    )


def _text(path: Path, *, encoding: str = "utf-8", pipes: bool = False, empty: bool = False) -> str:
    """The decoded content of a file that exists and is not empty, unless that is allowed."""
    data = _bytes(path, pipes=pipes).removeprefix(_BOM)
    if not data and not empty:
        raise DataError(f"{path}: the file is empty")
    try:
        return data.decode(encoding)
    except LookupError:
        raise UsageError(f"{path}: {encoding!r} is not the name of an encoding, such as utf-8 or latin-1") from None
    except UnicodeDecodeError as error:
        _refuse_bytes(str(path), data, encoding=encoding, first=error, remedy="convert the file")


def _refuse_bytes(where: str, data: bytes, *, encoding: str, first: UnicodeDecodeError, remedy: str) -> NoReturn:
    """Name the lines of ``data`` that are not ``encoding``, of which ``first`` is what Python says of the whole."""
    problems = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            line.decode(encoding)
        except UnicodeDecodeError as error:
            byte = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
            problems.append(f"{where}, line {number}: {byte} is not {encoding.upper()}; {remedy}")
    gather(problems)
    raise DataError(f"{where}: not {encoding.upper()} ({first})")  # Encodings that cannot be cut at line ends.


def _bytes(path: Path, *, pipes: bool) -> bytes:
    if not (pipes and (path.is_fifo() or path.is_char_device())):
        _need_file(path)
    try:
        return read_gzip(path) if path.suffix == ".gz" else path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _need_file(path: Path) -> None:
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
