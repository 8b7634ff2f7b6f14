"""What ``diagnose`` sees of a run: gradients by layer, padding, memory; and when it has seen enough."""

import resource
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from suite.module import SuiteModule, TrainingStep
from suite.step_profile import StepProfile

UNKNOWN = -1.0  # no norm: a parameter without a gradient, or a step whose weight is not known


class Padding(NamedTuple):
    """Steps in batches: ``valid`` ones, and the ``padded`` whole of which they are a part."""

    valid: int = 0
    padded: int = 0

    @property
    def share(self) -> float:
        """How much of the whole is padding."""
        return 1.0 - self.valid / self.padded if self.padded else 0.0

    def plus(self, lengths: Tensor) -> "Padding":
        """With a batch of ``lengths (B,)`` more."""
        return Padding(self.valid + int(lengths.sum()), self.padded + lengths.numel() * int(lengths.max()))


def lengths_in(batch: Any) -> Iterator[tuple[str, Tensor]]:
    """The lengths ``(B,)`` that a batch names: ``source_lengths`` as ``source``, ``lengths`` as ``sequence``."""
    for name, value in getattr(batch, "_asdict", dict)().items():
        if name.endswith("lengths") and isinstance(value, Tensor) and value.dim() == 1 and value.numel():
            yield name.removesuffix("lengths").rstrip("_") or "sequence", value


class Memory(NamedTuple):
    """Bytes: of tensors by what they are, of the process before training, and at most (also of the accelerator)."""

    parameters: int = 0
    buffers: int = 0
    gradients: int = 0
    optimiser: int = 0
    before: int = 0
    peak: int = 0
    device_peak: int | None = None


class Probe(Callback):
    """Observes training steps and stops the run after enough of them. Lightning's hooks are its only access.

    Args:
        profile: gets to know the device that it has to wait for.
        steps: batches to measure.
        warm_up: batches before them, which build kernels and fill caches.
        seconds: stop after so long in any case.
    """

    def __init__(self, profile: StepProfile, *, steps: int, warm_up: int, seconds: float) -> None:
        self.profile, self.enough, self.seconds = profile, steps + warm_up, seconds
        self.seen = 0
        self.norms: list[Tensor] = []
        """``(P,)`` for each optimiser step: norm of each parameter's gradient, or ``UNKNOWN``."""
        self.padding: dict[str, Padding] = {}
        self.memory = Memory()
        self.batch: Any = None
        self._sums: Tensor | None = None
        self._last_step: TrainingStep | None = None
        self._began = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()
        self.memory = Memory(before=resident(), device_peak=None)
        if pl_module.device.type != "cpu":
            self.profile.wait = torch.accelerator.synchronize
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batch = batch
        for name, lengths in lengths_in(batch):
            self.padding[name] = self.padding.get(name, Padding()).plus(lengths)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        # Sums over the batch, neither divided nor clipped: the module does both right after this hook.
        parameters = list(pl_module.parameters())
        unknown = torch.full((), UNKNOWN, device=pl_module.device)
        self._sums = torch.stack(
            [
                unknown if each.grad is None else torch.linalg.vector_norm(each.grad, dtype=torch.float32)
                for each in parameters
            ]
        )
        self._last_step = cast(SuiteModule, pl_module).last_step
        self.memory = self.memory._replace(gradients=total_bytes(each.grad for each in parameters))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = cast(SuiteModule, pl_module).last_step
        if self._sums is not None:
            self.norms.append(self._scaled(None if step is self._last_step else step).double().cpu())
            self._sums = None
        self.seen += 1
        if self.seen >= self.enough or time.perf_counter() - self._began > self.seconds:
            trainer.should_stop = True

    def _scaled(self, step: TrainingStep | None) -> Tensor:
        """Norms of the mean's gradient. A step that was not made still shows which gradients are not finite."""
        assert self._sums is not None
        if step is None:
            return torch.where(torch.isfinite(self._sums), UNKNOWN, torch.nan)
        return torch.where(self._sums == UNKNOWN, UNKNOWN, self._sums / step.weight)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        states = (value for state in trainer.optimizers[0].state.values() for value in state.values())
        cuda = pl_module.device.type == "cuda"
        self.memory = self.memory._replace(
            parameters=total_bytes(pl_module.parameters()),
            buffers=total_bytes(pl_module.buffers()),
            optimiser=total_bytes(states),
            peak=max(peak_resident(), self.memory.before),  # the system may count the peak late
            device_peak=torch.cuda.max_memory_allocated() if cuda else None,
        )


def total_bytes(values: Any) -> int:
    """Bytes of the tensors among ``values``."""
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


def resident() -> int:
    """Bytes of memory that this process holds now; the most that it ever held, where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return peak_resident()


def peak_resident() -> int:
    """The most bytes of memory that this process ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def layers_of(module: nn.Module) -> dict[str, list[int]]:
    """Places of parameters in ``module.parameters()``, by the name of the layer that holds them."""
    layers: dict[str, list[int]] = {}
    for place, (name, _) in enumerate(module.named_parameters()):
        layers.setdefault(name.rpartition(".")[0] or "(module)", []).append(place)
    return layers
