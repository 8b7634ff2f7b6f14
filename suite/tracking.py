"""Weights & Biases: offline by default, online or disabled by one flag, never a question and never a surprise.

A run folder is one W&B run, resumed or not; ``suite.wandb_logger`` says how.
"""

import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, get_args

import wandb
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from wandb.sdk import wandb_setup
from wandb.sdk.lib import wbauth

from suite.console import from_here, notice
from suite.effects import Declared, Needs
from suite.errors import UsageError
from suite.wandb_logger import ID_FILE, OFFLINE_HINT, WandbTracker, client_folders, one_line, read_run_id, write_run_id

Mode = Literal["online", "offline", "disabled"]


@dataclass(frozen=True)
class TrackingConfig:
    """Weights & Biases tracking.

    Args:
        mode: online, offline or disabled. If not given: disabled if WANDB_DISABLED is true, else WANDB_MODE, else
            offline.
        project: Project that the run appears in.
        entity: User or team that owns the project; if not given, the account's own default.
        name: Name of the run; if not given, that of the run folder.
        group: Name that ties runs together, such as the folds of a cross-validation.
        tags: Words to find the run by.
        notes: A sentence on what the run is for.
    """

    only_with: ClassVar[Declared] = dict.fromkeys(
        ("project", "entity", "name", "group", "tags", "notes"),
        Needs(("mode",), lambda mode: mode != "disabled", "set {0} to offline or online"),
    )

    mode: Mode | None = None
    project: str = "sequence-suite"
    entity: str | None = None
    name: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None


_TRUE, _FALSE = ("1", "t", "true", "y", "yes", "on"), ("", "0", "f", "false", "n", "no", "off")


def resolve_mode(config: TrackingConfig, environ: Mapping[str, str] = os.environ) -> Mode:
    """Mode in force: the flag, else ``WANDB_DISABLED``, else ``WANDB_MODE``, else offline.

    ``WANDB_DISABLED`` with one of the client's words for true (1, t, true, y, yes, on) means disabled, also beside
    ``WANDB_MODE=online``: of two contradictory wishes the one that sends nothing counts. ``dryrun`` is the old word of
    ``WANDB_MODE`` for offline.

    Raises:
        UsageError: a variable has another value.
    """
    if config.mode is not None:
        return config.mode
    if _is_disabled(environ):
        return "disabled"
    given = environ.get("WANDB_MODE") or "offline"
    mode = "offline" if given == "dryrun" else given
    if mode not in get_args(Mode):
        raise UsageError(f"WANDB_MODE={given}: allowed are {', '.join(get_args(Mode))}; or give --tracking.mode")
    return cast(Mode, mode)


def _is_disabled(environ: Mapping[str, str]) -> bool:
    given = environ.get("WANDB_DISABLED", "")
    if given.lower() not in (*_TRUE, *_FALSE):
        raise UsageError(f"WANDB_DISABLED must be true or false, got {given}; or give --tracking.mode")
    return given.lower() in _TRUE


def check_online(mode: Mode) -> None:
    """Refuse online tracking without a key, before anything is built. Asks nobody and connects to nothing.

    The client's own search is used: WANDB_API_KEY or an identity token, then netrc, then its settings file.

    Raises:
        UsageError: there is no key, or it is malformed.
    """
    if mode != "online":
        return
    host = wandb_setup.singleton().settings.base_url
    problem = "no API key"
    try:
        if wbauth.authenticate_session(host=host, source="tracking", prompt=False, update_session=False):
            return
    except wandb.errors.Error as error:
        problem = one_line(error)
    raise UsageError(f"online tracking at {host}: {problem}; set WANDB_API_KEY or run `wandb login`; {OFFLINE_HINT}")


def build_logger(
    config: TrackingConfig, *, run_folder: Path, settings: dict[str, Any], resume_id: str | None
) -> WandbTracker | None:
    """Logger for a run; None if tracking is disabled. Online connects at once, offline starts with training.

    Args:
        config: Tracking settings.
        run_folder: Folder of the run, made if it is not there.
        settings: Resolved settings of the whole run.
        resume_id: Id of the run that is resumed (``read_run_id``); None if it is new, or not trained further.

    Raises:
        UsageError: online without a key, or a WANDB_MODE that does not exist.
        SuiteError: the folder cannot be written, or the server not be reached.
    """
    mode = resolve_mode(config)
    if mode == "disabled":
        asked = os.environ.get("WANDB_MODE", "")
        if config.mode is None and asked not in ("", "disabled"):
            notice(f"W&B: WANDB_DISABLED={os.environ['WANDB_DISABLED']} overrides WANDB_MODE={asked}: tracking is off")
        return None
    check_online(mode)
    kept = read_run_id(run_folder)
    run_id = resume_id or kept or secrets.token_hex(4)  # not `random`: its state belongs to the experiment
    if run_id != kept:
        write_run_id(run_folder, run_id)
    names = asdict(config)
    del names["mode"]
    names.update(name=config.name or run_folder.resolve().name, tags=config.tags or None)
    tracker = WandbTracker(
        run_folder, mode=mode, names=names, settings=settings, run_id=run_id, resumed=resume_id is not None
    )
    if mode == "online":
        _ = tracker.experiment
    return tracker


