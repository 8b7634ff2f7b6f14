"""Where data come from: lines of text files, line-aligned files, tables, and the folders of public sets.

Nothing is repaired: a file is read whole or refused with its name, its line and what to do.
Lines end at ``\\n`` or ``\\r\\n`` only, because the other separators of Unicode (which ``str.splitlines`` cuts at)
occur inside real sentences and would shift one side of a parallel corpus against the other.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from suite.console import notice_once
from suite.delimited import read_csv_rows
from suite.downloads import Remote, cached_folder
from suite.errors import DataError, SuiteError, UsageError, gather
from suite.file_formats import extension_of
from suite.tables import Row, TableFormat, columns_of, is_table, read_table
from suite.text_files import read_standard_text, read_text, split_lines

__all__ = [
    "Row",
    "TableFormat",
    "columns_of",
    "data_folder",
    "extension_of",
    "is_table",
    "read_csv_rows",
    "read_lines",
    "read_parallel",
    "read_standard_input",
    "read_table",
]


def read_lines(
    path: str | os.PathLike[str], *, encoding: str = "utf-8", pipes: bool = False, empty: bool = False
) -> list[str]:
    """The lines of a text file, plain or ``.gz``, without their ends; a UTF-8 byte order mark is dropped.

    ``pipes`` also takes a pipe or a device (``/dev/stdin``), which is read a single time; ``empty`` takes an empty
    file as no lines.

    Raises:
        DataError, UsageError: as ``read_text``; DataError also if all lines end in CR.
    """
    return split_lines(str(path), read_text(path, encoding=encoding, pipes=pipes, empty=empty))


def read_standard_input() -> list[str]:
    """Lines of standard input, as ``read_lines`` gives those of a file; none if it is empty.

    Raises:
        DataError: it is closed, or has bytes that are not UTF-8 (with the lines and bytes).
    """
    return [line.removesuffix("\r") for line in split_lines("standard input", read_standard_text())]


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


def data_folder(
    name: str,
    *,
    files: Sequence[str] = (),
    patterns: Sequence[str] = ("*",),
    wanted: str | None = None,
    remotes: Mapping[str, Remote] | None = None,
) -> Path:
    """The folder with the ``files`` of a public set: ``$SUITE_DATA_DIR/<name>``, or else one in the cache.

    If the cache is used although ``SUITE_DATA_DIR`` is set, a notice names it: its files may be other ones.

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
    if os.environ.get("SUITE_DATA_DIR"):
        notice_once(text)
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
