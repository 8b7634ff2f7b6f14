"""Which files there are, with their labels, groups and splits: folders by class, or a manifest."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from suite.errors import DataError, gather
from suite.folders import class_files, split_folders
from suite.listing import ListingColumns, read_entries

_ARCHIVES = (".tar", ".tar.gz", ".tgz")


class Item(NamedTuple):
    """A file: where it is, what it is called in results, its label, and its group and split where they are given."""

    path: Path
    name: str
    label: str
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class FileColumns:
    """Columns of tables: the path, the label, those of group and split."""

    path: str = "path"
    label: str = "label"
    listing: ListingColumns = field(default_factory=ListingColumns)


def is_archive(path: Path) -> bool:
    """Whether ``path`` is called like a tar archive."""
    return path.name.endswith(_ARCHIVES)


def list_items(path: str | Path, columns: FileColumns = FileColumns()) -> list[Item]:
    """The files that ``path`` names: a folder of classes, a folder of splits of classes, or a table.

    Raises:
        UsageError: columns named for a folder.
        DataError: nothing there, no classes, or a table without its columns.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        columns.listing.refuse_for(place)
        return list_folder(place)
    if not place.exists():
        raise DataError(
            f"{place}: no such folder or table; --data.train, val and test take a folder with one folder a class, or a "
            f"table with the columns {columns.path},{columns.label}[,group][,split]"
        )
    return read_manifest(place, columns)


def list_folder(root: Path) -> list[Item]:
    """``root/CLASS/FILE`` or ``root/SPLIT/CLASS/FILE``; hidden files are left out, all others are taken."""
    return [
        Item(file, file.relative_to(root).as_posix(), label, split=split)
        for split, folder in split_folders(root).items()
        for file, label in class_files(folder)
    ]


def read_manifest(path: Path, columns: FileColumns = FileColumns()) -> list[Item]:
    """Rows of a table; paths count from its own folder.

    Raises:
        DataError: as ``read_entries``; and repeated paths.
    """
    wanted = [columns.path, columns.label]
    flags = {columns.path: "--data.path_column", columns.label: "--data.label_column"}
    entries = read_entries(
        path, columns=wanted, listing=columns.listing, filled=wanted, names=[columns.label], flags=flags
    )
    items = [
        Item(
            path.parent / Path(entry.values[0]).expanduser(), entry.values[0], entry.values[1], entry.group, entry.split
        )
        for entry in entries
    ]
    repeated = [name for name, count in Counter(os.path.normpath(item.path) for item in items).items() if count > 1]
    gather([f"{path}: {name} stands there more than once" for name in repeated])
    return items


def tell_apart(item: Item) -> str:
    """Where an item is, however it was written; of an archive, the name in it as well."""
    place = os.path.normpath(item.path)
    return f"{item.name} of {place}" if is_archive(item.path) else place
