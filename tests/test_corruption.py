"""Damaged files of every format: the same content as an independent decode, a report, or one clear line; never silence.

``python -m tests.corruption FORMAT SEED`` repeats a case. docs/reliability.md has the counts.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from suite.sources import read_table
from tests.corruption.bombs import BOMBS
from tests.corruption.mutations import KINDS
from tests.corruption.readers import suffix_of
from tests.corruption.worker import EACH, FORMATS, MEGABYTES, SECONDS, Case, Worker, intact

QUICK = 5
"""Mutations of each format in the default tier."""


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as one:
        yield one


def check(worker: Worker, format: str, seeds: range) -> Counter[str]:
    results = {seed: worker(Case(format, seed)) for seed in seeds}
    failed = [f"{Case(format, seed)}: {result.said}" for seed, result in results.items() if result.outcome == "failed"]
    assert not failed, "\n".join(failed)
    return Counter(result.outcome for result in results.values())


@pytest.mark.parametrize("format", FORMATS)
def test_intact_file(worker: Worker, format: str, tmp_path: Path) -> None:
    """What is not damaged is read without a word, as the reference reads it."""
    path = tmp_path / f"intact{suffix_of(format)}"
    result = worker.compare(format, path, intact(format))
    assert result.outcome == ("refused" if format == "zip-as-csv" else "equal"), result.said
    assert path.name not in result.said or format == "zip-as-csv"


@pytest.mark.parametrize("format", FORMATS)
def test_some_mutations(worker: Worker, format: str) -> None:
    """Other formats begin at other kinds of mutation, so that together they have all of them."""
    first = 1000 + FORMATS.index(format) * QUICK
    check(worker, format, range(first, first + QUICK))


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_mutations(worker: Worker, format: str) -> None:
    counts = check(worker, format, range(EACH))
    assert counts.total() == EACH
    assert counts["refused"] + counts["reported"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_bomb(worker: Worker, name: str, tmp_path: Path) -> None:
    """A small file that expands to gigabytes is refused, or its bad member is, in little memory."""
    bomb = BOMBS[name]
    path = tmp_path / f"{name}{suffix_of(bomb.format)}"
    path.write_bytes(bomb.make())
    result = worker.read(bomb.format, path)
    assert result.outcome == "refused" or (not result.outcome and path.name in result.said), result
    assert result.seconds < SECONDS
    assert result.megabytes < MEGABYTES


def test_every_kind_of_mutation_is_drawn() -> None:
    assert {KINDS[seed % len(KINDS)] for seed in range(EACH)} == set(KINDS)
    assert EACH * len(FORMATS) >= 2000


def test_a_silent_difference_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The test itself can fail: a reader that loses a row, raises another error, or kills its process is found."""
    broken = {"csv": _loses_a_row, "tsv": _raises, "txt": _dies}
    monkeypatch.setattr("tests.corruption.readers.READERS", broken)
    found = {}
    with Worker() as worker:
        for format in broken:
            found[format] = worker.compare(format, tmp_path / f"whole.{format}", intact(format))
    assert {result.outcome for result in found.values()} == {"failed"}
    assert "silent: 30 rows where the reference has 31 rows" in found["csv"].said
    assert "KeyError" in found["tsv"].said
    assert "the process died (exit status 3)" in found["txt"].said


def _loses_a_row(path: Path) -> list[tuple[str, ...]]:
    return read_table(path, columns=("text", "label"))[:-1]


def _raises(path: Path) -> None:
    raise KeyError(path.name)


def _dies(path: Path) -> None:
    os._exit(3)
