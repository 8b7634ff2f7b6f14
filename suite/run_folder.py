"""A run and the folder that it leaves: ``runs/<domain>/<name>/``. A name that exists is never written over."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from suite.checkpoint import Place, place_of, verify
from suite.console import is_first_process, notice
from suite.errors import CheckpointError, SuiteError, UsageError
from suite.run_lock import locked

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
            "change its permissions, or copy it"
        ) from None


@contextlib.contextmanager
def resumed(resume: str, root: Path, domain: str) -> Iterator[Path]:
    """Lock the run that ``--resume`` means for the block, and give the checkpoint to resume from.

    ``resume`` is a checkpoint, a run folder (its newest checkpoint), or ``auto`` for the newest run of the domain: the
    one whose newest checkpoint was saved last by its own record. For checkpoints of earlier versions, whose records do
    not say when they were saved, the time of the file counts.

    Raises:
        CheckpointError: there is no checkpoint.
        UsageError: another process writes the run, or the checkpoint is in no run folder.
    """
    if resume != "auto":
        path = Path(resume)
        folder = _run_of(path)
        # What is in no run folder is refused once it is read, for what it is.
        with contextlib.nullcontext() if folder is None else locked(folder):
            yield newest_checkpoint(path) if path.is_dir() else path
        return
    runs = [folder for folder in (root / domain).glob("*") if (folder / CHECKPOINTS).is_dir()]
    for folder in sorted(runs, key=_saved_at, reverse=True):
        with contextlib.ExitStack() as held:
            held.enter_context(locked(folder))
            try:
                source = newest_checkpoint(folder)
            except CheckpointError as error:
                notice(f"resume: {error}")
                continue
            yield source
            return
    raise CheckpointError(f"--resume auto: no run under {root / domain} has a checkpoint: begin one without --resume")


def _run_of(path: Path) -> Path | None:
    """The run folder that ``path`` is, or lies in; ``None`` if there is none."""
    if path.is_dir():
        return path if (path / CHECKPOINTS).is_dir() else path.resolve().parent if _is_inside(path) else None
    with contextlib.suppress(UsageError):
        return folder_of(path) if path.is_file() else None
    return None


def _is_inside(path: Path) -> bool:
    return path.resolve().name == CHECKPOINTS


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
    """The checkpoint of a run with the most steps by its own record; damaged ones are reported and passed over.

    Raises:
        CheckpointError: there is none.
    """
    inside = checkpoints_in(folder)
    if not any(inside.glob("*.ckpt")):
        raise CheckpointError(f"{folder}: there is no checkpoint: name a run folder that has one, or a checkpoint file")
    places, damaged = read_places(inside)
    for problem in damaged.values():
        notice(f"resume: {problem}")
    for path in sorted(places, key=lambda path: _order(path, places[path]), reverse=True):
        try:
            verify(path)
        except CheckpointError as error:
            notice(f"resume: {error}")
            continue
        return path
    raise CheckpointError(f"{folder}: no checkpoint that is whole: begin a new run")


def checkpoints_in(folder: Path) -> Path:
    """The folder of checkpoints of a run folder; ``folder`` itself if it has none."""
    return folder / CHECKPOINTS if (folder / CHECKPOINTS).is_dir() else folder


def read_places(inside: Path) -> tuple[dict[Path, Place], dict[Path, CheckpointError]]:
    """Where each checkpoint of a run in ``inside`` was written, and what is wrong with those that cannot be read.

    Averages of checkpoints are left out: they are no place in a run.
    """
    places: dict[Path, Place] = {}
    damaged: dict[Path, CheckpointError] = {}
    known: dict[tuple[int, int], Place] = {}  # several names of one file are read once
    for path in sorted(inside.glob("*.ckpt")):
        try:
            state = path.stat()
            key = (state.st_dev, state.st_ino)
            if key not in known:
                known[key] = place_of(path)
        except (CheckpointError, OSError) as error:
            damaged[path] = _why(path, error)
            continue
        if not known[key].averaged:
            places[path] = known[key]
    return places, damaged


def _why(path: Path, error: Exception) -> CheckpointError:
    """Why a checkpoint cannot be read: what its digest says, where that explains it."""
    try:
        verify(path)
    except (CheckpointError, OSError) as reason:
        return CheckpointError(str(reason))
    return CheckpointError(str(error))


def _order(path: Path, place: Place) -> tuple[int, int, bool]:
    # Of several names of one place the last comes first.
    return place.step, place.batches, path.name == "last.ckpt"


def _saved_at(folder: Path) -> float:
    """When the newest checkpoint of a run was saved, in seconds since 1970; 0 without one."""
    places, _ = read_places(folder / CHECKPOINTS)
    if not places:
        return 0.0
    path = max(places, key=lambda path: _order(path, places[path]))
    saved_at = places[path].saved_at
    return path.stat().st_mtime if saved_at is None else saved_at
