"""Recordings of a split, from the embedded sample, a named set or files of one's own."""

from typing import Any, NamedTuple

from domains.audio.recordings import (
    NAMED,
    Item,
    Recording,
    check_choice,
    choose,
    cut_fold,
    divide,
    open_all,
    own,
    paths_of,
    sample_notes,
)
from suite.console import notice
from suite.errors import DataError, UsageError

SPLITS = ("train", "val", "test")


class Files(NamedTuple):
    """Where own files are, by split (``None`` without), and the columns of their manifests."""

    paths: dict[str, str | None]
    conditions: list[str]
    path_column: str
    split_column: str | None
    group_column: str | None

    def read(self, split: str) -> dict[str, list[Item]]:
        """The items that ``split`` names, by the split that its folders or manifest say; ``""`` where they do not."""
        path = self.paths[split]
        assert path is not None
        return own(
            path,
            conditions=self.conditions,
            path_column=self.path_column,
            split_column=self.split_column,
            group_column=self.group_column,
        )


class Choice(NamedTuple):
    """Which files are taken: those with the values ``only``, none with ``leave_out``, ``most`` of each combination."""

    only: dict[str, str]
    leave_out: dict[str, str]
    most: int | None


class Division(NamedTuple):
    """How files are divided where they are not yet: a share held out, or a fold."""

    held_out: float
    folds: int | None
    fold: int
    seed: int


class RecordingReader:
    """Splits of a data set by name.

    Args:
        dataset: which.
        files: with ``files``, where.
        choice: which of them.
        division: what is held out.
        sample_rate: hertz.
        sample_minutes: minutes of training notes in the embedded sample.
    """

    def __init__(
        self,
        dataset: str,
        *,
        files: Files,
        choice: Choice,
        division: Division,
        sample_rate: int,
        sample_minutes: float,
    ) -> None:
        self.dataset, self.files, self.choice, self.division = dataset, files, choice, division
        self.sample_rate, self.sample_minutes = sample_rate, sample_minutes
        self._items: dict[str, list[Item]] | None = None
        self._recordings: dict[str, list[Recording]] = {}

    def recordings(self, split: str) -> list[Recording]:
        """The recordings of a split, opened once.

        Raises:
            UsageError: no such split.
            DataError: files that cannot be read.
        """
        if split not in SPLITS:
            raise UsageError(f"--data.split {split}: dataset {self.dataset} has {', '.join(SPLITS)}")
        if split not in self._recordings:
            if self.dataset != "sample":
                self._recordings[split] = self._open(split)
            elif self.division.folds is None:
                self._recordings[split] = sample_notes(split, minutes=self.sample_minutes)
            else:
                self._recordings = self._cut(sample_notes("train", minutes=self.sample_minutes))
        return self._recordings[split]

    def _open(self, split: str) -> list[Recording]:
        items = self._all_items()
        only, leave_out, most = self.choice
        check_choice([item for part in items.values() for item in part], [*only.items(), *leave_out.items()])
        chosen = choose(items[split], only=only, leave_out=leave_out, most=most if split == "train" else None)
        if not chosen:
            raise DataError(f"the {split} split has no files left after data.only and data.leave_out")
        recordings = open_all(chosen, rate=self.sample_rate, split=split)
        shared = paths_of(chosen) & paths_of(items["train"]) if split != "train" else set()
        if shared:
            notice(
                f"data: {len(shared)} file(s) of the {split} split (first {min(shared)}) are in the training split too"
            )
        return recordings

    def _all_items(self) -> dict[str, list[Item]]:
        """The items of all splits, listed once."""
        if self._items is None:
            if self.dataset != "files":
                found = {name: NAMED[self.dataset][0](name) for name in SPLITS}
                together = [item for part in found.values() for item in part]
                self._items = found if self.division.folds is None else self._cut(together)
            elif self.division.folds is not None:
                self._items = self._cut([item for part in self.files.read("train").values() for item in part])
            else:
                self._items = self._divided()
        return self._items

    def _divided(self) -> dict[str, list[Item]]:
        found: dict[str, list[Item]] = {}
        for name, path in self.files.paths.items():
            if path is not None:
                parts = self.files.read(name)
                found.update(parts if name == "train" else {name: [item for part in parts.values() for item in part]})
        return divide(found, held_out=self.division.held_out, seed=self.division.seed)

    def _cut(self, items: list[Any]) -> dict[str, list[Any]]:
        held_out, folds, fold, seed = self.division
        assert folds is not None
        return cut_fold(items, folds=folds, fold=fold, held_out=held_out, seed=seed)
