"""Checkpoints: plain data, written atomically, verified when read.

A file is written beside its final place, flushed to the disk and renamed, with its SHA-256 and size in a file beside
it. Reading accepts tensors and plain data only (``weights_only=True``), so a checkpoint cannot run code.
"""

import hashlib
import io
import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from lightning.pytorch.plugins import CheckpointIO

from suite.errors import CheckpointError

FORMAT = 1
RECORD_KEY = "suite"
_PACKAGES = ("torch", "lightning", "torchmetrics", "tokenizers", "sequence-suite")


def make_record(
    *, settings: dict[str, Any], assets: dict[str, Any], source: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What a checkpoint says beside its tensors: enough to build the model again and to refuse what does not fit.

    ``source`` says which checkpoint a fine-tuned model began with.
    """
    record = {"format": FORMAT, "settings": settings, "assets": assets, "versions": {n: version(n) for n in _PACKAGES}}
    return record if source is None else {**record, "source": source}


def digest_path(path: Path) -> Path:
    """Where the SHA-256 and size of a checkpoint stand."""
    return path.with_name(path.name + ".sha256")


class _DigestWriter(io.RawIOBase):
    """Counts and hashes what passes through to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha256, self.size = file, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self.size += memoryview(data).nbytes
        return self.file.write(data)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self.file.flush()


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that ``path`` holds the old content or the new one, whole, whenever the machine stops.

    Raises:
        CheckpointError: the folder cannot be written or the disk is full; what was there before is kept.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            writer = _DigestWriter(file)
            torch.save(checkpoint, cast(BinaryIO, writer))
            file.flush()
            os.fsync(file.fileno())
        note = json.dumps({"sha256": writer.sha256.hexdigest(), "size": writer.size})
        # The digest of the old file must not outlive it, nor that of the new one come before it.
        digest_path(path).unlink(missing_ok=True)
        os.replace(temporary, path)
        _write_text(digest_path(path), note + "\n")
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot write the checkpoint ({error}): free space or rights needed") from error


def _write_text(path: Path, text: str) -> None:
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


def verify(path: Path) -> None:
    """Compare a file with the digest beside it; without one (a copied file) nothing is checked.

    Raises:
        CheckpointError: it is missing, cut short or changed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    note = digest_path(path)
    if not note.is_file():
        return
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


def read(path: str | Path, *, map_location: Any = "cpu") -> dict[str, Any]:
    """Load and check a checkpoint of this suite.

    Raises:
        CheckpointError: missing, damaged, not plain data, of another program, or of a later format.
    """
    path = Path(path)
    verify(path)
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a checkpoint of plain data ({reason})") from None
    record = checkpoint.get(RECORD_KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(record, dict) or not {"format", "settings", "assets"} <= record.keys():
        raise CheckpointError(f"{path}: not a checkpoint of this suite (it has no record of settings and assets)")
    if record["format"] > FORMAT:
        raise CheckpointError(f"{path}: format {record['format']} is newer than this version reads ({FORMAT}): update")
    if checkpoint.get("hyper_parameters"):
        raise CheckpointError(f"{path}: carries hyper-parameters, which no checkpoint of this suite does: not loaded")
    return checkpoint


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's way to files, through ``write`` and ``read``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read(path, map_location=map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)
        digest_path(Path(path)).unlink(missing_ok=True)
