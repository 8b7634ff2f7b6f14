"""What both tasks share: labelled files of one kind, split by group, with bad ones named and left out."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy
from numpy.typing import NDArray

from domains.video import sample
from domains.video.badfiles import BadFiles
from domains.video.cache import cache_root
from domains.video.inputs import list_inputs
from domains.video.listing import FileColumns, Item, list_items, tell_apart
from domains.video.notes import report_notes
from suite import run_folder
from suite.classification import NO_LABEL, count_labels, encode_labels, label_assets
from suite.data import Examples, SuiteDataModule
from suite.effects import Declared, a_table, held_out_share, is_set, one_of
from suite.errors import UsageError
from suite.file_digests import file_digests
from suite.fingerprints import Fingerprint, digest_texts
from suite.sources import is_table
from suite.splits import Division, Splits, check_sources
from suite.vocabulary import Labels


class Reading(NamedTuple):
    """What stands in each of some files, ``None`` in one that cannot be read.

    ``problems`` has the reasons and ``notes`` what is unusual, both by the place of the file.
    """

    contents: list[Any]
    problems: dict[int, str]
    notes: dict[int, list[str]]


PIXELS = 500  # training files whose middle frame tells mean and deviation of pixels


class LabelledFiles(SuiteDataModule):
    """Files with one label each.

    A subclass says which files its named datasets have (``list_files``) and reads them (``read``).
    """

    compares_sources: ClassVar[bool] = False  # to evaluate some files, the training files need not be decoded
    own_settings: ClassVar[frozenset[str]] = SuiteDataModule.own_settings | {"augment"}
    kind: ClassVar[str] = "file"
    prediction_usage: ClassVar[str] = "FILE FILE"
    only_with: ClassVar[Declared] = {
        **dict.fromkeys(("path_column", "label_column", "group_column", "split_column"), a_table(is_table)),
        "held_out": held_out_share("sample"),
        "fold": is_set("folds"),
        "sample_size": one_of("dataset", "sample"),
    }

    def __init__(
        self,
        *,
        dataset: str,
        train: str | None,
        val: str | None,
        test: str | None,
        columns: FileColumns,
        held_out: float,
        folds: int | None,
        fold: int,
        size: int,
        max_bad: float,
        cache: str | None,
        batch_size: int | None,
        max_tokens: int | None,
        num_workers: int,
        seed: int,
        assets: dict[str, Any] | None,
    ) -> None:
        super().__init__(
            batch_size=batch_size, max_tokens=max_tokens, num_workers=num_workers, seed=seed, assets=assets
        )
        self.paths = {"train": train, "val": val, "test": test}
        form = "a folder with one for each class, or a table"
        delimiter = columns.listing.delimiter
        check_sources(dataset, self.paths, folds=folds, has_assets=assets is not None, form=form, delimiter=delimiter)
        if size < 8:
            raise UsageError(f"data.size is {size}, allowed is 8 or more pixels")
        if not 0 <= max_bad <= 1:
            raise UsageError(f"data.max_bad is {max_bad}, allowed is 0 to 1")
        self.dataset, self.columns, self.size, self.cache = dataset, columns, size, cache
        self.bad = BadFiles(limit=max_bad)
        self.parts = Splits(
            self._list,
            own=[split for split, path in self.paths.items() if path] if dataset == "files" else ["train"],
            division=Division(held_out, seed, folds, fold),
            name=f"dataset {dataset}",
            key=tell_apart,
        )
        self.predicting = False
        self._read: dict[str, tuple[list[Item], Any]] = {}

    def list_named(self) -> list[Item]:
        """All files of a dataset that has a name, with the splits that are given for them."""
        raise NotImplementedError

    def list_path(self, path: str) -> list[Item]:
        """The files that ``path`` names."""
        return list_items(path, self.columns)

    def _list(self, split: str) -> list[Item]:
        path = self.paths[split]
        if path is None:
            return self.list_named()
        items = self.list_path(path)
        if split == "train":
            return items
        # Another folder may have files of the same names.
        return [item if item.split else item._replace(name=f"{split}/{item.name}") for item in items]

    def read(self, items: Sequence[Item]) -> Reading:
        """What stands in each of ``items``."""
        raise NotImplementedError

    def examples_of(self, items: list[Item], contents: list[Any], labels: list[int], *, training: bool) -> Examples:
        """Examples of items that were read."""
        raise NotImplementedError

    def middle_frames(self, contents: Sequence[Any]) -> NDArray[numpy.uint8]:
        """A frame of each ``(N, S, S, 3)``, for the mean and deviation of pixels."""
        raise NotImplementedError

    @property
    def cache_folder(self) -> Path:
        """Where this domain keeps what it has decoded."""
        return cache_root(self.cache) / "video"

    def where(self, split: str) -> str:
        """What a split is called in messages."""
        return f"{self.paths.get(split) or self.paths['train'] or f'dataset {self.dataset}'}, {split}"

    def items(self, split: str) -> list[Item]:
        """The files of a split, or of all, readable or not.

        Raises:
            UsageError: no such split.
            DataError: nothing there, or it cannot be split as asked.
        """
        return self.parts.items(split)

    def contents(self, split: str) -> tuple[list[Item], list[Any]]:
        """The readable files of a split and what stands in them, read once.

        Raises:
            DataError: more files than allowed cannot be read.
        """
        if split not in self._read:
            items = self.items(split)
            contents, problems, notes = self.read(items)
            where, total = self.where(split), len(items)
            reasons = {items[index].name: reason for index, reason in problems.items()}
            self.bad.report(reasons, total=total, where=where, folder=self.cache_folder)
            report_notes({items[index].name: found for index, found in notes.items()}, total=total, where=where)
            kept = [index for index, content in enumerate(contents) if content is not None]
            self._read[split] = ([items[index] for index in kept], [contents[index] for index in kept])
        return self._read[split]

    def make_assets(self) -> dict[str, Any]:
        for split in ("val", "test"):  # what is wrong with the data is said before there is a run
            self.contents(split)
        items, contents = self.contents("train")
        assets = label_assets([item.label for item in items], where=self.where("train"))
        chosen = numpy.linspace(0, len(items) - 1, min(len(items), PIXELS)).astype(int)
        pixels = self.middle_frames([contents[index] for index in chosen]).reshape(-1, 3) / 255.0
        deviation = numpy.maximum(pixels.std(axis=0), 0.01)
        return {**assets, "mean": pixels.mean(axis=0).tolist(), "deviation": deviation.tolist()}

    def renewed_assets(self) -> dict[str, Any]:
        items, _ = self.contents("train")
        return count_labels((item.label for item in items), Labels.from_state(self.assets["labels"]))

    def load(self, split: str) -> Examples:
        items, contents = self.contents(split)
        names = Labels.from_state(self.assets["labels"])
        labels = encode_labels([item.label for item in items], names, where=self.where(split))
        return self.examples_of(items, contents, labels, training=split == "train")

    @classmethod
    def add_prediction_arguments(cls, parser: Any) -> None:
        parser.add_argument(
            "files",
            nargs="+",
            type=str,
            help="Files, folders, patterns in quotes ('clips/*.mp4'), or tables with a column of paths (.csv, .tsv, "
            ".jsonl, .parquet). One result for each file, in order.",
        )

    def prediction_inputs(self, options: Any, *, processes: int) -> Sequence[Item]:
        """The files that the command line names, directly or by a folder, a pattern or a table.

        Raises:
            DataError: a folder or a pattern without files; a table without its columns.
        """
        return list_inputs(options.files, path_column=self.columns.path, extensions=self.extensions())

    @classmethod
    def extensions(cls) -> frozenset[str]:
        """Extensions, in lower case with their dot, of files that are taken from a folder to predict."""
        raise NotImplementedError

    def load_inputs(self, inputs: Sequence[str | Item]) -> Examples:
        """One example for each file, in order; one that cannot be read is empty, and its result says why."""
        items = [Item(Path(each).expanduser(), each, "") if isinstance(each, str) else each for each in inputs]
        self.predicting = True
        contents, problems, notes = self.read(items)
        report_notes({items[index].name: found for index, found in notes.items()}, total=len(items), where="predict")
        filled = [problems.get(index, content) for index, content in enumerate(contents)]
        return self.examples_of(items, filled, [NO_LABEL] * len(items), training=False)

    def take_fingerprint(self, split: str) -> Fingerprint:
        items, _ = self.contents(split)
        if self.dataset == "sample":  # rendered from these, by an encoder that may write other bytes elsewhere
            made = [repr(("sample", sample.VERSION, self.seed, self.kind, item.name)) for item in items]
        else:
            made = [digest.hex() for digest in self.digests(items)]
        rows = digest_texts((content, item.label) for content, item in zip(made, items, strict=True))
        return Fingerprint(rows, "files", [item.name for item in items])

    def digests(self, items: Sequence[Item]) -> list[bytes]:
        """A digest of the content of each item."""
        return file_digests([item.path for item in items])

    def earlier_fingerprint(self) -> str:
        items, _ = self.contents("train")
        lengths = self.examples("train").lengths.tolist()
        rows = [[item.name, item.label, length] for item, length in zip(items, lengths, strict=True)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def setup(self, stage: str) -> None:
        """Keep the list of bad files in the run's own folder too."""
        root = Path(self.trainer.default_root_dir) if self.trainer else None
        if root is not None and self.bad.reasons and (root / run_folder.CONFIG).is_file():
            self.bad.write(root)
