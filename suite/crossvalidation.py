"""``crossvalidate``: a run for each fold, and the mean and deviation of their test figures.

A fold is an ordinary run whose data module was told ``data.folds`` and ``data.fold``: it can be evaluated, looked at
and gone on with like any other.
"""

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, cast

from suite import run_folder
from suite.checkpoint import write_text
from suite.cli import Domains
from suite.config import plain
from suite.console import notice, report
from suite.data import SuiteDataModule
from suite.domain import Domain, Task
from suite.errors import CheckpointError, SuiteError, UsageError
from suite.fitting import fit
from suite.fold_data import read_trained, refuse_changed_folds, refuse_other_folds, summarise_data
from suite.parser import SuiteParser, recipes_first, settings_of
from suite.peek import peek_task
from suite.resume import changes, flatten
from suite.run_lock import locked
from suite.verb_parsers import default_recipe, fit_parser, require_one_device

Figures = dict[str, float]
_NOT_SETTINGS = ("config", "resume", "debug", "name", "runs")
# Neither what is trained nor how it is scored depends on these.
_WITHOUT_EFFECT = ("data.num_workers", "tracking.", "trainer.enable_progress_bar")


def crossvalidate(arguments: Sequence[str], domain_name: str, domains: Domains) -> None:
    """Train and test on each of ``--folds`` folds; print a table and write it as JSON beside the runs.

    With ``--source`` each fold is fine-tuned from that checkpoint, else trained from scratch. Called again with the
    same settings and data it continues where it stopped.

    Raises:
        UsageError: a task whose data has no folds, several processes, or other settings under the same name.
        SuiteError: as ``fit``; or data that changed since a fold was trained.
    """
    with ExitStack() as held:
        _crossvalidate(arguments, domain_name, domains, held=held)


def _crossvalidate(arguments: Sequence[str], domain_name: str, domains: Domains, *, held: ExitStack) -> None:
    """``crossvalidate``, with ``held`` for the lock on its file of results."""
    options, rest = _options(arguments, domain_name)
    if "-h" in rest or "--help" in rest:
        report(_parser(domain_name).format_help())
        return
    verb = "finetune" if any(word.split("=")[0] == "--source" for word in rest) else "fit"
    plan = _check(rest, domains.load(domain_name), domains, verb=verb)
    folder = Path(options.runs) / domain_name
    path = folder / f"{options.name}.folds.json"
    folder.mkdir(parents=True, exist_ok=True)
    held.enter_context(locked(folder, name=f"{path.name}.lock"))
    content = _begin(path, folds=options.folds, arguments=rest, plan=plan)
    if content["folds"]:
        done = content["folds"][-1]
        data = plan.data_of(folds=options.folds, fold=done["fold"])
        refuse_changed_folds(done, data, folder=folder / done["run"], where=str(path))
    for fold in range(len(content["folds"]), options.folds):
        notice(f"fold {fold + 1} of {options.folds}")
        name = f"{options.name}-fold{fold}"
        words = [*rest, "--domain", domain_name, "--runs", options.runs]
        words += [f"--data.folds={options.folds}", f"--data.fold={fold}", "--trainer.devices=1"]
        if "threads" in content:  # what --threads auto found for the first fold
            words += [f"--threads={content['threads']}"]
        outcome = fit([*words, *_place(folder / name)], domain_name, domains, verb=verb)
        content.setdefault("threads", outcome.threads)
        trained = read_trained(folder / name)
        data_of_fold = summarise_data(trained.splits) if trained else None
        content["folds"].append({"fold": fold, "run": name, "figures": outcome.figures, "data": data_of_fold})
        if outcome.partial is not None:
            content["folds"][-1]["partial"] = outcome.partial
        refuse_other_folds(content["folds"], complete=options.folds, where=str(path))
        _write(path, content)
    report("")
    for line in table([each["figures"] for each in content["folds"]]):
        report(line)
    for each in content["folds"]:
        if "partial" in each:
            report(f"fold {each['fold']} is {each['partial']}")
    report(f"\nWritten to {path}")


def _parser(domain: str) -> argparse.ArgumentParser:
    """A parser of this verb's own words; all others are left for the verb that trains."""
    parser = argparse.ArgumentParser(
        prog="crossvalidate.py", allow_abbrev=False, add_help=False, exit_on_error=False,
        usage="crossvalidate.py --domain NAME --name NAME [--folds K] [any setting of fit.py or finetune.py]",
        description="Train and test on each fold. All other settings are those of fit.py (with --source: finetune.py).",
    )  # fmt: skip
    parser.add_argument("--domain", default=domain, help="Which application.")
    parser.add_argument("--folds", type=int, default=5, help="How many folds.")
    parser.add_argument("--name", default="folds", help="Runs are called NAME-fold0 and so on.")
    parser.add_argument("--runs", default="runs", help="Folder of all runs.")
    return parser


def _options(arguments: Sequence[str], domain: str) -> tuple[argparse.Namespace, list[str]]:
    try:
        options, rest = _parser(domain).parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from None
    if options.folds < 2:
        raise UsageError(f"--folds is {options.folds}, allowed is 2 or more")
    return options, rest


