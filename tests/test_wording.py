"""Values of the wrong type: one line that says what was given and what is allowed, without names of Python's types."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import domains
from suite.errors import UsageError
from suite.parser import SuiteParser
from suite.verb_parsers import fit_parser
from suite.wording import describe, plain_words
from tests.commands import assert_one_line, fit_toy, run, trained

RAW = re.compile(
    r"<class|typing\.|Union\[|Optional\[|Literal\[|NestedArg|Namespace\(|Parser key|jsonargparse|PositiveInt|Errors:"
)
WRONG = ("a b", "''", "[[1], {}]", "{a: {b: 1}}", "[", "-1.5", "null", "true")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--samples", "-1"), "samples is -1, allowed is a whole number of at least 0"),
        (("--samples", "x"), "samples is x, allowed is a whole number of at least 0"),
        (("--samples", "[]"), "samples is a list, allowed is a whole number of at least 0"),
        (("--samples", "null"), "samples is null, allowed is a whole number of at least 0"),
        (("--patience", "many"), "patience is many, allowed is a whole number of at least 0 or null"),
        (("--threads", "0"), "threads is 0, allowed is a whole number of at least 1 or auto"),
        (("--seed", "1.5"), "seed is 1.5, allowed is a whole number"),
        (("--seed", ""), "seed is '', allowed is a whole number"),
        (("--optim.lr", "fast"), "optim.lr is fast, allowed is a number"),
        (("--optim.nesterov", "3"), "optim.nesterov is 3, allowed is true or false"),
        (("--tracking.mode", "on"), "tracking.mode is on, allowed is online, offline, disabled or null"),
        (("--model", "3"), "model is 3, allowed is a group of settings (model.NAME)"),
        (("--model", "["), "model is [, allowed is a group of settings (model.NAME)"),
        (("--threads", "null"), "threads is null, allowed is a whole number of at least 1 or auto"),
        (("--tracking.tags", "3"), "tracking.tags is 3, allowed is a list of strings"),
        (("-c", "{seed: x}"), "-c: seed is x, allowed is a whole number"),
        (
            ("-c", "{trainer: {devices: {a: 1}}}"),
            "-c: trainer.devices is {'a': 1}, allowed is a list of whole numbers, a string or a whole number",
        ),
        (
            ("--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping",),
            "trainer.callbacks is lightning.pytorch.callbacks.EarlyStopping, allowed is a list of class paths of "
            "Callbacks, the class path of a Callback with the arguments that it needs or null",
        ),
        (
            ("--trainer.strategy", "DDPStrategy", "--trainer.strategy.foo=x"),
            "trainer.strategy.foo is 'x', allowed are arguments of the class that trainer.strategy names, with values "
            "that it takes",
        ),
    ],
)
def test_a_value_of_the_wrong_type(flags: tuple[str, ...], line: str) -> None:
    assert_one_line(fit_toy(*flags), 2, f"fit: {line}\n")


@pytest.mark.parametrize(
    "message", ["unknown flag --data.x 3", "Parser key \"other\": Expected a <class 'a.Callback'>. Got value: 3"]
)
def test_what_is_about_no_setting_stays_as_it_is(message: str) -> None:
    assert plain_words(message, {"name": str}) == message


def test_types_in_words() -> None:
    assert describe(int | None) == "a whole number or null"
    assert describe(list[str] | str) == "a list of strings or a string"
    assert describe(dict[str, int] | bool) == "names with values or true or false"


def all_settings() -> Iterator[tuple[SuiteParser, Any]]:
    """Each setting of each task once, with a parser that has it."""
    seen = set()
    for name in domains.available():
        loaded = domains.load(name)
        for task in loaded.tasks:
            parser = fit_parser(loaded, task, defaults=None, verb="finetune")
            for action in parser._actions:
                flag = f"--{action.dest}"
                if flag in seen or flag not in action.option_strings or action.nargs == 0 or flag.endswith("help"):
                    continue
                seen.add(flag)
                if flag != "--config" and not flag.startswith("--print_"):
                    yield parser, action


def test_a_wrong_value_of_every_setting_is_one_plain_line() -> None:
    refused: dict[str, list[str]] = {}
    for parser, action in all_settings():
        for value in WRONG:
            try:
                parse_alone(parser, f"--{action.dest}={value}")
            except UsageError as error:
                refused.setdefault(action.dest, []).append(str(error))
    assert len(refused) > 140
    for name, messages in refused.items():
        for text in messages:
            assert text.startswith(f"{name} is "), text
            assert ", allowed " in text, text
            assert "\n" not in text
            assert not RAW.search(text), text
    taken = {action.dest for _, action in all_settings()} - refused.keys()
    # Only what may be any string takes all of these values.
    assert not [name for name in taken if name.endswith("_size") or "dropout" in name or name.startswith("optim.")], (
        taken
    )


def parse_alone(parser: SuiteParser, word: str) -> None:
    """Parse one word by itself."""
    parser._alone([word])


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (("--data.foo", "3"), ["unknown flag --data.foo 3"]),
        (("--data.foo=3",), ["unknown flag --data.foo=3"]),
        (("--data.foo", "-3", "--seed", "1"), ["unknown flag --data.foo -3"]),
        (("--foo", "--sed", "3"), ["unknown flag --foo; unknown flag --sed 3: did you mean --seed?"]),
        (("stray",), ["unknown argument stray"]),
    ],
)
def test_an_unknown_flag_keeps_its_value(flags: tuple[str, ...], parts: list[str]) -> None:
    assert_one_line(fit_toy(*flags), 2, *parts)


def test_an_unknown_flag_of_predict_keeps_its_value(tmp_path: Path) -> None:
    """Where inputs are arguments too, the value is not taken for one."""
    ran = run("predict", "--checkpoint", trained(), "--data.foo", "3", stdin=b"")
    assert_one_line(ran, 2, "unknown flag --data.foo 3")


@pytest.mark.parametrize(
    ("domain", "flag", "meant"),
    [
        ("text", "--trainer.epochs", "trainer.max_epochs"),
        ("text", "--epochs", "trainer.max_epochs"),
        ("text", "--trainer.steps", "trainer.max_steps"),
        ("text", "--max_steps", "trainer.max_steps"),
        ("text", "--lr", "optim.lr"),
        ("text", "--learning_rate", "optim.lr"),
        ("text", "--trainer.lr", "optim.lr"),
        ("text", "--model.learning_rate", "optim.lr"),
        ("text", "--batch", "data.batch_size"),
        ("text", "--trainer.batch_size", "data.batch_size"),
        ("text", "--data.batch", "data.batch_size"),
        ("text", "--gpus", "trainer.devices"),
        ("text", "--trainer.gpus", "trainer.devices"),
        ("text", "--hidden", "model.encoder.hidden_size"),
        ("text", "--model.hidden_size", "model.encoder.hidden_size"),
        ("text", "--model.hiden", "model.encoder.hidden_size"),
        ("translation", "--hidden_dim", "model.encoder.hidden_size"),
        ("translation", "--model.decoder.hidden", "model.decoder.hidden_size"),
        ("translation", "--beam", "decoding.beam_size"),
        ("text", "--data.vocab_size", "data.vocabulary.size"),
        ("text", "--optimizer", "optim.name"),
        ("text", "--optim.scheduler", "optim.schedule"),
        ("text", "--trainer.grad_clip", "trainer.gradient_clip_val"),
        ("text", "--data.workers", "data.num_workers"),
        ("text", "--early_stopping", "patience"),
        ("text", "--output_dir", "runs"),
        ("text", "--wandb", "tracking.mode"),
        ("text", "--model.encoder.layers", "model.encoder.num_layers"),
        ("video", "--num_frames", "data.sampling.num_frames"),
        ("video", "--data.num_frames", "data.sampling.num_frames"),
        ("text", "--max-epochs", "trainer.max_epochs"),
        ("text", "--data.batch-size", "data.batch_size"),
    ],
)
def test_a_flag_is_suggested_by_its_meaning(domain: str, flag: str, meant: str) -> None:
    assert_one_line(run("fit", "--domain", domain, flag, "3"), 2, f"unknown flag {flag} 3: did you mean --{meant}?")


def test_nothing_is_suggested_for_nonsense() -> None:
    assert "did you mean" not in fit_toy("--tracking.nonsense", "3").err
