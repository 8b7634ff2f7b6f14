"""The project's own readers at the level of the data modules, and whether what they give is what a reference gives."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch

from domains.audio.checking import find_faults
from domains.audio.files import FileClip, open_clips
from domains.video.data import ClipData
from domains.video.images import ImageData
from domains.video.notes import report_notes
from domains.video.pictures import list_archive
from suite import checkpoint
from suite.console import notice
from suite.errors import DataError, gather
from suite.sources import read_lines, read_table
from suite.vectors import read_vectors
from tests.corruption.samples import COLUMNS, FRAMES, SIZE, TOKENIZER

CONCEALING = ("flac", "ogg", "mp3", "mp4", "mkv", "avi", "glove", "tar", "tar.gz", "pictures.zip")
"""Formats of many frames, members or lines: one that is left out is reported, and the rest is read."""
_ASSETS = {"labels": {"names": ["a", "b"]}}
_STEP = 1000  # samples read at a time
_FRAME = 576  # samples of an MPEG-2 frame
_DELAY = 2 * _FRAME + 529


def read_audio(path: Path) -> tuple[int, Any]:
    """Rate and all samples, as training reads them: opened, checked, then read in windows."""
    clips, problems = open_clips([path], rate=16_000)
    gather([*problems, *find_faults(clips, "train")])
    clip = FileClip(path, rate=clips[0].own_rate)
    starts = range(0, clip.frames, _STEP)
    return clip.rate, numpy.concatenate([clip.read(start, min(start + _STEP, clip.frames)) for start in starts])


def read_picture(path: Path) -> Any:
    data = ImageData(dataset="files", size=SIZE, assets=_ASSETS)
    examples: Any = data.load_inputs([str(path)])
    return _filled(path, examples.rows[0])


def read_archive(path: Path) -> dict[str, Any]:
    """Pixels by the name in the archive, ``None`` for a picture that is bad, which the data module reports."""
    data = ImageData(dataset="files", train=str(path), max_bad=1.0, size=SIZE)
    items = list_archive(path)
    found, problems, notes = data.read(items)
    reasons = {items[index].name: reason for index, reason in problems.items()}
    data.bad.report(reasons, total=len(items), where=str(path), folder=data.cache_folder)
    report_notes({items[index].name: said for index, said in notes.items()}, total=len(items), where=str(path))
    return {item.name: pixels for item, pixels in zip(items, found, strict=True)}


def read_video(path: Path) -> Any:
    data = ClipData(dataset="files", size=SIZE, assets=_ASSETS)
    examples: Any = data.load_inputs([str(path)])
    return _filled(path, examples.videos[0]).frames()


def _filled(path: Path, content: Any) -> Any:
    """The content of a file; the reason why there is none as an error, named as ``predict`` names it."""
    if isinstance(content, str):
        raise DataError(f"{path}: {content}")
    return content


def read_glove(path: Path) -> dict[str, list[float]]:
    vectors = read_vectors(path, TOKENIZER, counts=[1] * len(TOKENIZER))
    for line in vectors.lines()[1:]:
        notice(line)
    words = [piece.strip() for piece in TOKENIZER.pieces]
    found = zip(words, vectors.weight, vectors.found.tolist(), strict=True)
    return {word: row.tolist() for word, row, there in found if there}


def _table(path: Path) -> Any:
    return read_table(path, columns=COLUMNS)


READERS: dict[str, Callable[[Path], Any]] = {
    **dict.fromkeys(("wav", "wav-float", "flac", "ogg", "mp3"), read_audio),
    **dict.fromkeys(("png", "png-alpha", "jpeg", "gif", "webp", "webp-lossy"), read_picture),
    **dict.fromkeys(("mp4", "mkv", "avi"), read_video),
    **dict.fromkeys(("csv", "tsv", "jsonl", "parquet", "parquet-checked", "csv.gz", "zip-as-csv"), _table),
    **dict.fromkeys(("txt", "txt.gz"), read_lines),
    **dict.fromkeys(("tar", "tar.gz", "pictures.zip"), read_archive),
    **dict.fromkeys(("checkpoint", "checkpoint-alone", "checkpoint-digest"), checkpoint.read),
    "glove": read_glove,
}  # fmt: skip

SUFFIXES = {
    "wav-float": ".wav", "png-alpha": ".png", "webp-lossy": ".webp", "parquet-checked": ".parquet",
    "zip-as-csv": ".csv", "glove": ".txt", "checkpoint": ".ckpt", "checkpoint-alone": ".ckpt",
    "checkpoint-digest": ".ckpt",
}  # fmt: skip


def suffix_of(format: str) -> str:
    return SUFFIXES.get(format, f".{format}")


def read(format: str, path: Path) -> tuple[Any, str]:
    """What the project reads from a file, and what it writes to standard error meanwhile."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        content = READERS[format](path)
    return content, said.getvalue()