class _Plan(NamedTuple):
    """What the command line asks of each fold: its parser, its parsed settings, and the task."""

    parser: SuiteParser
    config: Any
    task: Task

    def settings(self, *, folds: int) -> dict[str, Any]:
        """The settings that decide results, by dotted name."""
        settings = {"folds": folds, **settings_of(self.config, without=_NOT_SETTINGS)}
        return {name: value for name, value in flatten(settings).items() if not name.startswith(_WITHOUT_EFFECT)}

    def data_of(self, *, folds: int, fold: int) -> SuiteDataModule:
        """The data module of a fold, before anything is trained on it."""
        run = self.parser.instantiate(self.config)
        return cast(Any, self.task.data)(**{**vars(run.data), "folds": folds, "fold": fold}, seed=run.seed, assets=None)


def _check(arguments: Sequence[str], domain: Domain, domains: Domains, *, verb: str) -> _Plan:
    for word in arguments:
        if word.split("=")[0] in ("--data.fold", "--data.folds", "--resume"):
            raise UsageError(f"{word.split('=')[0]} is crossvalidate's own: leave it out")
        if word.split("=")[0] == "--trainer.devices" and word.split("=")[-1] not in ("--trainer.devices", "1", "auto"):
            raise UsageError("--trainer.devices: folds are trained by one process, one after the other: leave it out")
    task = peek_task(arguments, domain)
    parser = fit_parser(domain, task, defaults=default_recipe(domain, task, domains.configs), verb=verb)
    if "data.folds" not in {action.dest for action in parser._actions}:
        raise UsageError(f"domain {domain.name}, task {task}: its data has no folds, so it cannot be cross-validated")
    config = parser.parse_args(recipes_first(arguments))
    require_one_device(config.trainer, what="folds are trained")
    return _Plan(parser, config, domain.task(task))


def _begin(path: Path, *, folds: int, arguments: Sequence[str], plan: _Plan) -> dict[str, Any]:
    """What stands in the file of results, or the beginning of one.

    Raises:
        UsageError: results of other settings.
        SuiteError: a damaged file.
    """
    words, settings = [f"--folds={folds}", *arguments], plan.settings(folds=folds)
    if not path.is_file():
        return {"arguments": words, "settings": settings, "folds": []}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        before, done = list(content["arguments"]), len(content["folds"])
    except (ValueError, KeyError, TypeError):
        raise SuiteError(f"{path}: damaged: delete it, or choose another --name") from None
    if "settings" in content:
        defaults = flatten(plain(plan.parser.get_defaults()))  # of settings that came later
        old = {**{name: defaults[name] for name in settings.keys() & defaults.keys()}, **content["settings"]}
        if different := changes(old, settings, may_change=()):
            text = ", ".join(different)
            raise UsageError(f"{path}: has results of other settings: {text}: give the same, or choose another --name")
    elif sorted(before) != sorted(words):  # an earlier version kept only the words
        raise UsageError(f"{path}: has results of {' '.join(before)}: give the same, or choose another --name")
    notice(f"{path}: {done} fold(s) are done")
    return content


def _place(folder: Path) -> list[str]:
    """Words that begin a run in ``folder``, or go on with the one that is there."""
    if not folder.exists():
        return [f"--name={folder.name}"]
    try:
        return [f"--resume={run_folder.newest_checkpoint(folder)}"]
    except CheckpointError:
        raise UsageError(
            f"{folder}: this run exists without a checkpoint: delete it, or choose another --name"
        ) from None


def _write(path: Path, content: dict[str, Any]) -> None:
    rows = [each["figures"] for each in content["folds"]]
    summary = {name: {"mean": mean, "deviation": deviation} for name, (mean, deviation) in summarise(rows).items()}
    write_text(path, json.dumps({**content, "summary": summary}, indent=1) + "\n")


def summarise(rows: Sequence[Figures]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation (of a sample, n - 1; 0 for one row) of each figure that every row has.

    Where a row's is not finite, as that of a class which a fold's test does not have, neither is their mean.
    """
    names = [name for name in rows[0] if all(name in row for row in rows)]
    columns = {name: [row[name] for row in rows] for name in names}
    return {name: (statistics.fmean(values), _deviation(values)) for name, values in columns.items()}


def _deviation(values: Sequence[float]) -> float:
    if not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values) if len(values) > 1 else 0.0


def table(rows: Sequence[Figures]) -> list[str]:
    """Figures of each fold, their mean and their deviation, as Markdown."""
    summary = summarise(rows)
    lines = ["| fold | " + " | ".join(summary) + " |", "|---|" + "---:|" * len(summary)]
    for number, row in enumerate(rows):
        lines.append(f"| {number} | " + " | ".join(f"{row[name]:.4f}" for name in summary) + " |")
    for place, word in enumerate(("mean", "deviation")):
        lines.append(f"| {word} | " + " | ".join(f"{values[place]:.4f}" for values in summary.values()) + " |")
    return lines
