"""Run by test_tracking in a process of its own: a tiny fit, tracked offline, then the same run resumed.

The first argument is the run folder. Connections other than local sockets are refused and reported.
"""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import lightning
import matplotlib
import torch
import wandb
from matplotlib.figure import Figure
from torch.utils.data import DataLoader

from suite.metrics_file import MetricsFile
from suite.tracking import (
    TrackingConfig,
    build_logger,
    closing_lines,
    finish,
    log_image,
    log_table,
    logged_step,
    number_by_steps_done,
    read_run_id,
)

SETTINGS = {
    "model": {"hidden_size": 4, "dropout": 0.5, "_instantiator": "never sent"},
    "data": {"files": (Path("a.csv"), Path("b.csv")), "limit": None},
}


class Toy(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        loss = self.layer(batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor) -> None:
        self.log("val/loss", self.layer(batch).square().mean())

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            return
        step = logged_step(self.trainer)
        log_table(self.trainer.loggers, "samples", ["text", "score"], [("a", None), ("b", step)], step)
        figure = Figure()
        figure.subplots().plot([0, 1])
        log_image(self.trainer.loggers, "plot", figure, step, "a line")

    def on_train_epoch_end(self) -> None:
        if self.current_epoch == 0:
            self.trainer.save_checkpoint(Path(self.trainer.loggers[0].save_dir or "") / "first.ckpt")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder: Path, *, epochs: int, source: Path | None) -> None:
    config = TrackingConfig(tags=["test"], group="folds", notes="a note")
    tracker = build_logger(
        config, run_folder=folder, settings=SETTINGS, resume_id=read_run_id(folder) if source else None
    )
    metrics = MetricsFile(folder)
    if source:
        metrics.resume_from(2)
    assert tracker is not None
    trainer = lightning.Trainer(
        max_epochs=epochs,
        logger=[metrics, tracker],
        log_every_n_steps=1,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    number_by_steps_done(trainer)
    data = DataLoader[torch.Tensor](list(torch.ones(4, 1)), batch_size=2)  # type: ignore[arg-type]
    trainer.fit(Toy(), data, data, ckpt_path=source)
    finish(trainer.loggers)


def _refuse(self: socket.socket, address: Any) -> None:
    if self.family != socket.AF_UNIX:
        attempts.append(str(address))
        raise ConnectionRefusedError(f"no connections here: {address}")
    _connect(self, address)


if __name__ == "__main__":
    matplotlib.use("Agg")
    torch.set_num_threads(1)
    attempts: list[str] = []
    _connect = socket.socket.connect
    socket.socket.connect = _refuse  # type: ignore[method-assign,assignment]
    run_folder = Path(sys.argv[1])
    before = dict(os.environ)
    fit(run_folder, epochs=3, source=None)  # two steps each, so two epochs past the checkpoint
    fit(run_folder, epochs=4, source=run_folder / "first.ckpt")
    same_environment = before == dict(os.environ)
    wandb.teardown()  # what the client sends late, it sends now
    said = {
        "attempts": attempts,
        "same_environment": same_environment,
        "closing": closing_lines("offline", run_folder),
    }
    print(json.dumps(said))
