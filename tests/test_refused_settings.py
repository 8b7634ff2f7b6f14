"""Settings that cannot be meant: each is one line with what was given, what is allowed and what to do."""

from pathlib import Path
from typing import Any

import pytest

from suite.errors import UsageError
from suite.trainer_settings import check_validation_interval
from tests.commands import assert_one_line, fit_toy, run
from tests.forked import in_processes

INTERVAL = "--trainer.val_check_interval"


def test_a_validation_after_more_batches_than_an_epoch_has_is_refused_before_there_is_a_run(tmp_path: Path) -> None:
    parts = (
        "trainer.val_check_interval is 9",
        "an epoch has 8 training batch",
        "1 to 8",
        "check_val_every_n_epoch null",
    )
    assert_one_line(fit_toy("--runs", tmp_path, "--name=a", INTERVAL, 9), 2, *parts)
    assert not (tmp_path / "toy").exists()
    ran = fit_toy("--runs", tmp_path, "--name=a", INTERVAL, 9, "--trainer.check_val_every_n_epoch=null")
    assert ran.status == 0, ran.err


@pytest.mark.parametrize(
    ("interval", "given", "allowed"),
    [
        (8, {}, None),
        (9, {}, 8),
        (9, {"check_val_every_n_epoch": None}, None),
        (9, {"limit_val_batches": 0}, None),
        (1.0, {"limit_train_batches": 3}, None),
        ("00:00:01:00", {}, None),
        (8, {"limit_train_batches": 3}, 3),
        (8, {"limit_train_batches": 30}, None),
        (8, {"limit_train_batches": 0.5}, 4),
    ],
)
def test_which_intervals_are_refused(interval: Any, given: dict[str, Any], allowed: int | None) -> None:
    usual = {"check_val_every_n_epoch": 1, "limit_val_batches": None, "limit_train_batches": None}
    settings = {**usual, **given, "val_check_interval": interval}
    if allowed is None:
        check_validation_interval(settings, 8)
        return
    with pytest.raises(UsageError, match=f"val_check_interval is {interval}, .* allowed is 1 to {allowed}, or"):
        check_validation_interval(settings, 8)


@pytest.mark.distributed
def test_two_processes_have_fewer_batches_each(tmp_path: Path) -> None:
    flags = ["--domain=toy", "--runs", str(tmp_path), "--tracking.mode=disabled", "--name=a", f"{INTERVAL}=6"]
    flags += ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
    first, other = in_processes("never", flags, ranks=2)
    assert "an epoch has 4 training batch(es)" in first.err
    for ended in (first, other):  # the other one leaves the line to the first
        assert ended.status == 2, ended.err
        assert "Traceback" not in ended.err
    assert not (tmp_path / "toy" / "a").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["the recipe is empty", "write settings in it"]),
        ("# nothing yet\n", ["the recipe is empty"]),
        ("- 1\n- 2\n", ["names with values"]),
        ("model:\n", ["line 1: model is null", "a group of settings (model.NAME)", "leave it out"]),
        ("seed: 1\nmodel: null\n", ["line 2: model is null"]),
        ("seed: 1\nmodel:\n  hiden_size: 3\n", ["line 3: ", "hiden_size", "did you mean --model.hidden_size?"]),
        ("sed: 3\n", ["line 1: ", "sed", "did you mean --seed?"]),
        ("seed: 1\noptim: {lr: 1}\nseed: 2\n", ["seed stands twice, on lines 1 and 3"]),
        ("optim:\n  lr: 1\n  name: sgd\n  lr: 2\n", ["optim.lr stands twice, on lines 2 and 4", "keep one"]),
        ("optim:\n  lr: 1\ntrainer:\n  max_steps: 2\noptim:\n  name: sgd\n", ["optim stands twice, on lines 1 and 5"]),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_named_with_the_line(text: str, parts: list[str], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text, encoding="utf-8")
    assert_one_line(fit_toy("-c", recipe, "--runs", tmp_path / "runs"), 2, str(recipe), *parts)


