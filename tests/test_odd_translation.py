"""Odd translation files: lists of tables, empty sides, spaces in references; each gives the right pairs and scores."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from domains.translation.data import PairBatch, TranslationData, VocabularyConfig
from domains.translation.model import TranslationModule
from domains.translation.pairs import is_blank
from suite.console import forget_notices
from suite.errors import DataError, UsageError
from suite.metrics import CorpusBLEU, CorpusCHRF, ExactMatch
from suite.module import StepOutput
from suite.recurrent import EncoderConfig
from suite.tables import read_table
from suite.vocabulary import Level
from tests.commands import QUIET, SMALL, Ran, assert_one_line, run

FOLDER = Path(__file__).parent / "odd_inputs" / "translation-files"
PART1, PART2, EMPTY, SPACES = (FOLDER / f"{name}.csv" for name in ("part1", "part2", "empty_targets", "spaces"))
Pair = tuple[str, str]


def rows(path: Path) -> list[Pair]:
    return [(source, target) for source, target in read_table(path, columns=["source", "target"])]


PAIRS = rows(PART1)
LEVELS: tuple[Level, ...] = ("bpe", "unigram", "word", "char")


def own(train: Any, **settings: Any) -> TranslationData:
    settings = {"val": str(PART1), "test": str(PART1), "vocabulary": VocabularyConfig(size=200), **settings}
    return TranslationData(dataset="files", train=train, **settings)


def trained_on(data: TranslationData) -> list[Pair]:
    examples = data.load("train")
    return list(examples.pairs)


def write(path: Path, pairs: Sequence[Pair]) -> str:
    """Pairs as the extension of ``path`` says."""
    kind = path.name.lower().removesuffix(".gz")
    if kind.endswith(".parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"source": [a for a, _ in pairs], "target": [b for _, b in pairs]}), path)
        return str(path)
    if kind.endswith(".jsonl"):
        lines = [json.dumps({"source": a, "target": b}) for a, b in pairs]
    else:
        separator = "\t" if kind.endswith(".tsv") else ","
        lines = [separator.join(("source", "target")), *(separator.join(pair) for pair in pairs)]
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.name.lower().endswith(".gz") else data)
    return str(path)


def test_a_list_of_tables_is_read_as_tables() -> None:
    assert len(PAIRS) == 48
    files = [str(PART1), str(PART2)]
    data = own(files, val=files, test=files)
    for split in ("train", "val", "test"):
        assert data.pairs(split) == [*PAIRS, *rows(PART2)], split
        assert ("source", "target") not in data.pairs(split)


@pytest.mark.parametrize(
    "names",
    [
        ("a.csv",),
        ("a.CSV", "b.Csv"),
        ("a.csv.gz", "b.CSV.GZ"),
        ("a.tsv", "b.jsonl", "c.parquet"),
        ("a.TSV.gz", "b.JSONL", "c.PARQUET", "d.csv"),
    ],
)
def test_any_number_and_format_of_tables(names: tuple[str, ...], tmp_path: Path) -> None:
    parts = [PAIRS[place :: len(names)] for place in range(len(names))]
    files = [write(tmp_path / name, part) for name, part in zip(names, parts, strict=True)]
    assert own(files).pairs("train") == [pair for part in parts for pair in part]


def test_tables_and_text_files_are_not_mixed(tmp_path: Path) -> None:
    text = tmp_path / "lines.txt"
    text.write_text("a\nb\n")
    for files in ([str(PART1), str(text)], [str(text), str(PART1)], [str(text), str(text), str(PART1)]):
        with pytest.raises(UsageError, match=r"data\.train mixes a table \(.*part1\.csv\) with another kind"):
            own(files).pairs("train")
    with pytest.raises(UsageError, match=r"data\.val names 3 text files"):
        own(str(PART1), val=[str(text)] * 3).pairs("val")
    with pytest.raises(DataError, match=r"part3\.csv: no such file; near names"):
        own([str(PART1), str(FOLDER / "part3.csv")]).pairs("train")
    for name in ("pairs.json", "pairs.xlsx", "PAIRS.ODS"):
        (tmp_path / name).write_text("[]")
        with pytest.raises(UsageError, match=name):
            own([str(PART1), str(tmp_path / name)]).pairs("train")


def test_problems_of_all_tables_are_named_at_once(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("source,target\none,two\nalone\n")
    with pytest.raises(DataError, match=r"a\.csv, line 3: .*; .*b\.csv, line 3: "):
        own([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]).pairs("train")


def test_a_table_named_twice_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    forget_notices()
    assert len(own([str(PART1), str(PART1)]).pairs("train")) == 96
    assert "part1.csv 2 times; its pairs count as often" in capsys.readouterr().err


def test_empty_targets_are_counted_and_left_out_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = rows(EMPTY)
    filled = [pair for pair in pairs if pair[0] and pair[1]]
    assert (len(pairs), len(filled)) == (96, 64)
    both = sum(pair == ("", "") for pair in pairs)
    data = own(str(EMPTY), val=str(EMPTY), test=str(EMPTY))
    assert trained_on(data) == filled
    counted = f"32 of 96 training pairs have an empty side (source 0, target {32 - both}, both {both})"
    assert f"data: {counted}; they are left out of training" in capsys.readouterr().err
    for split in ("val", "test"):
        assert data.load(split).pairs == pairs
        assert f"32 of 96 {split} pairs have an empty side" in (said := capsys.readouterr().err)
        assert "they are evaluated like others" in said


BLANK = ["", " ", "\t ", "\u00a0\u202f", "\u3000", "\u200b", "\ufeff\u2060", "\x00\x1f"]


@pytest.mark.parametrize("level", LEVELS)
def test_every_kind_of_empty_side(level: Level, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "odd.jsonl"
    odd = [("a", text) for text in BLANK] + [(text, "b") for text in BLANK] + [(text, text) for text in BLANK]
    good = [("\u200ba", "\u00a0b\u00a0"), ("x", "y")]
    table.write_text("".join(json.dumps({"source": a, "target": b}) + "\n" for a, b in [*PAIRS, *odd, *good]))
    data = own(str(table), vocabulary=VocabularyConfig(level=level, size=200))
    assert trained_on(data) == [*PAIRS, *good]
    count = len(BLANK)
    said = f"{3 * count} of {len(PAIRS) + 3 * count + 2} training pairs have an empty side"
    assert f"{said} (source {count}, target {count}, both {count})" in capsys.readouterr().err


def test_blank_lines_of_aligned_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.en").write_text("one\n\n  \nfour\nfive\nsix\n")
    (tmp_path / "t.de").write_text("eins\nzwei\ndrei\n\n\u00a0\nsechs\n")
    data = own([str(tmp_path / "t.en"), str(tmp_path / "t.de")])
    assert trained_on(data) == [("one", "eins"), ("six", "sechs")]
    assert "4 of 6 training pairs have an empty side (source 2, target 2, both 0)" in capsys.readouterr().err


def test_no_word_about_good_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    data = own([str(PART1), str(PART2)])
    assert len(data.load("train").pairs) == 96
    data.load("val")
    assert "empty" not in capsys.readouterr().err


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("joint", [True, False])
def test_training_pairs_that_are_all_empty_are_refused(side: int, joint: bool, tmp_path: Path) -> None:
    pairs = [(("word", " "), ("\u00a0", "Wort"))[side]] * 5
    table = write(tmp_path / "t.csv", pairs)
    data = own(table, vocabulary=VocabularyConfig(size=60, joint=joint))
    with pytest.raises(DataError, match=r"t\.csv: all 5 training pairs have an empty side"):
        data.examples("train")


def test_the_fingerprint_changes_if_empty_pairs_are_filled(tmp_path: Path) -> None:
    without = own(write(tmp_path / "a.csv", PAIRS)).fingerprint()
    assert own(write(tmp_path / "b.csv", [*PAIRS, ("x", "y")])).fingerprint() != without


def test_blank_is_what_shows_nothing() -> None:
    assert all(map(is_blank, BLANK))
    assert not any(map(is_blank, ["a", " a", "\u200b.", "\u4e00", "\u0301", "\U0001f600", "\ufffd"]))


def scores(references: Sequence[str], hypotheses: Sequence[str], vocabulary: VocabularyConfig) -> dict[str, float]:
    """The figures of an evaluation in which the model writes ``hypotheses``."""
    data = own(str(SPACES), vocabulary=vocabulary)
    encoder = EncoderConfig(hidden_size=8)
    module = TranslationModule(data.assets, embedding_size=8, encoder=encoder)
    pairs = [("a", text) for text in references]
    batch: PairBatch = data.collate([(index, [4, 3], [2, 3], pair) for index, pair in enumerate(pairs)])
    module.translate = lambda *_, **__: [{"translation": text} for text in hypotheses]  # type: ignore[method-assign]
    module._trainer = SimpleNamespace(validating=True)  # type: ignore[assignment]
    metrics: Any = dict(module.evaluation["test"].items())  # type: ignore[operator]
    module.update_metrics(metrics, batch, StepOutput(torch.tensor(1.0), torch.tensor(1.0), torch.tensor(1.0)))
    return {name: float(metrics[name].compute()) for name in ("exact", "bleu", "chrf")}


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_exact_compares_what_the_tokenizer_can_write(level: Level, lowercase: bool) -> None:
    references = [target for _, target in rows(SPACES)]
    vocabulary = VocabularyConfig(level=level, size=200, lowercase=lowercase)
    tokenizer = own(str(SPACES), vocabulary=vocabulary).tokenizers[1]
    written = [tokenizer.decode(tokenizer.encode(text)) for text in references]
    raw = ExactMatch()
    raw.update(written, references)
    assert float(raw.compute()) < 50 or (level, lowercase) == ("char", False), "the references are odd"
    found = scores(references, written, vocabulary)
    assert found["exact"] == 100
    assert scores(references, [*written[:-2], "falsch", ""], vocabulary)["exact"] == pytest.approx(100 * 94 / 96)
    # BLEU and chrF are those of sacrebleu with the references as they are in the file.
    for name, metric in (("bleu", CorpusBLEU()), ("chrf", CorpusCHRF())):
        metric.update(written, references)
        assert found[name] == float(metric.compute())


@pytest.mark.parametrize("level", LEVELS)
def test_exact_with_spaces_and_decomposed_characters(level: Level) -> None:
    vocabulary = VocabularyConfig(level=level, size=200)
    assert scores(["Gru\u0308\u00dfe"], ["Gr\u00fc\u00dfe"], vocabulary)["exact"] == 100
    assert scores(["der Hund"], ["der hund"], vocabulary)["exact"] == 0
    # Single characters can write any white space, so it belongs to the translation.
    spaced = scores(["  der\u00a0 Hund \u202f"], ["der Hund"], vocabulary)["exact"]
    assert spaced == (0 if level == "char" else 100)


def fit(folder: Path, *argv: Any) -> Ran:
    common = ("--domain", "translation", *QUIET, *SMALL, "--data.dataset", "files", "--data.vocabulary.size", 100)
    return run("fit", *common, "--trainer.max_steps", 1, "--runs", folder, "--name", "a", *argv)


def test_a_run_on_odd_files_counts_them_once_a_split(tmp_path: Path) -> None:
    files = [argument for split in ("train", "val", "test") for argument in (f"--data.{split}", EMPTY)]
    ran = fit(tmp_path, *files)
    assert ran.status == 0, ran
    assert "64 examples" in ran.err
    for what in ("training", "val", "test"):
        assert ran.err.count(f"32 of 96 {what} pairs have an empty side") == 1, ran.err
    output = tmp_path / "out.jsonl"
    evaluated = run("evaluate", "--checkpoint", tmp_path / "translation" / "a", "--output", output)
    assert evaluated.status == 0, evaluated
    results = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [(each["source"], each["reference"]) for each in results] == rows(EMPTY)


def test_a_run_on_a_list_of_tables(tmp_path: Path) -> None:
    both = ("--data.train+", PART1, "--data.train+", PART2)
    ran = fit(tmp_path, *both, "--data.val", PART1, "--data.test", f"[{PART1}, {PART2}]")
    assert ran.status == 0, ran
    assert "96 examples" in ran.err
    mixed = fit(tmp_path / "other", "--data.train", f"[{PART1}, {tmp_path / 'lines.txt'}]")
    assert_one_line(mixed, 1, "lines.txt", "no such file")
