"""Translation data: own files in every form, what is wrong with them said in one line, Multi30k, vocabularies."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from domains.translation import sample
from domains.translation.data import PairBatch, TranslationData, VocabularyConfig
from suite.errors import DataError, UsageError
from suite.vocabulary import BOS, EOS, PAD
from tests.commands import QUIET, SMALL, Ran, assert_one_line, pairs_of, run, write_table

PAIRS = pairs_of("train", 60)
FEW = VocabularyConfig(size=150)
needs_data = pytest.mark.skipif("SUITE_DATA_DIR" not in os.environ, reason="SUITE_DATA_DIR is not set")


def write_lines(path: Path, lines: list[str], *, end: str = "\n") -> Path:
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def write_csv(path: Path, pairs: list[tuple[str, str]], header: tuple[str, ...] = ("source", "target")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *pairs])
    return path


def own(train: Any, **settings: Any) -> TranslationData:
    return TranslationData(dataset="files", train=train, **{"vocabulary": FEW, **settings})


def fit(folder: Path, *argv: Any) -> Ran:
    """One training step of a small model."""
    common = ("--domain", "translation", *QUIET, *SMALL, "--trainer.max_steps", 1, "--runs", folder, "--name", "a")
    return run("fit", *common, *argv)


def test_tables_with_named_columns(tmp_path: Path) -> None:
    awkward = [('He said "hello, you".', "Er sagte: „hallo, du“."), *PAIRS]
    flipped = write_csv(tmp_path / "t.csv", [(b, a) for a, b in awkward], header=("deutsch", "english"))
    assert (
        own(str(flipped), columns=["english", "deutsch"], val=str(flipped), test=str(flipped)).pairs("val") == awkward
    )
    table = write_table(tmp_path / "t.tsv", PAIRS)
    assert own([str(table)], test=str(table)).pairs("test") == PAIRS
    lines = [json.dumps({"source": a, "target": b, "more": 1}, ensure_ascii=False) for a, b in PAIRS]
    assert own(str(write_lines(tmp_path / "t.jsonl", lines)), val=str(table), test=str(table)).pairs("train") == PAIRS


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_two_text_files(end: str, tmp_path: Path) -> None:
    # Other separators of Unicode than line ends stand inside sentences.
    pairs = [("a\u2028b", "c\x0bd"), *PAIRS]
    files = [str(write_lines(tmp_path / f"t.{side}", [p[side] for p in pairs], end=end)) for side in (0, 1)]
    assert own(files, val=files, test=files).pairs("train") == pairs


def test_a_share_is_held_out_for_each_split_that_is_not_given(tmp_path: Path) -> None:
    table = str(write_table(tmp_path / "t.tsv", PAIRS))
    data = own(table, held_out=0.1, seed=3)
    splits = {name: data.pairs(name) for name in ("test", "train", "val")}
    assert {name: len(pairs) for name, pairs in splits.items()} == {"train": 48, "val": 6, "test": 6}
    together = [pair for pairs in splits.values() for pair in pairs]
    assert sorted(together) == sorted(PAIRS), "no pair is lost or stands in two splits"
    again, other = own(table, held_out=0.1, seed=3), own(table, held_out=0.1, seed=4)
    assert again.pairs("val") == splits["val"]
    assert other.pairs("val") != splits["val"]
    only_val = own(table, held_out=0.1, seed=3, test=table)
    assert (len(only_val.pairs("train")), len(only_val.pairs("val")), len(only_val.pairs("test"))) == (54, 6, 60)
    assert only_val.pairs("val") == splits["val"], "naming the test does not change what is held out for the validation"
    only_test = own(table, held_out=0.1, seed=3, val=table)
    assert only_test.pairs("test") == splits["test"]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 0.5])
def test_a_held_out_share_that_leaves_nothing_is_refused(fraction: float, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.tsv", PAIRS)
    with pytest.raises(UsageError, match=r"data\.held_out is"):
        own(str(table), held_out=fraction).pairs("train")


def bad_files(kind: str, folder: Path) -> tuple[list[Path], list[str]]:
    """Training files with something wrong, and what has to be said."""
    sides = [write_lines(folder / f"t.{side}", [pair[side] for pair in PAIRS]) for side in (0, 1)]
    if kind == "unequal":
        write_lines(sides[1], [pair[1] for pair in PAIRS[1:]])
        return sides, ["t.0 has 60", "t.1 has 59"]
    if kind == "not UTF-8":
        sides[1].write_bytes(sides[1].read_bytes() + "Grüße\n".encode("latin-1"))
        return sides, ["t.1, line 61", "UTF-8"]
    if kind == "empty":
        return [sides[0], write_lines(folder / "t.1", [])], ["t.1", "empty"]
    if kind == "missing":
        return [sides[0], folder / "u.1"], ["u.1", "no such file"]
    if kind == "column":
        return [write_csv(folder / "t.csv", PAIRS, header=("english", "target"))], ["t.csv", "'source'", "english"]
    if kind == "width":
        table = write_table(folder / "t.tsv", PAIRS)
        table.write_text(table.read_text() + "only one\n")
        return [table], ["t.tsv, line 62", "1 fields"]
    if kind == "no rows":
        return [write_table(folder / "t.tsv", [])], ["t.tsv", "no rows"]
    if kind == "one row":
        return [write_table(folder / "t.tsv", PAIRS[:1])], ["1 example"]
    if kind == "table not UTF-8":
        (folder / "t.tsv").write_bytes(b"source\ttarget\nfine\tfine\nnot\t\xff\n")
        return [folder / "t.tsv"], ["t.tsv, line 3", "UTF-8"]
    assert kind == "ending"
    return [write_lines(folder / "t.txt", ["a"])], ["t.txt", ".tsv"]


KINDS = {"unequal": 1, "not UTF-8": 1, "empty": 1, "missing": 1, "column": 1, "width": 1, "no rows": 1}
KINDS |= {"one row": 1, "table not UTF-8": 1, "ending": 2}


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("length_penalty", "11", "0 to 10"),
        ("max_length", "99999999999999999999", "1 to 100,000"),
        ("max_ratio", ".nan", "more than 0"),
    ],
)
def test_decoding_that_would_fail_in_validation_is_refused_before_the_run(
    flag: str, value: str, allowed: str, tmp_path: Path
) -> None:
    ran = fit(tmp_path / "runs", f"--decoding.{flag}", value, "--decoding.beam_size", 2)
    assert_one_line(ran, 2, f"{flag} is {value.removeprefix('.')}", allowed)
    assert not (tmp_path / "runs").exists(), "nothing was made"


@pytest.mark.parametrize(("kind", "status"), KINDS.items())
def test_bad_files_are_one_line_and_leave_no_run(kind: str, status: int, tmp_path: Path) -> None:
    files, parts = bad_files(kind, tmp_path)
    argv = [argument for file in files for argument in ("--data.train+", file)]
    assert_one_line(fit(tmp_path / "runs", "--data.dataset", "files", *argv), status, *parts)
    assert not (tmp_path / "runs").exists(), "nothing was made"


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--data.dataset", "files"], ["--data.train"]),
        (["--data.dataset", "files", "--data.train", '["a", "b", "c"]'], ["data.train", "3 text files"]),
        (["--data.train", "a.tsv"], ["--data.dataset files"]),
        (["--data.source_language", "de"], ["source_language", "target_language", "de"]),
        (["--data.target_language", "fr"], ["fr", "multi30k"]),
        (["--data.dataset", "files", "--data.train", "a.tsv", "--data.columns", '["one"]'], ["columns", "two"]),
        (["--data.max_length", "0"], ["max_length", "1 or more"]),
        (["--data.vocabulary.size", "10"], ["10", "size"]),
        (["--data.vocabulary.level", "syllable"], ["syllable", "bpe"]),
        (["--model.tie", "all", "--data.vocabulary.joint", "false"], ["tie all", "--data.vocabulary.joint true"]),
    ],
)
def test_settings_that_cannot_be_are_one_line(argv: list[str], parts: list[str], tmp_path: Path) -> None:
    size = () if "--data.dataset" in argv else ("--data.sample_size", 60)
    assert_one_line(fit(tmp_path / "runs", *size, *argv), 2, *parts)
    assert not (tmp_path / "runs").exists()


def test_long_pairs_leave_training_alone_and_are_counted(tmp_path: Path) -> None:
    long = [(" ".join(["word"] * 60), "kurz"), ("short", " ".join(["Wort"] * 60))]
    files = {name: write_table(tmp_path / f"{name}.tsv", [*PAIRS, *long]) for name in ("train", "val", "test")}
    argv = [argument for name, file in files.items() for argument in (f"--data.{name}", file)]
    limit = ("--data.vocabulary.size", 150, "--data.max_length", 50)
    ran = fit(tmp_path / "runs", "--data.dataset", "files", *argv, *limit)
    assert ran.status == 0, ran
    assert "2 of 62 training pairs are longer than max_length (50 tokens)" in ran.err
    assert "60 examples" in ran.err
    data = own(*[str(files["train"])], val=str(files["val"]), test=str(files["test"]), max_length=50)
    assert [len(data.examples(split).lengths) for split in ("train", "val", "test")] == [60, 62, 62]
    output = tmp_path / "out.jsonl"
    evaluated = run("evaluate", "--checkpoint", tmp_path / "runs" / "translation" / "a", "--output", output)
    assert evaluated.status == 0, evaluated
    assert len(output.read_text(encoding="utf-8").splitlines()) == 62


@pytest.mark.parametrize("kind", ["missing", "damaged", "too few"])
def test_what_is_wrong_with_the_test_is_said_before_training(kind: str, tmp_path: Path) -> None:
    train = write_table(tmp_path / "t.tsv", PAIRS[:2] if kind == "too few" else PAIRS)
    test = tmp_path / "test.tsv"
    if kind == "damaged":
        test.write_text("source\ttarget\nonly one\n", encoding="utf-8")
    flags = ("--data.test", test) if kind != "too few" else ("--tracking.mode", "disabled")
    ran = fit(tmp_path / "runs", "--data.dataset", "files", "--data.train", train, "--data.val", train, *flags)
    assert_one_line(ran, 1)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("config.yaml"))


def test_training_rows_are_never_evaluated_as_a_test(tmp_path: Path) -> None:
    """Without the file that a run had, a split would be taken from rows that the model has learnt from."""
    train, test = (write_table(tmp_path / f"{name}.tsv", PAIRS) for name in ("train", "test"))
    argv = ("--data.dataset", "files", "--data.train", train, "--data.test", test, "--data.vocabulary.size", 150)
    ran = fit(tmp_path / "runs", *argv)
    assert ran.status == 0, ran
    checkpoint = tmp_path / "runs" / "translation" / "a"
    refused = run("evaluate", "--checkpoint", checkpoint, "--data.test", "null")
    assert_one_line(refused, 2)
    assert "data.test was" in refused.err
    assert "learnt from; name a file" in refused.err


def test_all_pairs_too_long_is_one_line(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.tsv", PAIRS)
    argv = ("--data.dataset", "files", "--data.train", table, "--data.vocabulary.size", 150, "--data.max_length", 1)
    ran = fit(tmp_path / "runs", *argv)
    assert ran.status == 1
    assert "Traceback" not in ran.err
    assert "train split has no examples" in ran.err.splitlines()[-1]


@pytest.mark.parametrize(
    "batch", [("--data.batch_size", 64), ("--data.max_tokens", 1_000_000), ("--data.max_tokens", 3)]
)
def test_a_dataset_smaller_than_a_batch_trains(batch: tuple[Any, ...], tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.tsv", PAIRS[:5])
    files = [argument for name in ("train", "val", "test") for argument in (f"--data.{name}", table)]
    ran = fit(tmp_path, "--data.dataset", "files", *files, "--data.vocabulary.size", 60, *batch)
    assert ran.status == 0, ran
    said = "the 5 training examples fit one batch: every epoch is a single step" in ran.err
    assert said == (batch != ("--data.max_tokens", 3))  # there each sentence is a batch of its own


@pytest.mark.parametrize("level", ["bpe", "unigram", "word", "char"])
@pytest.mark.parametrize("joint", [True, False])
def test_every_vocabulary_trains(level: str, joint: bool, tmp_path: Path) -> None:
    vocabulary = ("--data.vocabulary.level", level, "--data.vocabulary.joint", json.dumps(joint))
    ran = fit(tmp_path, "--data.sample_size", 60, "--data.vocabulary.size", 150, *vocabulary)
    assert ran.status == 0, ran
    predicted = run("predict", "--checkpoint", tmp_path / "translation" / "a", stdin=b"A forest is white.\n")
    assert (predicted.status, len(predicted.lines)) == (0, 1)


def test_the_other_direction_of_the_sample() -> None:
    forth = TranslationData(sample_size=20)
    back = TranslationData(sample_size=20, source_language="de", target_language="en")
    assert back.pairs("train") == [(german, english) for english, german in forth.pairs("train")]
    assert forth.pairs("train") == sample.generate("train", size=20)


def test_a_batch_is_as_it_says() -> None:
    data = TranslationData(sample_size=60, vocabulary=FEW)
    examples = data.examples("train")
    batch = data.collate([examples.fetch(index, 0) for index in range(7)])
    assert isinstance(batch, PairBatch)
    source, target = data.tokenizers
    assert source is target
    for row, (text, reference) in enumerate(data.pairs("train")[:7]):
        assert batch.source[row, : batch.source_lengths[row]].tolist() == [*source.encode(text), EOS]
        assert batch.target[row, : batch.target_lengths[row] + 1].tolist() == [BOS, *target.encode(reference), EOS]
        assert (batch.source[row, batch.source_lengths[row] :] == PAD).all()
        assert (batch.target[row, batch.target_lengths[row] + 1 :] == PAD).all()
        assert (batch.sources[row], batch.references[row]) == (text, reference)
    assert batch.indices == list(range(7))
    assert examples.lengths[:7, 0].tolist() == batch.target_lengths.tolist()
    assert examples.lengths[:7, 1].tolist() == batch.source_lengths.tolist()


def test_the_fingerprint_sees_every_change_of_the_training_pairs(tmp_path: Path) -> None:
    def of(pairs: list[tuple[str, str]]) -> str:
        table = str(write_table(tmp_path / "t.tsv", pairs))
        return own(table, val=table, test=table).fingerprint()

    changed = [PAIRS[:-1], PAIRS[::-1], [(PAIRS[0][0] + "!", PAIRS[0][1]), *PAIRS[1:]]]
    assert of(PAIRS) == of(list(PAIRS))
    assert len({of(PAIRS), *map(of, changed)}) == 4


def test_multi30k_without_its_folder_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SUITE_DATA_DIR", raising=False)
    monkeypatch.setenv("SUITE_CACHE_DIR", str(tmp_path / "cache"))
    ran = fit(tmp_path / "runs", "--data.dataset", "multi30k")
    assert_one_line(ran, 1, "SUITE_DATA_DIR is not set", "multi30k", "train.en.gz")
    monkeypatch.setenv("SUITE_DATA_DIR", str(tmp_path))
    assert_one_line(fit(tmp_path / "runs", "--data.dataset", "multi30k"), 1, str(tmp_path), "train.de.gz")
    (tmp_path / "multi30k").mkdir()
    with pytest.raises(DataError, match=r"lacks test_2016_flickr.fr.gz, test_2016_flickr.en.gz"):
        TranslationData(dataset="multi30k", source_language="fr", target_language="en").pairs("test")


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("source", ["en", "de", "fr"])
@pytest.mark.parametrize("target", ["en", "de", "fr"])
def test_multi30k_has_its_pairs_in_any_direction(source: Any, target: Any) -> None:
    if source == target:
        with pytest.raises(UsageError, match=f"both {source}"):
            TranslationData(dataset="multi30k", source_language=source, target_language=target)
        return
    data = TranslationData(dataset="multi30k", source_language=source, target_language=target)
    assert {split: len(data.pairs(split)) for split in data.splits} == {"train": 29_000, "val": 1014, "test": 1000}
    first = {
        "en": "A man in an orange hat starring at something.",
        "de": "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
        "fr": "Un homme avec un chapeau orange regardant quelque chose.",
    }
    assert data.pairs("test")[0] == (first[source], first[target])


@pytest.mark.parametrize(("count", "said"), [(16_382, False), (16_383, True)])
def test_a_pair_that_may_not_fit_into_memory_is_said(
    count: int, said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside training every pair is taken whole; the space before it and its end are tokens, too."""
    table = str(write_csv(tmp_path / "t.csv", PAIRS))
    long = str(write_csv(tmp_path / "long.csv", [*PAIRS[:3], ("1" * count, "2" * count)]))
    data = own(table, val=long, test=table)
    for split in ("train", "val", "test"):
        data.load(split)
    parts = f"data: a pair of val has {count + 2:,} source and {count + 2:,} target tokens"
    assert (parts in (heard := capsys.readouterr().err)) == said, heard
    assert heard.count("GiB") == heard.count(f"It begins '{'1' * 40}'") == said
