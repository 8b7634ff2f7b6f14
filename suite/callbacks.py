"""The standing callbacks of every run: step seeds, learning rate, step log."""

import math
import time
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer

from suite.console import notice
from suite.module import SuiteModule
from suite.optim import schedule_factor
from suite.scores import has_not_begun, improves, is_training_validation, monitored
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
        warmup, total = cast(SuiteModule, pl_module).optim.warmup_steps, trainer.estimated_stepping_batches
        if warmup and warmup >= total:
            notice(f"optim.warmup_steps is {warmup}, the whole run has {total:.0f} step(s): all of it is warm-up")

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
        if has_not_begun(score, self.best, module.monitor_mode):
            return
        first = self.best is None or math.isnan(self.best)
        if not math.isnan(score) and (first or improves(score, cast(float, self.best), module.monitor_mode)):
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > module.optim.plateau_patience:
            self.cut, self.waited = self.cut * module.optim.plateau_factor, 0


def closing_names(module: SuiteModule) -> list[str]:
    """The metrics that ``StepLog`` logs, which a run also logs at its end for an interval that is not complete."""
    names = ("loss", "grad_norm", "lr", f"{module.unit}_per_second", "skipped_steps", "layer_groups")
    return [f"train/{name}" for name in names]


class StepLog(Callback):
    """Logs training loss, gradient norm, learning rate and throughput every ``trainer.log_every_n_steps`` steps.

    Values are exact means over all ranks since the last row: the module reduces each step's sums together with its
    weight. Throughput counts training time with data loading, and leaves validation out. Skipped steps are counted
    since the beginning of the run, and are in no mean. What is left of the last interval is logged when the run ends,
    beside the test metrics: a resumed run drops these values (``closing_names``) and logs the whole interval instead.
    """

    def __init__(self) -> None:
        self.loss = self.weight = self.norm = 0.0
        self.steps = self.skipped = 0
        self.latest: dict[str, float] = {}
        self._step = -1
        self._seconds = self._timed_weight = 0.0
        self._since: float | None = None

    def state_dict(self) -> dict[str, Any]:
        names = ("loss", "weight", "norm", "steps", "skipped")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)

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
        if step.skipped:
            self.skipped += 1
        else:
            self.loss, self.weight = self.loss + step.loss * step.weight, self.weight + step.weight
            self.norm, self.steps = self.norm + step.norm, self.steps + 1
            self._timed_weight += step.weight
        if self._step % cast(Any, trainer).log_every_n_steps == 0:
            self._log(trainer, cast(SuiteModule, pl_module))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the last checkpoint, which therefore holds the sums of the interval and not its end."""
        if trainer.global_step % cast(Any, trainer).log_every_n_steps != 0:
            self._log(trainer, cast(SuiteModule, pl_module))

    def _start_clock(self) -> None:
        self._since = time.perf_counter()

    def _stop_clock(self) -> None:
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def _log(self, trainer: Trainer, module: SuiteModule) -> None:
        self._stop_clock()
        self.latest = {
            "train/loss": self.loss / self.weight if self.steps else math.nan,
            "train/grad_norm": self.norm / self.steps if self.steps else math.nan,
            "train/lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            f"train/{module.unit}_per_second": self._timed_weight / self._seconds if self._seconds else math.nan,
            "train/skipped_steps": self.skipped,
        }
        if module.tuning is not None:
            self.latest["train/layer_groups"] = float(module.tuning.count)
        self.loss = self.weight = self.norm = 0.0
        self.steps, self._seconds, self._timed_weight = 0, 0.0, 0.0
        self._start_clock()
        for logger in trainer.loggers:
            logger.log_metrics({**self.latest, "epoch": trainer.current_epoch}, step=logged_step(trainer))
