"""An exponential moving average of the weights, which is validated and exported while training uses the weights."""

from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from suite.checkpoint import MOVING_AVERAGE_KEY, memory_of
from suite.console import notice
from suite.errors import UsageError
from suite.module import SuiteModule
from suite.recurrent.batch_norm import BatchNormLSTMLayer


class WeightAverage(Callback):
    """Keeps ``average = d * average + (1 - d) * weights`` after each step, with ``d = min(decay, (1 + n) / (10 + n))``.

    The smaller decay of the first steps n forgets the initial weights sooner. Validation sees the average. A checkpoint
    holds the weights in training where they always are, so that resume is exact, and the average beside them: whatever
    reads a checkpoint to use its model takes the average.

    The floating-point buffers of the checkpoint (running statistics of batch normalisation) are averaged by the same
    equation: current statistics belong to the activations of the weights in training, which the averaged weights do not
    produce, while the average looks back over the same steps as the weights and needs no further pass over the data. A
    number that changes for the first time takes its new value whole, because the one before was a placeholder (the
    statistics of a step that no sequence had reached yet). Constant buffers stay exactly what they are; whole numbers,
    which count, are not averaged. A run of an earlier version, which averaged no buffers, is resumed without them and
    ends as it would have ended then.

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
        self.buffers: dict[str, Tensor] = {}
        """Of each averaged buffer, which numbers have changed since the beginning of the run."""
        self._of_earlier_version = False
        self._training: dict[str, Tensor] = {}
        self._step = -1

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._training:  # inside a validation: the weights in training wait beside the average
            current = _parameters(pl_module) | _buffers(pl_module)
            kept = {memory_of(current[name]): weights.clone() for name, weights in self._training.items()}
            state = checkpoint["state_dict"]
            state.update({name: kept[memory_of(value)] for name, value in state.items() if memory_of(value) in kept})
        checkpoint[MOVING_AVERAGE_KEY] = {
            "updates": self.updates,
            "weights": dict(self.average),
            **({} if self._of_earlier_version else {"buffers": dict(self.buffers)}),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint[MOVING_AVERAGE_KEY]
        self.updates, self.average = kept["updates"], dict(kept["weights"])
        self._of_earlier_version = "buffers" not in kept
        self.buffers = dict(kept.get("buffers", {}))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if any(type(value) is not torch.nn.Parameter for value in pl_module.parameters()):
            raise UsageError("ema_decay needs whole weights in each process: use strategy ddp, or leave it out")
        self._step = trainer.global_step
        current, buffers = _parameters(pl_module), _buffers(pl_module)
        if not self._of_earlier_version:
            current |= buffers
            never = {name: torch.zeros_like(each, dtype=torch.bool) for name, each in buffers.items()}
            self.buffers = {name: self.buffers.get(name, each).to(each.device) for name, each in never.items()}
        elif any(isinstance(each, _BatchNorm | BatchNormLSTMLayer) for each in pl_module.modules()):
            notice(
                "ema_decay: this run began with a version that did not average the statistics of batch normalisation; "
                "it is resumed in the same way, so validation uses those of training"
            )
        for name, weights in current.items():
            kept = self.average.get(name, weights.detach())
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
        current = _parameters(pl_module)
        names = [name for name in self.average if name not in self.buffers]
        weights = [current[name].to(self.average[name].dtype) for name in names]
        torch._foreach_lerp_([self.average[name] for name in names], weights, 1.0 - decay)
        for name, each in pl_module.named_buffers():
            if name in self.buffers:
                average, changed = self.average[name], self.buffers[name]
                value = each.to(average.dtype)
                first = ~changed & (value != average)  # a number that never changed is in the average as it was
                average.copy_(torch.where(first, value, average.lerp(value, 1.0 - decay)))
                changed |= first

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.average and not self._training:
            current = _parameters(pl_module) | _buffers(pl_module)
            self._training = {name: current[name].detach().clone() for name in self.average}
            _copy(self.average, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._training:
            _copy(self._training, pl_module)
            self._training = {}


def _parameters(module: LightningModule) -> dict[str, Tensor]:
    """Floating-point parameters, each once."""
    return {name: each for name, each in module.named_parameters() if each.is_floating_point()}


def _buffers(module: LightningModule) -> dict[str, Tensor]:
    """Floating-point buffers that checkpoints hold."""
    state = module.state_dict(keep_vars=True)
    named = ((name, each) for name, each in module.named_buffers() if name in state)
    return {name: each for name, each in named if each.is_floating_point() and each.numel()}


@torch.no_grad()
def _copy(source: dict[str, Tensor], module: LightningModule) -> None:
    current = _parameters(module) | _buffers(module)
    for name, each in source.items():
        current[name].copy_(each)
