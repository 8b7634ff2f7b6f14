"""Clips: video files decoded once into a cache, frames chosen from it, in batches of padded clips."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.video import sample
from domains.video.augmentation import Augmentation, AugmentConfig
from domains.video.cache import file_key, frame_file, open_frames, open_plain, read_times, save_plain
from domains.video.decoding import Fit, decode_into
from domains.video.files import LabelledFiles, Reading
from domains.video.listing import FileColumns, Item, list_folder, read_manifest
from domains.video.sampling import Indices, SamplingConfig, clip_length, duration_of, test_clips, train_clip
from domains.video.stored import StoredClip, StoredClips
from suite.console import notice
from suite.errors import DataError, SuiteError, UsageError
from suite.listing import ListingColumns
from suite.seeding import mix
from suite.sources import data_folder

Frames = NDArray[numpy.uint8]
MOST_BYTES = 128 << 20
"""Bytes of frames in a batch of evaluation above which they are read from the cache in pieces."""
EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "divx", "mpg", "mpeg", "mpe", "m2v", "ts", "mts", "m2ts", "vob"),
        *("wmv", "asf", "flv", "f4v", "3gp", "3g2", "ogv", "ogg", "mxf", "dv", "y4m", "mjpeg", "mjpg", "rm", "rmvb"),
        *("nut", "ivf", "obu", "h264", "264", "h265", "265", "hevc", "gif", "apng", "mod", "tod"),
    )
)
"""Extensions of video files."""


class Video(NamedTuple):
    """A decoded video: the cache ``file`` with its frames ``(T, S, S, 3)``, and their ``times (T,)`` in seconds."""

    file: Path
    times: NDArray[numpy.float64]
    size: int

    def frames(self) -> Frames:
        """The frames as a read-only memory map.

        Raises:
            DataError: the cache has gone.
        """
        found = open_frames(self.file, count=len(self.times), size=self.size)
        if found is None:
            raise DataError(f"{self.file}: gone from the cache during the run: begin again")
        return found


class Choice(NamedTuple):
    """A clip: which frames of a video, or of ``frames (T, S, S, 3)``. They are copied once, into their batch.

    Clips of evaluation have the ``Video``: they may be longer than memory allows.
    """

    frames: Video | Frames
    indices: Indices


class Clip(NamedTuple):
    """An example: its ``place`` in the split, and the ``clips`` of a video.

    There are none where there is a ``problem`` with the file.
    """

    place: int
    label: int
    item: Item
    clips: list[Choice]
    problem: str | None


class ClipBatch(NamedTuple):
    """A batch of B videos with K clips each.

    ``frames (B * K, T, 3, S, S)`` uint8, video by video, of which the first ``lengths (B * K,)`` frames are valid; in
    evaluation ``StoredClips`` if they are many. ``labels (B,)``; what ``inputs`` are called, and in tables to predict
    their ``row_ids``; and the ``problems`` of those that could not be read.
    """

    frames: Any
    lengths: Tensor
    labels: Tensor
    indices: list[int]
    inputs: list[str]
    problems: list[str | None]
    row_ids: Sequence[str | None] = ()


class ClipExamples:
    """Videos of one split.

    Args:
        items: the files.
        videos: each decoded, or the reason why not.
        labels: of each.
        sampling: which frames make a clip.
        augmentation: how training clips are changed; ``None`` for the clips of evaluation.
    """

    def __init__(
        self,
        items: Sequence[Item],
        videos: Sequence[Video | str],
        labels: Sequence[int],
        *,
        sampling: SamplingConfig,
        augmentation: Augmentation | None,
    ) -> None:
        self.items, self.videos, self.labels = items, videos, labels
        self.sampling, self.augmentation = sampling, augmentation
        self.lengths: NDArray[numpy.int64] = numpy.array([self._length(video) for video in videos], dtype=numpy.int64)

    def _length(self, video: Video | str) -> int:
        """Frames of all clips of a video."""
        if isinstance(video, str):
            return 0
        frames = clip_length(len(video.times), duration_of(video.times), self.sampling)
        return frames if self.augmentation is not None else frames * self.sampling.test_clips

    def fetch(self, index: int, seed: int) -> Clip:
        """One clip chosen and changed by ``seed`` in training; the same clips always in evaluation."""
        video, item, label = self.videos[index], self.items[index], self.labels[index]
        if isinstance(video, str):
            return Clip(index, label, item, [], video)
        if self.augmentation is None:
            chosen = test_clips(video.times, self.sampling)
            return Clip(index, label, item, [Choice(video, indices) for indices in chosen], None)
        frames = video.frames()
        clip = Choice(frames, train_clip(video.times, self.sampling, seed=mix(seed, "frames")))
        if self.augmentation.steps is not None:
            pixels = torch.from_numpy(frames[clip.indices]).permute(0, 3, 1, 2)
            changed = self.augmentation(pixels, seed=seed).permute(0, 2, 3, 1).numpy()
            clip = Choice(changed, numpy.arange(len(changed)))
        return Clip(index, label, item, [clip], None)


class ClipData(LabelledFiles):
    """Clips of video files in batches bucketed by length.

    Args:
        dataset: The embedded sample (clips told apart by motion alone), video_fight from SUITE_DATA_DIR, or your files.
        train: With dataset files: a folder with one folder a class, or with train, val and test of such; or a manifest
            (.csv, .tsv, .jsonl, .parquet).
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
        sample_size: Training clips of the embedded sample, any number.
        size: Height and width that frames are scaled to when they are decoded.
        fit: Scale the shorter side and crop the middle, or stretch both sides.
        stream: Which video stream of a file, from 0; the one that a player would choose if not given.
        max_frames: A video with more frames counts as a bad file.
        max_bad: Share of files that may be bad before the run stops; they are named in bad_files.csv and left out.
        cache: Folder for decoded frames; SUITE_CACHE_DIR or the user's cache folder if not given.
        sampling: Which frames make a clip.
        augment: How training clips are changed at random.
        batch_size: Videos in a batch of one process, at most.
        max_tokens: Padded frames in a batch of one process, at most.
        num_workers: Processes that load batches, and threads that fill the cache; each decodes with one thread.
    """

    kind: ClassVar[str] = "video"
    trained_settings: ClassVar[frozenset[str]] = frozenset(
        {"held_out", "folds", "fold", "sample_size", "size", "fit", "augment"}
    )

    def __init__(
        self,
        *,
        dataset: Literal["sample", "video_fight", "files"] = "sample",
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        path_column: str = "path",
        label_column: str = "label",
        group_column: str | None = "group",
        split_column: str | None = "split",
        delimiter: str | None = None,
        held_out: float = 0.15,
        folds: int | None = None,
        fold: int = 0,
        sample_size: int = 1200,
        size: int = 112,
        fit: Fit = "crop",
        stream: int | None = None,
        max_frames: int = 100_000,
        max_bad: float = 0.1,
        cache: str | None = None,
        sampling: SamplingConfig = SamplingConfig(),
        augment: AugmentConfig = AugmentConfig(),
        batch_size: int | None = 16,
        max_tokens: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        assets: dict[str, Any] | None = None,
    ) -> None:
        columns = FileColumns(path_column, label_column, ListingColumns(group_column, split_column, delimiter))
        super().__init__(
            dataset=dataset, train=train, val=val, test=test, columns=columns, held_out=held_out, folds=folds,
            fold=fold, size=size, max_bad=max_bad, cache=cache, batch_size=batch_size, max_tokens=max_tokens,
            num_workers=num_workers, seed=seed, assets=assets,
        )  # fmt: skip
        sampling.check()
        for name, value in (("sample_size", sample_size), ("max_frames", max_frames)):
            if value < 1:
                raise UsageError(f"data.{name} is {value}, allowed is 1 or more")
        self.sample_size, self.sampling = sample_size, sampling
        self.decoding: dict[str, Any] = {"size": size, "fit": fit, "stream": stream, "max_frames": max_frames}
        self.augmentation = Augmentation(augment, size=size)

    @classmethod
    def extensions(cls) -> frozenset[str]:
        return EXTENSIONS

    def list_named(self) -> list[Item]:
        if self.dataset == "video_fight":
            columns = FileColumns(listing=ListingColumns(known=True))
            return read_manifest(data_folder("video_fight", files=["clips.csv"]) / "clips.csv", columns)
        return list_folder(sample.clips_folder(self.cache_folder, size=self.sample_size, seed=self.seed))

    def read(self, items: Sequence[Item]) -> Reading:
        files = [self.cache_folder / "frames" / f"{file_key(item.path, self.decoding)}.npy" for item in items]
        cached: list[Video | str | None] = [self._cached(file) for file in files]
        left = [index for index, video in enumerate(cached) if video is None]
        if len(left) > 1:
            before = " before the first result" if self.predicting else ""
            notice(f"data: decoding {len(left):,} of {len(items):,} videos into {self.cache_folder}{before}")
        jobs = [(items[index].path, files[index]) for index in left]
        for index, found in zip(left, self._decode_all(jobs), strict=True):
            cached[index] = found
        notes = {index: open_plain(_notes_of(file)) for index, file in enumerate(files)}
        return Reading(
            [None if isinstance(found, str) else found for found in cached],
            {index: found for index, found in enumerate(cached) if isinstance(found, str)},
            {index: found for index, found in notes.items() if found and not isinstance(cached[index], str)},
        )

    def _decode_all(self, jobs: Sequence[tuple[Path, Path]]) -> Iterable[Video | str]:
        if self.num_workers < 2:
            return map(self._decode, jobs)
        with ThreadPoolExecutor(self.num_workers) as pool:  # PyAV decodes without Python's lock
            return list(pool.map(self._decode, jobs))

    def _cached(self, file: Path) -> Video | None:
        times = read_times(file, size=self.size)
        return None if times is None else Video(file, times, self.size)

    def _decode(self, job: tuple[Path, Path]) -> Video | str:
        """The video at the first path decoded into the second, or why it cannot be."""
        path, file = job
        notes: list[str] = []
        try:
            with frame_file(file, size=self.size) as frames:
                times = decode_into(frames.append, path, **self.decoding, notes=notes)
                frames.finish(times)
                if notes:
                    save_plain(_notes_of(file), notes)
        except DataError as error:
            return str(error)
        except SuiteError as error:  # one video that fills the disk must not take the results of the others
            if not self.predicting:
                raise
            return str(error)
        return Video(file, times, self.size)

    def examples_of(self, items: list[Item], contents: list[Any], labels: list[int], *, training: bool) -> ClipExamples:
        augmentation = self.augmentation if training else None
        return ClipExamples(items, contents, labels, sampling=self.sampling, augmentation=augmentation)

    def middle_frames(self, contents: Sequence[Video]) -> Frames:
        # Copied one by one: a view keeps its file open, and systems allow a few hundred open files.
        return numpy.stack([video.frames()[len(video.times) // 2].copy() for video in contents])

    def collate(self, examples: list[Clip]) -> ClipBatch:
        count = self.sampling.test_clips if any(len(each.clips) > 1 for each in examples) else 1
        empty = Choice(numpy.zeros((0, self.size, self.size, 3), numpy.uint8), numpy.arange(0))
        clips = [clip for each in examples for clip in each.clips or [empty] * count]
        lengths = torch.tensor([len(clip.indices) for clip in clips])
        return ClipBatch(
            self._frames(clips, longest=int(lengths.max())),
            lengths,
            torch.tensor([each.label for each in examples]),
            [each.place for each in examples],
            [each.item.name for each in examples],
            [each.problem for each in examples],
            [each.item.row_id for each in examples],
        )

    def _frames(self, clips: Sequence[Choice], *, longest: int) -> Tensor | StoredClips:
        """The frames of ``clips``, padded to the ``longest``; left in the cache if they are many and can be."""
        stored = [
            StoredClip(clip.frames.file if isinstance(clip.frames, Video) else None, clip.indices) for clip in clips
        ]
        left_there = all(clip.file is not None or not len(clip.indices) for clip in stored)
        if left_there and len(clips) * longest * self.size**2 * 3 > MOST_BYTES:
            return StoredClips(stored, size=self.size)
        frames = numpy.empty((len(clips), longest, self.size, self.size, 3), numpy.uint8)
        for row, clip in zip(frames, clips, strict=True):
            length = len(clip.indices)
            if length:
                source = clip.frames.frames() if isinstance(clip.frames, Video) else clip.frames
                numpy.take(source, clip.indices, axis=0, out=row[:length], mode="clip")  # the fastest mode
            row[length:] = 0
        return torch.from_numpy(frames).permute(0, 1, 4, 2, 3)


def _notes_of(file: Path) -> Path:
    """Where the cache has what is unusual about a video, beside its frames."""
    return file.with_suffix(".json")
