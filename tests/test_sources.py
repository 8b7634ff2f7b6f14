import gzip
import io
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from suite.errors import DataError, UsageError
from suite.sources import columns_of, data_folder, read_lines, read_parallel, read_standard_input, read_table


def written(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\r\nb", ["a", "b"]),
        ("a\n\nb\n\n", ["a", "", "b", ""]),
        ("\n", [""]),
        ("a\u2028b\u0085c\x0bd\x0ce\x1cf\rg\n", ["a\u2028b\u0085c\x0bd\x0ce\x1cf\rg"]),
        (" spaces \t\n", [" spaces \t"]),
        ("\ufeffä\n", ["ä"]),
    ],
)
def test_lines(tmp_path: Path, name: str, content: str, lines: list[str]):
    assert read_lines(written(tmp_path / name, content)) == lines


def test_wrong_bytes_are_named_by_line(tmp_path: Path):
    path = written(tmp_path / "a.txt", b"fine\ncaf\xe9\nfine\n\xff\n")
    expected = r"a.txt, line 2: byte 0xe9 at position 4 is not UTF-8; .*a.txt, line 4: byte 0xff at position 1"
    with pytest.raises(DataError, match=expected):
        read_lines(path)
    assert read_lines(path, encoding="latin-1")[1] == "café"
    with pytest.raises(UsageError, match="'latin-99' is not the name of an encoding"):
        read_lines(path, encoding="latin-99")


def test_many_wrong_lines_are_counted(tmp_path: Path):
    with pytest.raises(DataError, match=r"line 5: .*; and 7 more$"):
        read_lines(written(tmp_path / "a.txt", b"\xe9\n" * 12))


def test_pipes_are_read_where_asked_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="a folder or device where a file is needed"):
        read_lines(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"one\ntwo\n",), daemon=True)
    writer.start()
    assert read_lines(tmp_path / "pipe", pipes=True) == ["one", "two"]
    writer.join()
    with pytest.raises(DataError, match="the file is empty"):
        read_lines("/dev/null", pipes=True)
    with pytest.raises(DataError, match="a folder or device where a file is needed"):
        read_lines(tmp_path, pipes=True)


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(DataError, match="standard input is closed"):
        read_standard_input()


def test_lines_of_standard_input_that_are_not_utf8_are_all_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbffine\r\ncaf\xe9\n\nnot \xff\n")))
    expected = r"standard input, line 2: byte 0xe9 at position 4 is not UTF-8; convert it; .* line 4: byte 0xff at"
    with pytest.raises(DataError, match=expected):
        read_standard_input()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\ufefffine\r\n\nsame\x85line".encode())))
    assert read_standard_input() == ["fine", "", "same\x85line"]


def test_missing_file_names_near_ones(tmp_path: Path):
    written(tmp_path / "train.en.gz", "x")
    with pytest.raises(DataError, match=r"train\.en: no such file; near names there: train\.en\.gz"):
        read_lines(tmp_path / "train.en")
    with pytest.raises(DataError, match=r"zzz: no such file$"):
        read_lines(tmp_path / "zzz")
    with pytest.raises(DataError, match=r"and no such folder .*nowhere"):
        read_lines(tmp_path / "nowhere" / "a.txt")
    with pytest.raises(DataError, match="a folder or device where a file is needed"):
        read_lines(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["a.csv", "a.txt.gz"])
def test_empty_file(tmp_path: Path, name: str, content: bytes):
    with pytest.raises(DataError, match="the file is empty"):
        read_lines(written(tmp_path / name, content))


def test_damaged_gzip(tmp_path: Path):
    path = tmp_path / "a.gz"
    for data in (b"plain text", gzip.compress(b"some text, cut" * 40)[:-9], gzip.compress(b"abc" * 50)[:12] + b"\xff"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"a\.gz: not a whole gzip file"):
            read_lines(path)


def test_parallel(tmp_path: Path):
    one, two = written(tmp_path / "a.en", "a\nb\n"), written(tmp_path / "a.de", "x\u2028\ny\n")
    assert read_parallel([one, two]) == [("a", "x\u2028"), ("b", "y")]
    short = written(tmp_path / "a.fr", "x\n")
    with pytest.raises(DataError, match=r"a\.en has 2, .*a\.fr has 1; align"):
        read_parallel([one, short])
    with pytest.raises(DataError, match=r"b\.en: no such file.*; .*b\.de: no such file"):
        read_parallel([tmp_path / "b.en", tmp_path / "b.de"])
    with pytest.raises(UsageError, match="no files"):
        read_parallel([])


