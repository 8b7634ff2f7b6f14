"""The standing callbacks of every run: step seeds, learning rate, checkpoints, step log."""

import time
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from suite.checkpoint import RECORD_KEY, duplicate
from suite.errors import UsageError
from suite.module import SuiteModule
from suite.optim import schedule_factor
from suite.seeding import seed_everything
from suite.tracking import logged_step


class StepSeed(Callback):
    """Seeds dropout and the like before each training batch from (seed, epoch, batch, rank): no state to save."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        seed_everything(self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)


class LearningRate(Callback):
    """Sets the learning rate of each parameter group before each step, from the schedule in ``module.optim``.

    The rate is the group's own highest rate times ``schedule_factor``; ``plateau`` multiplies by its cuts so far.
    """

    def __init__(self) -> None:
        self.cut = 1.0
        self.best: float | None = None
        self.waited = 0

    def state_dict(self) -> dict[str, Any]:
        return {"cut": self.cut, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.cut, self.best, self.waited = state_dict["cut"], state_dict["best"], state_dict["waited"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for group in trainer.optimizers[0].param_groups:
            group.setdefault("highest_lr", cast(SuiteModule, pl_module).optim.lr)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        config = cast(SuiteModule, pl_module).optim
        factor = self.cut * schedule_factor(config, trainer.global_step, trainer.estimated_stepping_batches)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = group["highest_lr"] * factor

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = cast(SuiteModule, pl_module)
        if module.optim.schedule != "plateau" or not is_training_validation(trainer):
            return
        score = monitored(trainer, module)
        if self.best is None or improves(score, self.best, module.monitor_mode):
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > module.optim.plateau_patience:
            self.cut, self.waited = self.cut * module.optim.plateau_factor, 0


class StepLog(Callback):
    """Logs training loss, gradient norm, learning rate and throughput every ``trainer.log_every_n_steps`` steps.

    Values are exact means over all ranks since the last row: the module reduces each step's sums together with its
    weight. Throughput counts training time with data loading, and leaves validation out.
    """

    def __init__(self) -> None:
        self.loss = self.weight = self.norm = 0.0
        self.steps = 0
        self.latest: dict[str, float] = {}
        self._pending: list[torch.Tensor] = []
        self._step = -1
        self._seconds = self._timed_weight = 0.0
        self._since: float | None = None

    def state_dict(self) -> dict[str, Any]:
        self._drain()
        return {"loss": self.loss, "weight": self.weight, "norm": self.norm, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loss, self.weight = state_dict["loss"], state_dict["weight"]
        self.norm, self.steps = state_dict["norm"], state_dict["steps"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_clock()  # a run that goes on inside an epoch does not start one
        self._step = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_clock()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_clock()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_clock()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_clock()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = cast(SuiteModule, pl_module).last_step
        if trainer.global_step == self._step or step is None:
            return
        self._step = trainer.global_step
        self._pending.append(torch.stack([step.loss * step.weight, step.weight, step.norm]))
        if self._step % cast(Any, trainer).log_every_n_steps == 0:
            self._log(trainer, cast(SuiteModule, pl_module))

    def _start_clock(self) -> None:
        self._since = time.perf_counter()

    def _stop_clock(self) -> None:
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def _drain(self) -> None:
        """Read the steps kept on the device: one wait a row, not one a step."""
        if not self._pending:
            return
        rows = torch.stack(self._pending).double().cpu()
        loss, weight, norm = rows.sum(dim=0).tolist()
        self.loss, self.weight, self.norm = self.loss + loss, self.weight + weight, self.norm + norm
        self.steps += len(rows)
        self._timed_weight += weight
        self._pending.clear()

    def _log(self, trainer: Trainer, module: SuiteModule) -> None:
        self._drain()
        self._stop_clock()
        self.latest = {
            "train/loss": self.loss / self.weight,
            "train/grad_norm": self.norm / self.steps,
            "train/lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            f"train/{module.unit}_per_second": self._timed_weight / max(self._seconds, 1e-9),
        }
        if module.tuning is not None:
            self.latest["train/layer_groups"] = float(module.tuning.count)
        self.loss = self.weight = self.norm = 0.0
        self.steps, self._seconds, self._timed_weight = 0, 0.0, 0.0
        self._start_clock()
        for logger in trainer.loggers:
            logger.log_metrics({**self.latest, "epoch": trainer.current_epoch}, step=logged_step(trainer))


def is_training_validation(trainer: Trainer) -> bool:
    """Whether the validation at hand is part of fitting, and no sanity check."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def improves(score: float, best: float, mode: str) -> bool:
    """Whether ``score`` beats ``best``; a score that is not a number never does."""
    return score < best if mode == "min" else score > best


def monitored(trainer: Trainer, module: SuiteModule) -> float:
    """The value that decides what is best.

    Raises:
        UsageError: no such metric, naming those there are.
    """
    if module.monitor not in trainer.callback_metrics:
        names = ", ".join(sorted(trainer.callback_metrics))
        raise UsageError(f"the monitored metric {module.monitor} is not among those logged: {names}")
    return float(trainer.callback_metrics[module.monitor])


class RunCheckpoints(Checkpoint):
    """Keeps ``last.ckpt`` and ``best.ckpt`` in a folder, every n steps and after each epoch or validation.

    Args:
        folder: where to.
        record: what a checkpoint says beside its tensors (``suite.checkpoint.make_record``).
        every_n_steps: also save ``last.ckpt`` every so many optimiser steps.
    """

    LAST: ClassVar[str] = "last.ckpt"
    BEST: ClassVar[str] = "best.ckpt"

    def __init__(self, folder: Path, *, record: dict[str, Any], every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise UsageError(f"checkpoint_every is {every_n_steps}, allowed is 1 or more steps")
        self.folder, self.record = folder, record
        self.every_n_steps = None if every_n_steps is None else int(every_n_steps)
        self.best: float | None = None
        self._validated = False
        self._step = -1

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[RECORD_KEY] = self.record

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        due = self.every_n_steps is not None and self._step % self.every_n_steps == 0
        # At the end of an epoch the checkpoint is written once, after validation.
        if stepped and due and not _epoch_is_over(trainer):
            trainer.save_checkpoint(self.folder / self.LAST)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not is_training_validation(trainer):
            return
        self._validated = True
        if not _epoch_is_over(trainer):
            self._save(trainer, cast(SuiteModule, pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, cast(SuiteModule, pl_module))

    def _save(self, trainer: Trainer, module: SuiteModule) -> None:
        improved = False
        if self._validated:
            self._validated = False
            score = monitored(trainer, module)
            improved = self.best is None or improves(score, self.best, module.monitor_mode)
            self.best = score if improved else self.best
        if not improved:
            trainer.save_checkpoint(self.folder / self.LAST)
            return
        # The best first: a run that stops between the two goes on from the last before it and finds the best again.
        trainer.save_checkpoint(self.folder / self.BEST)
        if trainer.is_global_zero:
            duplicate(self.folder / self.BEST, self.folder / self.LAST)
        trainer.strategy.barrier("checkpoint")


def _epoch_is_over(trainer: Trainer) -> bool:
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready >= trainer.num_training_batches
