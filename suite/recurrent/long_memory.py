"""Tasks that only a long memory solves, made anew for every batch: the adding problem and copy memory.

Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; as set by Arjovsky, Shah and Bengio, 2016.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from suite.errors import UsageError
from suite.recurrent.encoder import RecurrentEncoder
from suite.recurrent.options import CellName, RecurrentOptions

TaskName = Literal["adding", "copy"]
SYMBOLS, COPIED = 8, 10  # of copy memory: what may be shown, and how many of it


class Problem(NamedTuple):
    """``inputs (B, T, D)`` and ``targets``: numbers ``(B,)``, or classes ``(B, T)``."""

    inputs: Tensor
    targets: Tensor


def adding(batch: int, steps: int, *, generator: torch.Generator) -> Problem:
    """Two of ``steps`` numbers in [0, 1] are marked, one in each half: give their sum. Guessing 1 has error 1/6."""
    values = torch.rand(batch, steps, generator=generator)
    marks = torch.zeros(batch, steps)
    half = steps // 2
    first = torch.randint(half, (batch,), generator=generator)
    second = half + torch.randint(steps - half, (batch,), generator=generator)
    rows = torch.arange(batch)
    marks[rows, first] = marks[rows, second] = 1.0
    return Problem(torch.stack([values, marks], dim=2), values[rows, first] + values[rows, second])


def copy_memory(batch: int, steps: int, *, generator: torch.Generator) -> Problem:
    """Ten symbols, ``steps`` blanks, a mark; then the ten again. One-hot inputs ``(B, steps + 20, 10)``.

    Without a memory the best is blanks, then any symbol: 10 log 8 / (steps + 20) a step.
    """
    shown = torch.randint(SYMBOLS, (batch, COPIED), generator=generator)
    blank, mark = SYMBOLS, SYMBOLS + 1
    inputs = torch.full((batch, steps + 2 * COPIED), blank)
    inputs[:, :COPIED], inputs[:, steps + COPIED - 1] = shown, mark
    targets = torch.full_like(inputs, blank)
    targets[:, -COPIED:] = shown
    return Problem(nn.functional.one_hot(inputs, SYMBOLS + 2).float(), targets)


def memoryless_loss(steps: int) -> float:
    """Of copy memory, per step."""
    return COPIED * float(torch.tensor(float(SYMBOLS)).log()) / (steps + 2 * COPIED)


@dataclass(frozen=True)
class LongMemoryConfig:
    """A run of ``train``.

    Args:
        task: adding or copy.
        steps: length of the sequence, or of what has to be remembered over.
        cell: which recurrence.
        options: what else is chosen around it.
        hidden_size: features of the state.
        num_layers: layers.
        batch_size: rows of a batch.
        lr: learning rate of Adam.
        max_steps: optimiser steps.
        clip: highest norm of the gradient.
        seed: of weights and batches.
        shortest: each training batch has a length of its own, drawn from here to ``steps``, its logarithm uniform;
            ``None`` for always ``steps``, at which the loss is measured in any case. A cell that forgets at the start
            finds nothing to begin with in long sequences alone.
    """

    task: TaskName
    steps: int
    cell: CellName
    options: RecurrentOptions
    hidden_size: int = 128
    num_layers: int = 1
    batch_size: int = 32
    lr: float = 1e-3
    max_steps: int = 2000
    clip: float = 1.0
    seed: int = 0
    shortest: int | None = None


class LongMemoryModel(nn.Module):
    """A recurrent encoder and a linear layer: on the last step (adding) or on every step (copy)."""

    def __init__(self, config: LongMemoryConfig) -> None:
        super().__init__()
        size, self.width = (2, 1) if config.task == "adding" else (SYMBOLS + 2, SYMBOLS + 1)
        self.encoder = RecurrentEncoder(
            size, config.hidden_size, cell=config.cell, num_layers=config.num_layers, options=config.options
        )
        self.output = nn.Linear(config.hidden_size, self.width)

    def loss(self, problem: Problem) -> Tensor:
        """Mean squared error, or cross entropy a step."""
        lengths = torch.full((len(problem.inputs),), problem.inputs.size(1))
        outputs = self.encoder(problem.inputs, lengths).outputs
        if self.width == 1:
            return (self.output(outputs[:, -1]).squeeze(1) - problem.targets).square().mean()
        return nn.functional.cross_entropy(self.output(outputs).flatten(0, 1), problem.targets.flatten())


def train(
    config: LongMemoryConfig, *, until: float | None = None, watch: Callable[[int, float], None] | None = None
) -> tuple[float, int]:
    """Train on new batches all the time; gives the loss on held-out ones, and the optimiser steps taken.

    Every 100 steps the loss on 256 held-out rows is measured (``watch`` is told); below ``until``, or where it is not a
    number any more, it ends.

    Raises:
        UsageError: a task that is not known, or a ``shortest`` outside 2 to ``steps``.
    """
    makers = {"adding": adding, "copy": copy_memory}
    if config.task not in makers:
        raise UsageError(f"task is {config.task}, allowed are {', '.join(makers)}")
    shortest = config.steps if config.shortest is None else config.shortest
    if not 2 <= shortest <= config.steps:
        raise UsageError(f"shortest is {shortest}, allowed is 2 to {config.steps}")
    make = makers[config.task]
    torch.manual_seed(config.seed)
    model = LongMemoryModel(config)
    generator = torch.Generator().manual_seed(config.seed)
    held_out = make(256, config.steps, generator=torch.Generator().manual_seed(config.seed + 12345))
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    loss = float("inf")
    for step in range(1, config.max_steps + 1):
        steps = config.steps
        if shortest < steps:
            steps = round(shortest * (steps / shortest) ** float(torch.rand((), generator=generator)))
        optimizer.zero_grad()
        model.loss(make(config.batch_size, steps, generator=generator)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        if step % 100 and step != config.max_steps:
            continue
        model.eval()
        with torch.no_grad():
            loss = float(model.loss(held_out))
        model.train()
        if watch is not None:
            watch(step, loss)
        if math.isnan(loss) or (until is not None and loss < until):
            return loss, step
    return loss, config.max_steps
