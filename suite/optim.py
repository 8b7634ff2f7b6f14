"""Optimisers and learning-rate schedules by name, from one flat configuration.

A schedule is a pure function of the optimiser step and the total number of steps: nothing about it is saved, so a
resumed run cannot differ from one that never stopped. ``plateau`` alone has a state, kept by its callback.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from suite.effects import Declared, one_of
from suite.errors import UsageError

ScheduleName = Literal["constant", "linear", "cosine", "slanted_triangular", "one_cycle", "plateau"]


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser and its learning-rate schedule.

    Args:
        name: Which optimiser.
        lr: Highest learning rate.
        momentum: For sgd and rmsprop.
        nesterov: Nesterov's momentum, for sgd.
        beta1: Decay of the mean of gradients, for adam and adamw.
        beta2: Decay of the mean of squared gradients, for adam and adamw.
        eps: Added to denominators, for all but sgd.
        weight_decay: The optimiser's own decay of weight matrices (decoupled in adamw); biases are left out.
        l1: Penalty on the sum of absolute weights, added to the loss of one token (sample, frame); not on biases.
        l2: Penalty on the sum of squared weights, likewise.
        recurrent_l1: The same as l1 on recurrent weights alone, beside it.
        recurrent_l2: The same as l2 on recurrent weights alone, beside it.
        schedule: How the learning rate goes on after warm-up: constant; linear or cosine, which would reach the floor
            one step after the last; slanted_triangular (Howard and Ruder 2018) and one_cycle (Smith 2018), which
            bring their own warm-up; plateau: cut when the monitored metric no longer improves; where
            higher is better, validations at 0 count only once it has been above 0.
        warmup_steps: Optimiser steps of linear warm-up from zero.
        floor: Learning rate at the end, as a share of the highest, for linear and cosine.
        plateau_factor: What plateau multiplies the learning rate with.
        plateau_patience: Validations without improvement before plateau cuts.
    """

    only_with: ClassVar[Declared] = {
        "momentum": one_of("name", "sgd", "rmsprop"),
        "nesterov": one_of("name", "sgd"),
        "beta1": one_of("name", "adam", "adamw"),
        "beta2": one_of("name", "adam", "adamw"),
        "eps": one_of("name", "adagrad", "rmsprop", "adam", "adamw"),
        "warmup_steps": one_of("schedule", "constant", "linear", "cosine", "plateau"),  # others bring their own
        "floor": one_of("schedule", "linear", "cosine"),
        "plateau_factor": one_of("schedule", "plateau"),
        "plateau_patience": one_of("schedule", "plateau"),
    }

    name: Literal["sgd", "adagrad", "rmsprop", "adam", "adamw"] = "adamw"
    lr: float = 1e-3
    momentum: float = 0.0
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    recurrent_l1: float = 0.0
    recurrent_l2: float = 0.0
    schedule: ScheduleName = "constant"
    warmup_steps: int = 0
    floor: float = 0.0
    plateau_factor: float = 0.5
    plateau_patience: int = 2

    def check(self) -> None:
        """Refuse values that mean nothing; ``only_with`` says which ones the chosen names do not use.

        Raises:
            UsageError: naming the setting.
        """
        for key in ("lr", "eps"):
            if not 0 < getattr(self, key) < math.inf:
                raise UsageError(f"optim.{key} is {getattr(self, key)}, allowed is more than 0")
        for key in (
            *("momentum", "weight_decay", "l1", "l2", "recurrent_l1", "recurrent_l2"),
            *("warmup_steps", "floor", "plateau_patience"),
        ):
            if getattr(self, key) < 0:
                raise UsageError(f"optim.{key} is {getattr(self, key)}, allowed is 0 or more")
        for key in ("beta1", "beta2"):
            if not 0 <= getattr(self, key) < 1:
                raise UsageError(f"optim.{key} is {getattr(self, key)}, allowed is 0 up to but not including 1")
        if self.floor > 1:
            raise UsageError(f"optim.floor is {self.floor}, allowed is 0 to 1")
        if not 0 < self.plateau_factor < 1:
            raise UsageError(f"optim.plateau_factor is {self.plateau_factor}, allowed is more than 0 and less than 1")
        if self.nesterov and (self.name != "sgd" or not self.momentum):
            raise UsageError("optim.nesterov needs optim.name sgd and optim.momentum above 0")


