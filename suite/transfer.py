"""From a source's weights to a model that goes on from them: what fits by name and shape, and what was declared."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from suite.console import notice
from suite.errors import CheckpointError, UsageError, gather
from suite.layer_groups import FinetuneConfig
from suite.module import SuiteModule

_SHOWN = 5


@dataclass
class Transfer:
    """What became of each weight, by name.

    ``adapted`` are those among ``loaded`` that the model's ``adapt_source`` changed or made; ``left_out`` are weights
    of the source that it did not hand on; ``resized`` has the shapes there and here.
    """

    loaded: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    resized: dict[str, list[list[int]]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """All of it as plain data."""
        return asdict(self)

    def lines(self) -> list[str]:
        """A line for each kind: how many, and where; those of the module's own doing only where there are any."""
        return [
            f"  {kind:<11} {len(keys):>4}  {grouped(keys)}".rstrip()
            for kind, keys in self.plain().items()
            if keys or kind not in ("adapted", "left_out")
        ]


def grouped(keys: Iterable[str]) -> str:
    """Names by the part of the model that they are in, with counts: ``network.encoder (8), network.bridge (2)``."""
    counts = Counter(".".join(key.split(".")[:2]) for key in keys)
    shown = [f"{name} ({count})" if count > 1 else name for name, count in counts.most_common(_SHOWN)]
    left = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")


class RowMap:
    """Rows by name: from the order of a source's tokens or labels to this model's; new names get the mean of all.

    Says how many there are of each kind.

    Args:
        old: the source's names, one a row.
        new: this model's.
        what: what is mapped, for the notice.
        specials: so many rows at the start (padding and the like) are no part of the mean.
    """

    def __init__(self, old: Sequence[str], new: Sequence[str], *, what: str, specials: int = 0) -> None:
        self.size, self.what, self.specials = len(old), what, specials
        self.same = list(old) == list(new)
        places = {name: index for index, name in enumerate(old)}
        self.index = torch.tensor([places.get(name, -1) for name in new])
        fresh = int((self.index < 0).sum())
        if not self.same:
            known = f"{len(new) - fresh} of {len(new)} taken over by name"
            notice(f"{what}: {known}, {fresh} new (the mean of the source's); {len(old)} in the source")

    def __call__(self, weight: Tensor) -> Tensor:
        """Map ``weight (len(old), ...)`` to ``(len(new), ...)``.

        Raises:
            CheckpointError: another number of rows than of names.
        """
        if len(weight) != self.size:
            raise CheckpointError(
                f"{self.what}: {len(weight)} rows in the source for {self.size} names: use another checkpoint"
            )
        if self.same:
            return weight
        mean = weight[self.specials if self.size > self.specials else 0 :].mean(dim=0)
        rows = weight[self.index.clamp_min(0)]
        rows[self.index < 0] = mean
        return rows


def transfer(
    module: SuiteModule, state: dict[str, Tensor], assets: dict[str, Any], *, config: FinetuneConfig, hint: str = ""
) -> Transfer:
    """Load what fits of a source's ``state`` into ``module``.

    Args:
        module: the new model.
        state: the source's weights.
        assets: what travelled with them.
        config: what may be missing, unexpected or of another shape.
        hint: added to what does not fit: a likely reason.

    Raises:
        UsageError: a weight that is missing, unexpected or of another shape without having been declared so.
        CheckpointError: weights that are not finite.
    """
    own = module.state_dict()
    given = module.adapt_source(dict(state), assets)
    found = Transfer(left_out=sorted(key for key in state if key not in given))
    for key, weight in given.items():
        if key not in own:
            found.unexpected.append(key)
        elif weight.shape != own[key].shape:
            found.resized[key] = [list(weight.shape), list(own[key].shape)]
        else:
            found.loaded.append(key)
            if weight is not state.get(key):
                found.adapted.append(key)
    _refuse_two_for_one(own, {key: given[key] for key in found.loaded})
    # A weight under two names is there if it is there under one.
    filled = {_place(own[key]) for key in found.loaded}
    found.missing = [key for key in own if key not in given and _place(own[key]) not in filled]
    _refuse_undeclared(found, config=config, fresh=module.fresh_keys, hint=hint)
    bad = [key for key in found.loaded if given[key].is_floating_point() and not given[key].isfinite().all()]
    if bad:
        raise CheckpointError(f"the source's weights are not finite in {grouped(bad)}: use another checkpoint")
    module.load_state_dict({**own, **{key: given[key] for key in found.loaded}})
    return found


def _place(weight: Tensor) -> tuple[int, tuple[int, ...]]:
    return weight.data_ptr(), tuple(weight.shape)


def _refuse_two_for_one(own: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Refuse different weights for what is a single one here.

    Raises:
        UsageError: naming both.
    """
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    for key in given:
        if not own[key].numel():
            continue
        other = first.setdefault(_place(own[key]), key)
        if other != key and not torch.equal(given[key], given[other]):
            raise UsageError(f"{other} and {key} are one weight here and two in the source: leave them apart here too")


def _refuse_undeclared(found: Transfer, *, config: FinetuneConfig, fresh: Sequence[str], hint: str) -> None:
    """Raise once with all that does not fit and was not declared; say which declarations were not needed."""
    problems, needless = [], []
    for kind, keys in (("missing", found.missing), ("unexpected", found.unexpected), ("resized", list(found.resized))):
        option = getattr(config, f"allow_{kind}")
        patterns = [option] if isinstance(option, str) else list(option)
        unused = [pattern for pattern in patterns if not any(fnmatchcase(key, pattern) for key in keys)]
        needless += [f"finetune.allow_{kind} {pattern}: no such weight is {kind}" for pattern in unused]
        allowed = [*patterns, *(fresh if kind != "unexpected" else ())]
        left = [key for key in keys if not any(fnmatchcase(key, pattern) for pattern in allowed)]
        if left:
            named = ", ".join(_described(key, found) for key in left[:_SHOWN])
            more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
            problems.append(f"{len(left)} {kind} ({named}{more}): declare with --finetune.allow_{kind} 'PATTERN'")
    if not found.loaded:
        problems.insert(0, "no weight fits by name and shape")
    if problems and hint:
        problems.append(hint)
    gather(problems, error=UsageError)
    for line in needless:
        notice(line)


def _described(key: str, found: Transfer) -> str:
    if key not in found.resized:
        return key
    there, here = found.resized[key]
    return f"{key}: {there} in the source, {here} here"
