"""What a person reads on the terminal: notices go to standard error, results to standard output.

Only the first process speaks, so that a run on many devices reads like a run on one.
"""

import contextlib
import io
import os
import sys
from pathlib import Path

from suite.errors import SuiteError

# Lightning's own order: in an interactive shell of SLURM its children have a LOCAL_RANK beside the shell's PROCID.
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def is_first_process() -> bool:
    """Whether this is the process with global rank zero, from the variables that launchers set."""
    for name in _RANK_VARIABLES:
        if name in os.environ:
            return os.environ[name] == "0"
    return True


def notice(text: str) -> None:
    """Say something that must not pass in silence: skipped rows, ignored settings, fallbacks."""
    if is_first_process():
        print(text, file=sys.stderr, flush=True)


_said: set[str] = set()


def notice_once(text: str, *, key: str | None = None) -> None:
    """A ``notice`` that a command gives a single time, however often the data that it is about are read.

    Of several with one ``key``, which is the text itself if not given, only the first is given.
    """
    if (key or text) not in _said:
        _said.add(key or text)
        notice(text)


def forget_notices() -> None:
    """Begin a command: ``notice_once`` gives each notice again."""
    _said.clear()


def report(text: str = "") -> None:
    """Print a result.

    Raises:
        SuiteError: standard output cannot be written (a full disk); a reader that left is a ``BrokenPipeError``.
    """
    if not is_first_process():
        return
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        with contextlib.suppress(OSError):  # what it still holds would fail once more when Python ends
            sys.stdout.close()
        raise SuiteError(f"standard output: cannot be written ({error.strerror}): write elsewhere") from None


def speak_utf8() -> None:
    """Write UTF-8 whatever the locale is, as what is read is UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=stream.errors)


def from_here(path: Path, *, resolve: bool = True) -> str:
    """How to name ``path`` on a command line: relative where it lies below the working directory, else absolute.

    Without ``resolve`` links stay: an environment's interpreter is one.
    """
    absolute, here = (path.resolve(), Path.cwd().resolve()) if resolve else (path.absolute(), Path.cwd())
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


_ESCAPES = {ord(character): repr(character)[1:-1] for character in "\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}


def one_line(text: str) -> str:
    """``text`` with tabs and every kind of line break escaped as in Python, so that it fits one field of one line."""
    return text.translate(_ESCAPES)
