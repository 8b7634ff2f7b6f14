"""Tables with named columns: CSV, TSV, JSON lines and Parquet give the same rows of text.

A missing value (an empty field, null, NaN, a key that an object lacks) is an empty text in every format. Names of
columns are compared by ``clean_name``.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, cast, get_args

from suite.errors import UsageError
from suite.file_formats import extension_of, refuse_extension
from suite.table_readers import DelimitedTable, JsonLinesTable, ParquetTable, Row, Table
from suite.text_files import need_file

TableFormat = Literal["csv", "tsv", "jsonl", "parquet"]
_OTHER_NAMES: dict[str, TableFormat] = {"ndjson": "jsonl", "jsonlines": "jsonl"}


def open_table(
    path: str | os.PathLike[str], *, format: TableFormat | None = None, delimiter: str | None = None
) -> Table:
    """A table with its header read.

    Args:
        path: a file.
        format: taken from the extension if it is None: ``.csv`` (with quoting), ``.tsv`` (without), ``.jsonl``, each
            also with ``.gz``, and ``.parquet``.
        delimiter: of .csv or .tsv, which is then read with the quotes of CSV; no matter to other formats.

    Raises:
        DataError: the file cannot be read.
        UsageError: an unknown extension or delimiter.
    """
    file = Path(path)
    kind = format or _format_of(file)
    if kind == "csv" or kind == "tsv":
        return DelimitedTable(file, kind=kind, delimiter=check_delimiter(delimiter))
    return JsonLinesTable(file) if kind == "jsonl" else ParquetTable(file)


def read_table(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str],
    format: TableFormat | None = None,
    delimiter: str | None = None,
    flags: Mapping[str, str] | None = None,
) -> list[Row]:
    """The named ``columns`` of a table, one tuple a row, in the order asked for; every value as text.

    CSV and TSV need a header. Numbers of JSON and Parquet become their text; a missing value is an empty text.

    Args:
        path: a file.
        columns: names, compared by ``clean_name``.
        format: as of ``open_table``.
        delimiter: as of ``open_table``.
        flags: for each column the flag that names it, for messages.

    Raises:
        DataError: with all problems of the file at once: missing columns (listing those there are), rows of another
            width than the header, repeated keys, damaged lines and wrong bytes.
        UsageError: an unknown extension or delimiter.
    """
    if not columns or isinstance(columns, str):
        raise UsageError(f"{path}: columns must name the columns to read as a list, not {columns!r}")
    table = open_table(path, format=format, delimiter=delimiter)
    return [row for _, row in table.rows(columns, flags=flags)]


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a table by its extension.

    Raises:
        DataError: a file without a table's extension that is not there: its name may be misspelt.
        UsageError: the extension of a known format that is not read.
    """
    file = Path(path)
    if _table_extension(file) is None:
        need_file(file)
        refuse_extension(file)
        return False
    return True


def columns_of(path: str | os.PathLike[str]) -> list[str]:
    """The names of a table's columns as the file spells them; in JSON lines the keys of all rows.

    Raises:
        DataError, UsageError: as ``open_table``.
    """
    return open_table(path).columns


def check_delimiter(delimiter: str | None) -> str | None:
    """A delimiter as a character; ``\\t`` and ``tab`` stand for a tab.

    Raises:
        UsageError: it is not a single character, or one that fields may begin with.
    """
    mark = "\t" if delimiter in ("\\t", "tab") else delimiter
    if mark is not None and (len(mark) != 1 or mark.isalnum() or mark in '"\r\n\0'):
        raise UsageError(f"data.delimiter must be a single character such as ';' or '\\t', got {delimiter!r}")
    return mark


def has_delimiter(path: str | os.PathLike[str]) -> bool:
    """Whether a file's extension is that of .csv or .tsv."""
    return _table_extension(Path(path)) in ("csv", "tsv")


def _table_extension(path: Path) -> TableFormat | None:
    extension = extension_of(path).removeprefix(".")
    name = extension.removesuffix(".gz")
    found = _OTHER_NAMES.get(name, name)
    if found not in get_args(TableFormat) or (found == "parquet" and extension != name):
        return None
    return cast(TableFormat, found)


def _format_of(path: Path) -> TableFormat:
    if found := _table_extension(path):
        return found
    need_file(path)
    refuse_extension(path)
    raise UsageError(f"{path} has no table extension (.csv, .tsv, .jsonl, each also with .gz, or .parquet)")
