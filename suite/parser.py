"""The parser of every command line: flags over files, one-line errors with the nearest name.

A plain jsonargparse parser, not LightningCLI: see docs/architecture.md for the trial of both.
"""

import json
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from suite.config import misfit, plain
from suite.effects import Given
from suite.errors import CheckpointError, UsageError
from suite.near_names import nearest, unknown_flags, unknown_name
from suite.recipes import check_given, check_recipe
from suite.resume import refuse_new_place
from suite.trainer_settings import check_trainer
from suite.wording import plain_words

_GROUPS = {"--model", "--data", "--decoding", "--optim", "--tracking", "--trainer"}
_UNRECOGNISED = "unrecognized arguments: "
_PRINTING = {"-h", "--help", "--print_config"}
_PATHS = {"checkpoint", "resume", "runs", "source", "output", "file", "files"}


class SuiteParser(ArgumentParser):
    """Raises ``UsageError`` with one line where argparse would print its usage and exit."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UsageError(self.one_line(message))

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse does it, and settings that contradict each other or cannot be meant are refused.

        A group that was given something else than settings is, too.
        """
        self._lines: dict[str, str] = {}  # where names stand in recipes
        self._check_given(args[0])
        try:
            config = super().parse_args(*args, **kwargs)
        except UsageError as error:
            unknown = None if str(error).startswith("unknown ") else unknown_name(str(error))
            raise UsageError(f"{self._lines[unknown]}: {error}" if unknown in self._lines else str(error)) from None
        refuse_empty(config)
        for name in sorted(self._groups()):
            if not isinstance(config.get(name), Namespace):
                self.error(f"{name} is {config.get(name)}, allowed is a group of settings ({name}.NAME)")
        if "trainer" in config:
            check_trainer(vars(config.trainer))
        if config.get("resume") is not None:
            given = config.runs if config.runs != self.get_default("runs") else None
            refuse_new_place(config.resume, name=config.name, runs=given)
        return config

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse does it, with the file named in what is wrong with it."""
        self._lines |= check_recipe(Path(path), groups=self._groups())
        try:
            return super().parse_path(path, *args, **kwargs)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"{path}: not UTF-8 (byte {error.start + 1}): convert it") from None

    def given(self, words: Sequence[str], *, decided: Collection[str] = ()) -> Given:
        """What ``words``, which were parsed before, give by themselves; ``decided`` as in ``Given``."""
        recipes, groups, rest = _sorted_out(words)
        line = [word for word in rest if word.partition("=")[0] not in _PRINTING]
        layers = [dict(self._alone(each).items()) for each in (*recipes, *groups, line)]
        return Given(layers, dict(self.get_defaults().items()), decided)

    def _alone(self, words: Sequence[str]) -> Namespace:
        """The settings that ``words`` give, without defaults and without what is required."""
        self._lines = {}
        return ArgumentParser.parse_args(self, words, defaults=False, _skip_validation=True)

    def _check_given(self, words: Sequence[str]) -> None:
        """Look at what the line gives for whole groups (``--trainer FILE``) and as recipes: a file, or settings."""
        groups = self._groups()
        for word, following in zip(words, [*words, ""][1:], strict=True):
            option, equals, value = word.partition("=")
            name = option.removeprefix("--")
            text = value if equals else following
            if option in ("-c", "--config"):
                if not os.path.isfile(os.path.expanduser(text)):  # parse_path looks at files
                    check_given(text, option=option, groups=groups)
            elif option.startswith("--") and name in groups:
                self._lines |= check_given(text, option=option, groups=groups, group=name)

    def _groups(self) -> set[str]:
        """Dotted names of what has settings below it."""
        return {action.dest.rpartition(".")[0] for action in self._actions if not action.dest.endswith(".help")} - {""}

    def one_line(self, message: str) -> str:
        """The message without line breaks, with the nearest known name for each that was not recognised."""
        text = " ".join(str(message).split()).replace(' in "<unicode string>"', "")
        if text.lower().startswith(_UNRECOGNISED):
            return self._unknown(text[len(_UNRECOGNISED) :].split())
        # Of a value that fits none of several types, jsonargparse says so for each; the types and the value are enough.
        text = re.sub(
            r"Does not validate against any of the Union subtypes Subtypes: \[(.*)\] Errors: .*"
            r"Given value type: .*? Given value: ",
            r"Expected one of \1. Got value: ",
            text,
        )
        text = re.sub(
            r'^Parser key "config": Unexpected config: ?(.*)',
            r"-c is '\1', allowed is the file of a recipe: give one, or leave -c out",
            text,
        )
        text = plain_words(text, {action.dest: getattr(action, "_typehint", None) for action in self._actions})
        given = unknown_name(text)
        near = given and "did you mean" not in text and self._nearest(given)
        return f"{text}: did you mean --{near}?" if near else text

    def _unknown(self, unknown: list[str]) -> str:
        """Each unknown flag with its value and the nearest known one."""
        parts = []
        for flag in unknown_flags(self.args, unknown):
            if not flag.startswith("-"):
                parts.append(f"unknown argument {flag}: flags begin with --")
                continue
            near = self._nearest(flag.lstrip("-").partition("=")[0].partition(" ")[0])
            parts.append(f"unknown flag {flag}" + (f": did you mean --{near}?" if near else ""))
        return "; ".join(parts) or f"unknown arguments {' '.join(unknown)}"

    def _nearest(self, given: str) -> str | None:
        return nearest(given, {action.dest for action in self._actions})


def refuse_empty(config: Namespace) -> None:
    """An empty string for a path or name usually means an unset shell variable, so it is refused.

    Raises:
        UsageError: naming the setting.
    """
    for name, value in config.items():
        if not name.startswith("data.") and name not in _PATHS:
            continue
        if "" in ([value] if isinstance(value, str) else value if isinstance(value, list) else []):
            raise UsageError(f"{name} is '', allowed is a path or a name that is not empty: give one, or leave it out")


def recipes_first(argv: Sequence[str]) -> list[str]:
    """The same arguments with every file ahead, so that flags win wherever they stand on the line.

    Whole recipes (``-c FILE``, ``-cFILE``) come first, then files of one group (``--trainer FILE``).
    """
    recipes, groups, rest = _sorted_out(argv)
    return [word for words in (*recipes, *groups, rest) for word in words]


def _sorted_out(argv: Sequence[str]) -> tuple[list[list[str]], list[list[str]], list[str]]:
    """The words of each recipe, those of each file of a group, and all others."""
    recipes: list[list[str]] = []
    groups: list[list[str]] = []
    rest: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        glued = argument.startswith("-c") and argument != "-c"
        name, _, value = ("-c", "", argument) if glued else argument.partition("=")
        into = recipes if name in ("-c", "--config") else groups if name in _GROUPS else None
        if into is None:
            rest.append(argument)
            continue
        into.append([argument])
        if not value and (following := next(arguments, None)) is not None:
            into[-1].append(following)
    return recipes, groups, rest


def parse_over(parser: SuiteParser, settings: dict[str, Any], arguments: Sequence[str], *, source: str | Path) -> Any:
    """The command line read over the ``settings`` of the checkpoint ``source``.

    Raises:
        UsageError: the command line is wrong.
        CheckpointError: the settings are not such as this version has.
    """
    words = recipes_first(arguments)
    try:
        return parser.parse_args(["--config", json.dumps(settings), *words])
    except UsageError as error:
        try:
            parser.parse_args(words)
        except UsageError:
            raise error from None
        raise CheckpointError(misfit(source, "", str(error))) from None


def settings_of(config: Namespace, *, without: Iterable[str]) -> dict[str, Any]:
    """A parsed command line as plain settings."""
    return {key: value for key, value in plain(config).items() if key not in set(without)}
