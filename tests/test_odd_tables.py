"""Odd tables and labels of ``tests/odd_inputs`` and more of their kinds: the right rows and labels, or one error."""

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domains.text.data import TextData
from domains.text.language_data import LanguageData
from domains.text.language_model import LanguageModule
from suite.console import forget_notices
from suite.errors import DataError, UsageError
from suite.tables import read_table
from tests.commands import QUIET, ROOT, assert_one_line, run

ODD = ROOT / "tests" / "odd_inputs"
TEXTS = [f"review {number} of a film" for number in range(60)]
LABELS = ["ab"[number % 2] for number in range(60)]
SMALL = ("--model.embedding_size", 4, "--model.encoder.hidden_size", 4, "--trainer.max_steps", 1)


@pytest.fixture(autouse=True)
def _new_command() -> None:
    forget_notices()


def data_of(train: Path, **settings: Any) -> TextData:
    return TextData(dataset="files", train=str(train), **{"held_out": 0.2, **settings})


def rows_of(train: Path, **settings: Any) -> Counter[tuple[str, str]]:
    """The texts and labels of all splits, after everything was loaded."""
    data = data_of(train, **settings)
    for split in ("train", "val", "test"):
        data.examples(split)
    return Counter((item.text, item.label) for item in data.items("all"))


def fit(train: Path, folder: Path, *flags: Any) -> Any:
    common = ("--domain", "text", "--data.dataset", "files", "--data.train", train, "--runs", folder, "--name", "run")
    return run("fit", *common, *SMALL, *QUIET, *flags)


