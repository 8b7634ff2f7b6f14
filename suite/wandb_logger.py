"""One Weights & Biases run a run folder: where its id and files are, how it is started, and steps that never go back.

The id is in ``<run_folder>/wandb-id.txt`` (first line; the second is the address once it was online), the client's
files in ``<run_folder>/wandb``. The x-axis is always ``trainer/global_step``: the number of optimiser steps done, as in
``metrics.csv``.
"""

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from wandb.analytics.opentelemetry import opentelemetry_proxy

from suite.console import notice
from suite.errors import SuiteError

STEP = "trainer/global_step"
ID_FILE = "wandb-id.txt"
OFFLINE_HINT = "--tracking.mode offline works without an account or a network"
_NO_REPORTS = {"WANDB_ERROR_REPORTING": "false"}
_INIT_SECONDS = 6  # the client's own 90 keep a person waiting who has no network
_FINISH_SECONDS = 300  # the client's default waits for ever for a network that is gone; `wandb sync` can follow


class WandbTracker(WandbLogger):
    """Lightning's W&B logger with one mode, one run a folder and steps that never go back.

    Args:
        run_folder: Folder of the run; must exist.
        mode: ``online`` or ``offline``.
        names: project, entity, name, group, tags and notes, as ``wandb.init`` takes them.
        settings: Resolved settings of the whole run, stored as the run's config.
        run_id: Id of the run, the same each time that its folder is taken up again.
        resumed: Whether training is taken up again: what it repeats below the last recorded step is there already
            and left out. Otherwise (an evaluation in the run's folder) it is put at that step.
    """

    def __init__(
        self,
        run_folder: Path,
        *,
        mode: Literal["online", "offline"],
        names: dict[str, Any],
        settings: dict[str, Any],
        run_id: str | None,
        resumed: bool = False,
    ) -> None:
        # `mode=` and not `offline=True`: the latter writes WANDB_MODE into the environment for good.
        super().__init__(
            **names,
            save_dir=run_folder,
            id=run_id,
            mode=mode,
            config=_plain(settings),
            settings=_client_settings(mode),
        )
        self._wandb_init.pop("anonymous", None)  # dead in the client, which warns of it
        self._mode, self._folder, self._replaying, self._failed = mode, run_folder, resumed, False
        self._recorded = self._latest = -1

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The client's run, started at first use; on other processes than the first, an object that does nothing."""
        if self._experiment is None:
            self._experiment = self._start()
        return self._experiment

    def _start(self) -> Any:
        self._recorded = self._latest = recorded_step(self._folder, run_id=self._wandb_init["id"])
        try:
            with _environment_kept(**self._silence()):
                run = wandb.init(**self._wandb_init)
        # ValueError: what the client says to a variable of its own that it cannot read.
        except (wandb.errors.Error, ValueError) as error:
            raise SuiteError(f"W&B ({self._mode}) did not start: {one_line(error)}; {OFFLINE_HINT}") from error
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        if self._replaying and self._recorded > 0:
            notice(
                f"W&B has this run up to step {self._recorded}: what is repeated below it is not sent again, and what "
                "a killed process had not sent yet is in metrics.csv alone"
            )
        if self._mode == "online":
            write_run_id(self._folder, run.id, url=run.url)
            notice(f"W&B: {run.url}")
        return run

    def _silence(self) -> dict[str, str]:
        """Stop the telemetry, which the client sends from its two processes even if only the run is offline."""
        if self._mode == "online":
            return {}
        opentelemetry_proxy.disable()
        return _NO_REPORTS

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Start the run, so that a failure comes before the first step. Its config has all settings already."""
        _ = self.experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers at ``step``."""
        run = self.experiment
        if (place := self._place(step)) is not None:
            run.log({**metrics, STEP: place})

    @rank_zero_only
    def log_media(self, key: str, media: Any, step: int) -> None:
        """Log a table or image at ``step``, or at the latest step if that is further."""
        run = self.experiment
        if (place := self._place(step)) is None:
            return
        # Tables are staged in the home folder unless told otherwise; a run folder is to have all that is its own.
        staging = os.environ.get("WANDB_DATA_DIR") or str(self._folder.resolve() / "wandb" / "data")
        with _environment_kept(WANDB_DATA_DIR=staging):
            run.log({key: media, STEP: place})

    def _place(self, step: int | None) -> int | None:
        """Where to log what belongs to ``step``, never before the latest; None if a resumed run only repeats it."""
        self._replaying = self._replaying and step is not None and step < self._recorded
        if self._replaying:
            return None
        self._latest = max(self._latest, step or 0)
        return self._latest

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Remember how it ended. The run stays open, as testing may follow training: see ``finish``."""
        self._failed = status != "success"

    @rank_zero_only
    def finish(self) -> None:
        """End the run and write all of it to the disk."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(self._failed))
            self._experiment = None


def read_run_id(run_folder: Path) -> str | None:
    """Id of the W&B run of a folder; None if it never had one."""
    path = run_folder / ID_FILE
    return path.read_text().split("\n")[0].strip() or None if path.is_file() else None


@rank_zero_only
def write_run_id(run_folder: Path, run_id: str, *, url: str | None = None) -> None:
    """Keep the id (and the address) of the folder's W&B run."""
    path = run_folder / ID_FILE
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(filter(None, [run_id, url])) + "\n")
    except OSError as error:
        raise SuiteError(f"{path}: cannot write ({error.strerror}); give another run folder") from error


def recorded_step(run_folder: Path, *, run_id: str | None) -> int:
    """Last step that the folder's W&B files hold of a run, read by the client's own reader; -1 if none."""
    for folder in reversed(client_folders(run_folder, f"*run-*-{run_id}*")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(folder)]
        environment = {**os.environ, **_NO_REPORTS}
        result = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment, check=False)
        try:
            return int(json.loads(result.stdout)["summary"][STEP])
        except (ValueError, KeyError):
            continue  # killed before the client wrote anything down: the one before it counts
    return -1


def client_folders(run_folder: Path, pattern: str) -> list[Path]:
    """The client's folders, oldest first: ``[offline-]run-<date>_<time>-<id>``."""
    found = [path for path in (run_folder / "wandb").glob(pattern) if path.is_dir() and not path.is_symlink()]
    return sorted(found, key=lambda path: path.name.removeprefix("offline-"))


def _client_settings(mode: str) -> wandb.Settings:
    """Quiet; a previous run of the process is ended first; short waits online unless the user's environment differs."""
    values: dict[str, Any] = {"quiet": True, "silent": mode == "offline", "reinit": "finish_previous"}
    for name, seconds in (("init_timeout", _INIT_SECONDS), ("finish_timeout", _FINISH_SECONDS)):
        if f"WANDB_{name.upper()}" not in os.environ:
            values[name] = seconds
    return wandb.Settings(**values)


@contextmanager
def _environment_kept(**changes: str) -> Iterator[None]:
    """Make changes to the environment, then undo all: the client leaves an address there that child runs would use."""
    before = dict(os.environ)
    try:
        os.environ.update(changes)
        yield
    finally:
        for name in [name for name in os.environ if name not in before]:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


def _plain(value: Any) -> Any:
    """JSON types only, without the key that jsonargparse adds to hyper-parameters."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if key != "_instantiator"}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def one_line(error: Exception) -> str:
    """What the client says, on one line."""
    return " ".join(str(error).split())
