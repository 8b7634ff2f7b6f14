"""The Lightning trainer of a run: its standing callbacks, loggers and checkpoint files."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from suite.callbacks import LearningRate, StepLog, StepSeed
from suite.checkpoint import AtomicCheckpointIO
from suite.early_stopping import EarlyStopping
from suite.ema import WeightAverage
from suite.errors import UsageError
from suite.finite import FiniteGuard
from suite.module import SuiteModule
from suite.progress import Bar, build_progress
from suite.ranks import SameOnAllRanks
from suite.run_checkpoints import CheckpointPolicy, RunCheckpoints
from suite.run_folder import CHECKPOINTS, SAMPLES
from suite.samples import Samples
from suite.tracking import number_by_steps_done
from suite.unfreezing import Unfreezing

# Advice of libraries on what this project or the user has chosen: messages, by how they begin.
_ADVICE = (
    ".*treespec, LeafSpec.*",  # Lightning's own use of a torch function that is going away
    ".*does not have many workers.*",  # batches are encoded sentences here: workers are the user's choice
    ".*ended before the epoch ended and your dataloader is not resumable.*",  # the data module is
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*method of metric .* was called before the ``update`` method.*",  # of a class or speaker that a split lacks
    r"The number of training batches \(\d+\) is smaller than the logging interval.*",  # the rest is logged at the end
    ".*[Cc]onsider setting `?persistent_workers=True.*",
    ".*available but not used.*",  # --trainer.accelerator cpu
    ".*pin_memory.*no accelerator is found.*",
    ".*It is recommended to use `self.log.*sync_dist=True.*",  # torchmetrics objects are logged
    ".*enable_nested_tensor.*",
    ".*nested tensors is in prototype stage.*",
    ".*Precision .* is not supported by the model summary.*",
    r".*barrier\(\): using the device under current context.*",
    ".*using a custom batch sampler .* for prediction.*",  # ours gives every example once in prediction
)
# Code whose own use of what is going away is not the user's concern.
_LIBRARIES = (
    r"(torch|lightning|lightning_fabric|torchmetrics|torchvision|torchaudio|wandb|numba|matplotlib|jsonargparse)\b"
)


def quiet_libraries() -> None:
    """Leave out what libraries say on every run and nobody can act on; warnings about the run itself stay.

    Warnings are chosen by their text, or by the library whose own code they are about: those of a user's code show.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    os.environ.setdefault("POSSIBLE_USER_WARNINGS", "off")
    for text in _ADVICE:
        warnings.filterwarnings("ignore", message=text)
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=_LIBRARIES)


def build_trainer(
    config: Any,
    folder: Path,
    *,
    record: dict[str, Any],
    module: SuiteModule,
    loggers: list[Logger],
    start: dict[str, Any] | None = None,
) -> Trainer:
    """A trainer that keeps a run in ``folder``.

    Args:
        config: the instantiated command line of ``fit``.
        folder: the run folder.
        record: what every checkpoint says beside its tensors.
        module: what will be trained, for what it monitors.
        loggers: where figures go.
        start: what else must be the same in all processes: the data, the step to go on from.

    Raises:
        UsageError: options that Lightning refuses.
    """
    options = dict(vars(config.trainer))
    users = options.pop("callbacks") or []
    callbacks = _standing_callbacks(config, folder, record=record, module=module, start=start or {})
    callbacks += users if isinstance(users, list) else [users]
    if options.pop("enable_progress_bar") is not False:
        callbacks.append(build_progress())
    options |= {
        "callbacks": callbacks,
        "logger": loggers,
        "plugins": [AtomicCheckpointIO()],
        "use_distributed_sampler": False,  # our sampler shares examples out itself, without repeating any
        "default_root_dir": folder,
        "enable_model_summary": False,
        "enable_progress_bar": any(isinstance(callback, Bar) for callback in callbacks),
    }
    trainer = construct(options)
    number_by_steps_done(trainer)
    if isinstance(trainer.strategy, DDPStrategy):  # asked for by name, or taken by auto for several devices
        # Gradients lie in the buffers that are reduced: no copy to and fro.
        trainer.strategy._ddp_kwargs.setdefault("gradient_as_bucket_view", True)
    # Lightning would broadcast before each batch whether rank 0 was signalled; ranks agree on that with the step's own
    # reduction here (suite/stop.py).
    cast(Any, trainer.fit_loop.epoch_loop)._broadcast_sigterm_tensor = lambda: None
    # With max_steps Lightning would count an epoch too many when it resumes from the end of one, and with max_epochs
    # beside it end a run without the steps that are left. Without, it resumes by epochs and batches as it always does.
    cast(Any, trainer.fit_loop)._iteration_based_training = lambda: False
    return trainer


def _standing_callbacks(
    config: Any, folder: Path, *, record: dict[str, Any], module: SuiteModule, start: dict[str, Any]
) -> list[Callback]:
    """What every run has; the order matters where one prepares what another reads."""
    policy = CheckpointPolicy(
        config.checkpoint_every, config.checkpoint_minutes, keep_last=config.keep_last, keep_best=config.keep_best
    )
    checkpoints = RunCheckpoints(folder / CHECKPOINTS, record=record, policy=policy)
    callbacks: list[Callback] = [
        SameOnAllRanks({**record["settings"], **start}),
        StepSeed(config.seed),
        LearningRate(),
        FiniteGuard(config.max_skipped, checkpoints=checkpoints),
        StepLog(),
        Samples(folder / SAMPLES, count=config.samples),
    ]
    if config.ema_decay is not None:
        callbacks.append(WeightAverage(config.ema_decay))  # after the samples, which show the average
    if module.tuning is not None:
        callbacks.append(Unfreezing())
    if config.patience is not None:
        # Not strict: an epoch may end without a validation, by max_steps say, and is no reason to lose the run.
        patience = int(config.patience)
        callbacks.append(EarlyStopping(module.monitor, mode=module.monitor_mode, patience=patience, strict=False))
    return [*callbacks, checkpoints]


def construct(options: dict[str, Any]) -> Trainer:
    """Lightning's trainer.

    Raises:
        UsageError: options that do not go together: a strategy without the devices that it is for, say.
    """
    try:
        return Trainer(**options)
    except (
        ValueError,
        TypeError,
        ImportError,
        MisconfigurationException,
    ) as error:  # a precision or strategy of a library that is not there
        raise UsageError(f"trainer: {' '.join(str(error).split())}") from None
