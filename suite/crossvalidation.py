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
from typing import Any

from suite import run_folder
from suite.checkpoint import write_text
from suite.cli import Domains
from suite.console import notice, report
from suite.domain import Domain
from suite.errors import CheckpointError, SuiteError, UsageError
from suite.fitting import fit
from suite.parser import recipes_first
from suite.peek import peek_task
from suite.run_lock import locked
from suite.verb_parsers import default_recipe, fit_parser, require_one_device

Figures = dict[str, float]


def crossvalidate(arguments: Sequence[str], domain_name: str, domains: Domains) -> None:
    """Train and test on each of ``--folds`` folds; print a table and write it as JSON beside the runs.

    With ``--source`` each fold is fine-tuned from that checkpoint, else trained from scratch. Called again with the
    same words it goes on where it stopped.

    Raises:
        UsageError: a task whose data has no folds, several processes, or other words under the same name.
        SuiteError: as ``fit``.
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
    _check(rest, domains.load(domain_name), domains, verb=verb)
    folder = Path(options.runs) / domain_name
    path = folder / f"{options.name}.folds.json"
    folder.mkdir(parents=True, exist_ok=True)
    held.enter_context(locked(folder, name=f"{path.name}.lock"))
    content = _begin(path, folds=options.folds, arguments=rest)
    for fold in range(len(content["folds"]), options.folds):
        notice(f"fold {fold + 1} of {options.folds}")
        name = f"{options.name}-fold{fold}"
        words = [*rest, "--domain", domain_name, "--runs", options.runs]
        words += [f"--data.folds={options.folds}", f"--data.fold={fold}", "--trainer.devices=1"]
        if "threads" in content:  # what --threads auto found for the first fold
            words += [f"--threads={content['threads']}"]
        outcome = fit([*words, *_place(folder / name)], domain_name, domains, verb=verb)
        content.setdefault("threads", outcome.threads)
        content["folds"].append({"fold": fold, "run": name, "figures": outcome.figures})
        if outcome.partial is not None:
            content["folds"][-1]["partial"] = outcome.partial
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


def _check(arguments: Sequence[str], domain: Domain, domains: Domains, *, verb: str) -> None:
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


def _begin(path: Path, *, folds: int, arguments: Sequence[str]) -> dict[str, Any]:
    """What stands in the file of results, or the beginning of one.

    Raises:
        UsageError: results of other words.
        SuiteError: a damaged file.
    """
    if not path.is_file():
        return {"arguments": [f"--folds={folds}", *arguments], "folds": []}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        before, done = list(content["arguments"]), len(content["folds"])
    except (ValueError, KeyError, TypeError):
        raise SuiteError(f"{path}: damaged: delete it, or choose another --name") from None
    if before != [f"--folds={folds}", *arguments]:
        raise UsageError(f"{path}: has results of {' '.join(before)}: give the same words, or choose another --name")
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
