"""Tables that list items: the columns that a domain reads, and those of groups and splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from suite.errors import UsageError, gather
from suite.sources import columns_of, read_table
from suite.splits import SPLITS

_GROUP, _SPLIT = "group", "split"


@dataclass(frozen=True)
class ListingColumns:
    """The columns of groups and splits; none where ``None``.

    A table need not have those that are called as here, but it must have one that was asked for by another name.
    """

    group: str | None = _GROUP
    split: str | None = _SPLIT

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
    path: Path, *, columns: Sequence[str], listing: ListingColumns, filled: Sequence[str] = ()
) -> list[Entry]:
    """The rows of a table, of which the columns ``filled`` may not be empty.

    Raises:
        UsageError, DataError: as ``read_table``; and empty values or splits that there are not, all of them at once.
    """
    usual, present = (_GROUP, _SPLIT), columns_of(path)
    group, split = (name if name not in usual or name in present else None for name in (listing.group, listing.split))
    roles = [name for name in (group, split) if name]
    entries, problems = [], []
    for number, row in enumerate(read_table(path, columns=[*columns, *roles]), start=1):
        values, said = row[: len(columns)], dict(zip(roles, row[len(columns) :], strict=True))
        own_group, own_split = (said[name].strip() or None if name else None for name in (group, split))
        empty = [name for name, value in zip(columns, values, strict=True) if name in filled and not value.strip()]
        problems += [f"{path}, row {number}: {name} is empty" for name in empty]
        if own_split and own_split not in SPLITS:
            problems.append(f"{path}, row {number}: {split} is {own_split!r}, allowed are {', '.join(SPLITS)}")
        entries.append(Entry(number, values, own_group, own_split))
    gather(problems)
    return entries
