"""From a checkpoint to a model that evaluates and predicts: nothing else is needed."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Trainer

from suite import run_folder
from suite.checkpoint import RECORD_KEY, read, weights_of
from suite.cli import Domains
from suite.config import build
from suite.data import SuiteDataModule
from suite.domain import Domain, Task
from suite.effects import refuse_unused
from suite.errors import CheckpointError, UsageError
from suite.module import SuiteModule
from suite.optim import OptimConfig
from suite.parser import SuiteParser, parse_over, settings_of
from suite.peek import peek
from suite.precision import settle_precision
from suite.process import prepare_process
from suite.trained_data import TrainedData
from suite.trainer import construct, quiet_libraries
from suite.verb_parsers import checkpoint_needs, checkpoint_parser, refuse_trained


class Restored(NamedTuple):
    """What evaluate and predict work with."""

    module: SuiteModule
    data: SuiteDataModule
    trainer: Trainer
    options: Any


class Origin(NamedTuple):
    """The data of a checkpoint, the data settings that were ``asked`` for, and those that the line ``named``."""

    trained: TrainedData
    asked: dict[str, Any]
    named: set[str]


def load_module(path: str | Path, *, load: Callable[[str], Any], decoding: Any = None) -> SuiteModule:
    """The trained module of a checkpoint, in eval mode, for notebooks: ``load_module(path, load=domains.load)``.

    Raises:
        CheckpointError: a damaged or foreign checkpoint.
    """
    path = best_of(str(path))
    checkpoint = read(path)
    task = task_of(checkpoint[RECORD_KEY]["settings"], load, path)
    return _module_of(checkpoint, task, decoding, path)


def task_of(settings: dict[str, Any], load: Callable[[str], Any], path: str | Path) -> Task:
    """The task that a checkpoint's settings name.

    Raises:
        CheckpointError: settings that are not whole, or a task that is not known here.
    """
    missing = {"domain", "task", "model", "data", "optim", "seed"} - settings.keys()
    if missing:
        raise CheckpointError(f"{path}: its settings lack {', '.join(sorted(missing))}: use another checkpoint")
    try:
        domain: Domain = load(settings["domain"])
        task = domain.task(settings["task"])
    except (ImportError, AttributeError, KeyError, UsageError) as error:
        raise CheckpointError(f"{path}: its domain or task is not known here ({error})") from None
    if task.decoding is not None and "decoding" not in settings:
        raise CheckpointError(f"{path}: its settings lack decoding: use another checkpoint")
    return task


def _module_of(checkpoint: dict[str, Any], task: Task, decoding: Any, path: str | Path) -> SuiteModule:
    record = checkpoint[RECORD_KEY]
    settings = record["settings"]
    fixed: dict[str, Any] = {"assets": record["assets"]}
    fixed["optim"] = build(OptimConfig, settings["optim"], source=path)
    if task.decoding is not None:
        fixed["decoding"] = decoding or build(task.decoding, settings["decoding"], source=path)
    try:
        module: SuiteModule = build(task.module, settings["model"], source=path, **fixed)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: what travels with its model is not whole ({error!r})") from None
    try:
        module.load_state_dict(weights_of(checkpoint))
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its weights do not fit its settings ({reason[:300]})") from None
    return module.eval()


def best_of(path: str) -> Path:
    """The checkpoint that ``--checkpoint`` means: a file, or the best of a run folder (the last, without a best)."""
    given = Path(path)
    if not given.is_dir():
        return given
    best = given / run_folder.CHECKPOINTS / "best.ckpt"
    return best if best.is_file() else run_folder.newest_checkpoint(given)


def restore(
    verb: str, arguments: Sequence[str], domains: Domains, *, add: Callable[[SuiteParser, Task], None]
) -> Restored:
    """As ``restore_with_origin``, for a command that does not compare data."""
    return restore_with_origin(verb, arguments, domains, add=add)[0]


def restore_with_origin(
    verb: str, arguments: Sequence[str], domains: Domains, *, add: Callable[[SuiteParser, Task], None]
) -> tuple[Restored, Origin]:
    """Read ``--checkpoint``, then the rest of the command line over its settings; ``add`` declares the verb's own.

    Raises:
        UsageError: ``--checkpoint`` is missing, or a flag would change what was trained.
        CheckpointError: a damaged or foreign checkpoint.
    """
    quiet_libraries()
    path = best_of(_peek(verb, arguments))
    checkpoint = read(path)
    settings = checkpoint[RECORD_KEY]["settings"]
    task = task_of(settings, domains.load, path)
    refuse_trained(arguments, task)
    parser = checkpoint_parser(verb, task, add=add)
    kept = {key: value for key, value in settings["data"].items() if key not in task.data.trained_settings}
    base = {"data": kept, **settings.get("decoding", {})}
    parsed = parse_over(parser, base, arguments, source=path)
    refuse_unused(dict(parsed.items()), parser.given(arguments), checkpoint_needs(verb, task))
    _refuse_own_rows(settings["data"], settings_of(parsed, without=())["data"])
    settle_precision(parsed.trainer)
    options = parser.instantiate(parsed)
    prepare_process(threads=options.threads)
    decoding = None
    if task.decoding is not None:
        decoding = task.decoding(**{field.name: options[field.name] for field in fields(task.decoding)})
    module = _module_of(checkpoint, task, decoding, path)
    trained = {key: value for key, value in settings["data"].items() if key in task.data.trained_settings}
    asked = settings_of(parsed, without=())["data"]
    if trained.get("folds") is not None and _is_other_data(settings["data"], asked, split=options.get("split")):
        trained |= {"folds": None, "fold": 0}
    data: SuiteDataModule = build(
        task.data,
        {**asked, **trained},
        source=path,
        seed=settings["seed"],
        assets=checkpoint[RECORD_KEY]["assets"],
    )
    named = {word.partition("=")[0].removeprefix("--data.").rstrip("+") for word in arguments if word[:7] == "--data."}
    origin = Origin(TrainedData.of(checkpoint[RECORD_KEY], path), asked, named)
    return Restored(module, data, _trainer(options), options), origin


def _refuse_own_rows(trained: dict[str, Any], asked: dict[str, Any]) -> None:
    """Refuse to take a split from the training rows that the run had a file for: it has learnt from all of them."""
    for split in ("val", "test"):
        if trained.get(split) and not asked.get(split):
            raise UsageError(
                f"data.{split} was {trained[split]} when this was trained: taken from the training rows now, it would "
                "hold what the model has learnt from; name a file"
            )


def _is_other_data(trained: dict[str, Any], asked: dict[str, Any], *, split: str | None) -> bool:
    """Whether folds that a run was trained with say nothing about the data at hand: another set, or a file of its own.

    Raises:
        UsageError: a split of the folds beside a file for another: it would be taken from the training rows anew.
    """
    if asked.get("dataset") != trained.get("dataset"):
        return True
    given = [name for name in ("val", "test") if asked.get(name)]
    if given and split in ("train", "val", "test") and split not in given:
        raise UsageError(
            f"data.{given[0]} is given, and {split} was part of a fold when this was trained: leave data.{given[0]} "
            f"out to evaluate the fold's {split}, or evaluate {given[0]}"
        )
    return bool(given)


def _peek(verb: str, arguments: Sequence[str]) -> str:
    found = peek("checkpoint", arguments)
    if found is None:
        more = "; --help needs it too" if {"-h", "--help"} & set(arguments) else ""
        raise UsageError(f"--checkpoint is missing: use {verb}.py --checkpoint FILE (or a run folder){more}")
    if found.value == "":
        raise UsageError("--checkpoint is '', allowed is a checkpoint or a run folder: give one")
    return found.value


def _trainer(options: Any) -> Trainer:
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler")
    return construct({**vars(options.trainer), **dict.fromkeys(off, False)})
