"""What the battery runs on: every task of every domain, small, built from the parser's defaults.

A case is a task of a domain, and a cell where the model has an ``encoder.cell`` setting. A domain that is added later
is covered without a test of its own, and without a word here unless its data wants to be smaller.
"""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import domains
from suite.cli import CONFIGS
from suite.config import build
from suite.data import SuiteDataModule
from suite.domain import Domain
from suite.module import SuiteModule
from suite.optim import OptimConfig
from suite.parser import settings_of
from suite.recurrent import CELLS
from suite.seeding import seed_everything
from suite.verb_parsers import fit_parser
from tests import toy
from tests.commands import TOY_CONFIGS

EXAMPLES = 6  # in the batch that the checks share

# Beside what ``_small`` does for every domain; a domain that is not here has nothing of its own.
OVERRIDES: dict[str, tuple[str, ...]] = {
    "translation": (
        *("--data.sample_size", "200", "--data.vocabulary.level", "bpe", "--data.vocabulary.size", "120"),
        *("--data.vocabulary.joint", "true", "--data.max_tokens", "null", "--decoding.max_length", "12"),
    ),
    "video": ("--data.sample_size", "40", "--model.cnn.width", "8"),
    "text": ("--data.sample_size", "120", "--data.vocabulary.size", "150"),
    "text/language_model": ("--data.chunk_length", "16", "--decoding.length", "6"),
    "audio": (
        *("--data.sample_minutes", "0.3", "--data.window", "700", "--data.context", "7", "--model.channels", "32"),
        *("--model.num_layers", "6", "--model.cycle", "6", "--model.skip_channels", "32"),
    ),
}


class Case(NamedTuple):
    """A task of a domain, with a cell if it has the choice."""

    domain: Domain
    task: str
    cell: str | None
    application: Any = domains
    configs: Path = CONFIGS

    def __str__(self) -> str:
        return "-".join(filter(None, (self.domain.name, self.task, self.cell)))


def cases() -> list[Case]:
    """Every task of every domain and of the toy one, with every cell where there is an ``encoder.cell``."""
    found = []
    for application, configs in ((domains, CONFIGS), (toy, TOY_CONFIGS)):
        for name in application.available():
            domain: Domain = application.load(name)
            for task in sorted(domain.tasks):
                case = Case(domain, task, None, application, configs)
                has_cell = "cell" in (settings(case)["model"].get("encoder") or {})
                cells = CELLS if has_cell else (None,)
                found += [case._replace(cell=cell) for cell in cells]
    return found


def tasks() -> list[Case]:
    """One case a task: for checks that no cell changes."""
    return list({(case.domain.name, case.task): case._replace(cell=None) for case in cases()}.values())


def settings(case: Case) -> dict[str, Any]:
    """Settings of ``fit`` by its own parser and defaults, small."""
    parsed = _parsed(case)
    parsed["model"] = _small(parsed["model"], cell=case.cell)
    parsed["data"] |= {key: min(4, parsed["data"][key] or 4) for key in ("batch_size",) if key in parsed["data"]}
    return parsed


def _parsed(case: Case) -> dict[str, Any]:
    name = "default" if case.task == case.domain.default else case.task
    parser = fit_parser(case.domain, case.task, defaults=case.configs / case.domain.name / f"{name}.yaml")
    return settings_of(parser.parse_args(_overrides(case)), without=())


def _overrides(case: Case) -> list[str]:
    """What a domain has of its own, and one of its tasks."""
    return [*OVERRIDES.get(case.domain.name, ()), *OVERRIDES.get(f"{case.domain.name}/{case.task}", ())]


def flags(case: Case) -> list[str]:
    """The small settings as flags of ``fit``: those that differ from what ``fit`` takes without them."""

    def walk(prefix: str, group: dict[str, Any], usual: dict[str, Any]) -> Iterator[str]:
        for key, value in group.items():
            if isinstance(value, dict):
                yield from walk(f"{prefix}.{key}", value, usual[key])
            elif isinstance(value, int | float | str) and value != usual[key]:
                yield from (f"--{prefix}.{key}", str(value).lower() if isinstance(value, bool) else str(value))

    return [*_overrides(case), *walk("model", settings(case)["model"], _parsed(case)["model"])]


