"""Labelled texts from every origin; what is wrong with them is said in one line."""

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from domains.text import corpora
from domains.text.data import TextData
from domains.text.overlap import Overlap, letters_of
from domains.text.tokens import VocabularyConfig
from suite.errors import DataError, UsageError
from suite.flat import FlatSequences, pad_ids
from suite.folders import class_files
from suite.vocabulary import EOS, PAD
from tests.commands import QUIET, assert_one_line, run

ROWS = [(f"text number {number} , short", "odd" if number % 2 else "even") for number in range(30)]


def write(path: Path, rows: Sequence[tuple[str, ...]], *, header: tuple[str, ...] = ("text", "label")) -> Path:
    """A table in the format of its ending."""
    records = [dict(zip(header, row, strict=True)) for row in rows]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    else:
        tab = path.suffix == ".tsv"
        lines = ["\t".join(row) if tab else ",".join(f'"{value}"' for value in row) for row in [header, *rows]]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def folders(root: Path) -> Path:
    for number, (text, label) in enumerate(ROWS):
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / label / f"{number:02}.txt").write_text(text + "\n", encoding="utf-8")
    return root


def data_of(train: Path | str | None = None, **settings: Any) -> TextData:
    common: dict[str, Any] = {"dataset": "files", "train": None if train is None else str(train), "held_out": 0.2}
    return TextData(**{**common, "batch_size": 4, **settings})


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet", "folder"])
def test_every_format_gives_the_same_texts(name: str, tmp_path: Path) -> None:
    path = folders(tmp_path / name) if name == "folder" else write(tmp_path / name, ROWS)
    data = data_of(path)
    found = {split: data.items(split) for split in ("train", "val", "test")}
    assert sorted((row.text, row.label) for rows in found.values() for row in rows) == sorted(ROWS)
    assert [len(rows) for rows in found.values()] == [18, 6, 6]
    assert all(sum(row.label == "odd" for row in found[split]) == 3 for split in ("val", "test"))
    assert data.assets["labels"] == ["even", "odd"]
    assert sum(data.assets["counts"]) == 18


def test_a_batch_is_what_the_texts_are(tmp_path: Path) -> None:
    data = data_of(write(tmp_path / "rows.csv", ROWS))
    batch = next(iter(data.loader("val", shuffle=False)))
    for row, text in enumerate(batch.inputs):
        ids = batch.tokens[row, : batch.lengths[row]].tolist()
        assert ids == [*data.tokenizer.encode(text), EOS]
        assert not batch.tokens[row, batch.lengths[row] :].any()
        assert data.assets["labels"][int(batch.labels[row])] == dict(ROWS)[text]


def test_several_columns_are_one_text_and_groups_stay_together(tmp_path: Path) -> None:
    rows = [(f"title {number}", "body", "a" if number % 2 else "b", f"g{number // 5}") for number in range(40)]
    path = write(tmp_path / "rows.csv", rows, header=("title", "body", "topic", "source"))
    settings: dict[str, Any] = {"text_columns": ["title", "body"], "label_column": "topic", "group_column": "source"}
    data = data_of(path, **settings)
    groups = [{row.group for row in data.items(split)} for split in ("train", "val", "test")]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert data.items("val")[0].text.endswith(" body")
    folds = [data_of(path, folds=4, fold=fold, **settings) for fold in range(4)]
    tested = [row.text for each in folds for row in each.items("test")]
    assert sorted(tested) == sorted(f"{title} {body}" for title, body, _, _ in rows)


def test_a_given_val_is_taken_as_it_is(tmp_path: Path) -> None:
    train, val = write(tmp_path / "train.csv", ROWS), write(tmp_path / "val.tsv", ROWS[:4])
    data = data_of(train, val=str(val))
    assert [tuple(row)[:2] for row in data.items("val")] == ROWS[:4]
    assert len(data.items("train")) == 24


def test_long_and_empty_texts_are_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [*ROWS, ("", "odd"), (" ", "even"), ("a b c d e f g h", "odd"), ("a b c d e", "even")]
    train = write(tmp_path / "train.csv", rows)
    other = write(tmp_path / "val.csv", [("", "odd"), ("x y z", "even")])
    data = data_of(train, val=str(other), test=str(other), max_length=5)
    examples = data.examples("train")
    assert len(examples.lengths) == len(rows) - 2
    assert int(examples.lengths.max()) == 6
    error = capfd.readouterr().err
    assert "2 of 34 training texts are empty and left out" in error
    assert "1 of 32 train texts are longer than max_length (5 tokens) and cut there" in error
    assert data.examples("val").lengths.tolist() == [1, 4]
    assert data.load_inputs(["", "x"]).lengths.tolist() == [1, 2]


