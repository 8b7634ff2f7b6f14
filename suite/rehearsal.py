"""A run as ``fit`` makes it that leaves nothing behind: for what is measured, not trained."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from suite.checkpoint import make_record
from suite.data import SuiteDataModule
from suite.domain import Domain, Task
from suite.fitting import build_module
from suite.metrics_file import MetricsFile
from suite.module import SuiteModule
from suite.parser import settings_of
from suite.precision import settle_precision
from suite.tracking import TrackingConfig, build_logger, finish
from suite.trainer import build_trainer
from suite.verb_parsers import fit_parser


class Recipe(NamedTuple):
    """Settings of ``fit``, instantiated and as plain data, and the data that they name."""

    run: Any
    settings: dict[str, Any]
    task: Task
    data: SuiteDataModule

    def module(self) -> SuiteModule:
        """A new module; seed before, for the same initial weights."""
        return build_module(self.run, self.task, self.data.assets)


def load_recipe(domain: Domain, *, defaults: Path | None, flags: Sequence[str]) -> Recipe:
    """The default task of a domain with the settings of a file and of flags, on as many threads as there are now.

    Raises:
        SuiteError: settings or data that ``fit`` would refuse.
    """
    parser = fit_parser(domain, domain.default, defaults=defaults)
    config = parser.parse_args([f"--threads={torch.get_num_threads()}", *flags])
    settle_precision(config.trainer)
    run, task = parser.instantiate(config), domain.task(None)
    data = cast(Callable[..., SuiteDataModule], task.data)(**vars(run.data), seed=run.seed, assets=None)
    return Recipe(run, settings_of(config, without=("config",)), task, data)


@contextmanager
def rehearse(
    module: SuiteModule,
    data: SuiteDataModule,
    run: Any,
    settings: dict[str, Any],
    *,
    tracking: TrackingConfig | None = None,
) -> Iterator[Trainer]:
    """The trainer of an instantiated command line, its run folder a temporary one that is gone afterwards.

    Args:
        module: what will be trained.
        data: from its beginning, wherever a fit before left it.
        run: the instantiated command line of ``fit``.
        settings: the same as plain data.
        tracking: W&B offline if not given. Online is for real runs.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = tracking or TrackingConfig(mode="offline")
        assert config.mode in ("offline", "disabled"), "a rehearsal is sent nowhere"
        tracker = build_logger(config, run_folder=folder, settings=settings, resume_id=None)
        loggers: list[Logger] = [logger for logger in (MetricsFile(folder), tracker) if logger is not None]
        record = make_record(settings=settings, assets=data.assets)
        data._position = (0, 0)
        try:
            yield build_trainer(run, folder, record=record, module=module, loggers=loggers)
        finally:
            finish(loggers)
