"""Which files there are, with their labels, groups and splits: folders by class, or a CSV manifest."""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy

from suite.errors import DataError, UsageError, gather
from suite.seeding import mix
from suite.sources import read_lines, read_table

SPLITS = ("train", "val", "test")


class Item(NamedTuple):
    """A file: where it is, what it is called in results, its label, and its group and split where they are given."""

    path: Path
    name: str
    label: str
    group: str | None = None
    split: str | None = None


def list_items(path: str | Path) -> list[Item]:
    """The files that ``path`` names: a folder of classes, a folder of splits of classes, or a CSV manifest.

    Raises:
        DataError: nothing there, no classes, a manifest without its columns, or groups on both sides of a split.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        return list_folder(place)
    if not place.exists():
        raise DataError(f"{place}: no such folder or manifest; --data.path takes a folder with one folder a class, or a "
                        "CSV file with the columns path,label[,group][,split]")  # fmt: skip
    return read_manifest(place)


def list_folder(root: Path) -> list[Item]:
    """``root/CLASS/FILE`` or ``root/SPLIT/CLASS/FILE``; hidden files are left out, all others are taken."""
    present = [name for name in SPLITS if (root / name).is_dir()]
    if "train" not in present:
        return _classes(root, root, None)
    others = [entry.name for entry in root.iterdir() if entry.is_dir() and entry.name not in SPLITS]
    visible = sorted(name for name in others if not name.startswith("."))
    if visible:
        raise DataError(f"{root}: beside train there are {', '.join(visible[:5])}: allowed are train, val and test")
    return [item for name in present for item in _classes(root, root / name, name)]


def _classes(root: Path, folder: Path, split: str | None) -> list[Item]:
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise DataError(f"{folder}: there is no folder in it; one folder a class is needed, with its files inside")
    items, empty = [], []
    for each in classes:
        files = sorted(file for file in each.rglob("*") if file.is_file() and not file.name.startswith("."))
        if not files:
            empty.append(f"{each}: this class has no files")
        items += [Item(file, file.relative_to(root).as_posix(), each.name, split=split) for file in files]
    gather(empty)
    return items


def read_manifest(path: Path) -> list[Item]:
    """Rows of ``path,label[,group][,split]``; paths are relative to the manifest's own folder.

    Raises:
        DataError: as ``read_table``; and empty labels, unknown splits, repeated paths, groups on two sides.
    """
    header = next(csv.reader(read_lines(path)[:1]), [])
    optional = [name for name in ("group", "split") if name in header]
    rows = read_table(path, columns=["path", "label", *optional], format="csv")
    items, problems = [], []
    for number, row in enumerate(rows, start=1):
        values = dict(zip(["path", "label", *optional], row, strict=True))
        where = f"{path}, row {number}"
        for name in ("path", "label", *optional):
            if not values[name]:
                problems.append(f"{where}: {name} is empty")
        split = values.get("split")
        if split and split not in SPLITS:
            problems.append(f"{where}: split is {split!r}, allowed are {', '.join(SPLITS)}")
        file = path.parent / Path(values["path"]).expanduser()
        items.append(Item(file, values["path"], values["label"], values.get("group"), split))
    repeated = [name for name, count in Counter(item.name for item in items).items() if count > 1]
    problems += [f"{path}: {name} stands there more than once" for name in repeated]
    gather(problems)
    check_groups(items, where=str(path))
    return items


def check_groups(items: Iterable[Item], *, where: str) -> None:
    """Refuse a group with files in two splits.

    Raises:
        DataError: naming such groups.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.group is not None and item.split is not None:
            splits[item.group].add(item.split)
    gather(
        [
            f"{where}: group {group!r} is in {' and '.join(sorted(names))}: a group belongs into one split"
            for group, names in sorted(splits.items())
            if len(names) > 1
        ]
    )


def hold_out_items(items: Sequence[Item], *, share: float, seed: int) -> list[Item]:
    """The same items, each with a split: val and test, where nothing is given for them, get ``share`` of train each.

    Whole groups go to one side; each side gets its share of every label, as far as groups allow.

    Raises:
        UsageError: a share that leaves nothing for train.
        DataError: too few groups.
    """
    given = {item.split for item in items}
    missing = [name for name in ("val", "test") if name not in given]
    pool = [index for index, item in enumerate(items) if item.split in (None, "train")]
    if not missing:
        if None in given:
            raise DataError("the manifest has rows for val and test, but others without a split: give all of them one")
        return list(items)
    if not 0 < share * len(missing) < 1:
        raise UsageError(f"data.held_out is {share}, allowed is more than 0 and less than {1 / len(missing):g}")
    shares = {name: share for name in missing} | {"train": 1 - share * len(missing)}
    chosen = deal_groups([items[index] for index in pool], shares=shares, seed=seed)
    result = list(items)
    for index, split in zip(pool, chosen, strict=True):
        result[index] = items[index]._replace(split=split)
    return result


def deal_groups(items: Sequence[Item], *, shares: dict[str, float], seed: int) -> list[str]:
    """A side for each item: groups, large ones first, go where most of what they hold is still wanted.

    An item without a group is a group of its own. Raises DataError for fewer groups than sides.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        members[f"group {item.group}" if item.group is not None else f"item {index}"].append(index)
    if len(members) < len(shares):
        raise DataError(f"{len(members)} group(s) cannot be dealt to {', '.join(shares)}: more are needed, or give splits")
    labels = sorted({item.label for item in items})
    totals = numpy.array([sum(item.label == label for item in items) for label in labels], dtype=float)
    sides = list(shares)
    wanted = numpy.outer([shares[side] for side in sides], totals)
    drawn = {name: mix("deal", seed, name) for name in members}
    result = [""] * len(items)
    left = len(members)
    for name in sorted(members, key=lambda each: (-len(members[each]), drawn[each])):
        counts = numpy.array([sum(items[index].label == label for index in members[name]) for label in labels])
        unfilled = [place for place, side in enumerate(sides) if side not in result]
        choice = unfilled if left <= len(unfilled) else range(len(sides))
        side = max(choice, key=lambda place: float((counts * wanted[place] / totals).sum() / shares[sides[place]]))
        wanted[side] -= counts
        left -= 1
        for index in members[name]:
            result[index] = sides[side]
    return result
