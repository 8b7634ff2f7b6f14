"""What both tasks share: labelled files of one kind, split by group, with bad ones named and left out."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy
from numpy.typing import NDArray

from domains.video.badfiles import BadFiles
from domains.video.cache import cache_root
from domains.video.listing import SPLITS, Item, check_apart, fold_items, list_items, place_items, split_items
from suite import run_folder
from suite.classification import NO_LABEL, count_labels, encode_labels, label_assets
from suite.data import Examples, SuiteDataModule
from suite.errors import UsageError
from suite.vocabulary import Labels

ALL = "all"
PIXELS = 500  # training files whose middle frame tells mean and deviation of pixels


class LabelledFiles(SuiteDataModule):
    """Files with one label each.

    A subclass says which files its named datasets have (``list_files``) and reads them (``read``).
    """

    own_settings: ClassVar[frozenset[str]] = SuiteDataModule.own_settings | {"augment"}
    kind: ClassVar[str] = "file"
    prediction_usage: ClassVar[str] = "FILE FILE"

    def __init__(
        self,
        *,
        dataset: str,
        train: str | None,
        val: str | None,
        test: str | None,
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
        if dataset != "files" and any(self.paths.values()):
            raise UsageError(f"data.train, val and test need --data.dataset files, not {dataset}")
        if dataset == "files" and not train and assets is None:
            raise UsageError("--data.dataset files needs --data.train: a folder with one for each class, or a table")
        if folds is not None and (val or test):
            raise UsageError("data.folds cuts data.train: leave data.val and data.test out")
        if size < 8:
            raise UsageError(f"data.size is {size}, allowed is 8 or more pixels")
        if not 0 <= max_bad <= 1:
            raise UsageError(f"data.max_bad is {max_bad}, allowed is 0 to 1")
        if folds is not None and folds < 2:
            raise UsageError(f"data.folds is {folds}, allowed is 2 or more")
        self.dataset, self.held_out, self.size = dataset, held_out, size
        self.folds, self.fold, self.cache = folds, fold, cache
        self.bad = BadFiles(limit=max_bad)
        self._items: dict[str, list[Item]] = {}
        self._read: dict[str, tuple[list[Item], Any]] = {}

    def list_files(self) -> list[Item]:
        """All files of the dataset, or of ``train``, with the splits that are given for them."""
        if not self.paths["train"]:
            raise UsageError("data.train is needed: what is missing is taken from it")
        return self.list_path(self.paths["train"])

    def list_path(self, path: str) -> list[Item]:
        """The files that ``path`` names."""
        return list_items(path)

    def read(self, items: Sequence[Item]) -> tuple[list[Any], dict[str, str]]:
        """What stands in each of ``items``, ``None`` where it cannot be read; and the reasons by name."""
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

    @property
    def splits(self) -> list[str]:
        """What ``--data.split`` may name."""
        return [*SPLITS, ALL]

    def where(self, split: str) -> str:
        """What a split is called in messages."""
        return f"{self.paths.get(split) or self.paths['train'] or f'dataset {self.dataset}'}, {split}"

    def items(self, split: str) -> list[Item]:
        """The files of a split, readable or not.

        Raises:
            UsageError: no such split.
            DataError: nothing there, or it cannot be split as asked.
        """
        if split not in self.splits:
            raise UsageError(f"--data.split {split}: there are {', '.join(self.splits)}")
        if split == ALL:
            others = SPLITS if self.dataset != "files" or self.paths["train"] else self._own
            return [item for name in others for item in self.items(name)]
        if split not in self._items:
            if split in self._own:
                path = self.paths[split] or ""
                self._items[split] = place_items(self.list_path(path), split, where=path)
            else:
                self._cut()
            check_apart(self._items.values())
        return self._items[split]

    @property
    def _own(self) -> list[str]:
        """The splits beside train with files of their own."""
        return [name for name in ("val", "test") if self.paths[name]]

    def _cut(self) -> None:
        """List what there is but for such splits."""
        found = self.list_files()
        if self.folds is not None:
            found = fold_items(found, folds=self.folds, fold=self.fold, held_out=self.held_out, seed=self.seed)
        else:
            found = split_items(found, held_out=self.held_out, seed=self.seed, others=self._own)
        for split in SPLITS:
            if split not in self._own:
                self._items[split] = [item for item in found if item.split == split]

    def contents(self, split: str) -> tuple[list[Item], list[Any]]:
        """The readable files of a split and what stands in them, read once.

        Raises:
            DataError: more files than allowed cannot be read.
        """
        if split not in self._read:
            items = self.items(split)
            contents, problems = self.read(items)
            self.bad.report(problems, total=len(items), where=self.where(split), folder=self.cache_folder)
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
        parser.add_argument("files", nargs="+", type=str, help="Files, one result for each, in order.")

    def prediction_inputs(self, options: Any, *, processes: int) -> Sequence[str]:
        return list(options.files)

    def load_inputs(self, inputs: Sequence[str]) -> Examples:
        """One example for each file, in order; one that cannot be read is empty, and its result says why."""
        items = [Item(Path(name).expanduser(), name, "") for name in inputs]
        contents, problems = self.read(items)
        filled = [problems.get(item.name, content) for item, content in zip(items, contents, strict=True)]
        return self.examples_of(items, filled, [NO_LABEL] * len(items), training=False)

    def fingerprint(self) -> str:
        items, _ = self.contents("train")
        lengths = self.examples("train").lengths.tolist()
        rows = [[item.name, item.label, length] for item, length in zip(items, lengths, strict=True)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def setup(self, stage: str) -> None:
        """Keep the list of bad files in the run's own folder too."""
        root = Path(self.trainer.default_root_dir) if self.trainer else None
        if root is not None and self.bad.reasons and (root / run_folder.CONFIG).is_file():
            self.bad.write(root)
