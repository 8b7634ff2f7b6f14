"""All processes of a run must have been given the same: settings that differ would train nonsense, or wait for ever."""

import json
from typing import Any

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from suite.errors import UsageError
from suite.resume import flatten


class SameOnAllRanks(Callback):
    """Compares the settings of all processes, and the place that they go on from, before anything is trained.

    Args:
        settings: of this process.

    Raises:
        UsageError: (in ``setup``, on every process) naming each setting that differs and its value on each rank.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or trainer.world_size == 1 or not torch.distributed.is_initialized():
            return
        shares: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(shares, json.dumps(flatten(self.settings), sort_keys=True))
        everyone = [json.loads(share) for share in shares]
        names = sorted(set().union(*everyone))
        different = [
            f"{name} ({', '.join(f'rank {rank}: {each.get(name)}' for rank, each in enumerate(everyone))})"
            for name in names
            if any(each.get(name) != everyone[0].get(name) for each in everyone)
        ]
        if different:
            raise UsageError(f"processes were given different settings: {'; '.join(different)}: give each the same")
