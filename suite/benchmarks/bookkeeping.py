"""What callbacks, tracking and guards cost a training step, beside the forward pass, the gradients and the update."""

import statistics
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from suite.cli import Domains
from suite.data import SuiteDataModule
from suite.domain import Domain, Task
from suite.module import StepOutput, SuiteModule
from suite.optim import OptimConfig, finish_gradients
from suite.rehearsal import load_recipe, rehearse
from suite.timing import Row

PAIRS, _WARM_UP, _BATCH = 200, 20, 4
_MOST = 0.5e-3  # seconds
_HOOKS = (
    "on_train_batch_start", "on_before_backward", "on_after_backward", "on_before_optimizer_step",
    "on_before_zero_grad", "on_train_batch_end",
)  # fmt: skip


class Vectors(SuiteDataModule):
    """Constant vectors.

    Args:
        size: Examples.
    """

    def __init__(self, *, size: int = 8, seed: int = 0, assets: dict[str, Any] | None = None) -> None:
        super().__init__(batch_size=_BATCH, max_tokens=None, seed=seed, assets=assets)
        self.size = size

    def load(self, split: str) -> Any:
        lengths = numpy.ones(self.size if split == "train" else 1, dtype=numpy.int64)
        return SimpleNamespace(lengths=lengths, fetch=lambda index, seed: torch.ones(8))

    def make_assets(self) -> dict[str, Any]:
        return {}

    def collate(self, examples: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(examples))


class Small(SuiteModule):
    """A linear layer: a step of it is little more than its bookkeeping. ``bare`` leaves that out too.

    Args:
        size: Features.
    """

    def __init__(self, assets: dict[str, Any], *, size: int = 8, optim: OptimConfig | None = None) -> None:
        super().__init__(assets, optim=optim)
        self.layer, self.bare = nn.Linear(size, size), False

    def compute(self, batch: Tensor) -> StepOutput:
        return StepOutput(self.layer(batch).square().sum(), torch.tensor(float(len(batch))))

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        if not self.bare:
            super().configure_gradient_clipping(*args, **kwargs)
            return
        self._totals.clear()
        scale = torch.tensor(1.0 / _BATCH)
        finish_gradients(list(self.parameters()), self.optim, scale=scale, clip=1.0, by_value=False)


class _Gate(Callback):
    """Stands first: lets every other step go without the callbacks after it, and times each step."""

    def __init__(self) -> None:
        self.open = True
        self.begin = 0.0
        self.times: dict[bool, list[float]] = {True: [], False: []}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Even steps are those that are logged.
        self.open = (trainer.global_step + 1) % 2 == 0
        cast(Small, pl_module).bare = not self.open
        self.begin = time.perf_counter()

    def guard(self, callback: Callback) -> None:
        """Let ``callback`` work in open steps alone."""
        for hook in _HOOKS:
            if getattr(type(callback), hook) is not getattr(Callback, hook):
                setattr(callback, hook, self._guarded(getattr(callback, hook)))

    def _guarded(self, call: Any) -> Any:
        return lambda *args, **kwargs: call(*args, **kwargs) if self.open else None


class _Last(Callback):
    """Stands last: ends the time of a step."""

    def __init__(self, gate: _Gate) -> None:
        self.gate = gate

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.gate.times[self.gate.open].append(time.perf_counter() - self.gate.begin)


def measure(*, domains: Domains, domain: str | None, rounds: int) -> list[Row]:
    """One row; it takes 200 pairs of steps, whatever ``rounds`` says, and needs no domain."""
    return [bookkeeping(PAIRS)]


def bookkeeping(pairs: int) -> Row:
    """Steps with everything a run has (W&B offline, ``metrics.csv``, every 20th step logged) against steps without."""
    steps = 2 * (pairs + _WARM_UP)
    own = Domain(name="benchmark", tasks={"small": Task(module=Small, data=Vectors)}, default="small")
    recipe = load_recipe(
        own, defaults=None,
        flags=[
            f"--data.size={steps * _BATCH}", "--trainer.max_epochs=1", "--trainer.limit_val_batches=0",
            "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=20", "--trainer.gradient_clip_val=1.0",
            "--trainer.enable_progress_bar=false", "--checkpoint_every=1000000",
        ],
    )  # fmt: skip
    gate = _Gate()
    module = recipe.module()
    with rehearse(module, recipe.data, recipe.run, recipe.settings) as trainer:
        callbacks = cast(Any, trainer).callbacks
        for callback in callbacks:
            gate.guard(callback)
        cast(Any, trainer).callbacks = [gate, *callbacks, _Last(gate)]
        trainer.fit(module, datamodule=recipe.data)
    ours, without = (gate.times[is_open][_WARM_UP:] for is_open in (True, False))
    assert len(ours) == len(without) == pairs, (len(ours), len(without))
    medians = statistics.median(ours), statistics.median(without)
    more = medians[0] - medians[1]
    mean = statistics.mean(ours) - statistics.mean(without)
    note = (
        f"{1000 * more:.2f} ms more in the median of {pairs} alternating steps each, {1000 * mean:.2f} ms in the mean"
    )
    name = "a step with guards, tracking and checkpoint bookkeeping over one without"
    return Row(name, *medians, medians[0] / medians[1], "<= 0.5 ms more", more <= _MOST, note)
