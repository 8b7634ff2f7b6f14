"""A fixed handful of validation examples, shown the same way after each validation: in W&B and in the run folder."""

import json
from pathlib import Path
from typing import Any, cast

import numpy
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed.fsdp import FSDPModule

from suite.data import SuiteDataModule
from suite.module import SuiteModule
from suite.scores import is_training_validation
from suite.seeding import mix
from suite.tracking import log_file, log_image, log_table, logged_step


class Samples(Callback):
    """Logs what ``module`` shows (table, figure, files) of the same examples after each validation.

    Args:
        folder: where the table (JSON lines), the figure (PNG) and other files of each validation are kept.
        count: how many examples.
    """

    def __init__(self, folder: Path, *, count: int = 8) -> None:
        self.folder, self.count = folder, count
        self._batch: Any = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Weights that are shared out can only be read by all processes together.
        takes_part = trainer.is_global_zero or isinstance(pl_module, FSDPModule)
        if not is_training_validation(trainer) or not takes_part or self.count < 1:
            return
        module, step = cast(SuiteModule, pl_module), logged_step(trainer)
        stem = f"step-{step:07d}"
        batch = self._fixed_batch(trainer, module)
        with trainer.precision_plugin.forward_context(), torch.no_grad():
            table, figure = module.sample_table(batch), module.sample_figure(batch)
            self.folder.mkdir(parents=True, exist_ok=True)
            files = module.write_samples(batch, self.folder, stem)
        if not trainer.is_global_zero:
            return
        if table is not None:
            columns, rows = table
            self._write(f"{stem}.jsonl", columns, rows)
            log_table(trainer.loggers, "samples/table", columns, rows, step)
        if figure is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(self.folder / f"{stem}.png", dpi=80)
            log_image(trainer.loggers, "samples/figure", self.folder / f"{stem}.png", step)
        for path in module.write_evaluation("val", self.folder, "val"):
            if path.suffix == ".png":
                log_image(trainer.loggers, f"samples/{path.stem}", path, step)
        for number, path in enumerate(files):
            key = "figure" if path.name == f"{stem}.png" else number  # a picture of them all, as others draw one
            log_file(trainer.loggers, f"samples/{key}", path, step)

    def _fixed_batch(self, trainer: Trainer, module: SuiteModule) -> Any:
        if self._batch is None:
            data = cast(SuiteDataModule, trainer.datamodule)  # type: ignore[attr-defined]
            examples = data.examples("val")
            total = len(examples.lengths)
            chosen = numpy.random.default_rng(mix(data.seed, "samples")).permutation(total)[: self.count]
            batch = data.collate([examples.fetch(int(index), 0) for index in sorted(chosen)])
            self._batch = trainer.strategy.batch_to_device(batch, module.device)
        return self._batch

    def _write(self, name: str, columns: Any, rows: list[list[Any]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in rows]
        (self.folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
