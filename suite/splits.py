"""The splits of a data set: as its items are given, held out of the training items, or those of a fold."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from suite.console import notice_once
from suite.errors import DataError, UsageError, gather
from suite.folds import Indices, fold_parts, hold_out_parts, refuse_shared_groups, whole_groups
from suite.labels import clean_name
from suite.tables import check_delimiter, has_delimiter

SPLITS = ("train", "val", "test")
_SPELLINGS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "tst"),
}
_MEANT = {spelling: split for split, spellings in _SPELLINGS.items() for spelling in spellings}
ALL = "all"
"""What ``--data.split`` takes for all of them together."""


def split_of(name: str) -> str | None:
    """The split that a column or folder means by ``name``, which may have a usual other spelling; else ``None``."""
    return _MEANT.get(clean_name(name).casefold())


class Divisible(Protocol):
    """An item: what it is stratified by, its ``group`` and its ``split`` where they are given."""

    @property
    def label(self) -> str: ...

    @property
    def group(self) -> str | None: ...

    @property
    def split(self) -> str | None: ...


Item = TypeVar("Item", bound=Divisible)


@dataclass(frozen=True)
class Division:
    """How items are divided where they are not yet.

    Args:
        held_out: share of the training items for each of val and test that is not given, about the same of each label.
        seed: decides which.
        folds: deal all items out to so many folds ...
        fold: ... of which this one, from 0, is test, and ``held_out`` of the others val.
        equally: hold out the same number of each label instead.
    """

    held_out: float
    seed: int
    folds: int | None = None
    fold: int = 0
    equally: bool = False


class Splits(Generic[Item]):
    """Splits that are read when they are asked for, once.

    Args:
        read: the items of a name of ``own``. Those of train may be of other splits as well; then they say so.
        own: ``train``, and the splits that are given by themselves.
        division: of the rest.
        name: of the data set, in messages.
        key: tells an item from others; none may be in two splits.
    """

    def __init__(
        self,
        read: Callable[[str], Sequence[Item]],
        *,
        own: Collection[str],
        division: Division,
        name: str,
        key: Callable[[Item], Hashable] | None = None,
    ) -> None:
        self.read, self.own, self.division, self.name, self.key = read, own, division, name, key
        self._items: dict[str, list[Item]] = {}

    def items(self, split: str) -> list[Item]:
        """The items of a split, or of all.

        Raises:
            UsageError: no such split, or nothing to take it from.
            DataError: items that cannot be read or divided; a group or an item in two splits.
        """
        if split == ALL:
            names = SPLITS if "train" in self.own else self.own
            return [item for name in names for item in self.items(name)]
        if split not in SPLITS:
            raise UsageError(f"--data.split {split}: {self.name} has {', '.join(SPLITS)}, {ALL}")
        if split not in self._items:
            if split in self.own and split != "train" and self.division.folds is None:
                self._items[split] = self._placed(split)
            else:
                self._items |= divide(self._training(), self.division, others=[*{*self.own} - {"train"}])
            self._check_apart()
        return self._items[split]

    def _training(self) -> Sequence[Item]:
        if "train" not in self.own:
            raise UsageError("data.train is needed: what is missing is taken from it")
        items = self.read("train")
        if self.division.folds is not None and any(item.split is not None for item in items):
            notice_once(f"data: {self.name}: the splits that items have are ignored, as folds are made of all items")
        return items

    def _placed(self, split: str) -> list[Item]:
        items = list(self.read(split))
        others = sorted({item.split for item in items if item.split is not None} - {split})
        if others:
            raise DataError(f"data.{split} has items of {', '.join(others)}: give it as data.train, or leave those out")
        return items

    def _check_apart(self) -> None:
        refuse_shared_groups(_groups(self._items), where=self.name)
        if self.key is None:
            return
        places: dict[Hashable, str] = {}
        problems = []
        for split, items in self._items.items():
            for item in items:
                other = places.setdefault(self.key(item), split)
                if other != split:
                    problems.append(f"{self.key(item)} is in {other} and {split}: it belongs into one split")
        gather(problems)


def check_sources(
    dataset: str,
    paths: Mapping[str, Sequence[str] | str | None],
    *,
    folds: int | None,
    has_assets: bool,
    form: str,
    delimiter: str | None = None,
) -> None:
    """Whether ``--data.dataset`` and the files that are given for splits go together.

    Args:
        dataset: by name, or ``files``.
        paths: of each split; ``None`` without.
        folds: how many, if any.
        has_assets: a checkpoint has been trained: there may be nothing to train on.
        form: what ``--data.train`` takes, in words.
        delimiter: of the tables, if it is given.

    Raises:
        UsageError: they do not; or the delimiter is none, or of no use for the files.
    """
    if dataset != "files" and any(paths.values()):
        raise UsageError(f"data.train, val and test need --data.dataset files, not {dataset}")
    if dataset == "files" and not paths["train"] and not has_assets:
        raise UsageError(f"--data.dataset files needs --data.train: {form}")
    if folds is not None and (paths["val"] or paths["test"]):
        raise UsageError("data.folds cuts data.train: leave data.val and data.test out")
    if check_delimiter(delimiter) is not None and not has_assets:  # with assets it may be for files to predict
        files = [file for given in paths.values() if given for file in ([given] if isinstance(given, str) else given)]
        if not any(map(has_delimiter, files)):
            raise UsageError("data.delimiter is for .csv and .tsv files, and no split is one: leave it out")


def divide(items: Sequence[Item], division: Division, *, others: Collection[str] = ()) -> dict[str, list[Item]]:
    """Items by split, but for the ``others``, which have items of their own elsewhere.

    Val and test, where no item is of them, get ``held_out`` of those of train or of no split: stratified by label,
    groups whole. Folds are made of all items, whatever splits they have. Without any item to train on, those of val
    and test are there to be evaluated.

    Raises:
        UsageError: a share that leaves nothing for training; a fold that there is not.
        DataError: too few items or groups; some without a split where val and test are given; a split given twice.
    """
    if division.folds is not None:
        parts = fold_parts(
            [item.label for item in items],
            folds=division.folds,
            fold=division.fold,
            seed=division.seed,
            held_out=division.held_out,
            groups=_whole(items),
        )
        return {split: _chosen(items, part) for split, part in zip(SPLITS, parts, strict=True)}
    given = {item.split for item in items}
    twice = sorted(name for name in others if name in given)
    if twice:
        raise DataError(f"data.{twice[0]} is given, and data.train has items of {twice[0]} too: leave one of them out")
    found = {split: [item for item in items if item.split == split] for split in SPLITS if split not in others}
    if given <= {"val", "test"}:
        return found
    missing = [name for name in ("val", "test") if name not in given and name not in others]
    if not missing and None in given and given & {"val", "test"}:
        raise DataError("some items have a split and others none, though there are val and test: give all of them one")
    pool = [item for item in items if item.split in ("train", None)]
    parts = hold_out_parts(
        [item.label for item in pool],
        missing=missing,
        held_out=division.held_out,
        seed=division.seed,
        groups=_whole(pool),
        equally=division.equally,
    )
    for split in ("train", *missing):
        found[split] = _chosen(pool, getattr(parts, split))
    refuse_shared_groups(_groups(found), where="held out of the training items")  # some of a group may have had one
    return found


def _chosen(items: Sequence[Item], indices: Indices) -> list[Item]:
    return [items[index] for index in indices.tolist()]


def _whole(items: Sequence[Item]) -> list[str] | None:
    return whole_groups([item.group for item in items], own=[f"item {number}" for number in range(len(items))])


def _groups(splits: Mapping[str, Sequence[Item]]) -> dict[str, list[str | None]]:
    return {split: [item.group for item in items] for split, items in splits.items()}
