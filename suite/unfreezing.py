"""The callback of fine-tuning: layer groups thaw from the top, at the same steps whether a run was stopped or not."""

from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy

from suite.console import notice
from suite.layer_groups import Tuning
from suite.module import SuiteModule


class Unfreezing(Callback):
    """Before each batch, has those layer groups trained that ``module.tuning`` names for the step and epoch.

    There is no state to save: what is frozen follows from where the run is.
    """

    def __init__(self) -> None:
        self._begun = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            _tuning(pl_module).freeze_for_good()  # before a strategy wraps the model

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        tuning = _tuning(pl_module)
        count = tuning.trained(step=trainer.global_step, epoch=trainer.current_epoch)
        if count != tuning.count or not self._begun:
            self._begun = True
            tuning.train(count, skip_gradients=isinstance(trainer.strategy, SingleDeviceStrategy))
            notice(_line(tuning, trainer))
        tuning.keep_modes()


def _tuning(module: LightningModule) -> Tuning:
    tuning = cast(SuiteModule, module).tuning
    assert tuning is not None
    return tuning


def _line(tuning: Tuning, trainer: Trainer) -> str:
    frozen = [group.name for group in tuning.frozen]
    trained = [group.name for group in tuning.groups[len(frozen) :]]
    where = f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}"
    return f"{where}: training {', '.join(trained)}" + (f"; frozen: {', '.join(frozen)}" if frozen else "")
