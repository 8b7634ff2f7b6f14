"""An exponential moving average of the weights: what is validated and exported, while training goes on from its own."""

from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from suite.checkpoint import MOVING_AVERAGE_KEY
from suite.errors import UsageError
from suite.module import SuiteModule


class WeightAverage(Callback):
    """Keeps ``average = d * average + (1 - d) * weights`` after each step, with ``d = min(decay, (1 + n) / (10 + n))``.

    The smaller decay of the first steps n forgets the initial weights sooner. Validation sees the average. A checkpoint
    holds the weights in training where they always are, so that resume is exact, and the average beside them: whatever
    reads a checkpoint to use its model takes the average.

    Args:
        decay: share of the average that stays in each step; 0 up to but not including 1.

    Raises:
        UsageError: a decay outside that range, or a strategy that shares weights out over processes.
    """

    def __init__(self, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise UsageError(f"ema_decay is {decay}, allowed is 0 up to but not including 1")
        self.decay, self.updates = decay, 0
        self.average: dict[str, Tensor] = {}
        self._training: dict[str, Tensor] = {}
        self._step = -1

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._training:  # inside a validation: the weights in training wait beside the average
            current = _weights(pl_module)
            kept = {current[name].data_ptr(): weights.clone() for name, weights in self._training.items()}
            state = checkpoint["state_dict"]
            state.update({name: kept[value.data_ptr()] for name, value in state.items() if value.data_ptr() in kept})
        checkpoint[MOVING_AVERAGE_KEY] = {"updates": self.updates, "weights": dict(self.average)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.updates = checkpoint[MOVING_AVERAGE_KEY]["updates"]
        self.average = dict(checkpoint[MOVING_AVERAGE_KEY]["weights"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if any(type(value) is not torch.nn.Parameter for value in pl_module.parameters()):
            raise UsageError("ema_decay needs whole weights in each process: use strategy ddp, or leave it out")
        self._step = trainer.global_step
        current = _weights(pl_module)
        for name, weights in current.items():
            kept = self.average.get(name)
            kept = weights.detach() if kept is None else kept
            # At least float32: in bfloat16 a thousandth of a difference is lost, and the average would stand still.
            exact = torch.promote_types(weights.dtype, torch.float32)
            self.average[name] = kept.to(weights.device, exact, copy=True)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = cast(SuiteModule, pl_module).last_step
        if trainer.global_step == self._step or step is None:
            return
        self._step = trainer.global_step
        if step.skipped:
            return
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = _weights(pl_module)
        weights = [current[name].to(average.dtype) for name, average in self.average.items()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1.0 - decay)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.average and not self._training:
            self._training = {name: each.detach().clone() for name, each in _weights(pl_module).items()}
            _copy(self.average, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._training:
            _copy(self._training, pl_module)
            self._training = {}


def _weights(module: LightningModule) -> dict[str, Tensor]:
    return {name: each for name, each in module.named_parameters() if each.is_floating_point()}


@torch.no_grad()
def _copy(source: dict[str, Tensor], module: LightningModule) -> None:
    for name, parameter in _weights(module).items():
        parameter.copy_(source[name])
