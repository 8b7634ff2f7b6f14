"""Labelled texts of every origin, cut into splits: the sample, named sets, tables and folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from domains.text import corpora, sample
from suite.errors import DataError, UsageError, gather
from suite.folders import class_files
from suite.folds import Indices, fold_parts, hold_out, hold_out_equally, refuse_shared_groups, whole_groups
from suite.sources import read_lines, read_table

DatasetName = Literal["sample", "sst2", "ag_news", "mr", "subj", "cr", "files"]
SPLITS = ("train", "val", "test")


class Row(NamedTuple):
    """A text, its label, and the group that it belongs to (itself, where nothing is said)."""

    text: str
    label: str
    group: str | None = None


@dataclass(frozen=True)
class Files:
    """Files of one's own: a path for each split that there is, and the names of columns in tables."""

    paths: dict[str, str | None]
    text_columns: Sequence[str]
    label_column: str
    group_column: str | None

    def read(self, split: str) -> list[Row]:
        """The rows of a split.

        Raises:
            DataError: what is wrong with a file or folder.
        """
        path = self.paths[split]
        assert path is not None
        if Path(path).is_dir():
            if self.group_column is not None:
                raise UsageError(f"data.group_column is for tables, and {path} is a folder: leave it out")
            found = class_files(path, endings=(".txt", ".txt.gz"))
            if {"train"} <= {label for _, label in found} <= set(SPLITS):
                raise DataError(
                    f"{path}: has a folder train, which would be a class: give the folders of classes inside, "
                    f"--data.train {Path(path) / 'train'} and --data.test likewise"
                )
            return [Row("\n".join(read_lines(file)) if file.stat().st_size else "", label) for file, label in found]
        columns = [*self.text_columns, self.label_column, *([self.group_column] if self.group_column else [])]
        count = len(self.text_columns)
        rows = read_table(path, columns=columns)
        empty = [number for number, row in enumerate(rows, start=1) if not row[count].strip()]
        gather([f"{path}, row {number}: {self.label_column} is empty" for number in empty])
        return [Row(" ".join(row[:count]), row[count], row[count + 1] if self.group_column else None) for row in rows]


class RowReader:
    """Splits of a data set by name.

    Args:
        dataset: which.
        files: with ``files``, where.
        sample_size: reviews of the sample in training.
        held_out: share of the training rows for each split that the set has not got.
        folds: cut the training rows into so many folds ...
        fold: ... and hold this one out as test.
        seed: decides what is held out.
    """

    def __init__(
        self,
        dataset: DatasetName,
        *,
        files: Files,
        sample_size: int | None,
        held_out: float,
        folds: int | None,
        fold: int,
        seed: int,
    ) -> None:
        self.dataset, self.files, self.sample_size, self.held_out = dataset, files, sample_size, held_out
        self.folds, self.fold, self.seed = folds, fold, seed
        self._rows: dict[str, list[Row]] = {}

    def rows(self, split: str) -> list[Row]:
        """The rows of a split, read once.

        Raises:
            UsageError: no such split.
            DataError: a file that cannot be read, or rows that cannot be split.
        """
        if split not in SPLITS:
            raise UsageError(f"--data.split {split}: dataset {self.dataset} has {', '.join(SPLITS)}")
        if split not in self._rows:
            whole = self._whole(split)
            if whole is None or split == "train" or self.folds is not None:
                self._cut()
            else:
                self._rows[split] = whole
            groups = {name: [row.group for row in rows] for name, rows in self._rows.items()}
            refuse_shared_groups(groups, where="the splits read so far")
        return self._rows[split]

    def _whole(self, split: str) -> list[Row] | None:
        """The rows of a split as the set has it; ``None`` without."""
        if self.dataset == "sample":
            return [Row(*pair) for pair in sample.generate(split, size=self.sample_size if split == "train" else None)]
        if self.dataset == "files":
            return self.files.read(split) if self.files.paths[split] else None
        found = corpora.labelled(self.dataset, split)
        return None if found is None else [Row(*pair) for pair in found]

    def _cut(self) -> None:
        """Take what is missing, or the splits of a fold, from the training rows."""
        rows = self._whole("train")
        if rows is None:
            raise DataError("data.train is needed: what is missing is taken from it")
        if self.folds is not None:
            self._cut_fold(rows)
            return
        missing = [split for split in ("val", "test") if not self._has(split)]
        for place, split in enumerate(missing):
            fraction = self.held_out / (1.0 - place * self.held_out)
            kept, held = self._hold_out(rows, fraction=fraction)
            self._rows[split] = _chosen(rows, held)
            rows = _chosen(rows, kept)
        self._rows["train"] = rows

    def _has(self, split: str) -> bool:
        if self.dataset == "files":
            return self.files.paths[split] is not None
        return self.dataset in ("sample", "sst2") or (self.dataset == "ag_news" and split == "test")

    def _hold_out(self, rows: list[Row], *, fraction: float) -> tuple[Indices, Indices]:
        labels = [row.label for row in rows]
        if self.dataset == "ag_news":  # its test split is balanced, and its training subset is not
            return hold_out_equally(labels, fraction=fraction, seed=self.seed)
        return hold_out(labels, fraction=fraction, seed=self.seed, groups=_groups(rows))

    def _cut_fold(self, rows: list[Row]) -> None:
        assert self.folds is not None
        parts = fold_parts(
            [row.label for row in rows],
            folds=self.folds,
            fold=self.fold,
            seed=self.seed,
            held_out=self.held_out,
            groups=_groups(rows),
        )
        self._rows = {split: _chosen(rows, part) for split, part in zip(SPLITS, parts, strict=True)}


def _groups(rows: Sequence[Row]) -> list[str] | None:
    return whole_groups([row.group for row in rows], own=[f"row {number}" for number in range(len(rows))])


def _chosen(rows: Sequence[Row], indices: Indices) -> list[Row]:
    return [rows[index] for index in indices.tolist()]
