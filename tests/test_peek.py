"""What is read from a command line before its parser is made: domain, task and checkpoint, from flags and recipes."""

from pathlib import Path

import pytest
import yaml

import domains
from suite.cli import CONFIGS
from suite.errors import UsageError
from suite.peek import Peeked, peek, peek_domain, peek_task
from tests import toy
from tests.commands import QUIET, TOY_CONFIGS, assert_one_line, run

SHAKESPEARE = CONFIGS / "text" / "shakespeare.yaml"


@pytest.mark.parametrize("verb", ["fit", "diagnose"])
def test_a_recipe_decides_domain_and_task(verb: str) -> None:
    ran = run(verb, "-c", SHAKESPEARE, "--print_config")
    assert ran.status == 0, ran
    printed = yaml.safe_load(ran.out)
    assert (printed["domain"], printed["task"]) == ("text", "language_model")
    assert printed["model"]["tie"] is False


def test_every_recipe_is_enough_by_itself() -> None:
    for path in CONFIGS.glob("*/*.yaml"):
        if path.parent.name == "trainer":
            continue
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
        words = ["-c", str(path)]
        domain = domains.load(peek_domain(words, domains.available()))
        assert (domain.name, peek_task(words, domain)) == (given["domain"], given["task"])


def test_what_is_recorded_is_what_is_trained(tmp_path: Path) -> None:
    """Settings that both tasks have, and a task in the recipe alone."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "task: language_model\nmodel: {embedding_size: 8, encoder: {hidden_size: 8, bidirectional: false}}\n"
        "data: {sample_size: 60, vocabulary: {size: 60}}\n"
        "trainer: {max_steps: 2, limit_val_batches: 1, limit_test_batches: 1}\n"
    )
    flags = ("--domain", "text", *QUIET, "--runs", tmp_path, "--name", "a", "--decoding.length", "3", "--threads", "1")
    ran = run("fit", "-c", recipe, *flags)
    assert ran.status == 0, ran
    assert yaml.safe_load((tmp_path / "text" / "a" / "config.yaml").read_text())["task"] == "language_model"
    again = run("predict", "--checkpoint", tmp_path / "text" / "a", stdin=b"a film\n")
    assert again.status == 0, again
    assert again.out.startswith("a film")


@pytest.mark.parametrize("words", [["-c", "A", "-c", "B"], ["-cA", "--config=B"], ["-c=A", "--config", "B"]])
def test_the_last_recipe_wins_and_a_flag_wins_over_it(words: list[str], tmp_path: Path) -> None:
    files = {"A": "task: one\n", "B": "task: two\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    line = [word.replace("A", f"{tmp_path}/A").replace("B", f"{tmp_path}/B") for word in words]
    assert peek("task", line) == Peeked("two", f"{tmp_path}/B")
    assert peek("task", [*line, "--task", "three"]) == Peeked("three")
    assert peek("task", ["--task=three", *line]) == Peeked("three")
    assert peek("task", ["-c", "{task: four}"]) == Peeked("four", "{task: four}")
    assert peek("task", ["-c", f"{tmp_path}/none", "--seed", "1"]) is None


def test_a_flag_against_a_recipe_is_recorded_as_the_flag() -> None:
    ran = run(
        "fit", "-c", "{task: language_model, seed: 3}", "--domain=text", "--task=classification", "--print_config"
    )
    assert yaml.safe_load(ran.out)["task"] == "classification"


def test_a_recipe_of_no_task_or_domain_is_named(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("domain: text\ntask: parsing\n")
    assert_one_line(run("fit", "-c", recipe), 2, str(recipe), "parsing", "classification, language_model")
    recipe.write_text("domain: chess\n")
    assert_one_line(run("fit", "-c", recipe), 2, f"{recipe}: domain chess: no such domain; there are: ")


def test_compare_and_crossvalidate_take_the_task_of_a_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("domain: text\ntask: language_model\ndata: {chunk_length: 0}\n")
    flags = ("-c", recipe, "--runs", tmp_path, *QUIET)
    problem = "data.chunk_length is 0"  # a setting of this task alone
    for ran in (
        run("compare", *flags, "--setting", "seed", "--values", "1", "2"),
        run("crossvalidate", *flags, "--folds", "2"),
    ):
        assert ran.status == 2
        assert problem in ran.err


@pytest.mark.parametrize(
    ("verb", "words", "parts"),
    [
        ("fit", ["--domian", "text"], ["unknown flag --domian: did you mean --domain?", "audio, text"]),
        ("fit", ["-domain", "text"], ["unknown flag -domain: did you mean --domain?"]),
        ("fit", ["--domain"], ["--domain needs a value"]),
        ("fit", ["--domain", "--seed", "3"], ["--domain needs a value"]),
        ("fit", ["--domain=text", "--tsak", "language_model"], ["unknown flag --tsak: did you mean --task?"]),
        ("fit", ["--domain=text", "--task"], ["--task needs a value"]),
        ("fit", ["--domain=text", "--resum", "auto"], ["--resum auto", "did you mean --resume?"]),
        ("fit", ["--domain=text", "-resume", "auto"], ["-resume", "did you mean --resume?"]),
        ("evaluate", ["--chekpoint", "a.ckpt"], ["unknown flag --chekpoint: did you mean --checkpoint?"]),
        ("predict", ["--chekpoint=a.ckpt"], ["unknown flag --chekpoint: did you mean --checkpoint?"]),
        ("predict", ["-checkpoint", "a.ckpt"], ["unknown flag -checkpoint: did you mean --checkpoint?"]),
        ("predict", ["--check-point", "a.ckpt"], ["unknown flag --check-point: did you mean --checkpoint?"]),
        ("predict", ["--Checkpoint", "a.ckpt"], ["unknown flag --Checkpoint: did you mean --checkpoint?"]),
        ("evaluate", ["--checkpoint"], ["--checkpoint needs a value"]),
        ("evaluate", ["--checkpoint", "--output", "x"], ["--checkpoint needs a value"]),
        ("evaluate", ["--checkpoint="], ["--checkpoint is ''"]),
        ("evaluate", ["--output", "x"], ["--checkpoint is missing"]),
    ],
)
def test_a_misspelt_flag_is_recognised(verb: str, words: list[str], parts: list[str]) -> None:
    assert_one_line(run(verb, *words), 2, *parts)


def test_a_flag_with_a_longer_name_is_not_taken_for_a_misspelt_one() -> None:
    assert peek("checkpoint", ["--checkpoint_every", "3", "--checkpoint_minutes=2"]) is None
    with pytest.raises(UsageError, match="did you mean --task"):
        peek("task", ["--Task", "x"])


def test_a_task_of_a_pipe_is_not_lost(tmp_path: Path) -> None:
    import os
    import threading

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_text("task: language_model\n"), daemon=True).start()
    ran = run("fit", "--domain=text", "-c", pipe, *QUIET, "--runs", tmp_path)
    assert_one_line(ran, 2, "task is language_model in a recipe that is no file: add --task language_model")


def test_the_toy_domain_still_has_its_default() -> None:
    ran = run("fit", "-c", "{domain: toy}", "--print_config", application=toy, configs=TOY_CONFIGS)
    assert yaml.safe_load(ran.out)["task"] == "next_value"
