"""Video's own rows: filling the cache against a bare PyAV loop over the same frames, an epoch from the cache."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
from av.video.reformatter import VideoReformatter

from domains.video import sample
from domains.video.cache import cache_root
from domains.video.data import ClipData
from domains.video.decoding import scaled_size
from domains.video.sampling import SamplingConfig
from suite.timing import Row, compare, in_turns

SIZE, CLIPS = 112, 160
REAL = 8  # clips of each class of video_fight


def measure(*, checkpoint: str | None, load: Callable[[str], Any], rounds: int) -> list[Row]:
    """Loading by itself, of the sample and, where it is at hand, of a part of video_fight; no trained model needed."""
    rows = loading(sample.clips_folder(cache_root(None) / "video", size=CLIPS, seed=0), "the sample", rounds=rounds)
    root = Path(os.environ.get("SUITE_DATA_DIR", "")).expanduser() / "video_fight"
    if not (root / "clips.csv").is_file():
        return rows
    with tempfile.TemporaryDirectory() as name:
        for label in ("fight", "noFight"):
            (Path(name) / label).mkdir()
            for file in sorted((root / label).iterdir())[:REAL]:
                (Path(name) / label / file.name).symlink_to(file.resolve())
        return [*rows, *loading(Path(name), "video_fight", rounds=rounds)]


def loading(folder: Path, what: str, *, rounds: int) -> list[Row]:
    """The first epoch over all files of ``folder`` against both bare loops, and an epoch from the cache."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as known, tempfile.TemporaryDirectory() as new:
        data = _data(folder, known)
        assets = data.assets
        frames = sum(len(video.times) for video in data.contents("all")[1])
        times = in_turns(
            {
                "reference": lambda: _bare(files),
                "scaler": lambda: _bare_with_one_scaler(files),
                "ours": lambda: _epoch(_data(folder, new, assets)),
                "cached": lambda: _epoch(_data(folder, known, assets)),
            },
            rounds=rounds,
            tidy=lambda: shutil.rmtree(new, ignore_errors=True),  # the next first epoch is a first one too
        )
    note = f"{what}, {frames:,} frames to {SIZE} x {SIZE}"
    name = "first epoch (decoding, scaling, writing the cache, batches) over a bare PyAV loop"
    first = compare(name, times, bar=1 / 0.9, note=note)
    kept = compare(f"{name} that keeps its scaler", {**times, "reference": times["scaler"]}, bar=1 / 0.9, note=note)
    cached = {"ours": times["ours"], "reference": times["cached"]}
    again = compare("first epoch over an epoch from the cache", cached, bar=5, note=what)
    return [first, kept, again._replace(bar=">= 5", met=again.ratio >= 5)]


def _data(folder: Path, cache: str, assets: dict[str, Any] | None = None) -> ClipData:
    sampling = SamplingConfig(kind="all")
    return ClipData(dataset="files", train=str(folder), size=SIZE, cache=cache, sampling=sampling, assets=assets)


def _bare(files: list[Path]) -> None:
    """Every frame of every file at the same size, as one writes it down, and nothing else."""
    for path in files:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            for frame in container.decode(stream):
                width, height = scaled_size(frame.width, frame.height, size=SIZE, fit="crop")
                frame.to_ndarray(format="rgb24", width=width, height=height)


def _bare_with_one_scaler(files: list[Path]) -> None:
    """The same with one scaler a file, as this domain has it: its tables are computed once."""
    for path in files:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            scaler = VideoReformatter()
            for frame in container.decode(stream):
                width, height = scaled_size(frame.width, frame.height, size=SIZE, fit="crop")
                scaler.reformat(frame, width, height, "rgb24", interpolation="BILINEAR", threads=1).to_ndarray()


def _epoch(data: ClipData) -> None:
    for _ in data.loader("all", shuffle=False):
        pass
