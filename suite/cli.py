"""The entry of every command: finds the domain before torch is imported, runs a verb, turns errors into one line."""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.errors import SuiteError, UsageError

CONFIGS = Path(__file__).parent.parent / "configs"


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
        # Lightning's word for settings that cannot be; by name, because Lightning is not imported here.
        if type(error).__name__ != "MisconfigurationException":
            raise
        return _fail(verb, arguments, error, UsageError.exit_status)
    return 0


def _fail(verb: str, arguments: Sequence[str], error: Exception, status: int) -> int:
    if "--debug" in arguments:
        traceback.print_exc()
    print(f"{verb}: {' '.join(str(error).splitlines())}", file=sys.stderr)
    return status


def _run(verb: str, arguments: list[str], domains: Domains) -> None:
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
    elif verb == "benchmark":
        domain = peek_domain(arguments, domains.available())
        from suite.benchmark import benchmark

        benchmark(arguments, domain, domains)
    else:
        raise UsageError(f"no such command: {verb}")


def peek_domain(arguments: Sequence[str], available: list[str]) -> str:
    """The value of ``--domain``, found without importing anything slow.

    Raises:
        UsageError: it is missing or no domain.
    """
    peeker = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    peeker.add_argument("--domain", nargs="?")
    try:
        name = peeker.parse_known_args(arguments)[0].domain
    except argparse.ArgumentError:
        name = None
    names = ", ".join(available)
    if name is None:
        raise UsageError(f"--domain is missing: use --domain NAME, where NAME is one of: {names}")
    if name not in available:
        raise UsageError(f"--domain {name}: no such domain; there are: {names}")
    return name


def peek_task(arguments: Sequence[str]) -> str | None:
    """The value of ``--task``, or ``None``."""
    peeker = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peeker.add_argument("--task", nargs="?")
    return peeker.parse_known_args(arguments)[0].task