def test_words_of_more_texts_belong_to_the_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("zebra crossing\n", encoding="utf-8")
    path = write(tmp_path / "rows.csv", ROWS)
    vocabulary = VocabularyConfig(size=500)
    plain = data_of(path, vocabulary=vocabulary)
    more = data_of(path, vocabulary=vocabulary, vocabulary_texts=[str(tmp_path / "more.txt")])
    assert set(more.tokenizer.pieces) - set(plain.tokenizer.pieces) == {" zebra", " crossing"}


def test_errors_are_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", ROWS)
    one = write(tmp_path / "one.csv", [(text, "odd") for text, _ in ROWS])
    other = write(tmp_path / "other.csv", [("x", "odd"), ("y", "strange"), ("z", "strange")])
    (tmp_path / "latin.csv").write_bytes("text,label\ncaf\xe9,odd\n".encode("latin-1"))
    cases: list[tuple[type[Exception], str, Any]] = [
        (DataError, r"'body' is missing; there are text, label", lambda: data_of(path, text_columns=["body"]).assets),
        (DataError, r"only the class 'odd'; at least two", lambda: data_of(one).assets),
        (DataError, r"val texts: 1 label\(s\).*'strange' \(2 times\); allowed: 'even', 'odd'",
         lambda: data_of(path, val=str(other)).examples("val")),
        (DataError, r"latin\.csv, line 2", lambda: data_of(tmp_path / "latin.csv").assets),
        (DataError, r"no such file", lambda: data_of(tmp_path / "none.csv").assets),
        (UsageError, r"has no table extension", lambda: data_of(write(tmp_path / "rows.dat", ROWS)).assets),
        (UsageError, r"needs --data\.train", lambda: data_of()),
        (UsageError, r"need --data\.dataset files", lambda: data_of(path, dataset="sample")),
        (UsageError, r"leave data\.val and data\.test out", lambda: data_of(path, val=str(path), folds=3)),
        (UsageError, r"data\.fold is 3", lambda: data_of(path, folds=3, fold=3).assets),
        (UsageError, r"data\.split other", lambda: data_of(path).items("other")),
        (UsageError, r"text_columns is empty", lambda: data_of(path, text_columns=[])),
        (UsageError, r"max_length is 0", lambda: data_of(path, max_length=0)),
        (UsageError, r"group_column is for tables", lambda: data_of(folders(tmp_path / "f"), group_column="g").assets),
    ]  # fmt: skip
    for kind, match, call in cases:
        with pytest.raises(kind, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_tables_of_all_splits_are_read_before_there_is_a_run(tmp_path: Path) -> None:
    """What is wrong with those of val and of test is said in one line."""
    train = write(tmp_path / "rows.csv", ROWS)
    val = write(tmp_path / "val.csv", [("x", "strange")])
    (tmp_path / "test.csv").write_bytes("text,label\na,odd\ncaf\xe9,odd\n".encode("latin-1"))
    flags = ("--data.dataset", "files", "--data.train", train, "--data.val", val, "--data.test", tmp_path / "test.csv")
    ran = run("fit", "--domain", "text", *flags, *QUIET, "--runs", tmp_path / "runs")
    assert_one_line(ran, 1, "the val texts: 1 label(s)", "'strange'", "test.csv, line 3", "not UTF-8")
    assert not (tmp_path / "runs").exists()


def test_folders_by_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        class_files(tmp_path / "none", endings=(".txt",))
    with pytest.raises(DataError, match="there is no folder in it"):
        class_files(tmp_path, endings=(".txt",))
    root = folders(tmp_path / "root")
    (root / ".hidden").mkdir()
    (root / "odd" / ".DS_Store").write_text("")
    assert len(class_files(root, endings=(".txt",))) == len(ROWS)
    (root / "odd" / "x.doc").write_text("")
    with pytest.raises(DataError, match=r"1 file\(s\) end in something else than \.txt \(first .*x\.doc\)"):
        class_files(root, endings=(".txt",))
    (root / "odd" / "x.doc").unlink()
    (root / "third").mkdir()
    with pytest.raises(DataError, match=r"third: this class has no file that ends in \.txt"):
        class_files(root, endings=(".txt",))


def test_a_batch_holds_what_its_texts_are_one_by_one() -> None:
    data = TextData(sample_size=40, batch_size=8)
    examples, batches = data.examples("train"), list(data.loader("train", shuffle=True))
    assert sorted(index for batch in batches for index in batch.indices) == list(range(40))
    for batch in batches:
        rows = [examples.ids[index] for index in batch.indices]  # type: ignore[attr-defined]
        for mine, other in zip((batch.tokens, batch.lengths), pad_ids(rows, value=PAD), strict=True):
            assert torch.equal(mine, other)
        assert batch.labels.tolist() == [examples.labels[index] for index in batch.indices]  # type: ignore[attr-defined]
        assert batch.inputs == [examples.texts[index] for index in batch.indices]  # type: ignore[attr-defined]


def test_flat_sequences() -> None:
    flat = FlatSequences.pack([[1, 2], [], [3]])
    assert [row.tolist() for row in (flat[0], flat[1], flat[2])] == [[1, 2], [], [3]]
    assert flat.lengths.tolist() == [2, 0, 1]
    assert len(flat) == 3
    tokens, lengths = pad_ids([flat[0], flat[1]], value=9, width=3)
    assert tokens.tolist() == [[1, 2, 9], [9, 9, 9]]
    assert lengths.tolist() == [2, 0]
    for chosen in ([2, 1, 0, 2], [1], []):
        at_once, each = flat.padded(chosen, value=9), pad_ids([flat[index] for index in chosen], value=9)
        for mine, other in zip(at_once, each, strict=True):
            assert torch.equal(mine, other)
            assert mine.dtype == other.dtype == torch.int64
    assert len(FlatSequences.pack([])) == 0
    assert flat.ids.dtype == numpy.int32


def test_overlap_looks_at_letters_alone() -> None:
    held = Overlap(["It 's n't a film about lrb old rrb owls .", "a fine mess", "oh no", "..."])
    for line in ("critics said: it'sn't a film about (old) owls!", "A fine ... mess!", "OH, NO"):
        assert held.shares(line), line
    assert held.shares("a film about old owls"), "a short line that stands inside one held out"
    long = Overlap(["the owls of the old tower never spoke of that night again"])
    assert long.shares("we heard that the owls of the old-tower never left")
    assert not long.shares("the owls of the new tower never slept")
    others = ("what a fine mess this is", "fine mess, a", "oh no, not again", "owls", "", "!")
    for line in (*others, "a film about young owls and old cats"):
        assert not held.shares(line), line
    assert letters_of("lrb A rrb -- Clich\xe9s 'n' 1930s!") == "aclichsn1930s"


def runs_of_words(text: str, size: int) -> set[tuple[str, ...]]:
    words = [word for word in text.lower().split() if word.isalpha()]
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("SUITE_DATA_DIR"), reason="SUITE_DATA_DIR is not set")
@pytest.mark.parametrize(("corpus", "said"), [("reviews", "sst2 "), ("news_and_wiki", "ag_news ")])
def test_no_test_text_of_sst2_is_in_the_pretraining_texts(
    corpus: Literal["reviews", "news_and_wiki"], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """By two measures that the filter does not use: whole sentences as letters, and runs of eight words."""
    texts = corpora.documents(corpus)
    assert len(texts) > 10_000
    held = [text for split in ("val", "test") for text, _ in corpora.labelled("sst2", split) or []]
    joined = "\n".join(map(letters_of, texts))
    assert not [text for text in held if len(letters_of(text)) >= 12 and letters_of(text) in joined]
    runs = {run for text in held for run in runs_of_words(text, 8)}
    assert not [text for text in texts if runs & runs_of_words(text, 8)]
    for name in ("mr", "subj"):
        rows = corpora.labelled(name, "train") or []
        assert [text for text, _ in rows if runs & runs_of_words(text, 8)], f"no overlap to find in {name} either"
    assert f"left out: {said}" in capfd.readouterr().err


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("SUITE_DATA_DIR"), reason="SUITE_DATA_DIR is not set")
def test_named_sets_have_the_known_sizes() -> None:
    sizes = {"sst2": (6920, 872, 1821), "ag_news": (8801, None, 7600), "mr": (10662, None, None)}
    for name, counts in {**sizes, "subj": (10000, None, None), "cr": (3775, None, None)}.items():
        found = [corpora.labelled(name, split) for split in ("train", "val", "test")]  # type: ignore[arg-type]
        assert tuple(None if rows is None else len(rows) for rows in found) == counts
    news = TextData(dataset="ag_news", held_out=0.05)
    labels = [row.label for row in news.items("val")]
    assert {labels.count(name) for name in set(labels)} == {110}
    assert len(corpora.tinyshakespeare()) == 1_115_394


