"""The source of a run of ``finetune``: another model's weights and settings. Everything else is ``fit``."""

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from suite.checkpoint import RECORD_KEY, read, weights_of
from suite.config import plain
from suite.console import is_first_process, notice
from suite.domain import Domain, Task
from suite.errors import CheckpointError, UsageError
from suite.layer_groups import FinetuneConfig
from suite.module import SuiteModule
from suite.restore import best_of, task_of
from suite.resume import flatten
from suite.transfer import Transfer, transfer

REPORT = "source.json"
"""The file in a run folder that says what became of each weight of the source."""


@dataclass(frozen=True)
class Source:
    """A checkpoint that a run begins with: the ``config`` of how, the ``record`` of origin, and what it holds.

    ``trained_on`` is its own record, for the fingerprints of its data.
    """

    config: FinetuneConfig
    record: dict[str, Any]
    task: Task
    settings: dict[str, Any]
    assets: dict[str, Any]
    state: dict[str, Tensor]
    trained_on: dict[str, Any] = field(default_factory=dict)

    def defaults(self, task: Task) -> dict[str, Any]:
        """Settings that ``task`` takes over: of the model all, of the data those that decide what is trained.

        Another task takes over each setting of the same name and type. How the source's own data was divided and
        augmented stays with it.
        """
        trained = (
            (self.task.data.trained_settings & task.data.trained_settings)
            - task.data.own_settings
            - task.data.begin_settings
        )
        data = {key: value for key, value in self.settings["data"].items() if key in trained}
        return {
            "model": _common(self.settings["model"], self.task.module, task.module),
            "data": _common(data, self.task.data, task.data),
        }

    def assets_for(self, task: Task, settings: dict[str, Any]) -> dict[str, Any] | None:
        """The assets that the new data, of ``settings``, is to use; ``None`` has them made from it.

        Raises:
            UsageError: the source's are asked for, and it is of another task; or a setting that weights begin with.
        """
        for name in sorted(task.data.begin_settings):
            if settings["data"].get(name) is not None:
                raise UsageError(f"data.{name}: in fine-tuning the weights come from the source: leave it out")
        if self.config.assets == "data":
            return None
        if task.data is not self.task.data:
            raise UsageError(
                f"finetune.assets source: the source is of task {self.settings['task']}, whose data is another kind: "
                "leave it at data"
            )
        return self.assets

    def hand_over(self, module: SuiteModule, settings: dict[str, Any]) -> Transfer:
        """Load the weights into ``module``, which was made with ``settings``.

        Raises:
            UsageError: something does not fit, and was not declared.
            CheckpointError: the source's weights or assets are of no use.
        """
        try:
            return transfer(module, self.state, self.assets, config=self.config, hint=self._differing(settings))
        except (UsageError, CheckpointError) as error:
            raise type(error)(f"{self.record['path']}: {error}") from None
        except (KeyError, TypeError) as error:
            path = self.record["path"]
            raise CheckpointError(f"{path}: what travels with its weights is not whole ({error!r})") from error

    def announce(self, folder: Path, report: Transfer) -> None:
        """Print what became of the weights in short, and write it whole into the run folder."""
        record = self.record
        if is_first_process():
            text = json.dumps({**record, "weights": report.plain()}, indent=1, ensure_ascii=False)
            (folder / REPORT).write_text(text + "\n", encoding="utf-8")
        name = f"Source {record['path']} ({record['task']}, step {record['step']}, SHA-256 {record['sha256'][:12]})"
        notice("\n".join([name, *report.lines()]))

    def _differing(self, settings: dict[str, Any]) -> str:
        """Settings of the model that both have, and that differ."""
        there, here = flatten(self.settings["model"], "model."), flatten(plain(settings["model"]), "model.")
        names = [name for name in there if name in here and here[name] != there[name]]
        differing = ", ".join(f"{name} ({there[name]} there, {here[name]} here)" for name in names)
        return f"settings that differ from the source's: {differing}" if differing else ""


def _common(settings: dict[str, Any], old: type, new: type) -> dict[str, Any]:
    """The settings that both constructors have under the same name and type."""
    before, after = inspect.signature(old).parameters, inspect.signature(new).parameters
    return {
        name: value
        for name, value in settings.items()
        if name in before and name in after and before[name].annotation == after[name].annotation
    }


def open_source(given: str | None, *, config: FinetuneConfig, domain: Domain, load: Callable[[str], Any]) -> Source:
    """Read and verify the checkpoint that ``--source`` names: a file, or a run folder's best.

    Raises:
        UsageError: none is named, or it is of another domain.
        CheckpointError: it is missing, damaged or foreign.
    """
    config.check()
    if given is None:
        raise UsageError("--source is missing: use finetune.py --domain NAME --source CHECKPOINT (or a run folder)")
    path = best_of(given)
    checkpoint = read(path)
    record = checkpoint[RECORD_KEY]
    settings = record["settings"]
    task = task_of(settings, load, path)
    if settings["domain"] != domain.name:
        raise UsageError(f"--source {path} is of --domain {settings['domain']}, not of {domain.name}: name that one")
    state = checkpoint.get("state_dict")
    if not isinstance(state, dict) or not all(isinstance(weight, Tensor) for weight in state.values()):
        raise CheckpointError(f"{path}: it holds no weights: use another checkpoint")
    state = weights_of(checkpoint)
    origin = {
        "path": str(path),
        "sha256": _digest(path),
        "domain": settings["domain"],
        "task": settings["task"],
        "step": checkpoint.get("global_step"),
        "source": record.get("source"),  # where the source itself came from
    }
    return Source(config, origin, task, settings, record["assets"], state, record)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