TABLES = {
    "t.csv": 'label,text,extra\n1,"a ""b"", c",x\n2,"two\nlines",y\n',
    "t.tsv": 'label\ttext\textra\n1\ta "b", c\tx\n2\ttwo "lines\ty\n',
    "t.jsonl": '{"label": 1, "text": "a \\"b\\", c"}\n{"text": "two\\nlines", "label": 2, "more": null}\n',
}
TEXTS = {
    "t.csv": ['a "b", c', "two\nlines"],
    "t.tsv": ['a "b", c', 'two "lines'],
    "t.jsonl": ['a "b", c', "two\nlines"],
}


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("name", TABLES)
def test_table(tmp_path: Path, name: str, ending: str):
    path = written(tmp_path / (name + ending), TABLES[name])
    assert read_table(path, columns=["text", "label"]) == list(zip(TEXTS[name], ["1", "2"], strict=True))
    assert read_table(path, columns=["label", "label"]) == [("1", "1"), ("2", "2")]


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("name", TABLES)
def test_columns_of_a_table(tmp_path: Path, name: str, ending: str):
    names = columns_of(written(tmp_path / (name + ending), TABLES[name]))
    assert names == ["label", "text", "more" if "json" in name else "extra"], "in JSON lines those of all rows"


def test_columns_of_tables_that_are_odd(tmp_path: Path):
    assert columns_of(written(tmp_path / "t.csv", '\ufeff"a\nb",c\r\n1,2\r\n')) == ["a\nb", "c"]
    for odd in ("[1]x\n", "3\n"):
        with pytest.raises(DataError, match=r"t\.jsonl, line 1"):
            columns_of(written(tmp_path / "t.jsonl", odd))
    pq.write_table(pa.table({"x": [1], "y": [2]}), tmp_path / "t.parquet")
    assert columns_of(tmp_path / "t.parquet") == ["x", "y"]
    for ending in ("csv", "tsv", "jsonl"):
        with pytest.raises(DataError, match="the file is empty"):
            columns_of(written(tmp_path / f"e.{ending}", ""))
    with pytest.raises(DataError, match=r"t\.parquet: not a Parquet file"):
        columns_of(written(tmp_path / "t.parquet", b"not a table at all"))
    with pytest.raises(DataError, match="no such file"):
        columns_of(tmp_path / "none.parquet")


def test_table_format_can_be_set(tmp_path: Path):
    path = written(tmp_path / "t.data", "\ufeffa,b\r\n1,2\r\n")
    assert read_table(path, columns=["a", "b"], format="csv") == [("1", "2")]
    with pytest.raises(UsageError, match=r"t\.data has no table extension.*\.csv, \.tsv"):
        read_table(path, columns=["a"])
    with pytest.raises(UsageError, match="has no table extension"):
        read_table(written(tmp_path / "t.parquet.gz", "a"), columns=["a"])
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "nofolder", columns=["a"])
    with pytest.raises(UsageError, match="columns must name"):
        read_table(path, columns=[])
    with pytest.raises(UsageError, match="as a list, not 'a'"):
        read_table(path, columns="a")


@pytest.mark.parametrize("separator", [",", "\t"])
def test_table_columns_and_widths(tmp_path: Path, separator: str):
    path = tmp_path / ("t.csv" if separator == "," else "t.tsv")
    written(path, "a,b\n1,2\n1\n1,2,3\n".replace(",", separator))
    with pytest.raises(DataError, match=r"line 3: 1 fields where the header has 2; .*line 4: 3 fields"):
        read_table(path, columns=["a"])
    with pytest.raises(DataError, match=r"column 'c' is missing; there are a, b; .*column 'd' is missing"):
        read_table(path, columns=["a", "c", "d"])
    written(path, "a,b,a\n1,2,3\n".replace(",", separator))
    with pytest.raises(DataError, match="column 'a' is there more than once"):
        read_table(path, columns=["a"])
    written(path, "a,b\n".replace(",", separator))
    with pytest.raises(DataError, match="the table has no rows"):
        read_table(path, columns=["a"])


