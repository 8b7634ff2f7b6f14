"""Errors that a user can cause. Each carries one line for a person and the exit status of the command.

A message says which key or file (and line), what was given, what is allowed and what to do.
Invariants of our own code are ``assert`` statements instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class SuiteError(ValueError):
    """Anything wrong with what was handed in: data, files, checkpoints. Exit status 1."""

    exit_status = 1


class UsageError(SuiteError):
    """A command line or configuration that cannot be meant. Exit status 2."""

    exit_status = 2


class DataError(SuiteError):
    """A data file or folder that cannot be read as asked."""


class CheckpointError(SuiteError):
    """A checkpoint that is damaged, foreign, or does not fit what was asked of it."""


@contextmanager
def said_of(part: str) -> Iterator[None]:
    """Begin a UsageError from inside with the ``part`` of the settings that it is about: two parts may be alike."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{part}: {error}") from None


def gather(problems: list[str], *, error: type[SuiteError] = DataError, limit: int = 5) -> None:
    """Raise ``error`` once with all ``problems`` in one line, the first ``limit`` spelled out; nothing if empty."""
    if not problems:
        return
    text = "; ".join(problems[:limit])
    if len(problems) > limit:
        text += f"; and {len(problems) - limit} more"
    raise error(text)