def write_csv(path: Path, rows: Iterable[Sequence[Any]], *, header: str = "text,label", separator: str = ",") -> Path:
    lines = [header, *(separator.join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("name", "labels", "changed"),
    [
        ("trailing_space.csv", {"neg": 60, "pos": 60}, "24 of 120 values"),
        ("nfc_nfd.csv", {"n\u00e9gatif": 60, "\u00e9t\u00e9": 60}, "60 of 120 values"),
        ("newline_tab_label.csv", {"neg\tative": 60, "pos\nitive": 60}, ""),
    ],
)
def test_labels_of_one_name_are_one_class(
    name: str, labels: dict[str, int], changed: str, capfd: pytest.CaptureFixture[str]
) -> None:
    found = rows_of(ODD / "text-labels" / name)
    assert Counter(label for _, label in found.elements()) == labels
    assert len(found) == len({text for text, _ in found}), "no text has two labels"
    said = capfd.readouterr().err
    assert said.count("\n") == (1 if changed else 0)
    assert changed in said
    assert data_of(ODD / "text-labels" / name).assets["labels"] == sorted(labels)


def test_tabs_and_line_breaks_of_labels_are_escaped(tmp_path: Path) -> None:
    ran = fit(ODD / "text-labels" / "newline_tab_label.csv", tmp_path)
    assert ran.status == 0, ran.err
    assert sum(line.startswith(("  neg\\tative ", "  pos\\nitive ")) for line in ran.lines) == 2
    predicted = run("predict", "--checkpoint", tmp_path / "text" / "run", stdin=b"the book was cold\nthe song\n")
    assert len(predicted.lines) == 2
    for line in predicted.lines:
        label, probability = line.split("\t")
        assert label in ("neg\\tative", "pos\\nitive")
        assert 0.5 <= float(probability) <= 1
    tested = run("evaluate", "--checkpoint", tmp_path / "text" / "run", "--output", tmp_path / "results.jsonl")
    assert tested.status == 0, tested.err
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {each["target"] for each in results} == {"neg\tative", "pos\nitive"}


def test_a_continuation_is_one_line() -> None:
    result = {"input": "a\tb", "continuation": " c\nd\u2028"}
    assert LanguageModule.lines(result) == ["a\\tb c\\nd\\u2028"]


@pytest.mark.parametrize(
    ("name", "count", "first"), [("float_nan.parquet", 1, "row 6"), ("float_many_nan.parquet", 15, "rows 1, 9, 17")]
)
def test_labels_that_are_nan_are_counted(name: str, count: int, first: str, tmp_path: Path) -> None:
    parts = (f"{count} of 120 rows have no value in column 'label' ({first}", "fill them in or remove the rows")
    assert_one_line(fit(ODD / "text-tables" / name, tmp_path), 1, name, *parts)


def missing_labels(folder: Path) -> list[Path]:
    """The same table with every tenth label missing, in each way that formats have."""
    kept = [label if number % 10 else None for number, label in enumerate(LABELS)]
    files = [write_csv(folder / f"{name}.csv", zip(TEXTS, [label or empty for label in kept], strict=True))
             for name, empty in (("empty", ""), ("spaces", "  "))]  # fmt: skip
    files.append(
        write_csv(
            folder / "t.tsv",
            zip(TEXTS, [label or "" for label in kept], strict=True),
            header="text\tlabel",
            separator="\t",
        )
    )
    for name, value in (("null", None), ("nan", float("nan")), ("blank", " "), ("absent", ...)):
        records = [
            {"text": text} if label is None and value is ... else {"text": text, "label": label or value}
            for text, label in zip(TEXTS, kept, strict=True)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
        files.append(folder / f"{name}.jsonl")
    files.append(write_parquet(folder / "null.parquet", text=TEXTS, label=kept))
    files.append(write_parquet(folder / "dictionary.parquet", text=TEXTS, label=pa.array(kept).dictionary_encode()))
    times = pa.array([None if label is None else 0 for label in kept], pa.timestamp("s")).cast(pa.string())
    files.append(write_parquet(folder / "times.parquet", text=TEXTS, label=times))
    return files


def test_missing_labels_are_reported_alike_in_every_format(tmp_path: Path) -> None:
    for path in missing_labels(tmp_path):
        with pytest.raises(DataError, match=r"6 of 60 rows have no value in column 'label' \((lines|rows) \d+, \d+"):
            rows_of(path)


def test_missing_texts_are_empty_in_every_format(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    texts = [None if number % 10 == 0 else text for number, text in enumerate(TEXTS)]
    records = [{"text": text, "label": label} for text, label in zip(texts, LABELS, strict=True)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
    write_csv(tmp_path / "t.csv", [(text or "", label) for text, label in zip(texts, LABELS, strict=True)])
    write_parquet(tmp_path / "t.parquet", text=texts, label=LABELS)
    counts = []
    for name in ("t.jsonl", "t.csv", "t.parquet"):
        assert rows_of(tmp_path / name) == rows_of(tmp_path / "t.csv")
        said = capfd.readouterr().err
        counts.append(next(line for line in said.splitlines() if "training texts are empty and left out" in line))
        assert "val texts are empty" in said or "test texts are empty" in said
    assert len(set(counts)) == 1


def test_the_use_of_a_group_column_is_reported_once(tmp_path: Path) -> None:
    path = ODD / "text-tables" / "group_incidental.csv"
    ran = fit(path, tmp_path)
    assert ran.status == 0, ran.err
    said = f"data: {path}: each of the 3 groups in column 'group' stays whole in one split"
    assert ran.err.count(said) == 1
    assert "--data.group_column null" in ran.err
    data = data_of(path)
    groups = [{item.group for item in data.items(split)} for split in ("train", "val", "test")]
    assert sorted(map(len, groups)) == [1, 1, 1]
    assert {item.group for item in data_of(path, group_column=None).items("all")} == {None}


def test_a_column_in_another_case_is_not_used_and_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [(*row, "test") for row in zip(TEXTS, LABELS, strict=True)]
    path = write_csv(tmp_path / "t.csv", rows, header="text,label,Split")
    assert {item.split for item in data_of(path).items("all")} == {None}
    assert "column 'Split' is not used" in capfd.readouterr().err
    assert {item.split for item in data_of(path, split_column="Split").items("test")} == {"test"}


def test_a_group_column_of_another_role_is_no_group(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", zip(TEXTS, LABELS, strict=True), header="text,group")
    data = data_of(path, label_column="group")
    assert {item.group for item in data.items("all")} == {None}
    assert data.assets["labels"] == ["a", "b"]


def test_groups_of_later_rows_and_missing_groups(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    records = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    later = [{**record, "group": number // 6} if number > 2 else record for number, record in enumerate(records)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, later)))
    items = data_of(tmp_path / "t.jsonl").items("all")
    assert Counter(item.group for item in items)[None] == 3
    assert "(3 rows without one stand alone)" in capfd.readouterr().err
    groups = [float("nan") if number % 2 else float(number // 6) for number in range(60)]
    found = data_of(write_parquet(tmp_path / "t.parquet", text=TEXTS, label=LABELS, group=groups)).items("all")
    assert Counter(item.group for item in found)[None] == 30


SPELLINGS = ["Train", "training", "TEST", "validation", "dev "]


def test_usual_spellings_of_splits_are_read_and_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [
        (text, label, SPELLINGS[number % 5]) for number, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))
    ]
    data = data_of(write_csv(tmp_path / "t.csv", rows, header="text,label,split"))
    assert [len(data.items(split)) for split in ("train", "val", "test")] == [24, 24, 12]
    said = capfd.readouterr().err
    assert "column 'split' gives the splits (train 24, val 24, test 12)" in said
    assert "'validation', 'dev' in column 'split' read as val" in said
    rows[0] = (*rows[0][:2], "held-out")
    with pytest.raises(DataError, match=r"split must be train, val, test or empty, got 'held-out' in line 2"):
        data_of(write_csv(tmp_path / "t.csv", rows, header="text,label,split")).items("train")


def test_splits_that_folds_ignore_are_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [(*row, "test" if number % 3 else "train") for number, row in enumerate(zip(TEXTS, LABELS, strict=True))]
    data = data_of(write_csv(tmp_path / "t.csv", rows, header="text,label,split"), folds=3)
    assert len(data.items("test")) == 20
    assert "splits that items have are ignored, as folds are made of all items" in capfd.readouterr().err


def test_a_semicolon_is_named_and_can_be_set(tmp_path: Path) -> None:
    path = ODD / "text-tables" / "semicolon.csv"
    assert_one_line(fit(path, tmp_path), 1, "semicolon.csv", "separated by ';' rather than ','", "--data.delimiter ';'")
    found = rows_of(path, delimiter=";")
    assert Counter(label for _, label in found.elements()) == {"0": 60, "1": 60}
    assert found[("the book was weak stale thin tired .", "0")] == 1
    assert fit(path, tmp_path, "--data.delimiter", ";").status == 0


def test_a_repeated_key_is_an_error_with_its_line(tmp_path: Path) -> None:
    ran = fit(ODD / "text-tables" / "dupkeys.jsonl", tmp_path)
    assert_one_line(ran, 1, "dupkeys.jsonl, line 1: the key 'label' is there 2 times", "and 115 more")
    lines = [json.dumps({"text": text, "label": label}) for text, label in zip(TEXTS, LABELS, strict=True)]
    lines[3] = '{"text": "x", "label": "a", "more": [{"y": 1, "y": 2}]}'
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"t\.jsonl, line 4: the key 'y' is there 2 times in one object"):
        rows_of(tmp_path / "t.jsonl")


@pytest.mark.parametrize("name", ["REVIEWS.CSV", "reviews.csv"])
def test_extensions_in_capitals_are_tables(name: str) -> None:
    path = ODD / "lm-upper-csv" / name
    data = LanguageData(dataset="files", train=str(path), held_out=0.1)
    documents = [text for split in ("train", "val", "test") for text in data.documents(split)]
    assert len(documents) == 120
    assert sorted(documents) == sorted(
        row[0] for row in read_table(ODD / "lm-upper-csv" / "reviews.csv", columns=["text"])
    )
    assert "the book was weak stale thin tired ." in documents


def test_tables_are_no_prose_in_a_vocabulary(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", zip(TEXTS, LABELS, strict=True))
    more = write_csv(tmp_path / "MORE.CSV", [("zebra", "unread")])
    pieces = set(data_of(path, vocabulary_texts=[str(more)]).tokenizer.pieces)
    assert " zebra" in pieces
    assert " unread" not in pieces
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(UsageError, match=r"\.json is not read here"):
        data_of(path, vocabulary_texts=[str(tmp_path / "x.json")]).make_assets()


def test_the_same_text_with_two_labels_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [("one text", "a"), ("one text", "b"), *zip(TEXTS, LABELS, strict=True)]
    test = write_csv(tmp_path / "test.csv", rows[:4])
    data = data_of(write_csv(tmp_path / "t.csv", rows[2:]), test=str(test))
    data.examples("test")
    assert "1 test text(s) have several labels (2 of 4 texts); the first is 'one text' with 'a', 'b'" in (
        capfd.readouterr().err
    )


def test_numbers_that_are_measurements_are_refused(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [(text, draw.random()) for text in TEXTS]
    path = write_csv(tmp_path / "t.csv", rows)
    assert_one_line(
        fit(path, tmp_path / "runs"), 1, "look like continuous numbers", "regression", "--data.label_column"
    )
    ids = write_csv(tmp_path / "ids.csv", list(zip(TEXTS, range(60), strict=True)))
    with pytest.raises(DataError, match=r"has a label of its own.*column of ids"):
        rows_of(ids)
    ratings = [(text, [1, 2, 3.5][number % 3]) for number, text in enumerate(TEXTS)]
    assert data_of(write_csv(path, ratings)).assets["labels"] == ["1", "2", "3.5"]
    floats = write_parquet(tmp_path / "t.parquet", text=TEXTS, label=[float(value) for _, value in ratings])
    assert data_of(floats).assets["labels"] == ["1.0", "2.0", "3.5"]
    across = data_of(path, val=str(floats), test=str(floats))
    assert across.examples("val").labels == [[0, 1, 2][number % 3] for number in range(60)]  # type: ignore[attr-defined]
