"""Rows of delimited text: CSV with quoting, and lines of fields between tabs."""

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from suite.console import notice_once, one_line
from suite.errors import DataError, gather
from suite.labels import clean_name
from suite.text_files import split_lines

NumberedFields = tuple[int, list[str]]
DELIMITERS = (",", ";", "\t", "|")
_FIELD_LIMIT = 2**31 - 1
_SHOWN = 5
_LONG_NAME = 60  # characters: a longer header field is a sentence rather than a name


def read_csv_rows(path: Path, text: str, *, delimiter: str = ",", most: int | None = None) -> list[NumberedFields]:
    """Of each row of ``text``, the content of ``path``: the number of the line on which it starts, and its fields.

    At most the first ``most`` rows; an empty line is a row without fields.

    Raises:
        DataError: quotes that do not close.
    """
    limit = csv.field_size_limit(_FIELD_LIMIT)  # The default of 128 KiB refuses long documents.
    try:
        return list(islice(_csv_rows(path, text, delimiter), most))
    finally:
        csv.field_size_limit(limit)


def _csv_rows(path: Path, text: str, delimiter: str) -> Iterator[NumberedFields]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    while True:
        start = reader.line_num + 1
        try:
            yield start, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}, line {start}: not CSV ({error}); check the quotes of the row") from None


def read_tab_rows(path: Path, text: str, *, most: int | None = None) -> list[NumberedFields]:
    """Of each line of ``text``, the content of ``path``: its number, and its fields. Quotes are ordinary characters."""
    lines = split_lines(str(path), text)[:most]
    return [(number, line.split("\t")) for number, line in enumerate(lines, start=1)]


def check_rows(path: Path, rows: Sequence[NumberedFields]) -> list[NumberedFields]:
    """The ``rows`` below the header, which is the first of them. Empty lines are skipped and reported.

    Raises:
        DataError: rows of another width than the header, or that repeat it, all of them at once.
    """
    header = rows[0][1]
    names = [clean_name(name) for name in header]
    kept: list[NumberedFields] = []
    empty: list[int] = []
    problems: list[str] = []
    for number, fields in rows[1:]:
        if len(fields) == len(header):
            kept.append((number, fields))
            if len(names) > 1 and clean_name(fields[0]) == names[0] and [*map(clean_name, fields)] == names:
                problems.append(f"{path}, line {number}: the header again, as in files that were joined; remove it")
        elif fields in ([], [""]):
            empty.append(number)
        else:
            problems.append(f"{path}, line {number}: {len(fields)} fields where the header has {len(header)}")
    gather(problems)
    report_empty(path, empty)
    return kept


def report_empty(path: Path, numbers: Sequence[int]) -> None:
    """Report lines of a table that are skipped because nothing is on them."""
    if numbers:
        notice_once(f"data: {path}: {len(numbers)} empty line(s) skipped ({listed(numbers)})")


def report_quotes(path: Path, rows: Sequence[NumberedFields]) -> None:
    """Report fields of a tab-separated table that look as if quotes were meant to be removed."""
    quoted = [number for number, fields in rows for field in fields if _is_quoted(field)]
    if quoted:
        notice_once(
            f"data: {path}: {len(quoted)} field(s) begin and end with a quote ({listed(sorted({*quoted}))}), which is "
            "part of the text in .tsv; if the table is quoted like CSV, set --data.delimiter '\\t'"
        )


def _is_quoted(field: str) -> bool:
    return len(field) > 1 and field[0] == field[-1] == '"'


def listed(numbers: Sequence[int], *, unit: str = "line") -> str:
    """``lines 3, 4, 9`` of line numbers, the first few of many."""
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return f"{unit}{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:_SHOWN]))}{more}"


def other_delimiter(first_line: str, columns: Sequence[str], *, used: str) -> str | None:
    """The delimiter that a header was probably written with, if it is not the one ``used`` to read it.

    It divides the header into names among which are all ``columns``, or divides one that is otherwise a single field.
    """
    wanted = {clean_name(column) for column in columns}
    own = len(_fields(first_line, used))
    candidates = {mark: {clean_name(name) for name in _fields(first_line, mark)} for mark in DELIMITERS if mark != used}
    complete = [mark for mark, names in candidates.items() if wanted <= names and len(names) > 1]
    several = [mark for mark, names in candidates.items() if own == 1 and len(names) > 1]
    return next(iter([*complete, *several]), None)


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return line.split(delimiter)


def shown_delimiter(delimiter: str) -> str:
    """A delimiter as it is written on a command line: ``';'``, and ``'\\t'`` for a tab."""
    return f"'{one_line(delimiter)}'"


def looks_like_data(header: Sequence[str], rows: Sequence[NumberedFields]) -> bool:
    """Whether a header is a row like the others: numbers, sentences, empty or repeated fields, values of ``rows``."""
    names = [name.strip() for name in header]
    numbers = any(name.lstrip("+-").replace(".", "", 1).isdigit() for name in names)
    long = any(len(name) > _LONG_NAME or len(name.split()) > _SHOWN for name in names)
    again = any(
        name and name == value.strip() for _, fields in rows for name, value in zip(names, fields, strict=False)
    )
    return numbers or long or again or "" in names or len(set(names)) < len(names)
