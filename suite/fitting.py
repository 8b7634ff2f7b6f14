"""``fit``: from a command line to a run folder with its checkpoints, figures and samples."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from suite import run_folder
from suite.checkpoint import RECORD_KEY, make_record, read
from suite.cli import Domains, peek_task
from suite.closing import report_outcome, test_best
from suite.console import is_first_process, notice
from suite.data import SuiteDataModule
from suite.domain import Domain, Task
from suite.errors import UsageError
from suite.finetune import Source, open_source
from suite.layer_groups import FinetuneConfig
from suite.metrics_file import MetricsFile
from suite.module import SuiteModule
from suite.optim import OptimConfig
from suite.parser import SuiteParser, fit_parser, recipes_first, settings_of
from suite.resume import refuse_changes
from suite.seeding import seed_everything
from suite.tracking import TrackingConfig, build_logger, check_online, finish, resolve_mode
from suite.trainer import build_trainer, quiet_libraries
from suite.wandb_logger import read_run_id

_NOT_SETTINGS = ("config", "resume", "debug", "name", "runs")


def fit(arguments: Sequence[str], domain_name: str, domains: Domains, *, verb: str = "fit") -> None:
    """Train, test the best checkpoint, and say what to do next; ``finetune`` begins with the weights of a source.

    Raises:
        SuiteError: anything that a user can cause; see the message.
    """
    quiet_libraries()
    domain: Domain = domains.load(domain_name)
    name = peek_task(arguments) or domain.default
    defaults = domains.configs / domain.name / ("default.yaml" if name == domain.default else f"{name}.yaml")
    domain.task(name)
    parser = fit_parser(domain, name, defaults=defaults, verb=verb)
    # What --print_config is to print of a fine-tuning run is known once its source is.
    config = parser.parse_args([each for each in recipes_first(arguments) if verb == "fit" or each != "--print_config"])
    source, origin = None, None
    if config.resume is not None:
        source = run_folder.find_checkpoint(config.resume, Path(config.runs), domain.name)
        parser, config = _parse_over(arguments, domain, name, source, verb=verb)
    else:
        run_folder.check_name(Path(config.runs), domain.name, config.name)
        if verb == "finetune":
            policy = FinetuneConfig(**vars(config.finetune))
            origin = open_source(config.source, config=policy, domain=domain, load=domains.load)
            taken = json.dumps(origin.defaults(domain.task(name)))
            config = parser.parse_args(["--config", taken, *recipes_first(arguments)])
    settings = settings_of(config, without=_NOT_SETTINGS)
    run = parser.instantiate(config)
    tracking = TrackingConfig(**vars(run.tracking))
    check_online(resolve_mode(tracking))
    _train(run, settings, domain=domain, task=domain.task(name), tracking=tracking, source=source, origin=origin)


def _parse_over(
    arguments: Sequence[str], domain: Domain, task: str, source: Path, *, verb: str
) -> tuple[SuiteParser, Any]:
    """The command line read over the settings of a checkpoint instead of the defaults; differences are refused."""
    old = read(source)[RECORD_KEY]["settings"]
    if (old["domain"], old["task"]) != (domain.name, task):
        raise UsageError(
            f"{source} is of --domain {old['domain']} --task {old['task']}, not of {domain.name} {task}: name that one"
        )
    if verb == "finetune" and verb not in old:
        raise UsageError(f"{source} is of a run that began with fit.py: go on with that, or name it as --source")
    # A run that was fine-tuned goes on by either command: its source is not needed any more.
    parser = fit_parser(domain, task, defaults=None, verb="finetune" if "finetune" in old else "fit")
    config = parser.parse_args(["--config", json.dumps(old), *recipes_first(arguments)])
    refuse_changes(old, settings_of(config, without=_NOT_SETTINGS))
    return parser, config


def _train(
    run: Any,
    settings: dict[str, Any],
    *,
    domain: Domain,
    task: Task,
    tracking: TrackingConfig,
    source: Path | None,
    origin: Source | None,
) -> None:
    torch.set_num_threads(run.threads)
    seed_everything(run.seed, "weights")
    checkpoint = read(source) if source else None
    assets = checkpoint[RECORD_KEY]["assets"] if checkpoint else None
    if origin is not None:
        assets = origin.assets_for(task)
    data = task.data(**vars(run.data), seed=run.seed, assets=assets)
    module = build_module(run, task, data.assets)
    module.optim.check()
    report = origin.hand_over(module, settings) if origin else None
    # What is wrong with the data is said before there is a run.
    batches = {split: len(data.loader(split, shuffle=False)) for split in ("train", "val")}
    if batches["train"] == 1:
        count = len(data.examples("train").lengths)
        notice(f"data: the {count} training examples fit one batch: every epoch is a single step")
    folder = source.parent.parent if source else run_folder.create(Path(run.runs), domain.name, run.name)
    try:
        if origin and report:
            origin.announce(folder, report)
        before = origin.record if origin else checkpoint[RECORD_KEY].get("source") if checkpoint else None
        record = make_record(settings=settings, assets=data.assets, source=before)
        _run_in(folder, run, record, module, data, tracking=tracking, checkpoint=checkpoint, source=source)
    finally:
        run_folder.discard_empty(folder)


def _run_in(
    folder: Path,
    run: Any,
    record: dict[str, Any],
    module: SuiteModule,
    data: SuiteDataModule,
    *,
    tracking: TrackingConfig,
    checkpoint: dict[str, Any] | None,
    source: Path | None,
) -> None:
    settings = record["settings"]
    followed = {**settings, "source": record["source"]} if "source" in record else settings
    loggers = _build_loggers(tracking, folder, followed, checkpoint)
    trainer = build_trainer(run, folder, record=record, module=module, loggers=loggers)
    if is_first_process():
        (folder / run_folder.CONFIG).write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
        verb = f"Going on with {folder} from step {checkpoint['global_step']}" if checkpoint else f"Run {folder}"
        notice(f"{verb}: {_count_parameters(module):,} parameters, {len(data.examples('train').lengths):,} examples")
    try:
        _fit(trainer, module, data, source=source, folder=folder)
        outcome = test_best(trainer, module, data, folder)
    finally:
        finish(loggers)
    report_outcome(
        outcome,
        module,
        folder=folder,
        mode=resolve_mode(tracking),
        domain=settings["domain"],
        usage=data.prediction_usage,
    )


def _fit(trainer: Trainer, module: SuiteModule, data: SuiteDataModule, *, source: Path | None, folder: Path) -> None:
    """Train; a signal ends it with a word on how to go on, and the status that says which signal (130 or 143)."""
    try:
        trainer.fit(module, datamodule=data, ckpt_path=source)
    except SystemExit as stop:
        if not trainer.interrupted:
            raise
        terminated = isinstance(stop, SIGTERMException)
        notice(
            f"{'terminated' if terminated else 'interrupted'}: go on from the last checkpoint with --resume {folder}"
        )
        raise SystemExit(143 if terminated else 130) from None


def build_module(run: Any, task: Task, assets: dict[str, Any]) -> SuiteModule:
    """The module of an instantiated command line."""
    extra = {} if task.decoding is None else {"decoding": task.decoding(**vars(run.decoding))}
    module = task.module(assets, **vars(run.model), optim=OptimConfig(**vars(run.optim)), **extra)
    if "finetune" in run:
        module.tune(FinetuneConfig(**vars(run.finetune)))
    return module


def _build_loggers(
    tracking: TrackingConfig, folder: Path, settings: dict[str, Any], checkpoint: dict[str, Any] | None
) -> list[Logger]:
    metrics = MetricsFile(folder)
    if checkpoint is not None:
        metrics.resume_from(int(checkpoint["global_step"]) - 1)
    resume_id = read_run_id(folder) if checkpoint is not None else None
    tracker = build_logger(tracking, run_folder=folder, settings=settings, resume_id=resume_id)
    return [metrics] if tracker is None else [metrics, tracker]


def _count_parameters(module: SuiteModule) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
