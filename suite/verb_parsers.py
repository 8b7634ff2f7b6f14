"""The parsers of verbs, typed by constructors' signatures: which groups and flags each has, and what it refuses."""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args

from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch import Trainer

from suite.domain import Domain, Task
from suite.effects import Needs, declared, never
from suite.errors import UsageError
from suite.layer_groups import FinetuneConfig
from suite.optim import OptimConfig
from suite.parser import SuiteParser
from suite.precision import HELP
from suite.tracking import TrackingConfig
from suite.trainer_settings import RUN_ONLY_WITH

# What a run owns itself: its folder, loggers, checkpoints, sampler; what inherits from a plugin is code, not a setting.
_OWNED = {
    "logger", "plugins", "default_root_dir", "use_distributed_sampler", "enable_checkpointing", "barebones",
    "fast_dev_run", "reload_dataloaders_every_n_epochs", "model_registry", "sync_batchnorm", "inference_mode",
    "overfit_batches", "enable_model_summary", "enable_autolog_hparams",
}  # fmt: skip
# What a run that predicts or evaluates still has a say in.
_EVALUATION_TRAINER = {"accelerator", "devices", "num_nodes", "strategy", "precision"}
_FIXED = {"assets", "optim", "decoding", "seed"}
_USAGE = {
    "fit": "fit.py --domain NAME [-c RECIPE] [--model.x ...] [--data.y ...]",
    "finetune": "finetune.py --domain NAME --source CHECKPOINT [-c RECIPE] [--finetune.x ...] [--model.y ...]",
}


def _add_source(parser: SuiteParser, domain: Domain, task: str | None) -> None:
    tasks: Any = Literal[tuple(sorted(domain.tasks))]
    parser.add_argument("--domain", type=Literal[domain.name], default=domain.name, help="Which application.")
    parser.add_argument("--task", type=tasks, default=task or domain.default, help="What to train in it.")


def default_recipe(domain: Domain, task: str, configs: Path) -> Path:
    """The file of defaults of a task: ``default.yaml`` for the domain's own first one."""
    return configs / domain.name / ("default.yaml" if task == domain.default else f"{task}.yaml")


def describe_defaults(config: Any, defaults: Path) -> str | None:
    """A line for the user if defaults made for the embedded sample apply to other data and no recipe was given."""
    dataset = config["data"].get("dataset", "sample")
    if dataset == "sample" or config.config:
        return None
    return (
        f"settings: {_shown(defaults)} (tuned for the embedded sample) also applies to data.dataset {dataset}; "
        "-c FILE or flags replace its values"
    )


def fit_parser(domain: Domain, task_name: str, *, defaults: Path | None, verb: str = "fit") -> SuiteParser:
    """The parser of ``fit`` and ``finetune``: run, (source,) model, data, optimiser, tracking, trainer, in that order.

    Raises:
        UsageError: the file of defaults is missing.
    """
    task = domain.task(task_name)
    if defaults is not None and not defaults.is_file():
        raise UsageError(f"{defaults}: the defaults of {domain.name} {task_name} are missing: restore the file")
    parser = SuiteParser(
        prog=f"{verb}.py", allow_abbrev=False, usage=_USAGE[verb],
        default_config_files=[str(defaults)] if defaults else [],
        description=f"Train {task_name} in domain {domain.name}. Precedence: flag, recipe (-c), "
        f"{'settings of the source, ' if verb == 'finetune' else ''}{_shown(defaults)}.",
    )  # fmt: skip
    _add_source(parser, domain, task_name)
    parser.add_argument("-c", "--config", action="config", help="A recipe: a YAML file of the settings below.")
    parser.add_argument("--seed", type=int, default=0, help="Decides initial weights, orders, dropout.")
    parser.add_argument(
        "--threads",
        type=PositiveInt | Literal["auto"],
        default="auto",
        help="CPU threads inside an operation; auto takes the fastest of a short trial, as other work may be going on.",
    )
    parser.add_argument("--runs", type=str, default="runs", help="Folder of all runs.")
    parser.add_argument("--name", type=str | None, default=None, help="Name of this run; the time if not given.")
    parser.add_argument(
        "--resume", type=str | None, default=None,
        help="Go on with a stopped run: a checkpoint, a run folder, or auto for the newest run.",
    )  # fmt: skip
    _add_checkpoints(parser)
    parser.add_argument(
        "--patience", type=NonNegativeInt | None, default=None,
        help="Stop early after so many validations without improvement of the monitored metric; where higher is "
        "better, those at 0 count only once it has been above 0.",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=NonNegativeInt, default=8, help="Validation examples shown after each validation."
    )
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    if verb == "finetune":
        parser.add_argument(
            "--source", type=str | None, default=None,
            help="The weights to begin with: a checkpoint, or a run folder (its best one). Settings of the model are "
            "those of the source where nothing else is given.",
        )  # fmt: skip
        parser.add_class_arguments(FinetuneConfig, "finetune", instantiate=False)
    _add_settings(parser, task)
    parser.add_class_arguments(OptimConfig, "optim", instantiate=False)
    parser.add_class_arguments(TrackingConfig, "tracking", instantiate=False)
    owned = _OWNED & _arguments(Trainer)
    parser.add_class_arguments(Trainer, "trainer", skip=owned, instantiate=False, sub_configs=True)
    _keep_whole_numbers(parser)
    _explain_precision(parser)
    return parser


