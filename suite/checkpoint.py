"""Checkpoints: plain data, written atomically, verified when read.

A file is written beside its final place, flushed to the disk and renamed, with its SHA-256 and size in a file beside
it. Reading accepts tensors and plain data only (``weights_only=True``), so a checkpoint cannot run code.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Collection, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy
import torch
from lightning.pytorch.plugins import CheckpointIO
from torch import Tensor

from suite.errors import CheckpointError

FORMAT = 1
RECORD_KEY = "suite"
MOVING_AVERAGE_KEY = "average"
"""Where a checkpoint has the moving average of the weights, beside the weights in training."""
AVERAGED_KEY = "averaged"
"""In the record of an average of checkpoints: which files went in, and how they were chosen."""
SAVED_AT_KEY = "saved_at"
"""In the record: when the checkpoint was written, in seconds since 1970."""
STEPS_DONE_KEY = "logged_steps"
"""In the record, with the value ``done``: rows of ``metrics.csv`` are numbered by the optimiser steps done.

Checkpoints without it are of an earlier version, whose rows of training and validation were numbered one lower.
"""
SEALED_KEY = "sealed"
"""In the record: the file ends in its own digest, which is compared where the file with the digest is not beside it."""
_SEAL = b"\nsuite sha256 %s of %020d bytes\n"
_ZIP_END = b"PK\5\6" + bytes(18)
_SEAL_SIZE = len(_SEAL % (b"0" * 64, 0))
_PACKAGES = ("torch", "lightning", "torchmetrics", "tokenizers", "sequence-suite")
_PIECE = 1 << 24  # bytes written at a time
_WORTH_A_THREAD = 1 << 20  # bytes; less is hashed before it is written


def make_record(
    *, settings: dict[str, Any], assets: dict[str, Any], source: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What a checkpoint says beside its tensors: enough to build the model again and to refuse what does not fit.

    ``source`` says which checkpoint a fine-tuned model began with.
    """
    versions = {name: _version(name) for name in _PACKAGES}
    record = {"format": FORMAT, "settings": settings, "assets": assets, "versions": versions, SEALED_KEY: True}
    return record if source is None else {**record, "source": source}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"  # the suite itself, run from a folder that is on the path


def digest_path(path: Path) -> Path:
    """Where the SHA-256 and size of a checkpoint stand."""
    return path.with_name(path.name + ".sha256")


class _DigestWriter(io.RawIOBase):
    """Passes bytes on to a file, counts them, and hashes them meanwhile in another thread.

    Tensors of the checkpoint are neither copied nor waited for: they stay where they are until all is hashed. What
    lives shorter is copied if it is small, else waited for. The system is asked to bring the bytes to the disk at once,
    so that the flush at the end finds little left.

    Args:
        file: where to.
        hasher: one thread, which hashes in order.
        lasting: addresses of memory that outlives this writer.
    """

    def __init__(self, file: BinaryIO, hasher: Executor, lasting: Collection[int] = ()) -> None:
        self.file, self.hasher, self.lasting = file, hasher, lasting
        self._sha256, self.size = hashlib.sha256(), 0
        self._latest: Future[None] | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = view.nbytes
        if size < _WORTH_A_THREAD:
            self._latest = self.hasher.submit(self._sha256.update, bytes(view))
            self._pass_on(view)
            return size
        self._latest = self.hasher.submit(self._sha256.update, view)
        try:
            for start in range(0, size, _PIECE):
                self._pass_on(view[start : start + _PIECE])
                _begin_flush(self.file.fileno(), self.size - _PIECE)
        finally:
            if numpy.frombuffer(view, dtype=numpy.uint8).ctypes.data not in self.lasting:
                self._latest.result()
        return size

    def hexdigest(self) -> str:
        """The SHA-256 of all that was written."""
        if self._latest is not None:
            self._latest.result()
        return self._sha256.hexdigest()

    def _pass_on(self, view: memoryview) -> None:
        while view.nbytes:  # a file may take less than it is given
            taken = self.file.write(view)
            self.size += taken
            view = view[taken:]

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self.file.flush()


