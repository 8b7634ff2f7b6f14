"""Resuming from an earlier checkpoint than the newest: what the run made after it is moved aside, never deleted."""

import os
import re
import shutil
from pathlib import Path

from suite.checkpoint import digest_path
from suite.console import is_first_process, notice
from suite.errors import SuiteError
from suite.run_folder import CHECKPOINTS, SAMPLES, read_places

METRICS = "metrics.csv"
_NUMBER = re.compile(r"(?:step|best)-(\d+)")


def set_later_aside(folder: Path, *, step: int) -> Path | None:
    """Move the checkpoints after ``step``, and damaged ones, into ``RUN/after-step-N``, with what else came later.

    That folder is laid out as a run: the checkpoints, the samples after ``step``, and a copy of ``metrics.csv`` with
    all rows. It is evaluated like any other run. Nothing happens if the run has no later checkpoint.

    Args:
        folder: the run folder, locked by this process.
        step: optimiser steps of the checkpoint to resume from.

    Raises:
        SuiteError: the files cannot be moved.
    """
    if not is_first_process():
        return None
    places, damaged = read_places(folder / CHECKPOINTS)
    later = [path for path, place in places.items() if place.step > step]
    later += [path for path in damaged if _numbered(path, otherwise=step + 1) > step]
    if not later:
        return None
    try:
        aside = _new_folder(folder, step)
        for path in later:
            _move(path, aside / CHECKPOINTS)
            if digest_path(path).is_file():
                _move(digest_path(path), aside / CHECKPOINTS)
        for path in sorted((folder / SAMPLES).glob("step-*")):
            if _numbered(path, otherwise=0) > step:
                _move(path, aside / SAMPLES)
        if (folder / METRICS).is_file():
            shutil.copy2(folder / METRICS, aside / METRICS)
    except OSError as error:
        raise SuiteError(f"{folder}: cannot move what is after step {step} aside ({error.strerror})") from None
    names = ", ".join(sorted(path.name for path in later))
    notice(
        f"resume: moved checkpoints that are damaged or after step {step} to {aside}: {names}; "
        f"also there: later samples, and a copy of {METRICS} with all rows"
    )
    return aside


def _numbered(path: Path, *, otherwise: int) -> int:
    """The step in the name of a file."""
    found = _NUMBER.match(path.name)
    return int(found[1]) if found else otherwise


def _new_folder(folder: Path, step: int) -> Path:
    """A new folder beside the checkpoints; a run may be rewound to one step several times."""
    name = f"after-step-{step:07d}"
    names = (name if number == 1 else f"{name}-{number}" for number in range(1, 100_000))
    aside = next(folder / each for each in names if not (folder / each).exists())
    (aside / CHECKPOINTS).mkdir(parents=True)
    return aside


def _move(path: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    os.replace(path, folder / path.name)
