"""Progress as a person reads it: a bar on a terminal, a line for each validation elsewhere."""

import sys
import time
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from suite.callbacks import StepLog
from suite.console import notice
from suite.module import SuiteModule
from suite.scores import is_training_validation


def _latest(trainer: Trainer) -> dict[str, float]:
    log = next((callback for callback in trainer.callbacks if isinstance(callback, StepLog)), None)  # type: ignore[attr-defined]
    return {} if log is None else log.latest


class Bar(TQDMProgressBar):
    """Epoch, loss, units per second and the monitored metric, in one line that renews itself."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        module = cast(SuiteModule, pl_module)
        shown: dict[str, Any] = {}
        latest = _latest(trainer)
        if latest:
            shown["loss"] = f"{latest['train/loss']:.3f}"
            shown[f"{module.unit}/s"] = f"{latest[f'train/{module.unit}_per_second']:,.0f}"
        if module.monitor in trainer.callback_metrics:
            shown[module.monitor] = f"{float(trainer.callback_metrics[module.monitor]):.2f}"
        return shown


class Lines(Callback):
    """One line for each validation, on standard error, where a bar would only fill a log file."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not is_training_validation(trainer):
            return
        module = cast(SuiteModule, pl_module)
        latest = _latest(trainer)
        parts = [f"epoch {trainer.current_epoch + 1}/{_count(trainer.max_epochs)}", f"step {trainer.global_step}"]
        if latest:
            parts.append(f"loss {latest['train/loss']:.3f}")
            parts.append(f"{latest[f'train/{module.unit}_per_second']:,.0f} {module.unit}/s")
        for name, value in sorted(trainer.callback_metrics.items()):
            if name.startswith("val/"):
                parts.append(f"{name} {float(value):.4g}")
        parts.append(f"{(time.perf_counter() - self._began) / 60:.1f} min")
        notice("  ".join(parts))


def _count(epochs: int | None) -> str:
    return "?" if epochs is None or epochs < 0 else str(epochs)


def build_progress() -> Callback:
    """A bar on a terminal, lines elsewhere."""
    return Bar(leave=True) if sys.stderr.isatty() or sys.stdout.isatty() else Lines()
