"""Which files there are, with their labels, groups and splits: folders by class, or a manifest."""

import difflib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from domains.video.archives import is_archive
from suite.errors import DataError, gather
from suite.folders import class_files, split_folders
from suite.labels import clean_name
from suite.listing import ListingColumns, read_entries


class Item(NamedTuple):
    """A file: where it is, what it is called in results, its label, and its group and split where they are given.

    ``member`` is the file in an archive, which ``name`` may lead to by links. ``row_id`` is what a table to predict
    calls it.
    """

    path: Path
    name: str
    label: str
    group: str | None = None
    split: str | None = None
    member: str | None = None
    row_id: str | None = None


@dataclass(frozen=True)
class FileColumns:
    """Columns of tables: the path, the label, those of group and split."""

    path: str = "path"
    label: str = "label"
    listing: ListingColumns = field(default_factory=ListingColumns)


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
        near = difflib.get_close_matches(place.name, os.listdir(place.parent) if place.parent.is_dir() else [], n=3)
        hint = f" (near names there: {', '.join(near)})" if near else ""
        raise DataError(
            f"{place}: no such folder or table{hint}; --data.train, val and test take a folder with a folder for each "
            f"class, or a table with the columns {columns.path},{columns.label}[,group][,split]"
        )
    if is_archive(place):
        raise DataError(f"{place}: archives are read for pictures only; unpack it, and name the folder")
    return read_manifest(place, columns)


def list_folder(root: Path) -> list[Item]:
    """``root/CLASS/FILE`` or ``root/SPLIT/CLASS/FILE``; hidden files are left out, all others are taken.

    Raises:
        DataError: a file that links put into two classes.
    """
    items = [
        Item(file, file.relative_to(root).as_posix(), label, split=split)
        for split, folder in split_folders(root).items()
        for file, label in class_files(folder)
    ]
    refuse_two_labels(root, items)
    return with_shared_groups(items)


def read_manifest(path: Path, columns: FileColumns = FileColumns()) -> list[Item]:
    """Rows of a table; paths count from its own folder.

    Raises:
        DataError: as ``read_entries``; repeated paths; a file with two labels.
    """
    wanted = [columns.path, columns.label]
    flags = {columns.path: "--data.path_column", columns.label: "--data.label_column"}
    entries = read_entries(
        path, columns=wanted, listing=columns.listing, filled=wanted, names=[columns.label], flags=flags
    )
    items = [
        Item(
            path.parent / Path(entry.values[0]).expanduser(),
            entry.values[0],
            clean_name(entry.values[1]),
            entry.group,
            entry.split,
        )
        for entry in entries
    ]
    refuse_two_labels(path, items)
    repeated = [name for name, count in Counter(os.path.normpath(item.path) for item in items).items() if count > 1]
    gather([f"{path}: {name} is listed more than once" for name in repeated])
    return with_shared_groups(items)


def refuse_two_labels(where: Path, items: Sequence[Item]) -> None:
    """Refuse a file that has two labels, under one name or under several.

    Raises:
        DataError: which labels, and where.
    """
    first: dict[str, Item] = {}
    problems = []
    for item in items:
        other = first.setdefault(tell_apart(item), item)
        if other.label != item.label:
            names = item.name if item.name == other.name else f"{other.name} ({item.name} is the same file)"
            problems.append(f"{where}: {names} is listed more than once, as {other.label!r} and as {item.label!r}")
    gather(problems)


def with_shared_groups(items: list[Item]) -> list[Item]:
    """Items of which those that are one file by links have a group together, so that no split holds another's file."""
    places = [tell_apart(item) for item in items]
    counts = Counter(places)
    return [
        item._replace(group=f"file {place}") if counts[place] > 1 and item.group is None else item
        for item, place in zip(items, places, strict=True)
    ]


def tell_apart(item: Item) -> str:
    """Where an item is, however it was written and whatever links lead there; of an archive, the name in it as well."""
    if item.member is not None or is_archive(item.path):
        return f"{item.member or item.name} of {os.path.normpath(item.path)}"
    place = os.path.join(_real_folder(os.path.dirname(item.path)), os.path.basename(item.path))
    return os.path.realpath(place) if os.path.islink(place) else place


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)
