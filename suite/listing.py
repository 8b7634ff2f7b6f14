"""Tables that list items: the columns that a domain reads, and those of groups and splits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from suite.console import notice_once
from suite.delimited import listed
from suite.errors import UsageError, gather
from suite.labels import clean_name, clean_names, looks_missing
from suite.splits import SPLITS, split_of
from suite.table_readers import Table
from suite.tables import open_table

_GROUP, _SPLIT = "group", "split"


@dataclass(frozen=True)
class ListingColumns:
    """The columns of groups and splits; none where ``None``.

    A table need not have those that are called as here, but it must have one that was asked for by another name.
    ``delimiter`` is that of .csv and .tsv files that use another one than usual. ``known`` columns, those of a public
    set, are used without a report.
    """

    group: str | None = _GROUP
    split: str | None = _SPLIT
    delimiter: str | None = None
    known: bool = False

    def refuse_for(self, place: Path) -> None:
        """Refuse names of columns for a folder, which has none.

        Raises:
            UsageError: which.
        """
        for flag, name, usual in (("group", self.group, _GROUP), ("split", self.split, _SPLIT)):
            if name not in (None, usual):
                raise UsageError(f"data.{flag}_column is for tables, and {place} is a folder: leave it out")


class Entry(NamedTuple):
    """A row of a table: ``values`` of the columns asked for, and the ``group`` and ``split`` that it has, if any."""

    row: int
    values: tuple[str, ...]
    group: str | None
    split: str | None


def read_entries(
    path: Path,
    *,
    columns: Sequence[str],
    listing: ListingColumns,
    filled: Sequence[str] = (),
    names: Sequence[str] = (),
    flags: Mapping[str, str] | None = None,
) -> list[Entry]:
    """The rows of a table.

    The use of a column of groups or splits is reported, as the user may not know of it.

    Args:
        path: of the table.
        columns: what ``values`` are of.
        listing: the columns of groups and splits.
        filled: those of ``columns`` that may not be empty.
        names: those of ``columns`` whose values are names (labels, conditions): they are cleaned by ``clean_name``, and
            how many of them were changed is reported.
        flags: for each of ``columns`` the flag that names it, for messages.

    Raises:
        UsageError, DataError: as ``read_table``; and empty values or unknown splits, all of them at once.
    """
    table = open_table(path, delimiter=listing.delimiter)
    group, split = (_role(table, name, columns) for name in (listing.group, listing.split))
    roles = [name for name in (group, split) if name]
    all_flags = {**{name: f"--data.{role}_column" for role, name in _roles(group, split)}, **(flags or {})}
    rows = table.rows([*columns, *roles], flags=all_flags)
    problems = _empty(table, rows, columns, filled)
    cells = dict(zip([*columns, *roles], zip(*(values for _, values in rows), strict=True), strict=True))
    for name in [*names, *roles]:
        cells[name] = tuple(clean_names(cells[name], where=f"{path}, column {name!r}"))
    groups = [value or None for value in cells[group]] if group else [None] * len(rows)
    splits: list[str | None] = [None] * len(rows)
    if split:
        splits = [split_of(value) for value in cells[split]]
        problems += _unknown_splits(table, split, cells[split], [number for number, _ in rows])
    gather(problems)
    if group:
        _report_groups(path, group, groups, named=listing.known or group != _GROUP)
    if split:
        _report_splits(path, split, cells[split], named=listing.known or split != _SPLIT)
    values = list(zip(*(cells[name] for name in columns), strict=True))
    return [Entry(number, *each) for number, each in enumerate(zip(values, groups, splits, strict=True), start=1)]


def _role(table: Table, name: str | None, columns: Sequence[str]) -> str | None:
    """The column of a role, if the table has it; a column that is read for something else has no other role."""
    if name not in (_GROUP, _SPLIT):
        return name
    taken = {clean_name(column) for column in columns}
    if table.has(name):
        return name if name not in taken else None
    for near in {*map(clean_name, table.columns)} - taken:
        if near.casefold() == name:
            flag = f"--data.{name}_column"
            notice_once(f"data: {table.path}: column {near!r} is not used; to use it, set {flag} {near}")
    return None


def _roles(group: str | None, split: str | None) -> list[tuple[str, str]]:
    return [(role, name) for role, name in ((_GROUP, group), (_SPLIT, split)) if name]


def _empty(
    table: Table, rows: Sequence[tuple[int, Sequence[str]]], columns: Sequence[str], filled: Sequence[str]
) -> list[str]:
    """What is wrong with rows that lack a value in a column that has to be ``filled``: in any format the same words."""
    problems = []
    for place, name in enumerate(columns):
        empty = [number for number, values in rows if name in filled and not clean_name(values[place])]
        if empty:
            problems.append(
                f"{table.path}: {len(empty)} of {len(rows)} rows have no value in column {name!r} "
                f"({listed(empty, unit=table.unit)}); fill them in or remove the rows"
            )
    return problems


def _unknown_splits(table: Table, column: str, values: Sequence[str], numbers: Sequence[int]) -> list[str]:
    places: dict[str, list[int]] = {}
    for number, value in zip(numbers, values, strict=True):
        if value and split_of(value) is None:
            places.setdefault(value, []).append(number)
    must = f"{table.path}: {column} must be {', '.join(SPLITS)} or empty"
    return [f"{must}, got {value!r} in {listed(found, unit=table.unit)}" for value, found in places.items()]


def _report_groups(path: Path, column: str, groups: Sequence[str | None], *, named: bool) -> None:
    """Report a column of groups that the user may not know of, and groups that look like a missing value."""
    counts = Counter(group for group in groups if group is not None)
    if not named and counts:
        alone = f" ({groups.count(None)} rows without one stand alone)" if None in groups else ""
        notice_once(
            f"data: {path}: each of the {len(counts)} groups in column {column!r} stays whole in one split{alone}; to "
            "ignore the column, set --data.group_column null",
            key=f"groups in column {column!r}",  # not again for a file of another split
        )
    for name, count in counts.items():
        if looks_missing(name):
            notice_once(
                f"data: {path}: group {name!r} ({count} rows) looks like a missing value; it is kept as a group"
            )


def _report_splits(path: Path, column: str, spelt: Sequence[str], *, named: bool) -> None:
    """Report a column of splits in the same way, and which spellings are read as which split."""
    counts = Counter(map(split_of, filter(None, spelt)))
    others: dict[str | None, list[str]] = {}
    for value in dict.fromkeys(value for value in spelt if value and value not in SPLITS):
        others.setdefault(split_of(value), []).append(repr(value))
    parts = [f"{', '.join(values)} in column {column!r} read as {split}" for split, values in others.items()]
    if not named and counts:
        found = ", ".join(f"{split} {counts[split]}" for split in SPLITS if counts[split])
        parts.insert(
            0, f"column {column!r} gives the splits ({found}); to ignore the column, set --data.split_column null"
        )
    if parts:
        notice_once(f"data: {path}: {'; '.join(parts)}")