def test_a_missing_set_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SUITE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SUITE_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"sst2: no such folder .* put train\.tsv, dev\.tsv, test\.tsv there"):
        corpora.labelled("sst2", "train")
    (tmp_path / "sst2").mkdir()
    for name in ("train", "dev", "test"):
        (tmp_path / "sst2" / f"{name}.tsv").write_text("fine\t1\nbad line\n")
    with pytest.raises(DataError, match=r"train\.tsv, line 2: a sentence, a tab and 0 or 1"):
        corpora.labelled("sst2", "train")
    (tmp_path / "ag_news").mkdir()
    (tmp_path / "ag_news" / "classes.txt").write_text("World\nSports\n")
    for name in ("train_subset_raw.csv.gz", "test.csv.gz"):
        (tmp_path / "ag_news" / name).write_bytes(gzip.compress(b'"1","a","b"\n"2","a title,"cut off\n'))
    with pytest.raises(DataError, match=r"test\.csv\.gz, line 2: not CSV"):
        corpora.labelled("ag_news", "test")
    (tmp_path / "tinyshakespeare").mkdir()
    damaged = bytearray(gzip.compress(b"First Citizen: " * 50))
    damaged[14] ^= 0xFF
    (tmp_path / "tinyshakespeare" / "input.txt.gz").write_bytes(bytes(damaged))
    with pytest.raises(DataError, match=r"input\.txt\.gz: not a whole gzip file"):
        corpora.tinyshakespeare()
    (tmp_path / "sentences").mkdir()
    (tmp_path / "sentences" / "custrev.all.txt.gz").write_bytes(gzip.compress(b"0 fine\n2 bad\n"))
    with pytest.raises(DataError, match=r"custrev\.all\.txt\.gz, line 2: 0 or 1"):
        corpora.labelled("cr", "train")


