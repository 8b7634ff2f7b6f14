"""What ``predict`` reads: lines of text files and of standard input, and rows of tables with their ids."""

import glob
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, overload

from suite.console import notice, notice_once
from suite.errors import DataError, UsageError, gather
from suite.file_formats import extension_of
from suite.labels import clean_name
from suite.sources import read_lines, read_standard_input
from suite.tables import Table, check_delimiter, has_delimiter, is_table, open_table

STANDARD_INPUT = "-"
ID_COLUMN = "id"


class InputColumns(NamedTuple):
    """The columns of a table that make up one input, joined by spaces, and the ``flag`` that names them."""

    names: Sequence[str]
    flag: str
    delimiter: str | None = None


@dataclass
class Inputs(Sequence[str]):
    """Texts in order, each with its id and its file if they are told apart by these."""

    texts: list[str] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)
    files: list[str | None] = field(default_factory=list)

    def add(self, texts: Sequence[str], *, ids: Sequence[str] | None, file: str | None) -> None:
        """Append the texts of one file."""
        self.texts += texts
        self.ids += [None] * len(texts) if ids is None else ids
        self.files += [file] * len(texts)

    def marks(self, index: int) -> dict[str, str]:
        """``id`` and ``file`` of input ``index``, as far as it has them."""
        marks = {"id": self.ids[index], "file": self.files[index]}
        return {name: value for name, value in marks.items() if value is not None}

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self.texts[index]


def add_input_arguments(parser: Any) -> None:
    """Declare the files to predict, and how they are read."""
    parser.add_argument(
        "files", nargs="*", type=str, default=[],
        help="Text files (an input a line) or tables (.csv, .tsv, .jsonl, each also with .gz, and .parquet; an input a "
        "row); a quoted pattern such as 'part*.csv' stands for all files it matches. Standard input without.",
    )  # fmt: skip
    parser.add_argument("--lines", action="store_true", help="Read .csv and .tsv files as lines of text.")
    parser.add_argument(
        "--id_column", type=str | None, default=None,
        help="Column of a table whose values identify the results, in lines of text too; without this flag, JSON "
        "results have those of a column called id.",
    )  # fmt: skip


def read_inputs(options: Any, *, columns: InputColumns | None, processes: int) -> Inputs:
    """The inputs of a command line with the arguments of ``add_input_arguments``.

    Args:
        options: the parsed command line.
        columns: of tables; ``None`` if inputs cannot be read from tables.
        processes: number of processes that share the inputs; each of them reads all.

    Raises:
        UsageError: standard input for several processes or named twice; flags without effect.
        DataError: files that cannot be read, all of them at once.
    """
    files = expand(options.files) or [STANDARD_INPUT]
    if files.count(STANDARD_INPUT) > 1:
        raise UsageError("standard input (-) is named more than once: it can be read only once")
    if STANDARD_INPUT in files and processes > 1:
        raise UsageError("standard input is for one process: give a FILE, or --trainer.devices 1")
    inputs, problems, tables = Inputs(), [], 0
    for file in files:
        name = file if len(files) > 1 else None
        try:
            if file == STANDARD_INPUT:
                inputs.add(_standard_lines(), ids=None, file=name)
            elif _is_table(file, lines=options.lines):
                texts, ids = _read_rows(file, columns, options.id_column)
                inputs.add(texts, ids=ids, file=name)
                tables += 1
            else:
                inputs.add(read_lines(file, pipes=processes == 1, empty=True), ids=None, file=name)
        except DataError as error:
            problems.append(str(error))
    gather(problems)
    if options.id_column is not None and not tables:
        raise UsageError(f"--id_column {options.id_column} is for tables, and no input is one: leave it out")
    return inputs


def expand(names: Sequence[str] | None) -> list[str]:
    """``names`` with the files that a pattern (``part*.csv``) matches in its place, sorted by name."""
    files: list[str] = []
    for name in names or []:
        matches = [] if os.path.exists(name) else glob.glob(os.path.expanduser(name), recursive=True)
        files += sorted(filter(os.path.isfile, matches)) or [name]
    return files


def _standard_lines() -> list[str]:
    lines = read_standard_input()
    if lines and _is_object(lines[0]):
        notice("standard input looks like JSON lines, but each line is one input as it is: name a .jsonl file instead")
    return lines


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_table(file: str, *, lines: bool) -> bool:
    """Whether to read a file as a table, by its extension."""
    if os.path.exists(file) and not os.path.isfile(file):  # a pipe or a device; of a folder, reading says so
        return False
    table = is_table(file)
    if table and lines and not has_delimiter(file):
        raise UsageError(f"{file}: --lines is for .csv and .tsv, and {extension_of(file)} holds no lines of text")
    return table and not lines


def _read_rows(file: str, columns: InputColumns | None, id_column: str | None) -> tuple[list[str], list[str] | None]:
    """Texts of a table's rows, and their ids if there are any."""
    if columns is None:
        raise UsageError(f"{file} is a table, but this model predicts lines: set --lines, or name a text file")
    path = Path(file).expanduser()
    if path.is_file() and not path.stat().st_size:  # as of text files: a pipe of nothing gives nothing
        return [], None
    delimiter = check_delimiter(columns.delimiter) if has_delimiter(file) else None
    table = open_table(path, delimiter=delimiter)
    flags = dict.fromkeys(columns.names, f"--{columns.flag}")
    found = id_column if id_column is not None else _usual_id(table)
    if found is None:
        numbered = table.rows(columns.names, flags=flags, empty=True)
    else:
        try:
            numbered = table.rows([*columns.names, found], flags=flags | {found: "--id_column"}, empty=True)
        except DataError:
            if id_column is not None:
                raise
            numbered, found = table.rows(columns.names, flags=flags, empty=True), None
            notice(f"data: {file}: column {ID_COLUMN!r} cannot be read as text, so results have no id")
    count = len(columns.names)
    texts = [" ".join(row[:count]) for _, row in numbered]
    _report(file, columns, texts)
    return texts, None if found is None else [row[count] for _, row in numbered]


def _usual_id(table: Table) -> str | None:
    """The column that is called id, if there is one such column."""
    return ID_COLUMN if [clean_name(name) for name in table.columns].count(ID_COLUMN) == 1 else None


def _report(file: str, columns: InputColumns, texts: Sequence[str]) -> None:
    """Which columns were read, as the lines of the same file would be other inputs; and how many texts are empty."""
    names = ", ".join(map(repr, columns.names))
    other = "; --lines reads its lines as they are" if has_delimiter(file) else ""
    notice_once(f"data: {file}: {len(texts):,} rows are read as a table, column {names} (--{columns.flag}){other}")
    if empty := sum(not text.strip() for text in texts):
        notice_once(f"data: {file}: {empty} of {len(texts)} rows have no text; they are predicted as empty texts")
