"""``compare``: one run for each value of a setting, all else alike, and their metrics side by side."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from suite import run_folder
from suite.cli import Domains
from suite.closing import Outcome
from suite.console import notice, report
from suite.effects import find_unused
from suite.errors import UsageError, gather
from suite.fitting import fit
from suite.parser import recipes_first
from suite.peek import peek_task
from suite.verb_parsers import default_recipe, fit_parser, require_one_device, run_needs


def compare(arguments: Sequence[str], domain: str, domains: Domains) -> dict[str, Outcome]:
    """Train and test with each of ``--values`` for ``--setting``, and print a table, the best validation first.

    Gives the outcomes by value.

    Raises:
        UsageError: no setting, or fewer than two values.
        SuiteError: as ``fit``.
    """
    options, rest = _options(arguments, domain)
    if "-h" in rest or "--help" in rest:
        report(_parser(domain).format_help())
        return {}
    for word in rest:
        if word.split("=")[0] in (f"--{options.setting}", "--resume"):
            raise UsageError(f"{word.split('=')[0]} is compare's own: leave it out")
    loaded = domains.load(domain)
    task = peek_task(rest, loaded)
    parser = fit_parser(loaded, task, defaults=default_recipe(loaded, task, domains.configs))
    undone: list[set[str]] = []
    for value in options.values:  # all are looked at before the first is trained
        words = [*rest, f"--{options.setting}={value}"]
        config = parser.parse_args(recipes_first(words))
        unused = find_unused(
            dict(config.items()), parser.given(words, decided=[options.setting]), run_needs(loaded.task(task))
        )
        gather([*unused.problems.values()], error=UsageError)
        undone.append({name for names in unused.undone.values() for name in names})
        run_folder.check_name(Path(config.runs), domain, _name(options.name, value))
        require_one_device(config.trainer, what="runs are compared")
    if never_used := sorted(set.intersection(*undone) & parser.given(rest).layers[-1].keys()):
        raise UsageError(
            f"{', '.join(never_used)}: no effect with any of the values of {options.setting} "
            f"({', '.join(options.values)}): leave it out"
        )
    found: dict[str, Outcome] = {}
    for value in options.values:
        notice(f"{options.setting} {value}")
        # What --threads auto found for the first is taken for all: nothing but the setting is to differ.
        same = [f"--threads={outcome.threads}" for outcome in list(found.values())[:1]]
        words = [*rest, "--domain", domain, *same, f"--{options.setting}={value}", "--trainer.devices=1"]
        words += [] if options.name is None else [f"--name={_name(options.name, value)}"]
        found[value] = fit(words, domain, domains, decided=[options.setting])
    report("")
    for line in table(options.setting, found):
        report(line)
    return found


def _name(name: str | None, value: str) -> str | None:
    """What the run of a value is called: a value may be a path, and a name is a folder's."""
    return None if name is None else f"{name}-{value.replace('/', '-')}"


def table(setting: str, found: dict[str, Outcome]) -> list[str]:
    """Validation and test metrics that all outcomes have, a row a value, as Markdown; below it how rows are ranked.

    Rows are ranked by validation: to choose a value by its test metrics would make these too good.
    """
    kinds = {outcome.monitored for outcome in found.values() if outcome.monitored is not None}
    ranked = len(kinds) == 1
    name, mode = next(iter(kinds)) if ranked else ("", "")
    order = sorted(found, key=lambda value: _place(found[value].score, mode)) if ranked else list(found)
    rows = {
        value: found[value].validation | {f"test/{key}": number for key, number in found[value].figures.items()}
        for value in order
    }
    names = list(dict.fromkeys(key for row in rows.values() for key in row))
    without = {value for value in order if not found[value].validation}
    columns = [
        key
        for key in names
        if all(key in rows[value] for value in order if key.startswith("test/") or value not in without)
    ]
    columns.sort(key=lambda key: (key != name, key.startswith("test/")))
    partial = {value: found[value].partial for value in order}
    labels = ["test data"] if any(partial.values()) else []
    lines = [f"| {' | '.join([setting, *columns, *labels])} |", "|---|" + "---:|" * len(columns) + "---|" * len(labels)]
    for value, row in rows.items():
        cells = [f"{row[key]:.4f}" if key in row else "none" for key in columns]
        lines.append(f"| {' | '.join([value, *cells, *([partial[value] or 'all'] if labels else [])])} |")
    return [*lines, "", _how_ranked(found, name, mode) if ranked else _why_not_ranked(kinds)]


def _place(score: float, mode: str) -> tuple[bool, float]:
    """A key that sorts better scores first, and those that are not numbers last."""
    return math.isnan(score), score if mode == "min" else -score


def _how_ranked(found: dict[str, Outcome], name: str, mode: str) -> str:
    line = f"Ranked by validation: {name}, {'lower' if mode == 'min' else 'higher'} is better."
    without = [value for value, outcome in found.items() if math.isnan(outcome.score)]
    return f"{line} Without a score, so last: {', '.join(without)}." if without else line


def _why_not_ranked(kinds: set[tuple[str, str]]) -> str:
    if not kinds:
        return "Not ranked: the runs have no validation."
    return f"Not ranked: the runs are judged by different metrics: {', '.join(sorted(name for name, _ in kinds))}."


def _parser(domain: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="compare.py", allow_abbrev=False, add_help=False, exit_on_error=False,
        usage="compare.py --domain NAME --setting model.x --values A B [any setting of fit.py]",
        description="Train and test once for each value of a setting. All other settings are those of fit.py.",
    )  # fmt: skip
    parser.add_argument("--domain", default=domain, help="Which application.")
    parser.add_argument("--setting", help="What differs between the runs: model.head, say.")
    parser.add_argument("--values", nargs="+", default=[], help="Its values.")
    parser.add_argument("--name", default=None, help="Runs are called NAME-VALUE; by the time if not given.")
    return parser


def _options(arguments: Sequence[str], domain: str) -> tuple[argparse.Namespace, list[str]]:
    try:
        options, rest = _parser(domain).parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from None
    if {"-h", "--help"} & set(rest):
        return options, rest
    if not options.setting or len(set(options.values)) < 2:
        raise UsageError("compare needs a setting and two or more values: --setting model.x --values A B")
    names = [value.replace("/", "-") for value in options.values] if options.name else options.values
    if len(set(names)) < len(names):
        raise UsageError(
            f"--values {' '.join(options.values)}: two of them are the same or would name the same run: give each once"
        )
    options.setting = options.setting.removeprefix("--")
    return options, rest
