"""Who speaks: the first process, whatever variables a launcher leaves; in UTF-8, and a write that fails is said."""

import subprocess
import sys
from pathlib import Path

import pytest

from suite.console import is_first_process
from tests.commands import ROOT

# A command whose result is a word that Latin-1 and ASCII have not.
COMMAND = """
import sys
from suite import cli, console
cli._run = lambda *_: console.report("\\u4f60")
sys.exit(cli.main("speak", available=list, load=None))
"""
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),  # torchrun, first of a second node
        ({"LOCAL_RANK": "1"}, False),  # started by Lightning
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, False),  # the same, from an interactive shell of SLURM
        ({"SLURM_PROCID": "1"}, False),
        ({"SLURM_PROCID": "0"}, True),
    ],
)
def test_the_first_process_is_known(variables: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == first


@pytest.mark.parametrize(
    "variables",
    [{"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["latin-1", "C"],
)
def test_results_are_utf8_in_any_locale(variables: dict[str, str]) -> None:
    environment = {"PYTHONPATH": str(ROOT), **variables}
    ran = subprocess.run([sys.executable, "-c", COMMAND], env=environment, capture_output=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "\u4f60\n".encode(), b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_results_that_cannot_be_written_are_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        environment = {"PYTHONPATH": str(ROOT)}
        ran = subprocess.run([sys.executable, "-c", COMMAND], env=environment, stdout=full, stderr=subprocess.PIPE)
    assert ran.returncode == 1
    assert ran.stderr == b"speak: standard output: cannot be written (No space left on device): write elsewhere\n"