def build_optimizer(
    module: nn.Module, config: OptimConfig, *, layers: Sequence[tuple[Sequence[nn.Parameter], float]] | None = None
) -> torch.optim.Optimizer:
    """The optimiser over the trainable parameters of ``module``; weight decay on matrices only, biases apart.

    ``layers`` gives parameters with the share of ``config.lr`` that is their highest learning rate; without it all of
    the module's have the whole.
    """
    config.check()
    groups = []
    for chosen, share in layers if layers is not None else [(list(module.parameters()), 1.0)]:
        parameters = [parameter for parameter in chosen if parameter.requires_grad]
        matrices = [parameter for parameter in parameters if parameter.dim() > 1]
        vectors = [parameter for parameter in parameters if parameter.dim() <= 1]
        rate = config.lr * share
        groups += [
            {"params": group, "weight_decay": decay, "lr": rate, "highest_lr": rate}
            for group, decay in ((matrices, config.weight_decay), (vectors, 0.0))
            if group
        ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=True)
    if config.name == "adagrad":
        return torch.optim.Adagrad(groups, lr=config.lr, eps=config.eps)
    if config.name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=config.lr, momentum=config.momentum, eps=config.eps)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def schedule_factor(config: OptimConfig, step: int, total: float) -> float:
    """The share of the highest learning rate at optimiser step ``step`` (from 0) of ``total``.

    Raises:
        UsageError: a schedule that ends, in a run without an end.
    """
    if config.schedule in ("constant", "plateau"):
        return _warmup(config, step)
    if math.isinf(total):
        raise UsageError(f"optim.schedule {config.schedule} needs trainer.max_epochs or trainer.max_steps")
    total = max(int(total), 1)
    if config.schedule == "slanted_triangular":
        return _slanted_triangular(step / total)
    if config.schedule == "one_cycle":
        return _one_cycle(step, total)
    left = max(total - config.warmup_steps, 1)
    progress = min(max(step - config.warmup_steps, 0) / left, 1.0)
    shape = 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return _warmup(config, step) * (config.floor + (1.0 - config.floor) * shape)


def _warmup(config: OptimConfig, step: int) -> float:
    return min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0


def _slanted_triangular(progress: float, *, cut: float = 0.1, ratio: float = 32.0) -> float:
    """Up for a tenth of the steps, down for the rest, from and to 1/32 (Howard and Ruder 2018, equation 3)."""
    height = progress / cut if progress < cut else 1.0 - (progress - cut) / (1.0 - cut)
    return (1.0 + max(height, 0.0) * (ratio - 1.0)) / ratio


def _one_cycle(step: int, total: int, *, peak: float = 0.3, start: float = 1 / 25, end: float = 1 / 25e4) -> float:
    """Cosine from 1/25 to 1 in the first 30% of steps, then to 1/250,000 at the last: torch's OneCycleLR by default."""
    top = peak * total - 1.0
    if step <= top:
        low, share = start, step / top
    else:
        low, share = end, 1.0 - min((step - top) / (total - 1.0 - top), 1.0)
    return low + (1.0 - low) * 0.5 * (1.0 - math.cos(math.pi * share))


def finish_gradients(
    parameters: Sequence[nn.Parameter],
    config: OptimConfig,
    *,
    scale: Tensor,
    clip: float | None,
    by_value: bool,
    recurrent: Sequence[nn.Parameter] = (),
) -> Tensor:
    """Scale summed gradients, add penalties, clip; gives their norm before clipping.

    Args:
        parameters: those that the optimiser updates.
        config: for its penalties.
        scale: what gradients are multiplied with: one over the weight that they were summed over.
        clip: highest norm, or highest absolute value with ``by_value``; ``None`` leaves gradients as they are.
        by_value: clip each element on its own.
        recurrent: those of them that penalties on recurrent weights are for.
    """
    gradients = [_local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    if config.l1 or config.l2 or config.recurrent_l1 or config.recurrent_l2:
        torch._foreach_mul_(gradients, scale)
        add_penalties(parameters, l1=config.l1, l2=config.l2)
        add_penalties(recurrent, l1=config.recurrent_l1, l2=config.recurrent_l2, vectors=True)
        scale = torch.ones_like(scale)
    norm = torch.nn.utils.get_total_norm(gradients)
    if any(isinstance(parameter, DTensor) for parameter in parameters):  # each rank holds a part of every gradient
        squares = norm.square()
        torch.distributed.all_reduce(squares)
        norm = squares.sqrt()
    norm = norm * scale
    if clip is not None and not by_value:
        scale = scale * (clip / (norm + 1e-6)).clamp(max=1.0)  # one pass for both factors
    torch._foreach_mul_(gradients, scale)
    if clip is not None and by_value:
        torch._foreach_clamp_min_(gradients, -clip)
        torch._foreach_clamp_max_(gradients, clip)
    return norm


def _local(tensor: Tensor) -> Tensor:
    """The part of a shared-out tensor that this process holds; of others, the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def add_penalties(parameters: Iterable[nn.Parameter], *, l1: float, l2: float, vectors: bool = False) -> None:
    """Add the gradient of ``l1 * sum|w| + l2 * sum w^2`` over matrices to the gradients that are there.

    With ``vectors`` over those too, which are biases elsewhere, but a recurrent weight may be one.
    """
    lowest = 1 if vectors else 2
    matrices = [parameter for parameter in parameters if parameter.grad is not None and parameter.dim() >= lowest]
    gradients = [_local(parameter.grad) for parameter in matrices if parameter.grad is not None]
    weights = [_local(parameter.detach()) for parameter in matrices]
    if l2 and gradients:
        torch._foreach_add_(gradients, weights, alpha=2.0 * l2)
    if l1 and gradients:
        torch._foreach_add_(gradients, torch._foreach_sign(weights), alpha=l1)
