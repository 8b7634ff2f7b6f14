"""A guard against losses and gradients that are not finite: such a step changes nothing, and too many end the run."""

from typing import Any, cast

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from suite.console import notice
from suite.errors import DataError, UsageError
from suite.module import SuiteModule
from suite.run_checkpoints import RunCheckpoints

_SHOWN = 40  # indices named in a message


class FiniteGuard(Callback):
    """Counts the steps that ``SuiteModule`` skipped and ends the run after ``limit`` in a row.

    The module has dropped such a step's gradients on every rank; buffers that the forward pass changed (running
    statistics) are put back here. The checkpoint written at the end holds what was there before the first of them.

    Args:
        limit: steps in a row; the run ends with this many.
        checkpoints: writes that checkpoint.
    """

    def __init__(self, limit: int, *, checkpoints: RunCheckpoints) -> None:
        if limit < 1:
            raise UsageError(f"max_skipped is {limit}, allowed is 1 or more steps in a row")
        self.limit, self.checkpoints = limit, checkpoints
        self.in_a_row = 0
        self._step = -1
        self._buffers: list[Tensor] = []
        self._kept: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        return {"in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.in_a_row = state_dict["in_a_row"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        parameters = {name for name, _ in pl_module.named_parameters(remove_duplicate=False)}
        state = pl_module.state_dict(keep_vars=True)
        self._buffers = [value for name, value in state.items() if name not in parameters]
        self._keep()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = cast(SuiteModule, pl_module)
        if trainer.global_step == self._step or module.last_step is None:
            return
        self._step = trainer.global_step
        if not module.last_step.skipped:
            self.in_a_row = 0
            self._keep()
            return
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            buffer.copy_(kept)
        self.in_a_row += 1
        notice(f"step {self._step}: loss or gradient not finite, nothing was updated ({self.in_a_row} in a row)")
        if self.in_a_row >= self.limit:
            self._end(trainer, module)

    def _keep(self) -> None:
        self._kept = [buffer.detach().clone() for buffer in self._buffers]

    def _end(self, trainer: Trainer, module: SuiteModule) -> None:
        shares: list[Any] = [module.step_indices]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            shares = [None] * trainer.world_size
            torch.distributed.all_gather_object(shares, module.step_indices)
        self.in_a_row = 0  # a run that goes on has as many steps left as a new one
        self.checkpoints.save(trainer)
        ranks = [f"rank {rank}: {_shown(indices)}" for rank, indices in enumerate(shares)]
        raise DataError(
            f"step {self._step}: {self.limit} steps in a row had a loss or gradient that is not finite. "
            f"Examples of the last one, by index in the training split: {'; '.join(ranks)}. "
            f"{self.checkpoints.folder / RunCheckpoints.LAST} holds the weights from before these steps: look at the "
            "examples, lower optim.lr, or clip gradients (trainer.gradient_clip_val)"
        )


def _shown(indices: list[int]) -> str:
    if not indices:
        return "unknown (batches have no indices)"
    more = f" and {len(indices) - _SHOWN} more" if len(indices) > _SHOWN else ""
    return ", ".join(map(str, indices[:_SHOWN])) + more
