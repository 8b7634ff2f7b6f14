"""Formats that are no text and no table: refused by extension and by content, wherever a file is named."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from domains.text.language_data import LanguageData
from suite.console import forget_notices
from suite.errors import DataError, SuiteError, UsageError
from suite.file_formats import BY_EXTENSION, format_of_bytes, refuse_extension
from suite.sources import columns_of, is_table, read_lines, read_parallel, read_standard_input, read_table
from suite.vectors import read_vectors
from suite.vocabulary import SPECIALS, Tokenizer
from tests.commands import QUIET, assert_one_line, run, trained

NAMED = [".json", ".xlsx", ".xls", ".ods", ".feather", ".arrow", ".pkl", ".npy", ".hdf5", ".zip", ".bz2", ".xz", ".zst",
         ".tar.gz", ".tgz", ".docx", ".pdf", ".JSON", ".Xlsx", ".json.gz", ".csv.zip", ".tab"]  # fmt: skip


@pytest.mark.parametrize("extension", NAMED)
def test_known_formats_are_refused_by_name(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"file{extension}"
    path.write_bytes(b"a text that could be read\n")
    words = Tokenizer([*SPECIALS, " owl"], level="word")
    readers: list[Any] = [
        lambda: read_lines(path),
        lambda: read_table(path, columns=["text"]),
        lambda: is_table(path),
        lambda: columns_of(path),
        lambda: read_parallel([path, path]),
        lambda: read_vectors(path, words, counts=[0] * 5),
        lambda: LanguageData(dataset="files", train=str(path)).documents("train"),
    ]
    for read in readers:
        with pytest.raises(UsageError, match=r"is not read here \(.*\); ") as caught:
            read()
        assert str(path) in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        read_lines(tmp_path / f"other{extension}")


def test_commands_refuse_them_too(tmp_path: Path) -> None:
    path = tmp_path / "reviews.json"
    path.write_text('[{"text": "fine", "label": "a"}]')
    flags = ("--data.dataset", "files", "--data.train", path, *QUIET, "--runs", tmp_path / "runs")
    for task in ("classification", "language_model"):
        ran = run("fit", "--domain", "text", "--task", task, *flags)
        assert_one_line(ran, 2, "reviews.json: .json is not read here", ".jsonl")
    assert_one_line(run("fit", "--domain", "translation", *flags), 2, ".json is not read here")
    assert_one_line(run("predict", "--checkpoint", trained(), path), 2, ".json is not read here")


@pytest.mark.parametrize("name", ["train.pt", "train.kv", "notes.2024", "README", "a.en", "a.md", "x.csv.txt", "a.dat"])
def test_other_extensions_are_no_problem(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("uma frase\n")
    refuse_extension(Path(name))
    assert read_lines(tmp_path / name) == ["uma frase"]
    assert not is_table(tmp_path / name)


def contents() -> dict[str, bytes]:
    """Real files of other formats, by what a message calls them."""
    table = pa.table({"text": ["a"], "label": ["b"]})
    made: dict[str, bytes] = {"gzip": gzip.compress(b"text,label\na,b\n"), "UTF-16": "text,label\n".encode("utf-16")}
    for name, write in (("Parquet", pq.write_table), ("Arrow", pyarrow.feather.write_feather)):
        buffer = io.BytesIO()
        write(table, buffer)
        made[name] = buffer.getvalue()
    buffer = io.BytesIO()
    numpy.save(buffer, numpy.zeros(3))
    made["NumPy"] = buffer.getvalue()
    for name, member in (("Excel", "xl/workbook.xml"), ("word processor", "word/document.xml"), ("zip", "a.txt")):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(member, "x" * 50)
        made[name] = buffer.getvalue()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    made["tar"] = buffer.getvalue()
    return {**made, "PDF": b"%PDF-1.7\n", "pickle": b"\x80\x04\x95\x05", "binary": "text,label\n".encode("utf-16-le")}


@pytest.mark.parametrize("name", sorted(contents()))
@pytest.mark.parametrize("extension", [".csv", ".tsv", ".jsonl", ".txt"])
def test_content_that_is_no_text_is_refused_by_name(name: str, extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{extension}"
    path.write_bytes(contents()[name])
    with pytest.raises(DataError, match=rf"the content is .*{name}") as caught:
        read_lines(path) if extension == ".txt" else read_table(path, columns=["text"])
    assert "\n" not in str(caught.value)
    if name != "gzip":
        (tmp_path / f"t{extension}.gz").write_bytes(gzip.compress(contents()[name]))
        with pytest.raises(DataError, match=rf"the content is .*{name}"):
            read_lines(tmp_path / f"t{extension}.gz")


def test_content_of_parquet_and_of_gzip_in_gzip(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(contents()["Excel"])
    with pytest.raises(DataError, match=r"t\.parquet: the content is an Excel workbook, not Parquet"):
        read_table(tmp_path / "t.parquet", columns=["text"])
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(contents()["gzip"]))
    with pytest.raises(DataError, match="compressed twice with gzip"):
        read_table(tmp_path / "t.csv.gz", columns=["text"])


def test_standard_input_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(contents()["gzip"])))
    with pytest.raises(DataError, match="standard input: the content is gzip-compressed"):
        read_standard_input()


def test_text_is_never_taken_for_something_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    forget_notices()
    for text in ("PK is a name\n", "BZh and more text\n", "ID3 tags\n", "{\\rt\n", "ab\0cd\n"):
        assert format_of_bytes(text.encode()) is None
        (tmp_path / "t.txt").write_text(text)
        assert read_lines(tmp_path / "t.txt") == [text.removesuffix("\n")]
    assert "t.txt: 1 NUL characters, first in line 1; they are kept" in capfd.readouterr().err
    (tmp_path / "b.txt").write_text("\ufeffone\n\ufefftwo\n")
    assert read_lines(tmp_path / "b.txt") == ["one", "\ufefftwo"]
    assert "1 byte order marks inside it (U+FEFF), first in line 2" in capfd.readouterr().err


def test_lines_that_end_in_cr_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.txt").write_bytes(b"one\rtwo\r")
    with pytest.raises(DataError, match="the lines end in CR only"):
        read_lines(tmp_path / "t.txt")
    (tmp_path / "t.txt").write_bytes(b"one\rtwo\nthree")
    assert read_lines(tmp_path / "t.txt") == ["one\rtwo", "three"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\rtwo")))
    with pytest.raises(SuiteError, match="standard input: the lines end in CR only"):
        read_standard_input()


def test_extensions_are_in_lower_case_with_a_dot() -> None:
    assert all(extension == extension.lower() and extension.startswith(".") for extension in BY_EXTENSION)
    assert not {".pt", ".kv", ".en", ".txt", ".csv", ".gz", ".md"} & set(BY_EXTENSION)
