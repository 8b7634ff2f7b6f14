"""Names, extensions and lines: which spellings are equal, and what fits one line."""

from pathlib import Path

import pytest

from suite.cache import file_state
from suite.console import one_line
from suite.labels import clean_name
from suite.sources import extension_of


def test_names_are_equal_after_white_space_and_unicode_form() -> None:
    assert clean_name(" Cafe\u0301\u00a0") == "Caf\u00e9"
    assert clean_name("two words") == "two words"


@pytest.mark.parametrize(
    ("text", "line"), [("a\tb\nc\rd", r"a\tb\nc\rd"), ("x\u2028y\x85z", r"x\u2028y\x85z"), ("ä ö", "ä ö")]
)
def test_tabs_and_line_breaks_are_escaped(text: str, line: str) -> None:
    assert one_line(text) == line
    assert len(one_line(text).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "extension"),
    [("A.CSV", ".csv"), ("a.Tsv.GZ", ".tsv.gz"), ("a", ""), (".hidden", ""), ("v1.2.jsonl", ".jsonl")],
)
def test_extensions_are_lower_case(name: str, extension: str) -> None:
    assert extension_of(Path("folder.x") / name) == extension


def test_exchanged_files_have_another_state(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"aa")
    other.write_bytes(b"bb")
    before = file_state(one)
    one.rename(tmp_path / "kept")
    other.rename(one)
    assert file_state(one) != before
