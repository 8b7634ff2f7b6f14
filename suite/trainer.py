"""The Lightning trainer of a run: its standing callbacks, loggers and checkpoint files."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger

from suite.callbacks import LearningRate, RunCheckpoints, StepLog, StepSeed
from suite.checkpoint import AtomicCheckpointIO
from suite.errors import UsageError
from suite.module import SuiteModule
from suite.progress import build_progress
from suite.run_folder import CHECKPOINTS
from suite.samples import Samples
from suite.unfreezing import Unfreezing


def quiet_libraries() -> None:
    """Leave out what libraries say on every run and nobody can act on; warnings about the run itself stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    os.environ.setdefault("POSSIBLE_USER_WARNINGS", "off")
    for text in (
        ".*treespec, LeafSpec.*",  # Lightning's own use of a torch function that is going away
        ".*does not have many workers.*",  # batches are encoded sentences here: workers are the user's choice
        ".*ended before the epoch ended and your dataloader is not resumable.*",  # the data module is
        ".*Checkpoint directory .* exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message=text)


def build_trainer(
    config: Any, folder: Path, *, record: dict[str, Any], module: SuiteModule, loggers: list[Logger]
) -> Trainer:
    """A trainer that keeps a run in ``folder``.

    Args:
        config: the instantiated command line of ``fit``.
        folder: the run folder.
        record: what every checkpoint says beside its tensors.
        module: what will be trained, for what it monitors.
        loggers: where figures go.

    Raises:
        UsageError: a strategy that computes wrong results.
    """
    options = dict(vars(config.trainer))
    refuse_strategy(options.get("strategy"))
    users = options.pop("callbacks") or []
    callbacks: list[Callback] = [
        StepSeed(config.seed),
        LearningRate(),
        StepLog(),
        Samples(folder / "samples", count=config.samples),
        RunCheckpoints(folder / CHECKPOINTS, record=record, every_n_steps=config.checkpoint_every),
        *(users if isinstance(users, list) else [users]),
    ]
    if module.tuning is not None:
        callbacks.append(Unfreezing())
    if config.patience is not None:
        callbacks.append(EarlyStopping(module.monitor, mode=module.monitor_mode, patience=int(config.patience)))
    if options.pop("enable_progress_bar") is not False:
        callbacks.append(build_progress())
    return Trainer(
        **options,
        callbacks=callbacks,
        logger=loggers,
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,  # our sampler shares examples out itself, without repeating any
        default_root_dir=folder,
        enable_model_summary=False,
        enable_progress_bar=any(callback.__class__.__name__ == "Bar" for callback in callbacks),
    )


def refuse_strategy(strategy: Any) -> None:
    """Refuse ``ddp_spawn`` and its relatives.

    Raises:
        UsageError: a strategy whose processes share tensors, which adds sums up twice.
    """
    if isinstance(strategy, str) and any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise UsageError(
            f"trainer.strategy {strategy}: its processes share metric tensors, so that sums count twice: use ddp"
        )
