"""``predict`` from tables: rows as ``fit`` reads them, in order, with their ids; and from text files and patterns."""

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import toy
from tests.commands import TOY_CONFIGS, Ran, assert_one_line, fit_toy, run, trained
from tests.predicted import BAD, GOOD, predict

TEXTS = [GOOD, 'two\nlines, of "text"', BAD, "", "tab\there", "\u00fcber \u6f22\u5b57"]
IDS = [f"row {number}" for number in range(len(TEXTS))]


def write(path: Path, texts: Sequence[str] = TEXTS, ids: Sequence[str] = IDS, *, column: str = "review") -> Path:
    """A table of ids and texts in the format of its extension; without a label."""
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"id": list(ids), column: list(texts)}), path)
        return path
    plain = path.with_name("plain")
    with plain.open("w", encoding="utf-8", newline="") as file:
        if kind in ("jsonl", "ndjson"):
            file.writelines(json.dumps({"id": key, column: text}) + "\n" for key, text in zip(ids, texts, strict=True))
        elif kind == "csv":
            csv.writer(file).writerows([("id", column), *zip(ids, texts, strict=True)])
        else:
            file.writelines("\t".join(row) + "\n" for row in [("id", column), *zip(ids, texts, strict=True)])
    data = plain.read_bytes()
    plain.unlink()
    path.write_bytes(gzip.compress(data) if path.name.lower().endswith(".gz") else data)
    return path


def results(*argv: Any, **options: Any) -> list[dict[str, Any]]:
    ran = predict(*argv, "--format", "jsonl", **options)
    assert ran.status == 0, ran
    return [json.loads(line) for line in ran.lines]


NAMES = ["a.csv", "a.CSV", "a.csv.gz", "a.jsonl", "a.JSONL", "a.Jsonl.gz", "a.ndjson", "a.parquet", "a.Parquet"]


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_table_in_order_with_their_ids(name: str, tmp_path: Path) -> None:
    found = results(write(tmp_path / name))
    assert [each["input"] for each in found] == TEXTS
    assert [each["id"] for each in found] == IDS
    assert [each["index"] for each in found] == list(range(len(TEXTS)))
    assert [found[0]["label"], found[2]["label"]] == ["pos", "neg"]
    lines = results("-", stdin=f"{GOOD}\n{BAD}\n".encode())
    for line, row in zip(lines, (found[0], found[2]), strict=True):
        assert line["probabilities"] == pytest.approx(row["probabilities"], abs=1e-6)
    assert all("id" not in each and "file" not in each for each in lines)


@pytest.mark.parametrize("name", ["a.tsv", "a.TSV", "a.tsv.gz"])
def test_rows_between_tabs(name: str, tmp_path: Path) -> None:
    texts = [GOOD, '"quoted" text', BAD]
    found = results(write(tmp_path / name, texts, IDS[:3]))
    assert [(each["id"], each["input"]) for each in found] == list(zip(IDS, texts, strict=False))


def test_it_is_reported_that_rows_are_read(tmp_path: Path) -> None:
    ran = predict(write(tmp_path / "a.csv"))
    assert ran.status == 0
    assert len(ran.lines) == len(TEXTS)
    assert "6 rows are read as a table, column 'review' (--data.text_columns); --lines reads" in ran.err
    assert "1 of 6 rows have no text; they are predicted as empty texts" in ran.err
    ran = predict(write(tmp_path / "a.jsonl"))
    assert "--lines" not in ran.err


def test_columns_are_those_of_the_training_or_as_given(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", [GOOD, BAD], ["1", "2"], column="words")
    assert_one_line(predict(table), 1, "a.csv", "'review' is missing", "id, words", "--data.text_columns")
    assert [each["input"] for each in results(table, "--data.text_columns", "[words]")] == [GOOD, BAD]
    both = results(table, "--data.text_columns", "[id, words]")
    assert [each["input"] for each in both] == [f"1 {GOOD}", f"2 {BAD}"]
    assert [each["id"] for each in both] == ["1", "2"]


def test_another_delimiter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f'key;review\nx;"{GOOD}"\ny;{BAD}\n')
    assert_one_line(predict(tmp_path / "a.csv"), 1, "separated by ';'", "--data.delimiter ';'")
    found = results(tmp_path / "a.csv", "--data.delimiter", ";", "--id_column", "key")
    assert [(each["id"], each["input"]) for each in found] == [("x", GOOD), ("y", BAD)]


