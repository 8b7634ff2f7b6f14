"""Labels for an evaluation that saw only part of its split, because ``--trainer.limit_..._batches`` asked for that."""

from typing import Literal

from lightning.pytorch import Trainer

from suite.data import SuiteDataModule


def share_of_batches(trainer: Trainer, data: SuiteDataModule, split: Literal["val", "test"]) -> tuple[int, int]:
    """How many batches ``trainer`` evaluates in one process, and how many there are."""
    limit = trainer.limit_test_batches if split == "test" else trainer.limit_val_batches
    total = len(data.test_dataloader() if split == "test" else data.val_dataloader())
    used = int(total * limit) if isinstance(limit, float) else min(total, limit)
    return used, total


def partial_label(trainer: Trainer, data: SuiteDataModule, split: Literal["val", "test"]) -> str | None:
    """What to write beside the metrics of a limited evaluation; ``None`` if all batches are evaluated.

    For example "partial: 3 of 40 test batches (--trainer.limit_test_batches 3)".
    """
    limit = trainer.limit_test_batches if split == "test" else trainer.limit_val_batches
    if isinstance(limit, float) and limit >= 1.0:
        return None
    used, total = share_of_batches(trainer, data, split)
    if used >= total:
        return None
    name = "validation" if split == "val" else "test"
    each = " in each process" if trainer.world_size > 1 else ""
    return f"partial: {used} of {total} {name} batches{each} (--trainer.limit_{split}_batches {limit:g})"
