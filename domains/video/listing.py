"""Which files there are, with their labels, groups and splits: folders by class, or a manifest."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from suite.errors import DataError, UsageError, gather
from suite.folders import is_hidden
from suite.folds import fold_parts, hold_out, refuse_shared_groups, whole_groups
from suite.sources import columns_of, read_table

SPLITS = ("train", "val", "test")
_ARCHIVES = (".tar", ".tar.gz", ".tgz")


class Item(NamedTuple):
    """A file: where it is, what it is called in results, its label, and its group and split where they are given."""

    path: Path
    name: str
    label: str
    group: str | None = None
    split: str | None = None


def is_archive(path: Path) -> bool:
    """Whether ``path`` is called like a tar archive."""
    return path.name.endswith(_ARCHIVES)


def list_items(path: str | Path) -> list[Item]:
    """The files that ``path`` names: a folder of classes, a folder of splits of classes, or a manifest.

    Raises:
        DataError: nothing there, no classes, a manifest without its columns, or groups on both sides of a split.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        return list_folder(place)
    if not place.exists():
        raise DataError(
            f"{place}: no such folder or table; --data.train, val and test take a folder with one folder a class, or a "
            "table with the columns path,label[,group][,split]"
        )
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
        files = sorted(file for file in each.rglob("*") if file.is_file() and not is_hidden(file, each))
        if not files:
            empty.append(f"{each}: this class has no files")
        items += [Item(file, file.relative_to(root).as_posix(), each.name, split=split) for file in files]
    gather(empty)
    return items


def read_manifest(path: Path) -> list[Item]:
    """Rows of a table with the columns path, label and perhaps group and split; paths count from its own folder.

    Raises:
        DataError: as ``read_table``; and empty labels, unknown splits, repeated paths, groups on two sides.
    """
    present = columns_of(path)
    optional = [name for name in ("group", "split") if name in present]
    rows = read_table(path, columns=["path", "label", *optional])
    items, problems = [], []
    for number, row in enumerate(rows, start=1):
        values = dict(zip(["path", "label", *optional], row, strict=True))
        where = f"{path}, row {number}"
        for name in ("path", "label"):
            if not values[name]:
                problems.append(f"{where}: {name} is empty")
        split = values.get("split")
        if split and split not in SPLITS:
            problems.append(f"{where}: split is {split!r}, allowed are {', '.join(SPLITS)}")
        file = path.parent / Path(values["path"]).expanduser()
        items.append(Item(file, values["path"], values["label"], values.get("group") or None, split or None))
    repeated = [name for name, count in Counter(os.path.normpath(item.path) for item in items).items() if count > 1]
    problems += [f"{path}: {name} stands there more than once" for name in repeated]
    gather(problems)
    _check_groups(items, where=str(path))
    return items


def place_items(items: Sequence[Item], split: str, *, where: str) -> list[Item]:
    """All of ``items`` in ``split``, whose name their own names then begin with: another folder may have them too.

    Raises:
        DataError: some are said to be of another split.
    """
    others = sorted({item.split for item in items if item.split is not None} - {split})
    if others:
        raise DataError(f"{where}: given as data.{split}, and has files of {', '.join(others)}: give it as data.train")
    return [item._replace(split=split, name=_beginning_with(split, item)) for item in items]


def _beginning_with(split: str, item: Item) -> str:
    return item.name if item.split == split else f"{split}/{item.name}"


def check_apart(splits: Iterable[Sequence[Item]]) -> None:
    """Refuse a group, or a file, on both sides of a split.

    Raises:
        DataError: which.
    """
    items = [item for part in splits for item in part]
    _check_groups(items, where="the given splits")
    where: dict[tuple[str, str], str | None] = {}
    for item in items:
        # Of an archive, the name in it tells its files apart.
        key = (os.path.normpath(item.path), item.name if is_archive(item.path) else "")
        if where.setdefault(key, item.split) != item.split:
            raise DataError(f"{item.path} is in {where[key]} and {item.split}: a file belongs into one split")


def _check_groups(items: Iterable[Item], *, where: str) -> None:
    splits: dict[str, list[str | None]] = defaultdict(list)
    for item in items:
        if item.split is not None:
            splits[item.split].append(item.group)
    refuse_shared_groups(splits, where=where)


def split_items(items: Sequence[Item], *, held_out: float, seed: int, others: Sequence[str] = ()) -> list[Item]:
    """The same items, each with a split: val and test, where none is given for them, get ``held_out`` of train each.

    Stratified by label; whole groups go to one side. ``others`` are splits with files of their own elsewhere.

    Raises:
        UsageError: a share that leaves nothing for train.
        DataError: too few examples or groups, or some rows without a split where val and test are given; or a split
            that is given twice.
    """
    given = {item.split for item in items}
    twice = sorted(given & set(others), key=str)
    if twice:
        raise DataError(f"data.{twice[0]} is given, and data.train has files of {twice[0]} too: leave one of them out")
    if given <= {"val", "test"}:  # nothing to train on: something is to be evaluated
        return list(items)
    missing = [name for name in ("test", "val") if name not in given and name not in others]
    if not missing:
        if None in given and given & {"val", "test"}:
            raise DataError("some files have a split and others none, though there are val and test: give all one")
        return [item._replace(split=item.split or "train") for item in items]
    if not 0 < held_out * len(missing) < 1:
        raise UsageError(f"data.held_out is {held_out}, allowed is more than 0 and less than {1 / len(missing):g}")
    result = [item if item.split in ("val", "test") else item._replace(split="train") for item in items]
    left = 1.0
    for name in missing:
        pool = [index for index, item in enumerate(result) if item.split == "train"]
        chosen = [result[index] for index in pool]
        labels = [item.label for item in chosen]
        _, held = hold_out(labels, fraction=held_out / left, seed=seed, groups=_groups_of(chosen), key=name)
        left -= held_out
        for place in held.tolist():
            result[pool[place]] = result[pool[place]]._replace(split=name)
    _check_groups(result, where="held out of the files without a split")  # of a group only some may have had one
    return result


def fold_items(items: Sequence[Item], *, folds: int, fold: int, held_out: float, seed: int) -> list[Item]:
    """The same items split for one fold of a cross-validation: its own are test, ``held_out`` of the others val."""
    labels = [item.label for item in items]
    parts = fold_parts(labels, folds=folds, fold=fold, seed=seed, held_out=held_out, groups=_groups_of(items))
    names = {index: name for name, part in zip(parts._fields, parts, strict=True) for index in part.tolist()}
    return [item._replace(split=names[index]) for index, item in enumerate(items)]


def _groups_of(items: Sequence[Item]) -> list[str] | None:
    return whole_groups([item.group for item in items], own=[f"file {item.name}" for item in items])
