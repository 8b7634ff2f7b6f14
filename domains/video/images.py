"""Pictures: image files or an archive of them, decoded once into one memory-mapped file."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from domains.video import sample
from domains.video.archives import is_archive
from domains.video.augmentation import Augmentation, AugmentConfig
from domains.video.cache import file_key, open_array, open_plain, picture_file, save_plain
from domains.video.decoding import Fit
from domains.video.files import LabelledFiles, Reading
from domains.video.listing import FileColumns, Item, list_folder
from domains.video.pictures import UNREAD, decode_each, digest_pictures, list_archive
from suite.console import notice
from suite.errors import DataError, UsageError
from suite.listing import ListingColumns
from suite.sources import data_folder

Pictures = NDArray[numpy.uint8]
_CIFAR = "cifar10_2000_400_per_class.tar.gz"


class Picture(NamedTuple):
    """An example: its ``place`` in the split, and ``pixels (S, S, 3)``; zeros where the file has a ``problem``."""

    place: int
    label: int
    item: Item
    pixels: Pictures
    problem: str | None


class ImageBatch(NamedTuple):
    """A batch of B pictures ``images (B, 3, S, S)`` uint8 with ``labels (B,)``; see ``ClipBatch`` for the rest."""

    images: Tensor
    labels: Tensor
    indices: list[int]
    inputs: list[str]
    problems: list[str | None]
    row_ids: Sequence[str | None] = ()


class ImageExamples:
    """Pictures of one split: rows of a memory-mapped array, or the reason why there is none."""

    def __init__(
        self,
        items: Sequence[Item],
        rows: Sequence[Pictures | str],
        labels: Sequence[int],
        *,
        size: int,
        augmentation: Augmentation | None,
    ) -> None:
        self.items, self.rows, self.labels, self.size = items, rows, labels, size
        self.augmentation = augmentation
        self.lengths: NDArray[numpy.int64] = numpy.ones(len(rows), dtype=numpy.int64)

    def fetch(self, index: int, seed: int) -> Picture:
        """A picture, changed by ``seed`` in training."""
        row, item, label = self.rows[index], self.items[index], self.labels[index]
        if isinstance(row, str):
            return Picture(index, label, item, numpy.zeros((self.size, self.size, 3), numpy.uint8), row)
        pixels = numpy.array(row)
        if self.augmentation is not None:
            frame = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
            pixels = self.augmentation(frame, seed=seed)[0].permute(1, 2, 0).numpy()
        return Picture(index, label, item, pixels, None)


class ImageData(LabelledFiles):
    """Pictures with one label each.

    Args:
        dataset: The embedded sample (six shapes), the CIFAR-10 archive from SUITE_DATA_DIR, or your files.
        train: With dataset files: a folder with one folder a class, or with train, val and test of such; a manifest
            (.csv, .tsv, .jsonl, .parquet); or an archive SPLIT/CLASS/FILE (.tar, also compressed; .zip).
        val: Likewise, of this split alone; what train has of it, or held_out of its files, if not given.
        test: Likewise.
        path_column: Column of a manifest with the paths, which count from its own folder.
        label_column: Column with the class.
        group_column: Column with a group, if there is one: files of a group never stand on both sides of a split.
        split_column: Column that says train, val or test, if there is one.
        delimiter: Character between the fields of .csv and .tsv files, if it is another than usual; fields may then be
            in quotes.
        held_out: Share of the training files for each of val and test that is not given; groups stay whole.
        folds: Cut all files into so many folds; test is one of them (scripts/crossvalidate.py does all).
        fold: Which of the folds is tested, from 0.
        sample_size: Training pictures of the embedded sample, any number.
        size: Height and width that pictures are scaled to when they are decoded.
        fit: Scale the shorter side and crop the middle, or stretch both sides.
        max_bad: Share of files that may be bad before the run stops; they are named in bad_files.csv and left out.
        cache: Folder for decoded pictures; SUITE_CACHE_DIR or the user's cache folder if not given.
        augment: How training pictures are changed at random.
        batch_size: Pictures in a batch of one process, at most.
        num_workers: Processes that load batches.
    """

    kind: ClassVar[str] = "picture"
    trained_settings: ClassVar[frozenset[str]] = frozenset(
        {"held_out", "folds", "fold", "sample_size", "size", "fit", "augment"}
    )

    def __init__(
        self,
        *,
        dataset: Literal["sample", "cifar10", "files"] = "sample",
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        path_column: str = "path",
        label_column: str = "label",
        group_column: str | None = "group",
        split_column: str | None = "split",
        delimiter: str | None = None,
        held_out: float = 0.1,
        folds: int | None = None,
        fold: int = 0,
        sample_size: int = 1200,
        size: int = 32,
        fit: Fit = "crop",
        max_bad: float = 0.1,
        cache: str | None = None,
        augment: AugmentConfig = AugmentConfig(),
        batch_size: int | None = 64,
        num_workers: int = 0,
        seed: int = 0,
        assets: dict[str, Any] | None = None,
    ) -> None:
        columns = FileColumns(path_column, label_column, ListingColumns(group_column, split_column, delimiter))
        super().__init__(
            dataset=dataset, train=train, val=val, test=test, columns=columns, held_out=held_out, folds=folds,
            fold=fold, size=size, max_bad=max_bad, cache=cache, batch_size=batch_size, max_tokens=None,
            num_workers=num_workers, seed=seed, assets=assets,
        )  # fmt: skip
        if sample_size < 1:
            raise UsageError(f"data.sample_size is {sample_size}, allowed is 1 or more")
        self.sample_size, self.fit = sample_size, fit
        self.augmentation = Augmentation(augment, size=size)

    @classmethod
    def extensions(cls) -> frozenset[str]:
        return frozenset(Image.registered_extensions())

    def list_named(self) -> list[Item]:
        if self.dataset == "cifar10":
            return list_archive(data_folder("cifar10", files=[_CIFAR]) / _CIFAR)
        return list_folder(sample.pictures_folder(self.cache_folder, size=self.sample_size, seed=self.seed))

    def list_path(self, path: str) -> list[Item]:
        archive = Path(path).expanduser()
        return list_archive(archive) if is_archive(archive) else super().list_path(path)

    def read(self, items: Sequence[Item]) -> Reading:
        """Decode all of ``items`` into one cache file, or take it from there."""
        settings = {"size": self.size, "fit": self.fit}
        states = {path: file_key(path, settings) for path in dict.fromkeys(item.path for item in items)}
        members = [[item.member or item.name, states[item.path]] for item in items]
        key = hashlib.sha256(json.dumps(members).encode()).hexdigest()[:32]
        file = self.cache_folder / "pictures" / f"{key}.npy"
        pictures, found = open_array(file), open_plain(file.with_suffix(".json"))
        if pictures is None or found is None or len(pictures) != len(items):
            if len(items) > 1:
                before = " before the first result" if self.predicting else ""
                notice(f"data: decoding {len(items):,} pictures into {self.cache_folder}{before}")
            found = self._decode(items, file)
            pictures = open_array(file)
            if pictures is None:
                raise DataError(f"{file}: gone from the cache during the run: begin again")
        problems = {int(index): reason for index, reason in found["problems"].items()}
        notes = {int(index): each for index, each in found["notes"].items()}
        contents = [None if index in problems else row for index, row in enumerate(pictures)]
        return Reading(contents, problems, notes)

    def _decode(self, items: Sequence[Item], file: Path) -> dict[str, dict[str, Any]]:
        """Decode ``items`` one by one into ``file``; what is wrong with them and unusual, by their place as text."""
        problems: dict[str, str] = {}
        notes: dict[str, list[str]] = {}
        with picture_file(file, count=len(items), size=self.size) as pictures:
            for index, pixels, problem, noted in decode_each(items, size=self.size, fit=self.fit):
                if pixels is not None:
                    pictures.write(index, pixels)
                    problems.pop(str(index), None)  # an archive may have a file twice: the last counts
                else:
                    problems[str(index)] = str(problem)
                notes |= {str(index): noted} if noted else {}
        found: dict[str, dict[str, Any]] = {"problems": problems, "notes": notes}
        if not any(reason.startswith(UNREAD) for reason in problems.values()):
            save_plain(file.with_suffix(".json"), found)
        return found

    def digests(self, items: Sequence[Item]) -> list[bytes]:
        return digest_pictures(items)

    def examples_of(
        self, items: list[Item], contents: list[Any], labels: list[int], *, training: bool
    ) -> ImageExamples:
        augmentation = self.augmentation if training else None
        return ImageExamples(items, contents, labels, size=self.size, augmentation=augmentation)

    def middle_frames(self, contents: Sequence[Pictures]) -> Pictures:
        return numpy.stack(contents)

    def collate(self, examples: list[Picture]) -> ImageBatch:
        images = torch.from_numpy(numpy.stack([each.pixels for each in examples]))
        return ImageBatch(
            images.permute(0, 3, 1, 2),
            torch.tensor([each.label for each in examples]),
            [each.place for each in examples],
            [each.item.name for each in examples],
            [each.problem for each in examples],
            [each.item.row_id for each in examples],
        )
