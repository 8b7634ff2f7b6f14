"""A run as ``fit`` makes it that leaves nothing behind: for what is measured, not trained."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from suite.checkpoint import make_record
from suite.data import SuiteDataModule
from suite.metrics_file import MetricsFile
from suite.module import SuiteModule
from suite.tracking import TrackingConfig, build_logger, finish
from suite.trainer import build_trainer


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
