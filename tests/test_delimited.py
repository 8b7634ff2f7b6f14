"""Delimiters, headers, empty lines and quotes of tables: what is read, what is reported, what is refused."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from domains.text.language_data import LanguageData
from suite.console import forget_notices
from suite.errors import DataError, SuiteError, UsageError
from suite.tables import columns_of
from tests.test_odd_tables import LABELS, TEXTS, data_of, rows_of, write_csv, write_parquet


@pytest.fixture(autouse=True)
def _new_command() -> None:
    forget_notices()


@pytest.mark.parametrize(
    ("name", "separator", "flag"),
    [("t.csv", "\t", "\\t"), ("t.csv", "|", "|"), ("t.tsv", ",", ","), ("t.tsv", ";", ";"), ("t.csv", ";", ";")],
)
def test_other_delimiters(name: str, separator: str, flag: str, tmp_path: Path) -> None:
    rows = list(zip(TEXTS, LABELS, strict=True))
    path = write_csv(tmp_path / name, rows, header=f"text{separator}label", separator=separator)
    with pytest.raises(DataError) as caught:
        rows_of(path)
    assert f"set --data.delimiter '{flag}'" in str(caught.value)
    assert rows_of(path, delimiter=flag) == Counter(rows)
    assert LanguageData(dataset="files", train=str(path), delimiter=flag)._texts(str(path)) == TEXTS
    quoted = [(f'"{text}{separator} ""so"""', label) for text, label in rows]
    write_csv(path, quoted, header=f'"text"{separator}"label"', separator=separator)
    assert rows_of(path, delimiter=flag) == Counter((f'{text}{separator} "so"', label) for text, label in rows)
    with pytest.raises(DataError, match=r"set --data\.delimiter"):
        rows_of(path)


def test_delimiters_that_mean_nothing(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", zip(TEXTS, LABELS, strict=True))
    for delimiter in ("||", "x", "", '"'):
        with pytest.raises(UsageError, match=r"data\.delimiter must be a single character"):
            data_of(path, delimiter=delimiter)
    with pytest.raises(UsageError, match=r"data\.delimiter is for \.csv and \.tsv files"):
        data_of(tmp_path / "t.parquet", delimiter=";")


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (
            "Text,Label",
            r"'text' is missing; there are Text, Label; did you mean 'Text'\? Name it with --data.text_columns",
        ),
        ("text,stars", r"'label' is missing; there are text, stars; name another with --data\.label_column"),
        ("text,label,label ", r"'label' is there more than once \(spelt 'label', 'label '\).*--data\.label_column"),
        ("review 0 of a film,a", r"the first row looks like data: write a header above it"),
        ("sep=,", r"the first line is a note for Excel: remove it"),
    ],
)
def test_columns_that_are_missing(header: str, problem: str, tmp_path: Path) -> None:
    rows = [(text, label, label)[: header.count(",") + 1] for text, label in zip(TEXTS, LABELS, strict=True)]
    with pytest.raises(DataError, match=problem) as caught:
        rows_of(write_csv(tmp_path / "t.csv", rows, header=header))
    assert "\n" not in str(caught.value)


def test_headers_are_cleaned_and_flags_too(tmp_path: Path) -> None:
    rows = list(zip(TEXTS, LABELS, strict=True))
    path = write_csv(tmp_path / "t.csv", rows, header="\ufeff text ,cate\u0301gorie\u00a0")
    assert rows_of(path, label_column=" cat\u00e9gorie") == Counter(rows)
    assert columns_of(path) == ["text ", "cate\u0301gorie\u00a0"] or columns_of(path)[1] == "cate\u0301gorie\u00a0"
    parquet = write_parquet(tmp_path / "t.parquet", **{"text ": TEXTS, " label": LABELS})
    assert rows_of(parquet) == Counter(rows)


@pytest.mark.parametrize("extension", [".csv", ".tsv", ".jsonl"])
def test_empty_lines_are_skipped_and_counted(extension: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = list(zip(TEXTS, LABELS, strict=True))
    if extension == ".jsonl":
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    else:
        separator = "," if extension == ".csv" else "\t"
        lines = [separator.join(row) for row in [("text", "label"), *rows]]
    (tmp_path / f"t{extension}").write_text("\n".join([*lines[:9], "", *lines[9:]]) + "\n\n")
    assert rows_of(tmp_path / f"t{extension}") == Counter(rows)
    assert f"2 empty line(s) skipped (lines 10, {len(lines) + 2})" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", "text,label\nx,a\ntext,label\ny,b\n", r"a\.csv, line 3: the header again"),
        ("b.csv", "text,label\nx,a\n\ufefftext,label\ny,b\n", r"b\.csv, line 3: the header again"),
        ("c.tsv", "text\tlabel\rx\ta\ry\tb\r", r"c\.tsv: the lines end in CR only"),
        ("d.jsonl", '[{"text": "x"},\n{"text": "y"}]', r"d\.jsonl: the file is one JSON array"),
        ("e.jsonl", '{\n "text": "x"\n}\n{\n "text": "y"\n}\n', r"e\.jsonl: its objects go over several lines"),
        ("f.csv", 'text,label\n"x\ny",a\nz\n', r"f\.csv, line 4: 1 fields where the header has 2"),
        ("g.tsv", '"text"\t"label"\n"x"\t"a"\n', r"names are in quotes.*set --data\.delimiter '\\t'"),
    ],
)  # fmt: skip
def test_tables_that_are_refused(name: str, content: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content.encode())
    with pytest.raises(SuiteError, match=problem) as caught:
        rows_of(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_quotes_in_tab_separated_tables_are_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [(f'"{text} ""x"""', label) for text, label in zip(TEXTS, LABELS, strict=True)]
    path = write_csv(tmp_path / "t.tsv", rows, header="text\tlabel", separator="\t")
    assert rows_of(path) == Counter(rows)
    assert "60 field(s) begin and end with a quote (lines 2, 3, 4, 5, 6 and 55 more)" in capfd.readouterr().err
    assert rows_of(path, delimiter="tab")[(f'{TEXTS[0]} "x"', "a")] == 1


def test_gzip_in_any_case(tmp_path: Path) -> None:
    rows = list(zip(TEXTS, LABELS, strict=True))
    content = write_csv(tmp_path / "t.csv", rows).read_bytes()
    (tmp_path / "T.CSV.GZ").write_bytes(gzip.compress(content))
    assert rows_of(tmp_path / "T.CSV.GZ") == Counter(rows)
    (tmp_path / "t.ndjson").write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in rows))
    assert rows_of(tmp_path / "t.ndjson") == Counter(rows)
