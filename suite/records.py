"""Rows of JSON lines and of Parquet: values with types, as text."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suite.delimited import report_empty
from suite.errors import DataError, gather
from suite.file_formats import format_of_bytes
from suite.text_files import need_file, split_lines

Record = dict[str, Any]
_PARQUET_MAGIC = b"PAR1"
_LOOK = 4096
_FREE, _MOST_TIMES = 64 << 20, 100  # bytes that any file may expand to, and how many times its size beyond that


def read_json_lines(path: Path, text: str) -> list[tuple[int, Record]]:
    """Of each line of ``text``, the content of ``path``: its number, and its object. Empty lines are skipped.

    Raises:
        DataError: lines that are no JSON object, or that repeat a key, all of them at once.
    """
    lines = split_lines(str(path), text)
    records: list[tuple[int, Record]] = []
    empty: list[int] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            empty.append(number)
            continue
        try:
            record = json.loads(line, object_pairs_hook=_object)
            if not isinstance(record, dict):
                raise ValueError("an object in braces is needed")
            records.append((number, record))
        except (ValueError, RecursionError) as error:
            problem = str(error)
            if isinstance(error, json.JSONDecodeError):
                problem = f"not JSON at position {error.pos + 1} ({error.msg})"
            problems.append(f"{path}, line {number}: {problem}")
    if problems and not records and (document := _document(text)):
        raise DataError(f"{path}: {document}; write each object on one line, without brackets or commas between them")
    gather(problems)
    report_empty(path, empty)
    return records


def _object(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is there {keys.count(twice)} times in one object; keep one of them")
    return record


def _document(text: str) -> str | None:
    """What a text is that is JSON as a whole but not by lines."""
    begin = text.lstrip()[:1]
    if begin not in ("[", "{"):
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        lines = [line.strip() for line in text.split("\n")]
        return "its objects go over several lines" if "{" in lines or "[" in lines else None
    return "the file is one JSON array" if begin == "[" else "the file is one JSON object over several lines"


def parquet_columns(path: Path) -> list[str]:
    """The names of a Parquet file's columns. Raises DataError as ``read_parquet``."""
    # Imported where it is used: pyarrow takes longer to load than all the rest of this file.
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_magic(path)
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None


def read_parquet(path: Path, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """The values of ``columns``, a tuple a row.

    Raises:
        DataError: the file is missing, or cannot be read as Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    values: list[list[Any]] = [[] for _ in columns]
    size, most = 0, max(_FREE, _MOST_TIMES * path.stat().st_size)
    try:
        with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            for batch in file.iter_batches(columns=list(dict.fromkeys(columns))):
                found = {name: _decoded(batch.column(name)) for name in set(columns)}
                size += sum(column.nbytes for column in found.values())
                if size > most:
                    raise DataError(
                        f"{path}: {path.stat().st_size:,} bytes of it expand to more than {size:,}, over {_MOST_TIMES} "
                        "times as many; write it as text if it is meant"
                    )
                for name, column in zip(columns, values, strict=True):
                    column += found[name].to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None
    return list(zip(*values, strict=True))


def _decoded(column: Any) -> Any:
    """A column with its values in place of numbers of a dictionary."""
    import pyarrow as pa

    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _check_magic(path: Path) -> None:
    """Name the format of a file that is called .parquet and is something else."""
    need_file(path)
    with path.open("rb") as file:
        head = file.read(_LOOK)
    found = format_of_bytes(head)
    if found is not None and not head.startswith(_PARQUET_MAGIC):
        raise DataError(f"{path}: the content is {found.name}, not Parquet; give it the extension of what it is")


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a Parquet file that can be read ({' '.join(str(error).split())})")


def value_text(value: Any, column: str) -> str:
    """A value of a JSON or Parquet record as text; an empty text for null and NaN, which mean a missing value.

    Raises:
        ValueError: a value of another type, or text that cannot be encoded.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and math.isinf(value):
        raise ValueError(f"column {column!r} is infinite; text or a finite number is needed")
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise ValueError(f"column {column!r} is a {type(value).__name__}; text or a number is needed")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which no tokenizer takes.
        raise ValueError(f"column {column!r} has half of a surrogate pair, which is not a character") from None
    return value