@pytest.mark.parametrize(
    ("group", "text", "parts"),
    [
        ("trainer", b"max_steps: 1\nmax_steps: 2\n", ["trainer.max_steps stands twice, on lines 1 and 2: keep one"]),
        ("model", b"hidden_size: 3\n\nhidden_size: 3\n", ["model.hidden_size stands twice, on lines 1 and 3"]),
        ("data", b"{seed: 1, seed: 2}", ["data.seed stands twice, on line 1: keep one"]),
        ("optim", b"", ["the file is empty", "NAME: VALUE, each a setting of optim"]),
        ("optim", b"- lr\n", ["names with values"]),
        ("model", b"# which\nhiden_size: 3\n", ["line 2: ", "hiden_size", "did you mean --model.hidden_size?"]),
        ("model", b"hidden_size: many\n", ["model.hidden_size is many, allowed is a whole number"]),
        ("trainer", b"# \xe4\nmax_steps: 1\n", ["not UTF-8 (byte 3): convert it"]),
    ],
)
def test_a_file_of_a_group_that_cannot_be_meant_is_named_with_the_line(
    group: str, text: bytes, parts: list[str], tmp_path: Path
) -> None:
    (file := tmp_path / "group.yaml").write_bytes(text)
    (recipe := tmp_path / "recipe.yaml").write_text(f"{group}: group.yaml\n")
    for words in ([f"--{group}", file], [f"--{group}={file}"], ["-c", recipe]):
        assert_one_line(fit_toy(*words, "--runs", tmp_path / "runs"), 2, file.name, *parts)


def test_a_file_of_a_group_inside_a_group_and_settings_on_the_line_itself_are_looked_at(tmp_path: Path) -> None:
    (file := tmp_path / "vocabulary.yaml").write_text("size: 90\nlevel: bpe\nsize: 80\n")
    ran = run("fit", "--domain", "text", "--data.vocabulary", file, "--print_config")
    assert_one_line(ran, 2, str(file), "data.vocabulary.size stands twice, on lines 1 and 3")
    assert_one_line(fit_toy("--optim", "{lr: 1, lr: 2}"), 2, "--optim: optim.lr stands twice, on line 1")
    assert_one_line(
        fit_toy("--optim", "lr: 1\nname: sgd\nlr: 2"), 2, "--optim: optim.lr stands twice, on lines 1 and 3"
    )
    assert_one_line(fit_toy("-c", "{optim: {lr: 1, lr: 2}}"), 2, "-c: optim.lr stands twice, on line 1")
    assert fit_toy("--optim", "{lr: 1}", "--print_config").status == 0


def test_files_are_looked_at_however_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the home folder, and inside a recipe that has a fault of its own: both are said."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "o.yaml").write_text("lr: 1\nlr: 2\n")
    (recipe := tmp_path / "recipe.yaml").write_text("seed: 1\noptim: ~/o.yaml\nseed: 2\n")
    twice = "optim.lr stands twice, on lines 1 and 2"
    assert_one_line(fit_toy("--optim", "~/o.yaml"), 2, f"{tmp_path}/o.yaml: {twice}")
    assert_one_line(fit_toy("-c", recipe), 2, f"{recipe}: seed stands twice, on lines 1 and 3", f"o.yaml: {twice}")


