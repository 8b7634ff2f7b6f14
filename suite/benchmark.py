"""``benchmark``: what the suite costs over bare torch, as ratios taken in one run; a domain adds its own rows."""

import argparse
import importlib
import os
import pkgutil
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer

from suite import benchmarks
from suite.cli import Domains
from suite.console import report
from suite.data import SuiteDataModule
from suite.domain import Domain
from suite.errors import UsageError
from suite.module import SuiteModule
from suite.optim import build_optimizer
from suite.parser import SuiteParser
from suite.process import prepare_process
from suite.rehearsal import load_recipe, rehearse
from suite.timing import Row, compare, table
from suite.trainer import quiet_libraries
from suite.verb_parsers import default_recipe

_ENOUGH, _MOST_ROUNDS = 10.0, 20
"""Seconds of training that a bare loop is measured for at least, and rounds after which none is added for them."""


def suites() -> list[str]:
    """Names of what ``--suite`` takes: the modules of ``suite.benchmarks``."""
    return sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))


def benchmark(arguments: Sequence[str], domain_name: str | None, domains: Domains) -> None:
    """Measure a domain, or a suite of rows, on this machine and print a table.

    Raises:
        UsageError: flags that the domain or the suite does not have.
    """
    quiet_libraries()
    options = _parse(arguments, domain_name)
    measure_suite = None if options.suite is None else _suite(options.suite)
    report(f"{_machine()}, torch {torch.__version__}")
    if measure_suite is not None and hasattr(measure_suite, "run"):
        measure_suite.run(options)
        return
    prepare_process(threads=options.threads)
    report(f"{options.threads} thread(s)")
    if measure_suite is not None:
        rows = measure_suite.measure(domains=domains, domain=domain_name, rounds=options.rounds)
    else:
        assert domain_name is not None
        domain: Domain = domains.load(domain_name)
        rows = [overhead(domain, domains.configs, steps=options.steps, rounds=options.rounds)]
        if domain.benchmark is not None:
            measure = importlib.import_module(domain.benchmark).measure
            rows += measure(checkpoint=options.checkpoint, load=domains.load, rounds=options.rounds)
    for line in table(rows):
        report(line)


def _suite(name: str) -> Any:
    return importlib.import_module(f"{benchmarks.__name__}.{name}")


def _parse(arguments: Sequence[str], domain: str | None) -> Namespace:
    """Flags of all benchmarks, and those of the suite that is asked for."""
    peeker = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peeker.add_argument("--suite", nargs="?")
    name = peeker.parse_known_args(list(arguments))[0].suite
    own: Any = _suite(name) if name in suites() else None
    parser = SuiteParser(
        prog="benchmark.py", allow_abbrev=False,
        usage="benchmark.py [--domain NAME] [--suite NAME] [--checkpoint X] [--rounds N]",
    )  # fmt: skip
    names: Any = Literal[tuple(suites())]
    parser.add_argument("--domain", type=str | None, default=domain, help="Which application; all, in some suites.")
    parser.add_argument("--suite", type=names | None, default=None, help="Measure these rows instead of a domain's.")
    parser.add_argument("--rounds", type=PositiveInt, default=5, help="Rounds that sides take in turns, at least.")
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    if hasattr(own, "add_flags"):
        own.add_flags(parser)
    else:
        parser.add_argument("--checkpoint", type=str | None, default=None, help="A model, for rows that need one.")
        parser.add_argument("--threads", type=PositiveInt, default=1, help="CPU threads inside an operation.")
        parser.add_argument("--steps", type=PositiveInt, default=60, help="Training steps in a round.")
    try:
        return parser.parse_args(list(arguments))
    except UsageError as error:
        raise UsageError(f"--suite {name}: {error}" if own is not None else str(error)) from None


def _machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {os.cpu_count()} core(s){device}"


class _Clock(Callback):
    """Seconds from the first training batch's start to the last one's end."""

    def __init__(self) -> None:
        self.begin = self.end = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.begin = self.begin or time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.end = time.perf_counter()


def overhead(domain: Domain, configs: Path, *, steps: int, rounds: int) -> Row:
    """Lightning, tracking and data loading against a bare loop over the same module and the same batches."""
    flags = [f"--trainer.max_steps={steps}", "--trainer.limit_val_batches=0", "--trainer.max_epochs=-1"]
    flags.append("--optim.schedule=constant")
    recipe = load_recipe(domain, defaults=default_recipe(domain, domain.default, configs), flags=flags)
    run, settings, data = recipe.run, recipe.settings, recipe.data
    batches = [batch for batch, _ in zip(data.loader("train", shuffle=True), range(steps), strict=False)]
    run.trainer.max_steps = len(batches)  # an epoch may be shorter: both sides take the same steps
    times: dict[str, list[float]] = {"ours": [], "reference": []}
    while len(times["ours"]) <= rounds or (
        sum(times["reference"][1:]) < _ENOUGH and len(times["ours"]) <= _MOST_ROUNDS
    ):
        times["reference"].append(_bare_loop(recipe.module(), batches, run))
        times["ours"].append(_whole_fit(recipe.module(), data, run, settings))
    warm = {name: seconds[1:] for name, seconds in times.items()}
    return compare("Lightning, tracking and loading over a bare loop", warm, bar=1.1, note=f"{len(batches)} steps")


def _bare_loop(module: SuiteModule, batches: list[Any], run: Any) -> float:
    optimizer = build_optimizer(module, module.optim)
    module.train()
    begin = time.perf_counter()
    for batch in batches:
        output = module.compute(batch)
        (output.loss_sum / output.weight).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), run.trainer.gradient_clip_val or float("inf"))
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - begin


def _whole_fit(module: SuiteModule, data: SuiteDataModule, run: Any, settings: dict[str, Any]) -> float:
    clock = _Clock()
    with rehearse(module, data, run, settings) as trainer:
        cast(Any, trainer).callbacks.append(clock)
        trainer.fit(module, datamodule=data)
    return clock.end - clock.begin
