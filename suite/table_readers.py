"""Tables by format: a header, and the rows of chosen columns as text."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from suite.console import one_line
from suite.delimited import (
    NumberedFields,
    check_rows,
    looks_like_data,
    other_delimiter,
    read_csv_rows,
    read_tab_rows,
    report_quotes,
    shown_delimiter,
)
from suite.errors import DataError, gather
from suite.labels import clean_name
from suite.records import parquet_columns, read_json_lines, read_parquet, value_text
from suite.text_files import read_text

Row = tuple[str, ...]
NumberedRow = tuple[int, Row]
_LOOK = 100  # rows that are compared with the header
_SHOWN_NAMES, _SHOWN_CHARACTERS = 20, 40


class Table:
    """A table whose header was read.

    Attributes:
        columns: the names as the file spells them.
        unit: what the numbers of its rows count: lines of the file, or rows from 1.
    """

    unit: Literal["line", "row"] = "line"

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, list(columns)

    def has(self, name: str) -> bool:
        """Whether a column is called ``name``."""
        return clean_name(name) in map(clean_name, self.columns)

    def rows(
        self, columns: Sequence[str], *, flags: Mapping[str, str] | None = None, empty: bool = False
    ) -> list[NumberedRow]:
        """The values of ``columns``, a tuple a row, each with its number in ``unit``.

        Args:
            columns: their names, in any order.
            flags: for each of them the flag that names it, for messages.
            empty: accept a table without rows.

        Raises:
            DataError: columns that are missing or ambiguous; what is wrong with the rows; no rows.
        """
        rows = self._read(self._places(columns, flags or {}))
        if not rows and not empty:
            raise DataError(f"{self.path}: the table has no rows")
        return rows

    def _read(self, places: Sequence[int]) -> list[NumberedRow]:
        raise NotImplementedError

    def _hint(self) -> str | None:
        """Why columns may be missing."""
        return None

    def _other_delimiter(self, columns: Sequence[str]) -> str | None:
        """That the fields of a table without ``columns`` are separated by something else."""
        return None

    def _places(self, columns: Sequence[str], flags: Mapping[str, str]) -> list[int]:
        """Positions of the columns among those of the file."""
        names = [clean_name(name) for name in self.columns]
        places, problems, missing = [], [], []
        for column in columns:
            found = [place for place, name in enumerate(names) if name == clean_name(column)]
            flag = flags.get(column)
            if not found:
                missing.append(column)
                problems.append(f"{self.path}: {self._missing(column, flag)}")
            elif len(found) > 1:
                spellings = sorted({self.columns[place] for place in found})
                same = f" (spelt {', '.join(map(repr, spellings))})" if len(spellings) > 1 else ""
                remedy = f"; rename one, or name another column with {flag}" if flag else "; rename one"
                problems.append(f"{self.path}: column {column!r} is there more than once{same}{remedy}")
            places.append(found[0] if found else 0)
        if missing and (other := self._other_delimiter(columns)):
            raise DataError(f"{self.path}: there is no column {' or '.join(map(repr, missing))}; {other}")
        if missing and (hint := self._hint()):
            problems[-1] += f"; {hint}"
        gather(problems)
        return places

    def _missing(self, column: str, flag: str | None) -> str:
        shown = [one_line(name)[:_SHOWN_CHARACTERS] for name in self.columns[:_SHOWN_NAMES]]
        more = f" and {len(self.columns) - _SHOWN_NAMES} more" if len(self.columns) > _SHOWN_NAMES else ""
        text = f"column {column!r} is missing; there are {', '.join(shown) or 'none'}{more}"
        near = [name for name in self.columns if clean_name(name).casefold() == clean_name(column).casefold()]
        if near:
            return f"{text}; did you mean {near[0]!r}?" + (f" Name it with {flag}" if flag else "")
        return f"{text}; name another with {flag}" if flag else text


class DelimitedTable(Table):
    """CSV, and with tabs TSV; ``delimiter`` is that of a flag, which brings the quotes of CSV."""

    def __init__(self, path: Path, *, kind: Literal["csv", "tsv"], delimiter: str | None) -> None:
        self.text = read_text(path)
        self.quoted = kind == "csv" or delimiter is not None
        self.delimiter = delimiter or ("," if kind == "csv" else "\t")
        filled = self.text.lstrip("\r\n")
        self.first_line = re.split(r"[\r\n]", filled, maxsplit=1)[0]
        ends = r"\r\n|\r|\n" if self.quoted else r"\n"  # as csv reads them, and as split_lines does
        self.empty_lines = len(re.findall(ends, self.text[: len(self.text) - len(filled)]))
        super().__init__(path, self._header(path))

    def _header(self, path: Path) -> list[str]:
        try:
            rows = self._parse(path, most=self.empty_lines + 1)
        except DataError as error:
            if hint := self._other_delimiter(()):
                raise DataError(f"{error}; {hint}") from None
            raise
        return rows[-1][1]

    def _parse(self, path: Path, *, most: int | None = None) -> list[NumberedFields]:
        if self.quoted:
            return read_csv_rows(path, self.text, delimiter=self.delimiter, most=most)
        return read_tab_rows(path, self.text, most=most)

    def _read(self, places: Sequence[int]) -> list[NumberedRow]:
        rows = check_rows(self.path, self._parse(self.path)[self.empty_lines :])
        chosen = [(number, [fields[place] for place in places]) for number, fields in rows]
        if not self.quoted:
            report_quotes(self.path, chosen)
        return [(number, tuple(values)) for number, values in chosen]

    def _hint(self) -> str | None:
        if self.first_line.lower().startswith("sep="):
            return "the first line is a note for Excel: remove it"
        if not self.quoted and any(name.startswith('"') for name in self.columns):
            return "names are in quotes, which are text in .tsv: set --data.delimiter '\\t' to read them like CSV"
        try:
            rows = self._parse(self.path, most=self.empty_lines + _LOOK)[self.empty_lines + 1 :]
        except DataError:
            rows = []
        return "the first row looks like data: write a header above it" if looks_like_data(self.columns, rows) else None

    def _other_delimiter(self, columns: Sequence[str]) -> str | None:
        other = other_delimiter(self.first_line, columns, used=self.delimiter)
        if other is None:
            return None
        found, own = shown_delimiter(other), shown_delimiter(self.delimiter)
        return f"the fields seem to be separated by {found} rather than {own}: set --data.delimiter {found}"


class JsonLinesTable(Table):
    def __init__(self, path: Path) -> None:
        self.records = read_json_lines(path, read_text(path))
        super().__init__(path, list(dict.fromkeys(key for _, record in self.records for key in record)))

    def _read(self, places: Sequence[int]) -> list[NumberedRow]:
        names = [self.columns[place] for place in places]
        values = [(number, [record.get(name) for name in names]) for number, record in self.records]
        return _texts(self.path, values, names, unit=self.unit)


class ParquetTable(Table):
    unit = "row"

    def __init__(self, path: Path) -> None:
        super().__init__(path, parquet_columns(path))

    def _read(self, places: Sequence[int]) -> list[NumberedRow]:
        names = [self.columns[place] for place in places]
        return _texts(self.path, list(enumerate(read_parquet(self.path, names), start=1)), names, unit=self.unit)


def _texts(
    path: Path, rows: Sequence[tuple[int, Sequence[object]]], names: Sequence[str], *, unit: str
) -> list[NumberedRow]:
    texts, problems = [], []
    for number, values in rows:
        try:
            texts.append((number, tuple(value_text(value, name) for value, name in zip(values, names, strict=True))))
        except ValueError as error:
            problems.append(f"{path}, {unit} {number}: {error}")
    gather(problems)
    return texts
