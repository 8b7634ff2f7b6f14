"""Every command of docs/text.md is one that the command line takes."""

import re
import shlex
from pathlib import Path

import pytest

import domains
from suite.cli import CONFIGS, peek_domain, peek_task
from suite.crossvalidation import _options
from suite.parser import fit_parser, recipes_first
from tests.commands import QUIET, ROOT, run, shared
from tests.test_readme import commands_of, read

COMMANDS = commands_of(read("docs/text.md"))
FITTING = [each for each in COMMANDS if re.search("/(fit|finetune|crossvalidate).py", each)]
ON_A_RUN = [each for each in COMMANDS if re.search("/(evaluate|predict).py", each)]


def arguments_of(command: str) -> tuple[str, list[str]]:
    found = re.search(r"scripts/(\w+)\.py (.*)", command)
    assert found
    return found.group(1), shlex.split(found.group(2))


def test_there_are_commands_of_each_kind() -> None:
    verbs = {arguments_of(command)[0] for command in COMMANDS}
    assert verbs == {"fit", "finetune", "crossvalidate", "evaluate", "predict", "benchmark"}


@pytest.mark.parametrize("command", FITTING)
def test_commands_that_train_parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    verb, words = arguments_of(command)
    domain = domains.load(peek_domain(words, domains.available()))
    if verb == "crossvalidate":
        options, words = _options(words, domain.name)
        assert options.folds > 1
        verb = "fit"
    task = peek_task(words) or domain.default
    file = "default.yaml" if task == domain.default else f"{task}.yaml"
    fit_parser(domain, task, defaults=CONFIGS / domain.name / file, verb=verb).parse_args(recipes_first(words))


def train(task: str) -> Path:
    def make(folder: Path) -> None:
        small = ("--data.sample_size", 80, "--model.embedding_size", 8, "--model.encoder.hidden_size", 8)
        where = ("--runs", folder, "--name", "run", "--trainer.max_epochs", 1)
        ran = run("fit", "--domain", "text", "--task", task, *small, *where, *QUIET)
        assert ran.status == 0, ran.err

    return shared(f"text-{task}", make) / "text" / "run"


@pytest.mark.parametrize("command", ON_A_RUN)
def test_commands_on_a_run(command: str, tmp_path: Path) -> None:
    verb, words = arguments_of(command)
    source = train("language_model" if "--temperature" in words else "classification")
    given = {"runs/text/NAME": str(source), "results.jsonl": str(tmp_path / "results.jsonl")}
    ran = run(verb, *[given.get(word, word) for word in words], stdin=b"the film\n")
    assert ran.status == 0, ran.err
    assert ran.lines


def test_the_baseline_is_a_module() -> None:
    assert "python -m domains.text.baseline" in read("docs/text.md")
    assert (ROOT / "domains" / "text" / "baseline.py").is_file()
