"""Which texts there are, with their labels, groups and splits: the sample, named sets, tables and folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from domains.text import corpora, sample
from suite.console import notice_once
from suite.errors import DataError, gather
from suite.folders import class_files, split_folders
from suite.labels import clean_names
from suite.listing import Entry, ListingColumns, read_entries
from suite.sources import read_lines
from suite.splits import SPLITS

DatasetName = Literal["sample", "sst2", "ag_news", "mr", "subj", "cr", "files"]


class Item(NamedTuple):
    """A text, its label, and its group and split where they are given."""

    text: str
    label: str
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class TextColumns:
    """Columns of tables: those that make up a text, that of the label, those of group and split."""

    texts: Sequence[str]
    label: str
    listing: ListingColumns

    @property
    def flags(self) -> dict[str, str]:
        """For each column the flag that names it."""
        return {**dict.fromkeys(self.texts, "--data.text_columns"), self.label: "--data.label_column"}


def named_splits(dataset: DatasetName) -> tuple[str, ...]:
    """The splits that a named set has of its own."""
    return {"sample": SPLITS, "sst2": SPLITS, "ag_news": ("train", "test")}.get(dataset, ("train",))


def list_named(dataset: DatasetName, split: str, *, sample_size: int | None) -> list[Item]:
    """The texts of one of the ``named_splits``; ``sample_size`` is that of the sample's training split.

    Raises:
        DataError: a file that is missing or damaged.
    """
    if dataset == "sample":
        return [Item(*pair) for pair in sample.generate(split, size=sample_size if split == "train" else None)]
    assert dataset != "files", "those have paths"
    return [Item(*pair) for pair in corpora.labelled(dataset, split) or []]


def list_items(path: str | Path, columns: TextColumns) -> list[Item]:
    """The texts of a table, of a folder of classes, or of a folder of splits of classes.

    Raises:
        UsageError: columns named for a folder.
        DataError: what is wrong with a file or folder, of several files at once.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        columns.listing.refuse_for(place)
        items = [item for split, folder in split_folders(place).items() for item in _list_folder(folder, split)]
        labels = clean_names((item.label for item in items), where=f"{place}, folders of classes")
        return [item._replace(label=label) for item, label in zip(items, labels, strict=True)]
    count, label = len(columns.texts), [columns.label]
    entries = read_entries(
        place,
        columns=[*columns.texts, columns.label],
        listing=columns.listing,
        filled=label,
        names=label,
        flags=columns.flags,
    )
    if count > 1:
        _report_parts(place, columns.texts, entries)
    return [Item(" ".join(entry.values[:count]), entry.values[count], entry.group, entry.split) for entry in entries]


def _report_parts(path: Path, columns: Sequence[str], entries: Sequence[Entry]) -> None:
    """Report in how many rows each of several columns of a text is empty."""
    empty = [sum(not entry.values[place].strip() for entry in entries) for place in range(len(columns))]
    parts = [f"{name!r} in {count}" for name, count in zip(columns, empty, strict=True) if count]
    if parts:
        notice_once(f"data: {path}: parts of texts are empty: {', '.join(parts)} of {len(entries)} rows")


def _list_folder(folder: Path, split: str | None) -> list[Item]:
    items, problems = [], []
    for file, label in class_files(folder, endings=(".txt", ".txt.gz")):
        try:
            text = "\n".join(read_lines(file)) if file.stat().st_size else ""
            items.append(Item(text, label, split=split))
        except DataError as error:
            problems.append(str(error))
    gather(problems)
    return items
