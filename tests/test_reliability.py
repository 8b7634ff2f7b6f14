"""docs/reliability.md: every test that it names exists, and its table of damaged files is whole."""

import ast
import re
from functools import lru_cache

import pytest

from tests.commands import ROOT
from tests.corruption.worker import FORMATS

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(\w+)`", PAGE)))


@lru_cache
def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_something_is_named() -> None:
    assert len(NAMED) > 50


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_named_tests_exist(file: str, name: str) -> None:
    assert name in functions(file)


def test_every_promise_has_a_test() -> None:
    begin = PAGE.index("## A run knows"), PAGE.index("## Damaged files")
    rows = [line for line in PAGE[slice(*begin)].splitlines() if line.startswith("|")]
    promises = [row for row in rows if not row.startswith(("| promise", "|---"))]
    assert promises
    assert [row for row in promises if "::" not in row] == []


def test_the_table_of_damaged_files_is_whole() -> None:
    rows = re.findall(r"^\| ([\w.-]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, flags=re.MULTILINE)
    counts = {name: [int(count) for count in numbers] for name, *numbers in rows}
    total = counts.pop("all")
    assert list(counts) == list(FORMATS)
    assert [sum(column) for column in zip(*counts.values(), strict=True)] == total
    assert sum(total) >= 2000
    assert total[-1] == 0