def run_needs(task: Task) -> list[tuple[str, str, Needs]]:
    """What settings of ``fit`` and ``finetune`` need to have an effect, for ``refuse_unused``."""
    kinds = {"model": task.module, "data": task.data, "decoding": task.decoding}
    kinds |= {"optim": OptimConfig, "tracking": TrackingConfig, "finetune": FinetuneConfig}
    found = [
        each for group, kind in kinds.items() if kind is not None for each in declared(kind, f"{group}.", skip=_FIXED)
    ]
    return [*found, *((name, "", need) for name, need in RUN_ONLY_WITH.items())]


def checkpoint_needs(verb: str, task: Task) -> list[tuple[str, str, Needs]]:
    """The same of ``evaluate`` and ``predict``."""
    found = [] if task.decoding is None else [*declared(task.decoding)]
    if verb == "evaluate":
        return [*found, *declared(task.data, "data.")]
    inputs = never("predict reads its inputs, not a data set")
    return [*found, *((f"data.{name}", "", inputs) for name in ("dataset", "train", "val", "test"))]


def _add_checkpoints(parser: SuiteParser) -> None:
    parser.add_argument(
        "--checkpoint_every", type=int | None, default=None,
        help="Also save a checkpoint every so many optimiser steps.",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint_minutes", type=float | None, default=None,
        help="Also save a checkpoint when so many minutes have gone by since the last one.",
    )  # fmt: skip
    parser.add_argument("--keep_last", type=PositiveInt, default=2, help="How many of the newest checkpoints to keep.")
    parser.add_argument("--keep_best", type=PositiveInt, default=1, help="How many of the best checkpoints to keep.")
    parser.add_argument(
        "--ema_decay", type=float | None, default=None,
        help="Keep a moving average of the weights, which validation and the exported model use: 0.999, say.",
    )  # fmt: skip
    parser.add_argument(
        "--max_skipped", type=PositiveInt, default=10,
        help="End the run after so many steps in a row with a loss or gradient that is not finite.",
    )  # fmt: skip


def _keep_whole_numbers(parser: SuiteParser) -> None:
    """One batch is 1, all of them 1.0: types that try float first would turn the one into the other."""
    for action in parser._actions:
        if action.dest.startswith("trainer.limit_") or action.dest == "trainer.val_check_interval":
            kinds = get_args(cast(Any, action)._typehint)
            rest = tuple(kind for kind in kinds if kind not in (int, float))
            cast(Any, action)._typehint = Union[(int, float, *rest)]


def _explain_precision(parser: SuiteParser) -> None:
    """Kinds that are refused stay in the type: the refusal then says why, and what to use instead."""
    next(action for action in parser._actions if action.dest == "trainer.precision").help = HELP


def _add_settings(parser: SuiteParser, task: Task) -> None:
    parser.add_class_arguments(task.module, "model", skip=_FIXED & _arguments(task.module), instantiate=False)
    parser.add_class_arguments(task.data, "data", skip=_FIXED & _arguments(task.data), instantiate=False)
    if task.decoding is not None:
        parser.add_class_arguments(task.decoding, "decoding", instantiate=False)


def checkpoint_parser(verb: str, task: Task, *, add: Callable[[SuiteParser, Task], None]) -> SuiteParser:
    """The parser of ``evaluate`` and ``predict``: data, decoding and trainer; nothing that was trained.

    ``add`` declares what the verb has of its own, ahead of the groups.
    """
    parser = SuiteParser(
        prog=f"{verb}.py", allow_abbrev=False, usage=f"{verb}.py --checkpoint FILE [--data.x ...] [--trainer.y ...]",
        description="Settings that are not given are those of the checkpoint.",
    )  # fmt: skip
    parser.add_argument("--checkpoint", type=str, required=True, help="A checkpoint, or a run folder: its best one.")
    parser.add_argument("-c", "--config", action="config", help="A YAML file of the settings below.")
    add(parser, task)
    parser.add_argument("--threads", type=PositiveInt, default=1, help="CPU threads inside an operation.")
    parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    if task.decoding is not None:
        parser.add_class_arguments(task.decoding, None, instantiate=False)
    trained = (_FIXED | task.data.trained_settings) & _arguments(task.data)
    parser.add_class_arguments(task.data, "data", skip=set(trained), instantiate=False)
    others = _arguments(Trainer) - _EVALUATION_TRAINER
    parser.add_class_arguments(Trainer, "trainer", skip=others, instantiate=False, sub_configs=True)
    _explain_precision(parser)
    parser.set_defaults({"trainer.devices": 1})
    return parser


def refuse_trained(argv: Iterable[str], task: Task) -> None:
    """Say why a flag that would change what was trained is not there.

    Raises:
        UsageError: naming the flag.
    """
    fixed = ("model.", "optim.", *(f"data.{name}" for name in task.data.trained_settings))
    for argument in argv:
        name = argument.lstrip("-").split("=")[0]
        if argument.startswith("--") and name.startswith(fixed):
            raise UsageError(f"--{name} cannot change what was trained: it comes from the checkpoint")


def require_one_device(trainer: Any, *, what: str) -> None:
    """Refuse several processes for a command that trains one run after the other.

    Raises:
        UsageError: the settings of ``--trainer`` ask for another number of devices than 1.
    """
    if str(trainer.devices) not in ("1", "auto"):
        raise UsageError(f"trainer.devices is {trainer.devices}: {what} by one process, one after the other: use 1")


def _arguments(kind: type) -> set[str]:
    return set(inspect.signature(kind).parameters)


def _shown(path: Path | None) -> str:
    return "defaults" if path is None else f"configs/{path.parent.name}/{path.name}"