def _begin_flush(descriptor: int, start: int) -> None:
    """Ask for the bytes from ``start`` on to be written to the disk, without waiting; nothing where there is no way."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # pipes and some network file systems
            os.posix_fadvise(descriptor, max(start, 0), 0, os.POSIX_FADV_DONTNEED)


def _addresses(value: Any) -> Iterator[int]:
    """Where the memory of each CPU tensor in nested containers begins."""
    if isinstance(value, Tensor):
        if value.device.type == "cpu" and value.layout == torch.strided:
            yield value.untyped_storage().data_ptr()
    elif isinstance(value, dict):
        for part in value.values():
            yield from _addresses(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _addresses(part)


@contextlib.contextmanager
def _without_crc32() -> Iterator[None]:
    """Leave out the CRC-32 of each tensor: torch never compares it, and it takes longer than SHA-256."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that ``path`` holds the old content or the new one, whole, whenever the machine stops.

    Needs no memory beside the checkpoint's own (tensors of an accelerator are copied one at a time).

    Raises:
        CheckpointError: the folder cannot be written or the disk is full; what was there before is kept.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb", buffering=0) as file, ThreadPoolExecutor(max_workers=1) as hasher, _without_crc32():
            writer = _DigestWriter(cast(BinaryIO, file), hasher, set(_addresses(checkpoint)))
            torch.save(checkpoint, cast(BinaryIO, writer))
            writer.write(_SEAL % (writer.hexdigest().encode(), writer.size))  # torch and zip tools pass over it
            os.fsync(file.fileno())
            note = json.dumps({"sha256": writer.hexdigest(), "size": writer.size})
        # The digest of the old file must not outlive it, nor that of the new one come before it.
        digest_path(path).unlink(missing_ok=True)
        os.replace(temporary, path)
        write_text(digest_path(path), note + "\n")
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot write the checkpoint ({error}): free space or rights needed") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file so that it holds the old content or the new one, whole."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def duplicate(source: Path, target: Path) -> None:
    """Give a written checkpoint a second name without writing it again (a copy where links are not to be had)."""
    digest_path(target).unlink(missing_ok=True)
    for old, new in ((source, target), (digest_path(source), digest_path(target))):
        temporary = new.with_name(new.name + ".tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link(old, temporary)
        except OSError:
            shutil.copyfile(old, temporary)
        os.replace(temporary, new)
    _flush_folder(target.parent)


def verify(path: Path) -> bool:
    """Compare a file with the digest beside it, or in a copied file with the digest at its own end.

    Gives whether there was one; files of earlier versions have none at their end.

    Raises:
        CheckpointError: it is missing, cut short or changed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    note = digest_path(path)
    if not note.is_file():
        return _verify_seal(path)
    try:
        expected = json.loads(note.read_text())
        size, sha256 = expected["size"], expected["sha256"]
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{note}: the digest file is damaged: delete it to go on unverified") from None
    if path.stat().st_size != size:
        raise CheckpointError(f"{path}: damaged: {path.stat().st_size} bytes, {size} expected; use another checkpoint")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise CheckpointError(f"{path}: damaged: its SHA-256 is not the one beside it; use another checkpoint")
    return True


def _verify_seal(path: Path) -> bool:
    """``verify`` by the digest at the end of the file."""
    size = path.stat().st_size - _SEAL_SIZE
    with path.open("rb") as file:
        file.seek(max(size, 0))
        found = re.fullmatch(re.escape(_SEAL[:14]) + rb"([0-9a-f]{64}) of (\d{20}) bytes\n", file.read())
        if found is None:
            return False
        file.seek(0)
        digest = hashlib.sha256()
        left = size
        while left and (piece := file.read(min(_PIECE, left))):
            digest.update(piece)
            left -= len(piece)
    if int(found[2]) != size or digest.hexdigest().encode() != found[1]:
        raise CheckpointError(f"{path}: damaged: its SHA-256 is not the one at its end; use another checkpoint")
    return True


def _need_zip_end(path: Path) -> None:
    """Refuse a file that ends neither in a digest nor as a zip file does, which torch writes."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - len(_ZIP_END), 0))
        if not file.read().startswith(_ZIP_END[:4]):
            raise CheckpointError(f"{path}: damaged: the digest at its end cannot be read; use another checkpoint")


def read(path: str | Path, *, map_location: Any = "cpu", mmap: bool = False) -> dict[str, Any]:
    """Load and check a checkpoint of this suite; with ``mmap`` its tensors stay in the file until they are used.

    Raises:
        CheckpointError: missing, damaged, not plain data, of another program, or of a later format.
    """
    path = Path(path)
    verified = verify(path)
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a checkpoint of plain data ({reason})") from None
    record = checkpoint.get(RECORD_KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(record, dict) or not {"format", "settings", "assets"} <= record.keys():
        raise CheckpointError(f"{path}: not a checkpoint of this suite (it has no record of settings and assets)")
    if not isinstance(record["format"], int) or not isinstance(record["settings"], dict):
        raise CheckpointError(f"{path}: not a checkpoint of this suite (its record is not a number and settings)")
    if record["format"] > FORMAT:
        raise CheckpointError(f"{path}: format {record['format']} is newer than this version reads ({FORMAT}): update")
    if record.get(SEALED_KEY) and not verified:
        _need_zip_end(path)  # so ends what was loaded and saved again by torch itself, which has no digest
    if checkpoint.get("hyper_parameters"):
        raise CheckpointError(f"{path}: carries hyper-parameters, which no checkpoint of this suite does: not loaded")
    return checkpoint


class Place(NamedTuple):
    """Where in its run a checkpoint was written, by its own record.

    ``step``: optimiser steps done. ``batches``: training batches done, which differ where a step takes several of them.
    ``saved_at``: seconds since 1970, ``None`` in checkpoints of earlier versions. ``averaged``: an average of several
    checkpoints, which is no place in a run.
    """

    step: int
    batches: int
    saved_at: float | None
    averaged: bool


def place_of(path: Path) -> Place:
    """Read where a checkpoint was written, without its tensors and without a comparison of its digest.

    Raises:
        CheckpointError: it cannot be read, or is not a checkpoint of a run.
    """
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: cannot be read as a checkpoint (not a file of torch.save)")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a checkpoint of plain data ({reason})") from None
    try:
        record, step = content[RECORD_KEY], content["global_step"]
        progress = content.get("loops", {}).get("fit_loop", {}).get("epoch_loop.batch_progress", {})
        batches, saved_at = progress.get("total", {}).get("processed", 0), record.get(SAVED_AT_KEY)
        return Place(int(step), int(batches), None if saved_at is None else float(saved_at), AVERAGED_KEY in record)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CheckpointError(f"{path}: not a checkpoint of a run of this suite") from None


def weights_of(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The weights to use a model with: their moving average where the run kept one, else those in training."""
    state: dict[str, Tensor] = dict(checkpoint["state_dict"])
    average = checkpoint.get(MOVING_AVERAGE_KEY)
    if average is not None:
        tied = {memory_of(weights): name for name, weights in state.items() if name in average["weights"]}
        for name, weights in state.items():  # a tied parameter is averaged once and stands here under several names
            state[name] = average["weights"].get(tied.get(memory_of(weights), name), weights)
    return state


def memory_of(tensor: Tensor) -> tuple[int, tuple[int, ...]]:
    """What two names of one tensor have in common: where its memory begins, and its shape."""
    return tensor.data_ptr(), tuple(tensor.shape)


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's way to files, through ``write`` and ``read``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read(path, map_location=map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)
        digest_path(Path(path)).unlink(missing_ok=True)