def _small(model: dict[str, Any], *, cell: str | None, size: int = 16) -> dict[str, Any]:
    """At most ``size`` features of anything, and the cell wherever there is one."""
    small: dict[str, Any] = {}
    for key, value in model.items():
        if isinstance(value, dict):
            small[key] = _small(value, cell=cell, size=size)
        elif key == "cell":
            small[key] = cell or value
        elif key.endswith("size") and isinstance(value, int):
            small[key] = min(value, size)
        else:
            small[key] = value
    return small


def _without_dropout(model: dict[str, Any]) -> dict[str, Any]:
    plain = {key: _without_dropout(value) if isinstance(value, dict) else value for key, value in model.items()}
    return plain | {key: 0.0 for key in plain if key.endswith(("dropout", "smoothing"))}


@cache
def _data(domain: str, task: str, num_workers: int) -> SuiteDataModule:
    case = next(each for each in cases() if (each.domain.name, each.task) == (domain, task))
    chosen = settings(case)["data"]
    chosen |= {"num_workers": num_workers} if "num_workers" in chosen else {}
    return build(case.domain.tasks[task].data, chosen, source="a test", seed=0)


def data_of(case: Case, *, num_workers: int = 0) -> SuiteDataModule:
    """The case's data, made once a session."""
    return _data(case.domain.name, case.task, num_workers)


def module_of(case: Case, *, seed: int = 0, dropout: bool = True, assets: Any = None) -> SuiteModule:
    """A new module with the initial weights of ``seed``."""
    task, chosen = case.domain.tasks[case.task], settings(case)
    optim = build(OptimConfig, {"name": "adam", "lr": 0.02}, source="a test")
    fixed = {"assets": assets or data_of(case).assets, "optim": optim, "source": "a test"}
    if task.decoding is not None:
        fixed["decoding"] = build(task.decoding, chosen["decoding"], source="a test")
    seed_everything(seed, "weights")
    return build(task.module, chosen["model"] if dropout else _without_dropout(chosen["model"]), **fixed)


def examples_of(case: Case) -> list[Any]:
    """A few training examples of different lengths."""
    examples = data_of(case).examples("train")
    lengths = examples.lengths.reshape(len(examples.lengths), -1).sum(axis=1)
    order = sorted(range(len(lengths)), key=lambda index: int(lengths[index]))
    chosen = [order[place * (len(order) - 1) // (EXAMPLES - 1)] for place in range(EXAMPLES)]
    steps = {int(lengths[index]) for index in chosen}
    assert len(steps) > 1 or steps == {1}, "the examples are of one length: padding is not tested"
    return [examples.fetch(index, 0) for index in chosen]


def batch_of(case: Case) -> Any:
    """Those examples as a batch."""
    return data_of(case).collate(examples_of(case))


def map_tensors(convert: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same nested value with its tensors converted."""
    if isinstance(value, Tensor):
        return convert(value)
    if isinstance(value, tuple | list):
        parts = [map_tensors(convert, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def double(value: Any) -> Any:
    """Floating tensors in float64."""
    return map_tensors(lambda part: part.double() if part.is_floating_point() else part, value)


def assert_same(first: Any, second: Any) -> None:
    """Equal in every part: tensors to the bit."""
    assert type(first) is type(second)
    if isinstance(first, Tensor):
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
    elif isinstance(first, tuple | list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, dict):
        assert_same(list(first.items()), list(second.items()))
    else:
        assert first == second


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in a nested value."""
    if isinstance(value, Tensor):
        return [value]
    return [part for each in value for part in tensors_in(each)] if isinstance(value, tuple | list) else []


def assert_close(first: Any, second: Any) -> None:
    """Equal in every part: numbers to 1e-6."""
    if isinstance(first, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_close(one, other)
    elif isinstance(first, dict):
        assert_close(list(first.values()), list(second.values()))
    elif isinstance(first, float):
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-6)
    else:
        assert first == second