def test_csv_line_numbers_are_of_the_row_start(tmp_path: Path):
    path = written(tmp_path / "t.csv", 'a,b\n"1\n\n1",2\n3\n4,"5\n6\n')
    with pytest.raises(DataError, match=r"t\.csv, line 6: not CSV \(unexpected end of data\)"):
        read_table(path, columns=["a"])
    written(path, 'a,b\n"1\n\n1",2\n3\n\n')
    with pytest.raises(DataError, match=r"t\.csv, line 5: 1 fields where the header has 2$"):
        read_table(path, columns=["a"])
    written(path, 'a,b\n"1"x,2\n')
    with pytest.raises(DataError, match=r"t\.csv, line 2: not CSV"):
        read_table(path, columns=["a"])


def test_csv_takes_long_fields(tmp_path: Path):
    path = written(tmp_path / "t.csv", "a\n" + "x" * 200_000 + "\n")
    assert len(read_table(path, columns=["a"])[0][0]) == 200_000


def test_table_bytes_are_named_by_line(tmp_path: Path):
    for name in ("t.csv", "t.tsv", "t.jsonl"):
        path = written(tmp_path / name, b'a\n"x\n\xe9"\n')
        with pytest.raises(DataError, match=r"line 3: byte 0xe9 at position 1 is not UTF-8"):
            read_table(path, columns=["a"])


def test_jsonl_problems_are_gathered(tmp_path: Path):
    rows = ['{"a": "x"}', "{", "[1]", '{"b": 1, "c": 2}', '{"a": "y", "b": 1, "b": 2}', '{"a": "y"}']
    with pytest.raises(DataError) as caught:
        read_table(written(tmp_path / "t.jsonl", "\n".join(rows)), columns=["a"])
    for expected in (
        "line 2: not JSON",
        "line 3: an object",
        "line 5: the key 'b' is there 2 times",
    ):
        assert expected in str(caught.value)
    assert "line 1" not in str(caught.value)
    assert "line 4" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"a": [1]}', "line 1: column 'a' is a list; text or a number is needed"),
        ('{"a": Infinity}', "line 1: column 'a' is infinite"),
        ('{"a": "\\ud800"}', "line 1: column 'a' has half of a surrogate pair"),
        ("[" * 100_000, "line 1: "),
    ],
)
def test_jsonl_odd_values(tmp_path: Path, row: str, reason: str):
    with pytest.raises(DataError, match=reason):
        read_table(written(tmp_path / "t.jsonl", row), columns=["a"])


def test_json_numbers_become_text(tmp_path: Path):
    path = written(tmp_path / "t.jsonl", '{"a": 1, "b": 0.5, "c": true}\n')
    assert read_table(path, columns=["a", "b", "c"]) == [("1", "0.5", "true")]


def test_parquet(tmp_path: Path):
    path = tmp_path / "t.parquet"
    text = pa.array(["ä", "b\nc"]).dictionary_encode()
    pq.write_table(pa.table({"label": [1, 0], "text": text, "none": pa.array([None, "x"])}), path)
    assert read_table(path, columns=["text", "label"]) == [("ä", "1"), ("b\nc", "0")]
    with pytest.raises(DataError, match="column 'words' is missing; there are label, text, none"):
        read_table(path, columns=["words"])
    assert read_table(path, columns=["none"]) == [("",), ("x",)]
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), path)
    with pytest.raises(DataError, match="the table has no rows"):
        read_table(path, columns=["a"])


def test_parquet_that_is_none(tmp_path: Path):
    path = written(tmp_path / "t.parquet", b"not a table at all")
    with pytest.raises(DataError, match=r"t\.parquet: not a Parquet file") as caught:
        read_table(path, columns=["a"])
    assert "\n" not in str(caught.value)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="not a Parquet file"):
        read_table(path, columns=["a"])
    with pytest.raises(DataError, match=r"no such file; near names there: t\.parquet"):
        read_table(tmp_path / "tt.parquet", columns=["a"])


def test_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = ["train.en", "train.de"]
    monkeypatch.delenv("SUITE_DATA_DIR", raising=False)
    with pytest.raises(DataError, match=r"SUITE_DATA_DIR is not set: .*pairs/ holds train\.en, train\.de"):
        data_folder("pairs", files=files)
    monkeypatch.setenv("SUITE_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"pairs: no such folder .*put train\.en, train\.de there"):
        data_folder("pairs", files=files)
    (tmp_path / "pairs").mkdir()
    written(tmp_path / "pairs" / "train.en", "x")
    with pytest.raises(DataError, match=r"pairs lacks train\.de: put"):
        data_folder("pairs", files=files)
    written(tmp_path / "pairs" / "train.de", "x")
    assert data_folder("pairs", files=files) == tmp_path / "pairs"
