"""What ``predict`` is called with: files, folders, patterns and tables, to one list of files in order."""

import glob
import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from domains.video.listing import Item
from suite.console import notice, one_line
from suite.errors import DataError, gather
from suite.folders import files_below
from suite.sources import columns_of, extension_of, read_table

_TABLES = (".csv", ".tsv", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".parquet")
_ID = "id"
_NAMED = 3  # files that a message names


def list_inputs(names: Sequence[str], *, path_column: str, extensions: Collection[str]) -> list[Item]:
    """The files that ``names`` stand for.

    A folder gives the files below it with one of ``extensions``, sorted by name; a pattern the files that match it and
    have one, sorted; a table its rows in order, with paths counted from its own folder and what its column ``id`` says.

    Raises:
        DataError: a folder or a pattern without such files, or a table that cannot be read; all of them at once.
    """
    items: list[Item] = []
    problems = []
    for name in names:
        try:
            items += _expand(name, path_column, extensions)
        except DataError as error:
            problems.append(str(error))
    gather(problems)
    return items


def _expand(name: str, path_column: str, extensions: Collection[str]) -> list[Item]:
    place = Path(name).expanduser()
    if place.is_dir():
        return _in_folder(place, extensions)
    if extension_of(place) in _TABLES:
        return _in_table(place, path_column)
    if place.exists() or not glob.has_magic(name):
        return [Item(place, name, "")]
    found = [Path(each) for each in sorted(glob.glob(os.path.expanduser(name), recursive=True))]
    files = [each for each in found if not each.is_dir()]
    if not files:  # a pattern of folders
        files = [file for folder in found for file in files_below(folder)]
    return _with_extension(files, name, extensions)


def _in_folder(folder: Path, extensions: Collection[str]) -> list[Item]:
    return _with_extension(files_below(folder), str(folder), extensions)


def _with_extension(files: Sequence[Path], where: str, extensions: Collection[str]) -> list[Item]:
    """Those of ``files`` with one of ``extensions``; a notice counts and names the others."""
    others = [file for file in files if file.suffix.lower() not in extensions]
    if others:
        kinds = Counter(file.suffix.lower() or "no extension" for file in others).most_common(_NAMED)
        counted = ", ".join(f"{count} with {kind}" for kind, count in kinds)
        notice(
            one_line(
                f"predict: {where}: {len(others):,} files are left out because of their extensions ({counted}; first "
                f"{others[0]}); name a file itself to predict it"
            )
        )
    kept = [Item(file, str(file), "") for file in files if file.suffix.lower() in extensions]
    if not kept:
        raise DataError(f"{where}: no file to predict is found there")
    return kept


def _in_table(table: Path, path_column: str) -> list[Item]:
    has_id = _ID in columns_of(table)
    rows = read_table(table, columns=[path_column, _ID] if has_id else [path_column])
    gather([f"{table}, row {n}: {path_column} is empty" for n, row in enumerate(rows, start=1) if not row[0].strip()])
    return [
        Item(table.parent / Path(row[0]).expanduser(), row[0], "", row_id=row[1] if has_id else None) for row in rows
    ]
