"""Drawing the next symbol: temperature, top-k, top-p, and continuing sequences step by step.

Each row draws from numbers of its own, so that what it becomes does not depend on its neighbours in a batch, and
nothing is taken from the global generator.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from suite.effects import Declared, above
from suite.errors import UsageError

_S = TypeVar("_S")
Step = Callable[[Tensor, _S], tuple[Tensor, _S]]


@dataclass(frozen=True)
class SamplingConfig:
    """How sequences are continued.

    Args:
        length: Symbols to write at most.
        temperature: Logits are divided by it: below 1 for what is likely, above 1 for variety; 0 takes the likeliest.
        top_k: Draw among so many likeliest symbols alone; 0 for all.
        top_p: Draw among the likeliest symbols that together have this probability (Holtzman et al. 2020); 1 for all.
        draw: Decides the random draws: another number, another continuation.
    """

    only_with: ClassVar[Declared] = dict.fromkeys(("top_k", "top_p", "draw"), above("temperature", 0))

    length: int = 100
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    draw: int = 0

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UsageError(f"length is {self.length}, allowed is 1 or more")
        if not 0.0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature is {self.temperature}, allowed is 0 or more")
        if self.top_k < 0:
            raise UsageError(f"top_k is {self.top_k}, allowed is 0 (all) or more")
        if not 0.0 < self.top_p <= 1.0:
            raise UsageError(f"top_p is {self.top_p}, allowed is more than 0, up to 1")


def next_probabilities(logits: Tensor, config: SamplingConfig) -> Tensor:
    """What is drawn from: ``logits (B, V)`` to float64 probabilities ``(B, V)``; temperature, then top-k, then top-p.

    Of symbols that are equally likely at the edge, those with smaller numbers stay.
    """
    exact = logits.double()
    if config.temperature == 0:
        return torch.nn.functional.one_hot(exact.argmax(dim=1), exact.size(1)).double()
    probabilities = (exact / config.temperature).softmax(dim=1)
    if config.top_k in range(1, exact.size(1)) or config.top_p < 1:
        ordered, order = probabilities.sort(dim=1, descending=True, stable=True)
        if config.top_k:
            ordered[:, config.top_k :] = 0.0
            ordered = ordered / ordered.sum(dim=1, keepdim=True)
        before = ordered.cumsum(dim=1) - ordered
        ordered = ordered.masked_fill(before >= config.top_p, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter_(1, order, ordered)
    return probabilities / probabilities.sum(dim=1, keepdim=True)


def pick(probabilities: Tensor, draws: Tensor) -> Tensor:
    """The symbol ``(B,)`` at each of ``draws (B,)``, uniform in [0, 1), in the running sum of ``probabilities (B, V)``.

    A symbol without probability is never picked.
    """
    sums = probabilities.cumsum(dim=1)
    place = draws.to(sums).unsqueeze(1) * sums[:, -1:]
    found = torch.searchsorted(sums, place, right=True).squeeze(1)
    last = (probabilities > 0).to(torch.int8).cumsum(dim=1).argmax(dim=1)  # rounding may point behind the last
    return torch.minimum(found, last)


@torch.no_grad()
def continue_sequences(
    step: Step[_S],
    logits: Tensor,
    state: _S,
    *,
    config: SamplingConfig,
    seeds: Sequence[int],
    end: int | None = None,
    banned: Sequence[int] = (),
) -> list[list[int]]:
    """Continue B sequences that were read up to ``state``.

    Args:
        step: symbols ``(B,)`` and a state to logits ``(B, V)`` of what follows and the next state.
        logits: ``(B, V)``: what follows what was read.
        state: the state after what was read.
        config: how.
        seeds: one for each row: decides its draws.
        end: a symbol that ends a sequence and is not part of it.
        banned: symbols that are never written.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    draws = torch.stack([torch.rand(config.length, generator=each, dtype=torch.float64) for each in generators])
    draws = draws.to(logits.device)
    written: list[Tensor] = []
    open_rows = torch.ones(len(seeds), dtype=torch.bool, device=logits.device)
    for number in range(config.length):
        logits[:, list(banned)] = -torch.inf
        symbols = pick(next_probabilities(logits, config), draws[:, number])
        written.append(symbols)
        if end is not None:
            open_rows &= symbols != end
            if not bool(open_rows.any()):
                break
        if number + 1 < config.length:
            logits, state = step(symbols, state)
    rows: list[list[int]] = torch.stack(written, dim=1).tolist()
    return [row[: row.index(end)] if end is not None and end in row else row for row in rows]
