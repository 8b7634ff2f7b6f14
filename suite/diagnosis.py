"""``diagnose``: where a recipe spends its time and memory, and how its gradients look, from its first steps."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveFloat, PositiveInt

from suite.cli import Domains
from suite.console import notice, report
from suite.data import SuiteDataModule
from suite.domain import Domain, Task
from suite.effects import never, refuse_unused
from suite.errors import SuiteError, UsageError
from suite.fitting import build_module
from suite.module import SuiteModule
from suite.parser import SuiteParser, recipes_first, settings_of
from suite.peek import peek_task
from suite.precision import settle_precision
from suite.probe import Probe
from suite.process import prepare_process
from suite.rehearsal import rehearse
from suite.sections import SECTIONS, Observed, Section
from suite.seeding import seed_everything
from suite.step_profile import StepProfile
from suite.threads import settle_threads
from suite.tracking import TrackingConfig, resolve_mode
from suite.trainer import quiet_libraries
from suite.verb_parsers import default_recipe, fit_parser, run_needs

WARM_UP = 3
_OWN = ("config", "resume", "debug", "name", "runs", "steps", "seconds", "output")
# One process, training alone, ended by the probe: what a recipe says of these is for real runs.
_TRAINER = {
    "devices": 1, "num_nodes": 1, "strategy": "auto", "limit_val_batches": 0, "num_sanity_val_steps": 0,
    "min_epochs": None, "min_steps": None, "enable_progress_bar": False,
}  # fmt: skip
_UNUSED = [
    (name, "", never("diagnose neither validates, tests nor stops early"))
    for name in (
        *("samples", "patience", "keep_best", "trainer.min_epochs", "trainer.min_steps", "trainer.val_check_interval"),
        *("trainer.check_val_every_n_epoch", "trainer.limit_val_batches", "trainer.limit_test_batches"),
    )
]


def diagnose(arguments: Sequence[str], domain_name: str, domains: Domains) -> None:
    """Train a recipe for some steps in a folder that is gone afterwards, and print a table.

    Raises:
        SuiteError: as ``fit``; or ``--output`` cannot be written.
    """
    quiet_libraries()
    domain: Domain = domains.load(domain_name)
    name = peek_task(arguments, domain)
    task = domain.task(name)
    parser = _parser(domain, name, domains)
    config = parser.parse_args(recipes_first(arguments))
    values, given = dict(config.items()), parser.given(arguments)
    refuse_unused(values, given, run_needs(task))
    refuse_unused(values, replace(given, layers=given.layers[-1:]), _UNUSED)  # a recipe is for real runs
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("diagnose looks at one process: start it without a launcher")
    if config.resume is not None:
        raise UsageError("--resume: diagnose looks at a recipe's first steps: leave it out")
    if config.output is not None and not Path(config.output).parent.is_dir():
        raise SuiteError(f"{config.output}: there is no such folder: make it, or choose another --output")
    settle_precision(config.trainer)
    settings = settings_of(config, without=_OWN)
    run = parser.instantiate(config)
    began = time.perf_counter()
    data, module = _build(run, task)
    settle_threads(run, settings, module=module, data=data)
    built = time.perf_counter()
    sections = _observe(run, settings, data=data, module=module)
    head = _head(domain.name, name, module, data)
    seconds = {"preparing": built - began, "measuring": time.perf_counter() - built}
    _print(head, seconds, sections)
    if config.output is not None:
        tables = {section.name: section.values() for section in sections}
        _write(Path(config.output), {**head, "seconds": seconds, "settings": settings, **tables})


def _parser(domain: Domain, task: str, domains: Domains) -> SuiteParser:
    parser = fit_parser(domain, task, defaults=default_recipe(domain, task, domains.configs))
    parser.prog = "diagnose.py"
    parser.usage = "diagnose.py --domain NAME [-c RECIPE] [--steps N] [--output FILE.json] [flags of fit]"
    parser.description = f"Look at the first training steps of {task} in domain {domain.name}: time, memory, gradients."
    parser.add_argument("--steps", type=PositiveInt, default=20, help="Batches to measure, after a few to warm up.")
    parser.add_argument("--seconds", type=PositiveFloat, default=20.0, help="Stop measuring after so long anyway.")
    parser.add_argument("--output", type=str | None, default=None, help="Also write the figures here, as JSON.")
    return parser


def _build(run: Any, task: Task) -> tuple[SuiteDataModule, SuiteModule]:
    prepare_process(threads=1)
    seed_everything(run.seed, "weights")
    data: SuiteDataModule = task.data(**vars(run.data), seed=run.seed, assets=None)
    module = build_module(run, task, data.assets)
    module.optim.check()
    return data, module


def _observe(run: Any, settings: dict[str, Any], *, data: SuiteDataModule, module: SuiteModule) -> list[Section]:
    profile = StepProfile(ignore=Probe.__name__)
    probe = Probe(profile, steps=int(run.steps), warm_up=WARM_UP, seconds=float(run.seconds))
    _refit(run, profile)
    run.samples, run.patience = 0, None
    tracking = TrackingConfig(**vars(run.tracking))
    if resolve_mode(tracking) == "online":
        notice("diagnose: tracked offline: nothing is sent")
    tracking = replace(tracking, mode="disabled" if resolve_mode(tracking) == "disabled" else "offline")
    with rehearse(module, data, run, settings, tracking=tracking) as trainer:
        trainer.callbacks.append(probe)  # type: ignore[attr-defined]
        trainer.fit(module, datamodule=data)
        if not profile.steps:
            raise UsageError("no training step was made: trainer.max_time is over before the first")
        batch = data.transfer_batch_to_device(probe.batch, module.device, 0)
        folder = Path(trainer.default_root_dir)
        seen = Observed(module, data, trainer, profile, probe, batch, folder, WARM_UP)
        found = [make(seen) for make in SECTIONS]
    return [section for section in found if section is not None]


def _refit(run: Any, profile: StepProfile) -> None:
    """Set the trainer's settings for a diagnosis, and say which of the recipe's are not used."""
    usual = {"devices": ("auto", 1), "num_nodes": (1,), "strategy": ("auto",), "profiler": (None,)}
    unused = [f"trainer.{name}" for name, values in usual.items() if run.trainer[name] not in values]
    if unused:
        notice(f"diagnose: one process and its own profiler; not used: {', '.join(unused)}")
    for name, value in {**_TRAINER, "profiler": profile}.items():
        run.trainer[name] = value


def _head(domain: str, task: str, module: SuiteModule, data: SuiteDataModule) -> dict[str, Any]:
    return {
        "domain": domain,
        "task": task,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "examples": len(data.examples("train").lengths),
        "batches": len(data.loader("train", shuffle=True)),
    }


def _print(head: dict[str, Any], seconds: dict[str, float], sections: Sequence[Section]) -> None:
    report(
        f"{head['domain']} {head['task']}: {head['parameters']:,} parameters, {head['examples']:,} training examples, "
        f"{head['batches']:,} batches an epoch"
    )
    report(f"{seconds['preparing']:.1f} s to prepare data and model, {seconds['measuring']:.1f} s to measure")
    for section in sections:
        report()
        for line in section.lines():
            report(line)


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise SuiteError(f"{path}: cannot be written ({error.strerror}): choose another --output") from None
    report(f"\nWritten to {path}")