def test_lines_of_text_begin_with_a_named_id(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", [GOOD, BAD], ["first\tone", "second\none"])
    plain = predict(table).lines
    assert [line.split("\t")[0] for line in plain] == ["pos", "neg"]
    named = predict(table, "--id_column", "id").lines
    assert named == [f"first\\tone\t{plain[0]}", f"second\\none\t{plain[1]}"]


def test_any_column_may_be_the_id(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"key": key, "review": GOOD}) + "\n" for key in (7, 2.5, True, None, "x"))
    )
    found = results(tmp_path / "a.jsonl", "--id_column", "key")
    assert [each["id"] for each in found] == ["7", "2.5", "true", "", "x"]
    assert "id" not in results(tmp_path / "a.jsonl")[0]
    refused = predict(tmp_path / "a.jsonl", "--id_column", "nope")
    assert_one_line(refused, 1, "'nope' is missing", "key, review", "--id_column")


def test_a_column_called_id_never_refuses_good_data(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": {"a": 1}, "review": GOOD}) + "\n")
    ran = predict(tmp_path / "a.jsonl", "--format", "jsonl")
    assert ran.status == 0, ran
    assert "id" not in json.loads(ran.lines[0])
    assert "column 'id' cannot be read as text, so results have no id" in ran.err
    assert_one_line(predict(tmp_path / "a.jsonl", "--id_column", "id"), 1, "a.jsonl, line 1", "'id' is a dict")
    (tmp_path / "a.csv").write_text(f'id, id,review\n1,2,"{GOOD}"\n')
    assert "id" not in results(tmp_path / "a.csv")[0]


def test_json_lines_are_never_lines_of_text(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.JSONL.gz", "a.parquet"):
        assert_one_line(predict(write(tmp_path / name), "--lines"), 2, name, "--lines is for .csv and .tsv")
    ran = predict(stdin=json.dumps({"review": GOOD}).encode())
    assert ran.status == 0
    assert "standard input looks like JSON lines" in ran.err


@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.tsv", "a.csv.gz"])
def test_a_table_can_be_read_as_lines(name: str, tmp_path: Path) -> None:
    found = results(write(tmp_path / name, [GOOD, BAD], ["1", "2"]), "--lines")
    mark = "," if "csv" in name.lower() else "\t"
    expected = (
        [f"id{mark}review", f'1,"{GOOD}"', f'2,"{BAD}"'] if mark == "," else ["id\treview", f"1\t{GOOD}", f"2\t{BAD}"]
    )
    assert [each["input"] for each in found] == expected


@pytest.mark.parametrize("name", ["a.json", "a.XLSX", "a.ods", "a.json.gz", "a.feather"])
@pytest.mark.parametrize("flags", [(), ("--lines",)])
def test_formats_that_are_not_read_are_named(name: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / name).write_text("[]")
    ran = predict(tmp_path / name, *flags)
    assert ran.status in (1, 2)
    assert name in ran.err
    assert not ran.out


def test_several_files_keep_their_order_and_their_names(tmp_path: Path) -> None:
    table = write(tmp_path / "b.jsonl", [GOOD, BAD], ["x", "y"])
    text = tmp_path / "a.txt"
    text.write_text(f"{BAD}\n\n{GOOD}\n")
    found = results(table, text, "-", table, stdin=b"from a pipe\n")
    assert [each["index"] for each in found] == list(range(8))
    assert [each["input"] for each in found] == [GOOD, BAD, BAD, "", GOOD, "from a pipe", GOOD, BAD]
    assert [each["file"] for each in found] == [*[str(table)] * 2, *[str(text)] * 3, "-", *[str(table)] * 2]
    assert [each.get("id") for each in found] == ["x", "y", None, None, None, None, "x", "y"]
    assert_one_line(predict("-", "-", stdin=b"a\n"), 2, "standard input (-) is named more than once")


def test_patterns_stand_for_files(tmp_path: Path) -> None:
    for name in ("p2.txt", "p10.txt", "p1.txt"):
        (tmp_path / name).write_text(f"{name}\n")
    (tmp_path / "odd[1].txt").write_text("odd\n")
    assert [each["input"] for each in results(tmp_path / "p*.txt")] == ["p1.txt", "p10.txt", "p2.txt"]
    assert [each["input"] for each in results(tmp_path / "odd[1].txt")] == ["odd"], "a name that exists is no pattern"
    assert_one_line(predict(tmp_path / "q*.txt"), 1, "q*.txt", "no such file")


def test_problems_of_all_files_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,review\n1,one\n2\n")
    (tmp_path / "b.txt").write_bytes(b"fine\n\xff\n")
    ran = predict(tmp_path / "a.csv", tmp_path / "b.txt", tmp_path / "c.csv")
    assert_one_line(ran, 1, "a.csv, line 3", "b.txt, line 2", "c.csv: no such file")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.tsv"])
def test_a_table_without_rows_is_empty_input(name: str, tmp_path: Path) -> None:
    table = write(tmp_path / name, [], [])
    ran = predict(table)
    assert (ran.status, ran.out) == (0, "")
    assert "the input is empty, so nothing is predicted" in ran.err
    assert len(results(table, write(tmp_path / f"b{name}", [GOOD], ["x"]))) == 1


def test_an_id_without_a_table_is_refused(tmp_path: Path) -> None:
    assert_one_line(predict("--id_column", "id", stdin=b"a\n"), 2, "--id_column id is for tables")
    table = write(tmp_path / "a.csv")
    assert_one_line(predict(table, "--lines", "--id_column", "id"), 2, "--id_column id is for tables")


def test_language_models_continue_rows(tmp_path: Path) -> None:
    texts = ["ab", "two\nlines", ""]
    table = write(tmp_path / "a.CSV", texts, IDS[:3])
    found = results(table, "--length", 4, name="language")
    assert [(each["id"], each["input"]) for each in found] == list(zip(IDS, texts, strict=False))
    assert all(each["continuation"] or not each["input"] for each in found)
    lines = predict(table, "--length", 4, name="language").lines
    assert lines[1].startswith("two\\nlines")
    assert_one_line(predict(table, "--data.text_column", "nope", name="language"), 1, "--data.text_column")


def translate(*argv: Any) -> Ran:
    return run("predict", "--checkpoint", trained(), *argv)


def test_translation_reads_the_source_column(tmp_path: Path) -> None:
    sentences = ["A forest is white.", "The windows are modern.", ""]
    (tmp_path / "a.txt").write_text("".join(f"{text}\n" for text in sentences))
    expected = translate(tmp_path / "a.txt").lines
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        table = write(tmp_path / name, sentences, IDS[:3], column="source")
        assert translate(table).lines == expected
        named = translate(table, "--id_column", "id", "--beam_size", 2, "--n_best", 2).lines
        assert [line.split("\t")[:2] for line in named][::2] == [["row 0", "0"], ["row 1", "1"], ["row 2", "2"]]
        other = write(tmp_path / name, sentences, IDS[:3], column="english")
        assert_one_line(translate(other), 1, "'source' is missing", "--data.columns")
        assert translate(other, "--data.columns", "[english, unused]").lines == expected


def test_a_domain_of_lines_refuses_tables(tmp_path: Path) -> None:
    assert fit_toy("--runs", tmp_path, "--name", "a").status == 0
    (tmp_path / "a.csv").write_text("text\n1\n")

    def predicted(*argv: Any) -> Ran:
        return run("predict", "--checkpoint", tmp_path / "toy" / "a", *argv, application=toy, configs=TOY_CONFIGS)

    assert_one_line(predicted(tmp_path / "a.csv"), 2, "a.csv is a table, but this model predicts lines: set --lines")
    assert "--data.text" not in predicted("--help").out
