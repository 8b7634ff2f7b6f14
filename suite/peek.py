"""What a command line says before there is a parser for it: its domain, its task, its checkpoint.

A flag wins over recipes (``-c``), and of several recipes the last. Nothing slow is imported here.
"""

import difflib
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from suite.errors import UsageError

_LEAST = 0.75  # likeness of a misspelt flag


class Peeked(NamedTuple):
    """A value, and the recipe that it comes from; ``None`` for a flag."""

    value: str
    recipe: str | None = None


def peek(name: str, arguments: Sequence[str]) -> Peeked | None:
    """The value of ``--name`` or of ``name`` in a recipe; ``None`` without.

    Raises:
        UsageError: the flag has no value, or is misspelt and no recipe has the setting.
    """
    if given := flag_values(name, arguments):
        return Peeked(given[-1])
    for recipe, settings in reversed([*_recipes(arguments)]):
        if settings.get(name) is not None:
            return Peeked(str(settings[name]), recipe)
    if (flag := _misspelt(name, arguments)) is not None:
        raise UsageError(f"unknown flag {flag}: did you mean --{name}?")
    return None


def flag_values(name: str, arguments: Sequence[str]) -> list[str]:
    """The values of all flags ``--name``, in order.

    Raises:
        UsageError: one has none.
    """
    found = []
    for place, word in enumerate(arguments):
        flag, equals, value = word.partition("=")
        if flag != f"--{name}":
            continue
        if not equals:
            value = arguments[place + 1] if place + 1 < len(arguments) else "--"
            if value.startswith("--"):
                raise UsageError(f"{flag} needs a value: {flag} {name.upper()}")
        found.append(value)
    return found


def _recipes(arguments: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and contents of the recipes that are files, or stand on the line; others are the parser's concern."""
    words = iter(arguments)
    for word in words:
        if word in ("-c", "--config"):
            text = next(words, "")
        elif word.startswith("--config="):
            text = word.partition("=")[2]
        elif word.startswith("-c"):
            text = word[2:].removeprefix("=")
        else:
            continue
        if text and isinstance(settings := _read(os.path.expanduser(text)), dict):
            yield text, settings


def _read(text: str) -> Any:
    import yaml  # not needed by lines without a recipe

    try:
        if os.path.isfile(text):  # a pipe can be read once only
            with open(text, encoding="utf-8") as file:
                text = file.read()
        return yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _misspelt(name: str, arguments: Sequence[str]) -> str | None:
    """The first flag that is nearly ``--name``: with other letters, capitals, or one dash."""
    for word in arguments:
        flag = word.partition("=")[0]
        plain = flag.lstrip("-").replace("-", "_").lower()
        if not flag.startswith("-") or "." in flag or flag == f"--{name}":
            continue
        if difflib.SequenceMatcher(None, plain, name).ratio() >= _LEAST and not plain.startswith(f"{name}_"):
            return flag
    return None


def names_domain(arguments: Sequence[str]) -> bool:
    """Whether a recipe names a domain."""
    return any(settings.get("domain") is not None for _, settings in _recipes(arguments))


def peek_domain(arguments: Sequence[str], available: Sequence[str]) -> str:
    """The domain of a command line, found without importing anything slow.

    Raises:
        UsageError: it is missing, no domain, or two of them.
    """
    names = ", ".join(available)
    try:
        given = list(dict.fromkeys(flag_values("domain", arguments)))
        found = peek("domain", arguments)
    except UsageError as error:
        raise UsageError(f"{error} (NAME is one of: {names})") from None
    if len(given) > 1:
        raise UsageError(f"--domain is given as {' and as '.join(given)}: a command is of one domain: keep one")
    if found is None:
        raise UsageError(f"--domain is missing: use --domain NAME, where NAME is one of: {names}")
    if found.value not in available:
        where = "--domain" if found.recipe is None else f"{found.recipe}: domain"
        raise UsageError(f"{where} {found.value}: no such domain; there are: {names}")
    return found.value


def peek_task(arguments: Sequence[str], domain: Any) -> str:
    """The task of a command line, the default one of ``domain`` if nothing names one.

    Raises:
        UsageError: the domain has no such task.
    """
    found = peek("task", arguments)
    if found is None:
        return str(domain.default)
    try:
        domain.task(found.value)
    except UsageError as error:
        raise UsageError(f"{found.recipe}: {error}" if found.recipe is not None else str(error)) from None
    return found.value
