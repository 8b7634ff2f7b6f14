"""Sentence pairs as they stand in files, and which of them have nothing on one side."""

import unicodedata
from collections.abc import Iterable, Sequence

import numpy
from numpy.typing import NDArray

from suite.console import notice, notice_once
from suite.errors import DataError, UsageError, gather
from suite.sources import is_table, read_parallel, read_table

Pair = tuple[str, str]
_INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})  # Unicode categories: spaces, controls, formatting


def read_pairs(files: Sequence[str], *, columns: Sequence[str], delimiter: str | None, setting: str) -> list[Pair]:
    """The pairs of tables, one table after the other, or of two text files, aligned line by line.

    Args:
        files: which of both they are is told by their extensions.
        columns: the names of the source and the target column of tables.
        delimiter: as of ``read_table``.
        setting: that names the files, for messages.

    Raises:
        UsageError: tables and other files together; another number of text files than two.
        DataError: files that cannot be read.
    """
    if not _are_tables(files, setting):
        return [(source, target) for source, target in read_parallel(files)]
    for file in dict.fromkeys(file for file in files if files.count(file) > 1):
        notice_once(f"data: {setting} names {file} {files.count(file)} times; its pairs count as often")
    flags = dict.fromkeys(columns, "--data.columns")
    pairs: list[Pair] = []
    problems = []
    for file in files:
        try:
            rows = read_table(file, columns=columns, delimiter=delimiter, flags=flags)
            pairs += [(source, target) for source, target in rows]
        except DataError as error:
            problems.append(str(error))
    gather(problems)
    return pairs


def _are_tables(files: Sequence[str], setting: str) -> bool:
    """Whether ``files`` are tables, by their extensions, rather than two aligned text files.

    Raises:
        UsageError: some are and some are not; another number of text files than two.
        DataError: files that do not exist.
    """
    tables, problems = [], []
    for file in files:
        try:
            tables.append(is_table(file))
        except DataError as error:
            tables.append(False)
            problems.append(str(error))
    if len(files) <= 2 or any(tables):
        gather(problems)
    remedy = "give tables (.csv, .tsv, .jsonl, .parquet), or two text files aligned line by line"
    if any(tables) and not all(tables):
        one, other = files[tables.index(True)], files[tables.index(False)]
        raise UsageError(f"{setting} mixes a table ({one}) with another kind of file ({other}); {remedy}")
    if not any(tables) and len(files) != 2:
        one = f"one file, {files[0]}, which has no table extension" if len(files) == 1 else f"{len(files)} text files"
        example = f", such as --{setting} '[{files[0]}, TRANSLATIONS]'" if len(files) == 1 else ""
        raise UsageError(f"{setting} names {one}; {remedy}{example}")
    return all(tables)


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: it is empty, or all white space, zero-width spaces and control characters."""
    return not text.strip() or all(unicodedata.category(character) in _INVISIBLE for character in text)


def has_blank(pair: Iterable[str]) -> bool:
    """Whether a side of a pair shows nothing."""
    return any(map(is_blank, pair))


def report_empty(empty: NDArray[numpy.bool_], what: str, consequence: str) -> None:
    """Count the pairs whose source, target or both are ``empty (N, 2)``."""
    both = int(empty.all(axis=1).sum())
    source, target = (int(count) - both for count in empty.sum(axis=0))
    if count := both + source + target:
        sides = f"source {source}, target {target}, both {both}"
        notice(f"data: {count} of {len(empty)} {what} have an empty side ({sides}); {consequence}")
