"""Which checkpoints a run writes and keeps, and how it ends on a signal: always right after a checkpoint.

``last.ckpt`` is the newest and ``best.ckpt`` the best; ``step-0000500.ckpt`` and ``best-0000500.ckpt`` are those before
them. Names of one content are links: nothing is written twice.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from suite.checkpoint import RECORD_KEY, digest_path, duplicate
from suite.errors import UsageError
from suite.module import SuiteModule
from suite.scores import improves, is_training_validation, monitored


@dataclass(frozen=True)
class CheckpointPolicy:
    """When to save and what to keep.

    Args:
        every_n_steps: Save every so many optimiser steps, beside after each validation and epoch.
        every_n_minutes: Save when so many minutes have gone by since the last checkpoint.
        keep_last: How many of the newest to keep; one that is damaged can then be gone back behind.
        keep_best: How many of the best to keep.

    Raises:
        UsageError: a number below what makes sense.
    """

    every_n_steps: int | None = None
    every_n_minutes: float | None = None
    keep_last: int = 2
    keep_best: int = 1

    def __post_init__(self) -> None:
        if self.every_n_steps is not None and self.every_n_steps < 1:
            raise UsageError(f"checkpoint_every is {self.every_n_steps}, allowed is 1 or more steps")
        if self.every_n_minutes is not None and not self.every_n_minutes > 0:
            raise UsageError(f"checkpoint_minutes is {self.every_n_minutes}, allowed is more than 0")
        for name, value in (("keep_last", self.keep_last), ("keep_best", self.keep_best)):
            if value < 1:
                raise UsageError(f"{name} is {value}, allowed is 1 or more")


class RunCheckpoints(Checkpoint):
    """Writes a run's checkpoints into a folder, and ends the run after one when a signal asks for it.

    Args:
        folder: where to.
        record: what a checkpoint says beside its tensors (``suite.checkpoint.make_record``).
        policy: when to save and what to keep.
    """

    LAST: ClassVar[str] = "last.ckpt"
    BEST: ClassVar[str] = "best.ckpt"

    def __init__(self, folder: Path, *, record: dict[str, Any], policy: CheckpointPolicy = CheckpointPolicy()) -> None:
        self.folder, self.record, self.policy = folder, record, policy
        self.best: list[tuple[float, int]] = []
        """Scores and steps of the best so far, the best first."""
        self._score: float | None = None
        self._validated = self._inside_validation = False
        self._inside_epoch = False
        self._step = self._saved_step = -1
        self._saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"best": [list(each) for each in self.best]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = [(score, step) for score, step in state_dict["best"]]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        module = cast(SuiteModule, pl_module)
        monitored_value = {"name": module.monitor, "mode": module.monitor_mode, "value": self._score}
        checkpoint[RECORD_KEY] = {**self.record, "monitored": monitored_value}
        if self._inside_validation:
            _validate_again(checkpoint)
        if self._inside_epoch:  # by now Lightning has counted the epoch as done
            for count in ("current", "total"):
                checkpoint["loops"]["fit_loop"]["epoch_progress"][count]["processed"] -= 1

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        cast(SuiteModule, pl_module).stop.install()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # By now Lightning has set its own answer to signals, and has not begun to wait for other processes.
        cast(SuiteModule, pl_module).stop.install()
        self._step = trainer.global_step
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = cast(SuiteModule, pl_module)
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if not stepped or not (module.stop.anywhere is not None or self._is_due(trainer)):
            return
        # Where a validation or the end of the epoch follows, the checkpoint is written once, after it: a run that goes
        # on from here would leave them out.
        if _epoch_is_over(trainer) or _validation_is_due(trainer):
            return
        self.save(trainer)
        module.stop.leave()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        stop = cast(SuiteModule, pl_module).stop
        stop.ask_everyone(pl_module.device)
        if stop.anywhere is not None and is_training_validation(trainer):
            self._inside_validation = True
            self.save(trainer)
        stop.leave()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not is_training_validation(trainer):
            return
        self._validated = True
        if not _epoch_is_over(trainer):
            self._save_judged(trainer, cast(SuiteModule, pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = cast(SuiteModule, pl_module)
        if _epoch_is_over(trainer):
            self._save_judged(trainer, module)
            return
        # The run ends inside the epoch: by max_steps or max_time, say.
        if self._saved_step != trainer.global_step:
            self._inside_epoch = True
            self.save(trainer)
            self._inside_epoch = False
        _leave(module)

    def _is_due(self, trainer: Trainer) -> bool:
        policy = self.policy
        if policy.every_n_steps is not None and self._step % policy.every_n_steps == 0:
            return True
        if policy.every_n_minutes is None:
            return False
        late = time.monotonic() - self._saved_at >= 60.0 * policy.every_n_minutes
        return bool(trainer.strategy.broadcast(late))  # one clock decides for all processes

    def save(self, trainer: Trainer, *, best: bool = False, judged: bool = False) -> None:
        """Write a checkpoint and give it all the names that it has; called by every process."""
        step = trainer.global_step
        names = [f"step-{step:07d}.ckpt", self.LAST]
        if judged:
            names.insert(0, f"best-{step:07d}.ckpt")
        if best:
            names.insert(0, self.BEST)
        # The best first: a run that is killed between two names goes on from the newest, which knows which is best.
        trainer.save_checkpoint(self.folder / names[0])
        if trainer.is_global_zero:
            for name in names[1:]:
                duplicate(self.folder / names[0], self.folder / name)
            self._remove_old()
        trainer.strategy.barrier("checkpoint")
        self._saved_step = step
        self._saved_at = time.monotonic()

    def _save_judged(self, trainer: Trainer, module: SuiteModule) -> None:
        """Save after a validation or an epoch, and stop where that was asked for."""
        top = kept = False
        if self._validated:
            self._validated = False
            self._score = monitored(trainer, module)
            top, kept = self._judge(self._score, trainer.global_step, module.monitor_mode)
        self.save(trainer, best=top, judged=kept and self.policy.keep_best > 1)
        self._score = None
        # Between the two is the place to stop after a validation: every hook of it has been called.
        _leave(module)

    def _judge(self, score: float, step: int, mode: str) -> tuple[bool, bool]:
        """Enter a score; gives whether it is the best so far, and whether it is among those kept.

        Of equal scores the newer is better: a metric may stay at its worst for long (BLEU where no sentence has four
        tokens), and the first checkpoint would be the best.
        """
        worse = (n for n, (other, _) in enumerate(self.best) if not improves(other, score, mode))
        place = next(worse, len(self.best))
        if score != score or place >= self.policy.keep_best:
            return False, False
        self.best.insert(place, (score, step))
        del self.best[self.policy.keep_best :]
        return place == 0, True

    def _remove_old(self) -> None:
        """Delete what is no longer among the newest or the best; only after the new one is written."""
        newest = sorted(self.folder.glob("step-*.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        best = {f"best-{step:07d}.ckpt" for _, step in self.best}
        for path in [*newest[self.policy.keep_last :], *self.folder.glob("best-*.ckpt")]:
            if path.name not in best:
                path.unlink(missing_ok=True)
                digest_path(path).unlink(missing_ok=True)


def _leave(module: SuiteModule) -> None:
    """End the run here if any process was asked to."""
    if module.stop.anywhere is None:
        module.stop.ask_everyone(module.device)
    module.stop.leave()


def _epoch_is_over(trainer: Trainer) -> bool:
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready >= trainer.num_training_batches


def _validation_is_due(trainer: Trainer) -> bool:
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def _validate_again(checkpoint: dict[str, Any]) -> None:
    """Mark a checkpoint written inside a validation, so that a run that goes on from it begins that validation anew."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    progress.update(total=dict(begun), current=dict(begun), is_last_batch=False)