def test_the_same_name_in_two_items_or_through_an_alias_is_no_double(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    callback = "{class_path: tests.commands.Recorder, init_args: {file: seen}}"
    recipe.write_text(f"trainer:\n  callbacks:\n  - &timer {callback}\n  - *timer\n  - {callback}\n")
    assert fit_toy("-c", recipe, "--print_config").status == 0


@pytest.mark.parametrize(
    ("verb", "flags", "name"),
    [
        ("fit", ["--resume", ""], "resume"),
        ("fit", ["--runs", ""], "runs"),
        ("fit", ["-c", ""], "-c"),
        ("fit", ["--data.dataset=files", "--data.train", ""], "data.train"),
        ("fit", ["--data.dataset=files", "--data.train", "['', a.txt]"], "data.train"),
        ("finetune", ["--source", ""], "source"),
        ("evaluate", ["--checkpoint", ""], "--checkpoint"),
        ("predict", ["--checkpoint="], "--checkpoint"),
    ],
)
def test_an_empty_path_is_refused(verb: str, flags: list[str], name: str) -> None:
    domain = [] if "--checkpoint" in flags[0] else ["--domain=translation"]
    assert_one_line(run(verb, *domain, *flags), 2, f"{name} is '', allowed is ", ": ")


def test_two_domains_are_refused_and_one_named_twice_is_not() -> None:
    ran = run("fit", "--domain", "translation", "--domain=text")
    assert_one_line(ran, 2, "--domain is given as translation and as text", "keep one")
    assert fit_toy("--domain", "toy", "--print_config").status == 0


@pytest.mark.parametrize("size", [0, -3])
@pytest.mark.parametrize("domain", ["translation", "text", "text --task language_model", "video"])
def test_a_sample_of_nothing_is_refused(domain: str, size: int, tmp_path: Path) -> None:
    ran = run("fit", "--domain", *domain.split(), "--runs", tmp_path, f"--data.sample_size={size}")
    assert_one_line(ran, 2, f"data.sample_size is {size}, allowed is 1 or more")


def test_one_text_file_is_no_parallel_text(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("A forest is white.\n")
    files = ("--domain=translation", "--runs", tmp_path, "--data.dataset=files", "--data.train")
    parts = (
        f"data.train names one file, {tmp_path / 'a.en'}",
        "give tables (.csv, ",
        "two text files aligned line by line",
    )
    assert_one_line(run("fit", *files, tmp_path / "a.en"), 2, *parts, "--data.train '[")
    assert_one_line(run("fit", *files, tmp_path / "b.en"), 1, "no such file", "a.en")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--trainer.val_check_interval", "0"], ["trainer.val_check_interval is 0", "1 or more batches"]),
        (["--trainer.val_check_interval", "1.5"], ["trainer.val_check_interval is 1.5", "up to 1.0"]),
        (["--trainer.check_val_every_n_epoch", "0"], ["trainer.check_val_every_n_epoch must be at least 1, got 0"]),
        (["--trainer.num_sanity_val_steps", "-2"], ["trainer.num_sanity_val_steps must be at least -1, got -2"]),
        (["--trainer.log_every_n_steps", "-1"], ["trainer.log_every_n_steps must be at least 1, got -1"]),
        (["--trainer.limit_val_batches", "-1"], ["trainer.limit_val_batches is -1", "0.0 to 1.0"]),
        (["--trainer.limit_test_batches", "1.5"], ["trainer.limit_test_batches is 1.5", "0.0 to 1.0"]),
        (["--trainer.max_time", "soon"], ["trainer: ", "soon", "DD:HH:MM:SS"]),
        (["--trainer.devices", "x"], ["trainer: ", "devices"]),
        (["--trainer.devices", "{a: 1}"], ["trainer: ", "devices"]),
        (["--trainer.accelerator", "[]"], ["trainer: ", "accelerator", "cpu"]),
        (["--trainer.profiler", "3"], ["trainer: ", "profiler"]),
        (["--trainer.num_nodes", "0"], ["trainer: ", "num_nodes"]),
        (["--name", ""], ["--name ''", "one folder name"]),
        (["--name", " "], ["--name ' '", "one folder name"]),
        (["--data.batch_size", "0"], ["data.batch_size must be at least 1, got 0."]),
        (["--data.num_workers", "1000000000"], ["data.num_workers must be from 0 to 1,024, got 1000000000"]),
    ],
)
def test_settings_that_libraries_would_trip_over_are_one_line(
    flags: list[str], parts: list[str], tmp_path: Path
) -> None:
    assert_one_line(fit_toy("--runs", tmp_path, *flags), 2, *parts)
    assert not (tmp_path / "toy").exists() or not list((tmp_path / "toy").iterdir())


def test_a_batch_size_beyond_the_data_is_reported(tmp_path: Path) -> None:
    ran = fit_toy("--runs", tmp_path, "--data.batch_size", 1_000_000)
    assert ran.status == 0, ran
    assert "the 61 training examples fit one batch: every epoch is a single step" in ran.err
