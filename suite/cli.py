"""The entry of every command: finds the domain before torch is imported, runs a verb, turns errors into one line."""

import contextlib
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.console import forget_notices, is_first_process, speak_utf8
from suite.errors import SuiteError, UsageError
from suite.peek import names_domain, peek_domain

CONFIGS = Path(__file__).parent.parent / "configs"
_PARENT = os.getppid()


@dataclass(frozen=True)
class Domains:
    """The one seam between the core and its applications: names of domains, how to load one, where its YAML is."""

    available: Callable[[], list[str]]
    load: Callable[[str], Any]
    configs: Path = CONFIGS


def main(
    verb: str,
    *,
    available: Callable[[], list[str]],
    load: Callable[[str], Any],
    configs: Path = CONFIGS,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a verb and give its exit status: 0, 1 for data and checkpoints, 2 for usage, 130 when interrupted.

    ``sys.argv`` is left as it is: Lightning starts further processes from it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    speak_utf8()
    forget_notices()
    try:
        _run(verb, arguments, Domains(available, load, configs))
    except SuiteError as error:
        return _fail(verb, arguments, error, error.exit_status)
    except KeyboardInterrupt:
        print(f"{verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe (`predict.py ... | head`) has all it wanted
        sys.stderr.close()
        return 0
    except Exception as error:
        # Others' errors by name and text, because neither torch nor Lightning is imported here.
        if type(error).__name__ == "MisconfigurationException":  # Lightning's word for settings that cannot be
            return _fail(verb, arguments, error, UsageError.exit_status)
        if _is_of_another_process(error):
            return _fail(verb, arguments, _another_ended(error), 1)
        raise
    return 0


_DISTRIBUTED = {"DistError", "DistBackendError", "DistNetworkError", "DistStoreError"}
_IN_GLOO = re.compile(r"(?:^|[\s\[/])gloo/\S+\.(?:cc|cpp|h|hpp):\d+")


def _is_of_another_process(error: Exception) -> bool:
    """Whether the connection to another process of the run failed.

    torch has classes for most such errors. Gloo raises a plain RuntimeError whose text begins with the line of its own
    source that noticed it; a path with a folder called gloo in another error is none.
    """
    if _DISTRIBUTED & {each.__name__ for each in type(error).__mro__}:
        return True
    return type(error) is RuntimeError and _IN_GLOO.search(str(error)) is not None


def _another_ended(error: Exception) -> SuiteError:
    reason = str(error).strip().splitlines()[0]
    return SuiteError(f"another process of this run ended or cannot be reached; its own message says why ({reason})")


def _fail(verb: str, arguments: Sequence[str], error: Exception, status: int) -> int:
    if "--debug" in arguments:
        traceback.print_exc()
    if not _is_repeated():
        print(f"{verb}: {' '.join(_message(error).splitlines())}", file=sys.stderr)
    return status


def _is_repeated(seconds: float = 3.0) -> bool:
    """Whether rank 0 ends too, which has then printed this error: an error of another rank alone must be seen.

    Another rank waits to find out: a launcher ends all processes after the first one, and the parent is rank 0 if
    Lightning started this process.
    """
    if is_first_process():
        return False
    with contextlib.suppress(ValueError):  # outside of the main thread
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.getppid() != _PARENT:
            return True
        time.sleep(0.05)
    return False


def _message(error: Exception) -> str:
    """What an error says; of one that a worker of the data loader raised, without the worker's traceback."""
    text = str(error)
    kind = f"\n{type(error).__module__}.{type(error).__qualname__}: "
    return text.rpartition(kind)[2].strip() if text.startswith("Caught ") else text


_OF_A_DOMAIN = ("fit", "finetune", "crossvalidate", "compare", "benchmark", "diagnose")
_OF_A_CHECKPOINT = ("evaluate", "predict")


def _first_help(verb: str, arguments: Sequence[str], available: Sequence[str]) -> str | None:
    """What ``--help`` says before it is known of which domain or checkpoint; ``None`` where it is, or not asked for."""
    flags = {argument.split("=")[0] for argument in arguments}
    if not flags & {"-h", "--help"} or flags & {"--domain", "--checkpoint", "--suite"} or names_domain(arguments):
        return None
    if verb in _OF_A_DOMAIN:
        return (
            f"usage: {verb}.py --domain NAME [--task NAME] [-c RECIPE.yaml] [--GROUP.SETTING VALUE ...]\n\n"
            f"NAME is one of: {', '.join(available)}\n"
            f"All settings of one, with text, type and default: {verb}.py --domain NAME --help"
        )
    if verb in _OF_A_CHECKPOINT:
        return (
            f"usage: {verb}.py --checkpoint FILE_OR_RUN_FOLDER [--SETTING VALUE ...]\n\n"
            f"What can be set depends on what was trained: {verb}.py --checkpoint FILE_OR_RUN_FOLDER --help"
        )
    return None


def _run(verb: str, arguments: list[str], domains: Domains) -> None:
    if (text := _first_help(verb, arguments, domains.available())) is not None:
        print(text)
        return
    if verb in ("fit", "finetune"):
        domain = peek_domain(arguments, domains.available())
        from suite.fitting import fit

        fit(arguments, domain, domains, verb=verb)
    elif verb == "evaluate":
        from suite.evaluation import evaluate

        evaluate(arguments, domains)
    elif verb == "predict":
        from suite.prediction import predict

        predict(arguments, domains)
    elif verb == "crossvalidate":
        domain = peek_domain(arguments, domains.available())
        from suite.crossvalidation import crossvalidate

        crossvalidate(arguments, domain, domains)
    elif verb == "compare":
        domain = peek_domain(arguments, domains.available())
        from suite.comparison import compare

        compare(arguments, domain, domains)
    elif verb == "benchmark":
        given = {argument.split("=")[0] for argument in arguments}
        # A suite of rows may do without a domain, or take all of them.
        without = "--suite" in given and "--domain" not in given
        domain_or_none = None if without else peek_domain(arguments, domains.available())
        from suite.benchmark import benchmark

        benchmark(arguments, domain_or_none, domains)
    elif verb == "diagnose":
        domain = peek_domain(arguments, domains.available())
        from suite.diagnosis import diagnose

        diagnose(arguments, domain, domains)
    elif verb == "average":
        from suite.averaging import average

        average(arguments)
    else:
        raise UsageError(f"no such command: {verb}")