def find_tracker(loggers: Logger | Iterable[Logger] | None) -> WandbTracker | None:
    """The W&B logger among a trainer's ``loggers``, if there is one."""
    several = [loggers] if isinstance(loggers, Logger) else (loggers or [])
    return next((logger for logger in several if isinstance(logger, WandbTracker)), None)


def logged_step(trainer: Trainer) -> int:
    """The step of everything that is logged or saved right now: the number of optimiser steps done.

    Rows of ``metrics.csv``, W&B's ``trainer/global_step``, names of samples and of checkpoints all count by it: what is
    logged of the first step, and what is validated after it, has the number 1. A step over several batches counts once.
    """
    return trainer.global_step


def number_by_steps_done(trainer: Trainer) -> None:
    """Have Lightning log at ``logged_step``: by itself it logs one lower until a batch is done, and so validations."""
    connector: Any = trainer._logger_connector
    log_metrics = connector.log_metrics

    def log_at_step(metrics: dict[str, Any], step: int | None = None) -> None:
        if metrics and step is None and "step" not in metrics:
            metrics = {"epoch": trainer.current_epoch, **metrics}
            step = logged_step(trainer)
        log_metrics(metrics, step)

    connector.log_metrics = log_at_step


def log_table(
    loggers: Logger | Iterable[Logger] | None,
    key: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    step: int,
) -> None:
    """Log a table under ``key`` at ``logged_step``; the run's page shows the latest. Nothing without W&B."""
    if tracker := find_tracker(loggers):
        # A new table object each time: the client sends one object only once. Mixed: None beside numbers is no error.
        table = wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)
        tracker.log_media(key, table, step)


def log_image(
    loggers: Logger | Iterable[Logger] | None, key: str, image: Any, step: int, caption: str | None = None
) -> None:
    """Log an image file (path) or a matplotlib figure under ``key`` at ``logged_step``. Nothing without W&B."""
    if tracker := find_tracker(loggers):
        source = str(image) if isinstance(image, os.PathLike) else image
        tracker.log_media(key, wandb.Image(source, caption=caption), step)


def log_file(loggers: Logger | Iterable[Logger] | None, key: str, path: Path, step: int) -> None:
    """Log an image (.png) or a sound (.wav) under ``key`` at ``logged_step``. Nothing without W&B."""
    if tracker := find_tracker(loggers):
        kinds: dict[str, Any] = {".png": wandb.Image, ".wav": wandb.Audio}
        tracker.log_media(key, kinds[path.suffix](str(path), caption=path.stem), step)


def label_partial(trainer: Trainer, *, label: str, share: float) -> None:
    """Mark the test metrics of a run as those of part of the test split.

    ``metrics.csv`` and W&B get the ``share`` of the batches as ``test/share_of_batches``, and the summary of the W&B
    run gets ``label`` as ``test/partial``.
    """
    for logger in trainer.loggers:
        logger.log_metrics({"test/share_of_batches": share}, step=logged_step(trainer))
        logger.save()
    tracker = find_tracker(trainer.loggers)
    if tracker is not None and trainer.is_global_zero:
        tracker.experiment.summary["test/partial"] = label


def finish(loggers: Logger | Iterable[Logger] | None) -> None:
    """End the W&B run, if there is one. Lightning does not: without it a second run in the process joins the first."""
    if tracker := find_tracker(loggers):
        tracker.finish()


def closing_lines(mode: Mode, run_folder: Path) -> list[str]:
    """What to print at the end of a run: the address (online), the command that uploads it (offline), or nothing."""
    if mode == "online" and (run_folder / ID_FILE).exists():
        return [f"W&B: {url}" for url in (run_folder / ID_FILE).read_text().splitlines()[1:2]]
    waiting = [path for path in client_folders(run_folder, "offline-run-*") if not [*path.glob("*.wandb.synced")]]
    if mode != "offline" or not waiting:
        return []
    client = "wandb"
    beside = Path(sys.executable).with_name(client)
    if shutil.which(client) is None and beside.is_file():  # of an environment that is not active
        client = from_here(beside, resolve=False)
    command = shlex.join([client, "sync", *map(from_here, waiting)])
    return ["Tracked offline. To upload the run to Weights & Biases:", f"  {command}"]
