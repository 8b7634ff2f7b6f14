"""Which checkpoints a run writes and keeps, and how it ends on a signal: always right after a checkpoint.

``last.ckpt`` is the newest and ``best.ckpt`` the best; ``step-0000500.ckpt`` and ``best-0000500.ckpt`` are those before
them. Names of one content are links: nothing is written twice.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from suite.checkpoint import RECORD_KEY, SAVED_AT_KEY, STEPS_DONE_KEY, digest_path, duplicate
from suite.console import notice
from suite.errors import UsageError
from suite.limits import partial_label
from suite.module import SuiteModule
from suite.run_folder import read_places
from suite.scores import improves, is_training_validation, monitored


@dataclass(frozen=True)
class CheckpointPolicy:
    """When to save and what to keep.

    Args:
        every_n_steps: Save every so many optimiser steps, beside after each validation and epoch.
        every_n_minutes: Save when so many minutes have gone by since the last checkpoint.
        keep_last: Number of recent checkpoints to keep, so that an older one remains if the newest is damaged.
        keep_best: Number of best checkpoints to keep.

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
        self._validation: dict[str, float] = {}
        self._validated = self._inside_validation = False
        self._inside_epoch = False
        self._step = self._saved_step = -1

    def state_dict(self) -> dict[str, Any]:
        return {"best": [list(each) for each in self.best]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = [(score, step) for score, step in state_dict["best"]]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        module = cast(SuiteModule, pl_module)
        monitored_value = {"name": module.monitor, "mode": module.monitor_mode, "value": self._score}
        checkpoint[RECORD_KEY] = {
            **self.record,
            "monitored": monitored_value,
            "validation": self._validation,
            SAVED_AT_KEY: time.time(),
            STEPS_DONE_KEY: "done",
        }
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
        self._start_clock(trainer)
        if self.best:
            self._find_best(trainer)
        data = getattr(trainer, "datamodule", None)
        label = None if data is None else partial_label(trainer, data, "val")
        if label is not None and trainer.limit_val_batches:
            notice(f"validation is {label}: its metrics and the choice of the best checkpoint rest on these")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = cast(SuiteModule, pl_module)
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        every = self.policy.every_n_steps
        due = module.stop.save_anywhere or (every is not None and self._step % every == 0)
        if not stepped or not (module.stop.anywhere is not None or due):
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

    def _start_clock(self, trainer: Trainer) -> None:
        """Ask for a checkpoint in so many minutes; the clock of the first process decides for all."""
        if self.policy.every_n_minutes is not None and trainer.is_global_zero:
            module = cast(SuiteModule, trainer.lightning_module)
            module.stop.save_at = time.monotonic() + 60.0 * self.policy.every_n_minutes

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
        self._start_clock(trainer)

    def _save_judged(self, trainer: Trainer, module: SuiteModule) -> None:
        """Save after a validation or an epoch, and stop where that was asked for."""
        top = kept = False
        if self._validated:
            self._validated = False
            self._score = monitored(trainer, module)
            found = trainer.callback_metrics.items()
            self._validation = {name: float(value) for name, value in found if name.startswith("val/")}
            top, kept = self._judge(self._score, trainer.global_step, module.monitor_mode)
        self.save(trainer, best=top, judged=kept and self.policy.keep_best > 1)
        self._score, self._validation = None, {}
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
        found = {path: _step_in_name(path) for path in self.folder.glob("*-*.ckpt")}
        steps = {path: step for path, step in found.items() if step is not None}
        newest = sorted((path for path in steps if path.name.startswith("step-")), key=lambda path: -steps[path])
        best = {f"best-{step:07d}.ckpt" for _, step in self.best}
        old = {*newest[self.policy.keep_last :]}
        old |= {path for path in steps if path.name.startswith("best-") and path.name not in best}
        for path in old:
            path.unlink(missing_ok=True)
            digest_path(path).unlink(missing_ok=True)

    def _find_best(self, trainer: Trainer) -> None:
        """After a resume: forget the best checkpoints whose files are gone, and give the best one its name again.

        A run that is resumed from an earlier checkpoint may have overwritten or deleted what was the best by then.
        """
        kept = self.best
        if trainer.is_global_zero and self.folder.is_dir():
            places, _ = read_places(self.folder)
            files = {place.step: path for path, place in places.items()}
            kept = [entry for entry in self.best if entry[1] in files]
            best = self.folder / self.BEST
            if kept and (best not in places or places[best].step != kept[0][1]):
                duplicate(files[kept[0][1]], best)
            if len(kept) < len(self.best):
                gone = ", ".join(str(step) for _, step in self.best if step not in files)
                notice(f"resume: the best checkpoint (step {gone}) is gone; the best of the others takes its place")
        self.best = [(score, step) for score, step in trainer.strategy.broadcast(kept)]


def _step_in_name(path: Path) -> int | None:
    """The step in the name of a checkpoint of ours; ``None`` for another file, which is not ours to delete."""
    found = re.fullmatch(r"(?:step|best)-(\d+)\.ckpt", path.name)
    return int(found[1]) if found else None


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