def test_groups_of_given_files_stand_in_one_split(tmp_path: Path) -> None:
    header = ("text", "label", "author")
    names = ["ann", "ben", "", "cid", "", "dan"]
    rows = [(f"text {number}", "ab"[number % 2], names[number % 6]) for number in range(36)]
    train = write(tmp_path / "train.csv", rows, header=header)
    test = write(tmp_path / "test.csv", [("more", "a", "ben"), ("words", "b", "")], header=header)
    data = data_of(train, test=str(test), group_column="author")
    data.items("train")
    with pytest.raises(DataError, match=r"group 'ben' is in (test and train|test and val): a group belongs"):
        data.items("test")
    alone = data_of(train, group_column="author")
    without = [sum(not item.group for item in alone.items(split)) for split in ("train", "val", "test")]
    assert sum(count > 0 for count in without) > 1, "rows without a group do not belong together"


def test_an_empty_file_of_a_class_is_an_empty_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = folders(tmp_path / "folder")
    (folder / "odd" / "98.txt").write_text("")
    data_of(folder, held_out=0.1).examples("train")
    (folder / "odd" / "99.txt").write_text("")
    data = data_of(folder)
    total = sum(len(data.items(split)) for split in ("train", "val", "test"))
    assert total == len(ROWS) + 2


def test_classes_are_counted_in_the_texts_at_hand_though_the_assets_are_from_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", ROWS)
    made = data_of(path, held_out=0.1).assets
    assert sum(made["counts"]) == len(data_of(path, held_out=0.1).examples("train").lengths)
    source = {**made, "counts": [7] * len(made["counts"])}
    data = data_of(path, held_out=0.1, assets=source)
    data.renew_assets()
    assert data.assets == made


def test_folders_and_a_column_give_splits(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        for label in ("good", "bad"):
            (tmp_path / "all" / split / label).mkdir(parents=True)
            for number in range(count):
                (tmp_path / "all" / split / label / f"{number}.txt").write_text(f"{split} words {number}")
    data = data_of(tmp_path / "all", held_out=0.25)
    assert [len(data.items(split)) for split in ("train", "val", "test")] == [6, 2, 4]
    assert {item.text.split()[0] for item in data.items("test")} == {"test"}
    rows = [(text, label, ("train", "val", "test")[number % 3]) for number, (text, label) in enumerate(ROWS)]
    data = data_of(write(tmp_path / "t.csv", rows, header=("text", "label", "split")))
    assert [[item.split for item in data.items(split)] for split in ("val", "test")] == [["val"] * 10, ["test"] * 10]


def test_no_label_is_empty_and_bad_files_are_named_together(tmp_path: Path) -> None:
    root = folders(tmp_path / "f")
    for name in ("01", "03"):
        (root / "odd" / f"{name}.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"01.txt, line 1: byte 0xe9 .*; .*03.txt, line 1: byte 0xe9"):
        _ = data_of(root).assets
    (tmp_path / "t.csv").write_text("text,label\none,good\ntwo,\nthree, \nfour,bad\n")
    with pytest.raises(DataError, match=r"t.csv: 2 of 4 rows have no value in column 'label' \(lines 3, 4\)"):
        _ = data_of(tmp_path / "t.csv").assets
