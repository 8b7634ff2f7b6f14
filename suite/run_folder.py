"""A run and the folder that it leaves: ``runs/<domain>/<name>/``. A name that exists is never written over."""

import os
import shutil
import time
from pathlib import Path

from suite.checkpoint import verify
from suite.console import is_first_process, notice
from suite.errors import CheckpointError, SuiteError, UsageError

CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
SAMPLES = "samples"
_SHARED_NAME = "SUITE_RUN_FOLDER"


def create(root: Path, domain: str, name: str | None) -> Path:
    """Make the folder of a new run, named by the time where no name is given.

    Processes that the first one starts find its choice in the environment.

    Raises:
        UsageError: the run exists, or its name is no folder name.
        SuiteError: the folder cannot be made.
    """
    if _SHARED_NAME in os.environ and not is_first_process() and name is None:
        return Path(os.environ[_SHARED_NAME])
    check_name(root, domain, name)
    if name is None and os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1")) != "1":
        raise UsageError("--name is needed where a launcher starts the processes: each would name the run on its own")
    folder = root / domain / (name or _free_name(root / domain))
    if is_first_process():
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise UsageError(_exists(folder)) from None
        except OSError as error:
            message = f"{folder}: cannot make the run folder ({error.strerror}): choose another --runs"
            raise SuiteError(message) from None
        os.environ[_SHARED_NAME] = str(folder.resolve())
    return folder


def check_name(root: Path, domain: str, name: str | None) -> None:
    """Refuse early what ``create`` would refuse: the data need not be read for it.

    Raises:
        UsageError: the run exists, or its name is no folder name.
    """
    if name is None:
        return
    if not name.strip() or name in (".", "..") or "/" in name or "\\" in name:
        raise UsageError(f"--name {name!r}: allowed is one folder name, without slashes")
    if is_first_process() and (root / domain / name).exists():
        raise UsageError(_exists(root / domain / name))


def _exists(folder: Path) -> str:
    return f"{folder}: this run exists: choose another --name, or go on with --resume {folder}"


def _free_name(parent: Path) -> str:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = (stamp if number == 1 else f"{stamp}-{number}" for number in range(1, 1000))
    return next(name for name in names if not (parent / name).exists())


def discard_empty(folder: Path) -> None:
    """Remove a run folder in which nothing was trained, so that its name is free again."""
    if is_first_process() and not any((folder / name).exists() for name in (CHECKPOINTS, "metrics.csv", SAMPLES)):
        shutil.rmtree(folder, ignore_errors=True)


def write_config(folder: Path, text: str) -> None:
    """Keep the settings of a run as ``config.yaml``.

    Raises:
        SuiteError: the folder cannot be written.
    """
    try:
        (folder / CONFIG).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SuiteError(
            f"{folder / CONFIG}: cannot be written ({error.strerror}): a run needs to write into its folder; "
            "change its rights, or copy it"
        ) from None


def find_checkpoint(resume: str, root: Path, domain: str) -> Path:
    """The checkpoint that ``--resume`` means: a file, a run folder, or ``auto`` for the newest run of the domain.

    Raises:
        CheckpointError: there is none.
    """
    if resume != "auto":
        path = Path(resume)
        return newest_checkpoint(path) if path.is_dir() else path
    runs = [folder for folder in (root / domain).glob("*") if (folder / CHECKPOINTS).is_dir()]
    for folder in sorted(runs, key=_age, reverse=True):
        try:
            return newest_checkpoint(folder)
        except CheckpointError as error:
            notice(f"resume: {error}")
    raise CheckpointError(f"--resume auto: no run under {root / domain} has a checkpoint: begin one without --resume")


def folder_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint is in, to go on in it.

    Raises:
        UsageError: it is in none; what is two folders up is not the run's.
    """
    place = checkpoint if checkpoint.parent.name == CHECKPOINTS else checkpoint.resolve()
    if place.parent.name != CHECKPOINTS:
        raise UsageError(
            f"{checkpoint}: a run goes on in its folder, RUN/{CHECKPOINTS}/NAME.ckpt: name that, or begin a new run "
            "from these weights with finetune.py --source"
        )
    return place.parent.parent


def newest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a run that is whole; damaged ones are named and passed over.

    Raises:
        CheckpointError: there is none.
    """
    inside = folder / CHECKPOINTS if (folder / CHECKPOINTS).is_dir() else folder
    found = sorted(inside.glob("*.ckpt"), key=_order, reverse=True)
    if not found:
        raise CheckpointError(f"{folder}: there is no checkpoint: name a run folder that has one, or a checkpoint file")
    for path in found:
        try:
            verify(path)
        except CheckpointError as error:
            notice(f"resume: {error}")
            continue
        return path
    raise CheckpointError(f"{folder}: no checkpoint that is whole: begin a new run")


def _order(path: Path) -> tuple[int, bool]:
    # A best that is also the last has the same time: the last then comes first.
    return path.stat().st_mtime_ns, path.name == "last.ckpt"


def _age(folder: Path) -> int:
    return max((path.stat().st_mtime_ns for path in (folder / CHECKPOINTS).glob("*.ckpt")), default=0)
