"""Every YAML under configs/ is one that its domain's parser takes whole, and a run's own config.yaml is another."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import domains
from suite.cli import CONFIGS
from suite.domain import Domain
from suite.fitting import _NOT_SETTINGS
from suite.parser import SuiteParser, recipes_first, settings_of
from suite.recipes import check_recipe
from suite.verb_parsers import fit_parser
from tests import toy
from tests.commands import QUIET, TOY_CONFIGS, assert_one_line, fit_toy, run, trained

RECIPES = sorted([*CONFIGS.rglob("*.yaml"), *CONFIGS.rglob("*.yml")])
OF_DOMAINS = [path for path in RECIPES if path.parent.name != "trainer"]
OF_TRAINER = [path for path in RECIPES if path.parent.name == "trainer"]


def shown(path: Path) -> str:
    return path.relative_to(CONFIGS).as_posix()


def parser_of(domain: Domain, task: str | None = None, *, verb: str = "fit") -> SuiteParser:
    name = task or domain.default
    file = "default.yaml" if name == domain.default else f"{name}.yaml"
    return fit_parser(domain, name, defaults=CONFIGS / domain.name / file, verb=verb)


def settings(parser: SuiteParser, *argv: str) -> dict[str, Any]:
    return settings_of(parser.parse_args(recipes_first(argv)), without=_NOT_SETTINGS)


def test_every_domain_has_its_default() -> None:
    for name in domains.available():
        assert (CONFIGS / name / "default.yaml").is_file()
        for task in domains.load(name).tasks:
            assert task == domains.load(name).default or (CONFIGS / name / f"{task}.yaml").is_file()


def test_every_recipe_stands_in_the_folder_of_a_domain() -> None:
    assert {path.parent.name for path in OF_DOMAINS} == set(domains.available())
    assert all(path.parent.parent == CONFIGS and path.suffix == ".yaml" for path in RECIPES)


@pytest.mark.parametrize("path", OF_DOMAINS, ids=shown)
def test_a_recipe_names_its_domain_and_parses(path: Path) -> None:
    check_recipe(path, groups=())  # as a file of defaults nobody else looks for names that stand twice
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    domain = domains.load(path.parent.name)
    assert given["domain"] == path.parent.name
    assert given["task"] in domain.tasks
    verb = "finetune" if "finetune" in given else "fit"
    parsed = settings(parser_of(domain, given["task"], verb=verb), "-c", str(path))
    for group in ("model", "data", "optim", "trainer", "finetune", "decoding"):
        for key, value in given.get(group, {}).items():
            expected = {**parsed[group][key], **value} if isinstance(value, dict) else value
            assert parsed[group][key] == expected, (group, key)


@pytest.mark.parametrize("name", domains.available())
def test_recipes_of_the_trainer_parse_in_every_domain(name: str) -> None:
    for path in OF_TRAINER:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = settings(parser_of(domains.load(name)), "--trainer", str(path))["trainer"]
        assert {key: found[key] for key in given if key != "strategy"} == {
            k: v for k, v in given.items() if k != "strategy"
        }


@pytest.mark.parametrize("name", domains.available())
def test_a_config_of_another_domain_is_refused(name: str, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("domain: toy\nmodel: {hidden_size: 3}\n")
    assert_one_line(run("fit", "--domain", name, "-c", other), 2, "domain", name, "toy")


def test_a_default_of_another_domain_is_refused(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "default.yaml").write_text("domain: translation\n")
    ran = run("fit", "--domain", "toy", application=toy, configs=tmp_path)
    assert_one_line(ran, 2, "domain", "toy", "translation")


def test_a_config_of_another_task_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("task: skipgram\n")
    assert_one_line(fit_toy("-c", other), 2, "task", "skipgram", "next_value")


def test_the_config_of_a_run_gives_the_same_settings() -> None:
    saved = trained() / "config.yaml"
    domain = domains.load("translation")
    again = settings(parser_of(domain), "-c", str(saved))
    assert again == yaml.safe_load(saved.read_text(encoding="utf-8"))
    assert again["model"]["encoder"]["hidden_size"] == 32
    # It is whole: the defaults that stand in the file or in the code do not matter to it.
    assert settings(fit_parser(domain, domain.default, defaults=None), "-c", str(saved)) == again


def test_a_run_from_the_config_of_another_is_the_same_run(tmp_path: Path) -> None:
    callback = ("--trainer.callbacks+=tests.commands.Recorder", f"--trainer.callbacks.file={tmp_path / 'seen'}")
    first = fit_toy("--runs", tmp_path, "--name", "a", "--model.hidden_size", 5, *callback)
    assert first.status == 0, first
    again = run(
        *("fit", "--domain", "toy", "-c", tmp_path / "toy" / "a" / "config.yaml", "--runs", tmp_path, "--name", "b"),
        application=toy,
        configs=TOY_CONFIGS,
    )
    assert again.status == 0, again
    folders = [tmp_path / "toy" / name for name in ("a", "b")]
    assert len({(folder / "config.yaml").read_text() for folder in folders}) == 1
    figures = [[line for line in ran.out.splitlines() if line.startswith("  loss")] for ran in (first, again)]
    assert figures[0] == figures[1]
    assert len(figures[0]) == 1


def test_print_config_prints_what_would_be_run() -> None:
    ran = fit_toy("--model.hidden_size", 6, "--print_config")
    assert ran.status == 0
    printed = yaml.safe_load(ran.out)
    assert printed["model"]["hidden_size"] == 6
    assert printed["tracking"]["mode"] == QUIET[1]
