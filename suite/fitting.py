"""``fit``: from a command line to a run folder with its checkpoints, figures and samples."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from suite import run_folder
from suite.callbacks import closing_names
from suite.checkpoint import RECORD_KEY, STEPS_DONE_KEY, make_record, read
from suite.cli import Domains
from suite.closing import Outcome, command, report_outcome, test_best
from suite.console import from_here, is_first_process, notice
from suite.data import SuiteDataModule
from suite.domain import Domain, Task
from suite.effects import refuse_unused
from suite.errors import DataError, UsageError, gather
from suite.finetune import Source, open_source
from suite.layer_groups import FinetuneConfig
from suite.metrics_file import MetricsFile
from suite.module import SuiteModule
from suite.optim import OptimConfig
from suite.parser import SuiteParser, parse_over, recipes_first, settings_of
from suite.peek import peek_task
from suite.precision import refuse_other_precision, settle_precision
from suite.process import prepare_process
from suite.resume import refuse_average, refuse_changes
from suite.rewind import set_later_aside
from suite.run_lock import locked
from suite.seeding import seed_everything
from suite.splits import SPLITS
from suite.threads import settle_threads
from suite.tracking import TrackingConfig, build_logger, check_online, finish, resolve_mode
from suite.trained_data import DATA_KEY, TrainedData, make_data_record, refuse_changed
from suite.trainer import build_trainer, quiet_libraries
from suite.trainer_settings import check_validation_interval
from suite.verb_parsers import default_recipe, describe_defaults, fit_parser, run_needs
from suite.wandb_logger import read_run_id

_NOT_SETTINGS = ("config", "resume", "debug", "name", "runs")


def fit(
    arguments: Sequence[str], domain_name: str, domains: Domains, *, verb: str = "fit", decided: Collection[str] = ()
) -> Outcome:
    """Train, test the best checkpoint, say what to do next; ``finetune`` begins with the weights of a source.

    Gives the test figures. The run folder is locked meanwhile. ``decided`` names settings that another command varies
    itself.

    Raises:
        SuiteError: anything that a user can cause; see the message.
    """
    with ExitStack() as held:
        return _fit_verb(arguments, domain_name, domains, verb=verb, decided=decided, held=held)


def _fit_verb(
    arguments: Sequence[str],
    domain_name: str,
    domains: Domains,
    *,
    verb: str,
    decided: Collection[str],
    held: ExitStack,
) -> Outcome:
    """``fit``, with ``held`` for the lock on the run folder."""
    quiet_libraries()
    domain: Domain = domains.load(domain_name)
    name = peek_task(arguments, domain)
    defaults = default_recipe(domain, name, domains.configs)
    parser = fit_parser(domain, name, defaults=defaults, verb=verb)
    # What --print_config is to print of a fine-tuning run is known once its source is.
    config = parser.parse_args([each for each in recipes_first(arguments) if verb == "fit" or each != "--print_config"])
    if config.task != name:  # of a recipe that can be read only once
        raise UsageError(f"task is {config.task} in a recipe that is no file: add --task {config.task}")
    source, origin = None, None
    if config.resume is not None:
        source = held.enter_context(run_folder.resumed(config.resume, Path(config.runs), domain.name))
        parser, config = _parse_over(arguments, domain, name, source, verb=verb)
    else:
        run_folder.check_name(Path(config.runs), domain.name, config.name)
        if verb == "finetune":
            policy = FinetuneConfig(**vars(config.finetune))
            origin = open_source(config.source, config=policy, domain=domain, load=domains.load)
            config = parse_over(parser, origin.defaults(domain.task(name)), arguments, source=config.source)
        settle_precision(config.trainer)
    given = parser.given(arguments, decided=decided)
    refuse_unused(dict(config.items()), given, run_needs(domain.task(name)))
    note = describe_defaults(config, defaults) if config.resume is None else None
    settings = settings_of(config, without=_NOT_SETTINGS)
    run = parser.instantiate(config)
    tracking = TrackingConfig(**vars(run.tracking))
    check_online(resolve_mode(tracking))
    task = domain.task(name)
    origins: dict[str, Any] = {"source": source, "origin": origin}
    return _train(run, settings, domain=domain, task=task, tracking=tracking, **origins, held=held, note=note)


def _parse_over(
    arguments: Sequence[str], domain: Domain, task: str, source: Path, *, verb: str
) -> tuple[SuiteParser, Any]:
    """The command line read over the settings of a checkpoint instead of the defaults; differences are refused."""
    record = read(source)[RECORD_KEY]
    refuse_average(record, source)
    folder = run_folder.folder_of(source)
    old = record["settings"]
    if (old["domain"], old["task"]) != (domain.name, task):
        raise UsageError(
            f"{source} is of --domain {old['domain']} --task {old['task']}, not of {domain.name} {task}: name that one"
        )
    if verb == "finetune" and verb not in old:
        raise UsageError(f"{source} is of a run that began with fit.py: go on with that, or name it as --source")
    # A run that was fine-tuned goes on by either command: its source is not needed any more.
    parser = fit_parser(domain, task, defaults=None, verb="finetune" if "finetune" in old else "fit")
    config = parse_over(parser, old, arguments, source=source)
    # The run's settings as this version reads them: what came later has its default, which is no difference.
    before = parse_over(parser, old, [], source=source)
    refuse_other_precision(before.trainer.precision, before.trainer.accelerator, run=str(folder))
    settle_precision(config.trainer)
    if config.threads == "auto":  # asked for again, by a recipe: what was found then
        config.threads = before.threads
    refuse_changes(settings_of(before, without=_NOT_SETTINGS), settings_of(config, without=_NOT_SETTINGS))
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
    held: ExitStack,
    note: str | None,
) -> Outcome:
    prepare_process(threads=1)  # initial weights do not depend on the number that is settled below
    seed_everything(run.seed, "weights")
    checkpoint = read(source) if source else None
    assets = checkpoint[RECORD_KEY]["assets"] if checkpoint else None
    if origin is not None:
        assets = origin.assets_for(task, settings)
    data = task.data(**vars(run.data), seed=run.seed, assets=assets)
    if origin is not None and assets is not None:
        data.renew_assets()
    module = build_module(run, task, data.assets)
    module.optim.check()
    report = origin.hand_over(module, settings) if origin else None
    if checkpoint is None and origin is None:
        module.begin(data)
    batches = _count_batches(data)["train"]
    check_validation_interval(vars(run.trainer), batches)
    if checkpoint and source:
        refuse_changed(TrainedData.of(checkpoint[RECORD_KEY], source), data, limited=_limited(run.trainer))
    if note is not None:  # after what may be wrong with the data, so that an error stays a single line
        notice(note)
    if batches == 1:
        count = len(data.examples("train").lengths)
        notice(f"data: the {count} training examples fit one batch: every epoch is a single step")
    settle_threads(run, settings, module=module, data=data)
    folder = run_folder.folder_of(source) if source else run_folder.create(Path(run.runs), domain.name, run.name)
    if source is None:
        held.enter_context(locked(folder))
    try:
        if origin and report:
            origin.announce(folder, report)
        before = origin.record if origin else checkpoint[RECORD_KEY].get("source") if checkpoint else None
        record = make_record(settings=settings, assets=data.assets, source=before)
        record[DATA_KEY] = make_data_record(data, source=origin.trained_on if origin else None)
        if checkpoint and "earlier" in checkpoint[RECORD_KEY].get(DATA_KEY, {}):
            record[DATA_KEY]["earlier"] = checkpoint[RECORD_KEY][DATA_KEY]["earlier"]
        outcome = _run_in(folder, run, record, module, data, tracking=tracking, checkpoint=checkpoint, source=source)
        outcome.threads = run.threads
        return outcome
    finally:
        if source is None:  # of a run that goes on nothing is ever removed
            run_folder.discard_empty(folder)


def _limited(trainer: Any) -> list[str]:
    """The splits of which a run takes only the first batches."""
    limits = {split: trainer.get(f"limit_{split}_batches") for split in ("val", "test")}
    # 1 is a single batch, and 1.0 is all of them.
    return [split for split, limit in limits.items() if isinstance(limit, int) or (limit is not None and limit < 1.0)]


def _count_batches(data: SuiteDataModule) -> dict[str, int]:
    """Batches of each split: what is wrong with the data is said before there is a run.

    Raises:
        DataError: splits that cannot be read, all of them at once; of the test, too, with which a run ends.
    """
    batches: dict[str, int] = {}
    problems: dict[str, None] = {}  # in order; what is wrong with a common source is said once
    for split in ("train", "val", "test"):
        try:
            batches[split] = len(data.loader(split, shuffle=False))
        except DataError as error:
            problems[str(error)] = None
    gather([*problems])
    return batches


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
) -> Outcome:
    settings = record["settings"]
    followed = {**settings, "source": record["source"]} if "source" in record else settings
    loggers = _build_loggers(tracking, folder, followed, checkpoint)
    content = {split: data.fingerprint_of(split).sha256 for split in SPLITS}
    start = {"data": content, "step": checkpoint["global_step"] if checkpoint else 0}
    trainer = build_trainer(run, folder, record=record, module=module, loggers=loggers, start=start)
    if is_first_process():
        run_folder.write_config(folder, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
        verb = f"Going on with {folder} from step {checkpoint['global_step']}" if checkpoint else f"Run {folder}"
        notice(f"{verb}: {_count_parameters(module):,} parameters, {len(data.examples('train').lengths):,} examples")
    try:
        if trainer.world_size > 1:  # each process has fewer batches than one alone, which was asked before
            data.trainer = trainer
            check_validation_interval(vars(run.trainer), len(data.loader("train", shuffle=True)))
        if checkpoint is not None:  # last, so that a run that is refused for whatever reason stays as it was
            _go_back(folder, loggers[0], checkpoint, settings=settings, closing=closing_names(module))
        _fit(trainer, module, data, source=source, folder=folder, settings=settings)
        if trainer.global_step == start["step"]:
            notice("nothing was left to train: raise --trainer.max_epochs or --trainer.max_steps to go further")
        outcome = test_best(trainer, module, data, folder)
    finally:
        finish(loggers)
    mode, usage = resolve_mode(tracking), data.prediction_usage
    report_outcome(outcome, module, folder=folder, mode=mode, domain=settings["domain"], usage=usage)
    return outcome


def _fit(
    trainer: Trainer,
    module: SuiteModule,
    data: SuiteDataModule,
    *,
    source: Path | None,
    folder: Path,
    settings: dict[str, Any],
) -> None:
    """Train; a signal ends it with how to resume, and the status that says which signal (129, 130 or 143)."""
    try:
        with module.stop.scope():
            trainer.fit(module, datamodule=data, ckpt_path=source)
    except SystemExit as stop:
        if not trainer.interrupted:
            raise
        status = 143 if isinstance(stop, SIGTERMException) else stop.code if stop.code in (129, 143) else 130
        way_on = "a new run: nothing was saved"
        if (folder / run_folder.CHECKPOINTS).is_dir():  # either command goes on with a run that was fine-tuned
            where = ("--domain", settings["domain"], "--task", settings["task"], "--resume", from_here(folder))
            way_on = command("fit", *where)
        word = {129: "hung up", 143: "terminated"}.get(status, "interrupted")
        notice(f"{word}: go on with {way_on}")
        raise SystemExit(status) from None


def build_module(run: Any, task: Task, assets: dict[str, Any]) -> SuiteModule:
    """The module of an instantiated command line."""
    extra = {} if task.decoding is None else {"decoding": task.decoding(**vars(run.decoding))}
    module = task.module(assets, **vars(run.model), optim=OptimConfig(**vars(run.optim)), **extra)
    if "finetune" in run:
        module.tune(FinetuneConfig(**vars(run.finetune)))
    return module


def _build_loggers(
    tracking: TrackingConfig,
    folder: Path,
    settings: dict[str, Any],
    checkpoint: dict[str, Any] | None,
) -> list[Logger]:
    metrics = MetricsFile(folder)
    if checkpoint is not None:
        metrics.check()
    resume_id = read_run_id(folder) if checkpoint is not None else None
    tracker = build_logger(tracking, run_folder=folder, settings=settings, resume_id=resume_id)
    return [metrics] if tracker is None else [metrics, tracker]


def _go_back(
    folder: Path, metrics: Logger, checkpoint: dict[str, Any], *, settings: dict[str, Any], closing: Sequence[str]
) -> None:
    """Set aside what is later than ``checkpoint``, and drop the rows of metrics that the resumed run logs again."""
    assert isinstance(metrics, MetricsFile)
    step = int(checkpoint["global_step"])
    set_later_aside(folder, step=step)
    if STEPS_DONE_KEY in checkpoint[RECORD_KEY]:
        complete = step % settings["trainer"]["log_every_n_steps"] == 0
        metrics.resume_from(step, without=["test/*"] if complete else ["test/*", *closing])
    else:  # rows of an earlier version have the number of the step before
        notice(f"{metrics.path}: an earlier version numbered the rows up to here one lower; they stay as they are")
        metrics.resume_from(step - 1)


def _count_parameters(module: SuiteModule) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
