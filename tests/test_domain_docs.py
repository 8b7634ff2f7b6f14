"""The pages of the domains: the same rooms in the same order, and commands that the command line takes."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import domains
from suite import benchmark, comparison, crossvalidation, evaluation, prediction
from suite.cli import CONFIGS
from suite.effects import find_unused
from suite.errors import UsageError
from suite.parser import recipes_first
from suite.peek import peek_domain, peek_task
from suite.verb_parsers import checkpoint_parser, fit_parser, refuse_trained, run_needs
from tests.commands import QUIET, ROOT, run, shared
from tests.test_readme import commands_of, read

PAGES = ("text", "video", "audio")  # translation's is the README
COMMANDS = {name: commands_of(read(f"docs/{name}.md")) for name in (*PAGES, "data")}
ALL = sorted({command for commands in COMMANDS.values() for command in commands})
PARSED = [each for each in ALL if "scripts/benchmark.py" not in each]
ON_A_TEXT_RUN = [each for each in COMMANDS["text"] if re.search("/(evaluate|predict).py", each)]


def arguments_of(command: str) -> tuple[str, list[str]]:
    """The verb and its words, without where its output goes."""
    found = re.search(r"scripts/(\w+)\.py (.*)", command)
    assert found
    words = shlex.split(found.group(2))
    return found.group(1), words[: words.index(">")] if ">" in words else words


def headings(name: str) -> list[str]:
    return re.findall(r"^## (.*)$", read(f"docs/{name}.md"), flags=re.MULTILINE)


def test_pages_have_the_same_rooms_in_the_same_order() -> None:
    assert {*PAGES, "translation"} == set(domains.available())
    assert headings("text") == headings("video") == headings("audio")
    assert len(headings("text")) > 8
    assert all(len(Path(ROOT, "docs", f"{name}.md").read_text("utf-8").splitlines()) <= 160 for name in PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_there_are_commands_of_each_kind(name: str) -> None:
    verbs = {arguments_of(command)[0] for command in COMMANDS[name]}
    assert verbs - {"compare"} == {"fit", "finetune", "crossvalidate", "evaluate", "predict", "benchmark"}


@pytest.mark.parametrize("command", PARSED)
def test_commands_parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    verb, words = arguments_of(command)
    if verb in ("evaluate", "predict"):
        _parse_on_a_run(verb, words)
        return
    domain = domains.load(peek_domain(words, domains.available()))
    if verb == "crossvalidate":
        options, words = crossvalidation._options(words, domain.name)
        assert options.folds > 1
        verb = "finetune" if "--source" in words else "fit"
    decided = []
    if verb == "compare":
        chosen, words = comparison._options(words, domain.name)
        decided = [chosen.setting]
        words, verb = [*words, f"--{chosen.setting}={chosen.values[-1]}"], "fit"
    task = peek_task(words, domain)
    file = "default.yaml" if task == domain.default else f"{task}.yaml"
    parser = fit_parser(domain, task, defaults=CONFIGS / domain.name / file, verb=verb)
    config = parser.parse_args(recipes_first(words))
    assert not find_unused(
        dict(config.items()), parser.given(words, decided=decided), run_needs(domain.task(task))
    ).problems


def _parse_on_a_run(verb: str, words: list[str]) -> None:
    """As ``restore`` does it; the flags must be those of one of the domain's tasks."""
    found = re.search(r"runs/(\w+)/", " ".join(words))
    assert found
    add: Callable[..., Any] = {"evaluate": evaluation._add, "predict": prediction._add}[verb]
    problems = []
    for task in domains.load(found.group(1)).tasks.values():
        try:
            refuse_trained(words, task)
            checkpoint_parser(verb, task, add=add).parse_args(recipes_first(words))
            return
        except UsageError as error:
            problems.append(error)
    raise problems[0]


@pytest.mark.parametrize("name", PAGES)
def test_benchmarks_parse(name: str) -> None:
    (command,) = (each for each in COMMANDS[name] if "scripts/benchmark.py" in each)
    assert benchmark._parse(arguments_of(command)[1], None).domain == name


def test_a_flag_that_does_not_exist_is_found() -> None:
    for verb, words in (("predict", ["--sedonds", "1"]), ("evaluate", ["--data.splitt", "val"])):
        with pytest.raises(UsageError):
            _parse_on_a_run(verb, ["--checkpoint", "runs/audio/NAME", *words])


def train(task: str) -> Path:
    def make(folder: Path) -> None:
        small = ("--data.sample_size", 80, "--model.embedding_size", 8, "--model.encoder.hidden_size", 8)
        where = ("--runs", folder, "--name", "run", "--trainer.max_epochs", 1)
        ran = run("fit", "--domain", "text", "--task", task, *small, *where, *QUIET)
        assert ran.status == 0, ran.err

    return shared(f"text-{task}", make) / "text" / "run"


@pytest.mark.parametrize("command", ON_A_TEXT_RUN)
def test_commands_on_a_run_of_texts(command: str, tmp_path: Path) -> None:
    verb, words = arguments_of(command)
    source = train("language_model" if "--temperature" in words else "classification")
    given = {"runs/text/NAME": str(source), "results.jsonl": str(tmp_path / "results.jsonl")}
    ran = run(verb, *[given.get(word, word) for word in words], stdin=b"the film\n")
    assert ran.status == 0, ran.err
    assert ran.lines


def test_modules_that_are_run_are_there() -> None:
    found = {name for page in PAGES for name in re.findall(r"^    .*python -m (\S+)", read(f"docs/{page}.md"), re.M)}
    assert len(found) == 3
    for name in found:
        assert (ROOT / f"{name.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("name", [*PAGES, "data"])
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", read(f"docs/{name}.md")):
        assert (ROOT / "docs" / target).is_file(), target