def difference(format: str, found: Any, expected: Any) -> str | None:
    """How what was read differs from the reference; ``None`` if it does not."""
    if format == "mp3":
        return _mp3_difference(found, expected)
    if format in ("wav", "wav-float", "flac", "ogg"):
        return _audio_difference(found, expected)
    if format == "glove":
        return _glove_difference(found, expected)
    if format in ("mp4", "mkv", "avi") and len(found) < FRAMES:  # FFmpeg passes over what it cannot read
        return f"{len(found)} of {FRAMES} frames"
    return None if _same(found, expected) else f"{_shown(found)} where the reference has {_shown(expected)}"


def _audio_difference(found: Any, expected: Any) -> str | None:
    """The decoders' own noise is far below a sixteen-bit step."""
    (rate, samples), (own_rate, reference) = found, expected
    if rate != own_rate or len(samples) != len(reference):
        return f"{len(samples)} samples at {rate} Hz where the reference has {len(reference)} at {own_rate} Hz"
    scale = max(1.0, float(numpy.abs(reference).max()))
    most = float(numpy.abs(samples - reference).max())
    return None if most <= 2e-6 * scale else f"samples differ by {most:.2g}"


def _mp3_difference(found: Any, expected: Any) -> str | None:
    """MPEG audio has no checksum of its samples: what a damaged frame sounds like is each decoder's own choice.

    The length must be the same, but for the encoder's delay and padding, which are two frames at most and which one
    decoder may know and the other not. Some stretch of a frame's length must be the same in both, unless the file has
    none: a decoder that is out of step has no such stretch.
    """
    (rate, samples), (own_rate, reference) = found, expected
    extra = len(reference) - len(samples)
    if rate != own_rate or abs(extra) > _DELAY:
        return f"{len(samples)} samples at {rate} Hz where the reference has {len(reference)} at {own_rate} Hz"
    for shift in {0, extra, 529, 1105, -529, -1105}:
        one, other = samples[max(0, -shift) :], reference[max(0, shift) :]
        size = min(len(one), len(other))
        same = numpy.abs(one[:size] - other[:size]) < 1e-4
        runs = numpy.diff(numpy.flatnonzero(numpy.concatenate([[True], ~same, [True]])))
        if runs.max() > _FRAME:
            return None
    return "no stretch of samples is the same"


def _glove_difference(found: Any, expected: Any) -> str | None:
    words = [piece.strip() for piece in TOKENIZER.pieces[len(TOKENIZER.pieces) - 6 :]]
    wanted = {word: expected.get(word, expected.get(word.lower())) for word in words}
    wanted = {word: numbers for word, numbers in wanted.items() if numbers is not None}
    same = found.keys() == wanted.keys() and all(numpy.allclose(found[word], wanted[word]) for word in wanted)
    return None if same else f"{found} where the reference has {wanted}"


def _same(found: Any, expected: Any) -> bool:
    if isinstance(found, dict):
        return (
            isinstance(expected, dict)
            and found.keys() == expected.keys()
            and all(_same(found[key], expected[key]) for key in found)
        )
    if isinstance(found, torch.Tensor | numpy.ndarray):
        return type(expected) is not type(None) and bool(
            numpy.array_equal(numpy.asarray(found), numpy.asarray(expected))
        )
    return bool(found == expected)


def _shown(content: Any) -> str:
    if isinstance(content, numpy.ndarray):
        return f"an array {content.shape}"
    if isinstance(content, dict):
        return f"{len(content)} entries"
    return f"{len(content)} rows" if isinstance(content, list) else str(type(content))
