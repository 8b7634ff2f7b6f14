"""Word vectors: which words are found, what of a file is damaged, and how a classifier begins with them."""

import gzip
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from domains.text.data import TextData
from domains.text.model import TextModule
from domains.text.tokens import VocabularyConfig
from suite.errors import DataError, UsageError
from suite.recurrent import EncoderConfig
from suite.vectors import read_vectors
from suite.vocabulary import SPECIALS, Tokenizer
from tests.commands import assert_one_line, run

WORDS = Tokenizer([*SPECIALS, " owl", " cat", " Paris", " unheard", ","], level="word")
LINES = ["owl 1 2 3", "cat 4 5 6", "paris 7 8 9", ", 0.5 -1e-3 .25", "dog 1 1 1"]


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_words_are_found_as_written_or_in_lower_case(tmp_path: Path) -> None:
    counts = [0, 3, 0, 9, 5, 1, 2, 2, 0]
    found = read_vectors(write(tmp_path / "v.txt", LINES), WORDS, counts=counts)
    assert found.found.tolist() == [False] * 4 + [True, True, True, False, True]
    assert found.weight[4:].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0], [0.5, pytest.approx(-1e-3), 0.25]]
    assert found.text_share == pytest.approx(8 / 13)
    assert found.damaged == []
    assert found.lines() == [
        f"vectors: {tmp_path / 'v.txt'}: 3 features; 4 of 5 tokens found (80.0%), 61.5% of the training text"
    ]


def test_words_that_the_vocabulary_lacks_are_not_covered(tmp_path: Path) -> None:
    counts = [0, 10, 0, 0, *[2] * 5]  # the second is of unknown words
    found = read_vectors(write(tmp_path / "v.txt", LINES), WORDS, counts=counts)
    assert found.text_share == pytest.approx(8 / 20)


def test_a_header_and_words_with_spaces(tmp_path: Path) -> None:
    path = write(tmp_path / "v.txt", ["5 3", *LINES, "new york 1 1 1"])
    found = read_vectors(path, WORDS, counts=[0] * 9)
    assert int(found.found.sum()) == 4
    assert found.damaged == []


def test_damaged_lines_are_counted_and_named(tmp_path: Path) -> None:
    bad = ["tree 1 2", " 1 2 3", "leaf 1 x 3", "rock 1 nan 3", "owl 9 9 9", "sea 1"]
    found = read_vectors(write(tmp_path / "v.txt", [*LINES, *bad]), WORDS, counts=[0] * 9)
    assert [text.split(":")[0] for text in found.damaged] == [f"line {number}" for number in range(6, 12)]
    assert [text.split(": ", 1)[1] for text in found.damaged] == [
        "2 numbers where 3 are needed, or no word", "3 numbers where 3 are needed, or no word",
        "not 3 numbers after the word", "'rock' has a number that is not finite", "'owl' is there already",
        "1 numbers where 3 are needed, or no word",
    ]  # fmt: skip
    assert found.weight[4].tolist() == [1, 2, 3], "the first of two stays"
    assert "6 damaged line(s) left out: line 6" in found.lines()[1]
    assert found.lines()[1].endswith("and 1 more")


def test_lines_that_would_be_lost_are_found_or_counted(tmp_path: Path) -> None:
    lines = ["owl  1 2 3", "cat 4 5 6 7", "paris 7 8 1e39", ", 0.5 1_0 .25", "dog 1 1 1", ". . . 1 2 3"]
    found = read_vectors(write(tmp_path / "v.txt", lines), WORDS, counts=[0] * 9)
    assert found.found.tolist() == [False] * 4 + [True, False, False, False, False]
    assert found.weight[4].tolist() == [1, 2, 3]
    assert found.damaged == [
        "line 2: 4 numbers where 3 are needed, or no word",
        "line 3: 'paris' has a number that is not finite",
        "line 4: not 3 numbers after the word",
    ]


def test_words_are_composed_as_those_of_a_vocabulary(tmp_path: Path) -> None:
    words = Tokenizer([*SPECIALS, " \u00e9t\u00e9"], level="word")
    found = read_vectors(write(tmp_path / "v.txt", ["e\u0301te\u0301 1 2", "owl 3 4"]), words, counts=[0] * 5)
    assert found.weight[4].tolist() == [1, 2]


def test_a_header_that_disagrees_is_reported(tmp_path: Path) -> None:
    found = read_vectors(write(tmp_path / "v.txt", ["9 4", *LINES]), WORDS, counts=[0] * 9)
    assert int(found.found.sum()) == 4
    assert found.lines()[1].endswith("the header announces 9 words, and the file has 5 lines below it")
    assert found.lines()[2].endswith("the header announces 4 numbers for a word, and most lines have 3")


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_vectors(tmp_path / "none.txt", WORDS, counts=[0] * 9)
    with pytest.raises(DataError, match="not a file of vectors"):
        read_vectors(write(tmp_path / "words.txt", ["owl", "cat"]), WORDS, counts=[0] * 9)
    with pytest.raises(DataError, match="word2vec's binary format is not read"):
        read_vectors(write(tmp_path / "v.bin", LINES), WORDS, counts=[0] * 9)
    (tmp_path / "v.txt.gz").write_bytes(gzip.compress("\n".join(LINES).encode())[:-9])
    with pytest.raises(DataError, match="not a whole gzip file"):
        read_vectors(tmp_path / "v.txt.gz", WORDS, counts=[0] * 9)


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("SUITE_DATA_DIR"), reason="SUITE_DATA_DIR is not set")
def test_the_files_at_hand() -> None:
    folder = Path(os.environ["SUITE_DATA_DIR"]) / "wordvecs"
    sst2 = TextData(dataset="sst2", vectors=str(folder / "glove_600x300.txt.gz"))
    damaged = sst2.read_vectors()
    assert damaged is not None
    assert [text.split(":")[0] for text in damaged.damaged] == [f"line {number}" for number in (9, 37, 64, 160, 601)]
    good = TextData(dataset="sst2", vectors=str(folder / "glove_textadventure_8064x50.txt.gz")).read_vectors()
    assert good is not None
    assert good.weight.shape == (len(sst2.tokenizer), 50)
    assert not good.damaged
    assert good.text_share > 0.7


def data_of(tmp_path: Path, **settings: Any) -> TextData:
    rows = ["text,label", *(f"owl cat word{number},a" for number in range(9)), *(f"cat word{n},b" for n in range(9))]
    table = write(tmp_path / "rows.csv", rows)
    return TextData(
        dataset="files", train=str(table), vocabulary=VocabularyConfig(), vectors=str(tmp_path / "v.txt"), **settings
    )


def test_a_classifier_begins_with_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "v.txt", [*LINES, "broken 1"])
    data = data_of(tmp_path)
    module = TextModule(data.assets, embedding_size=3, encoder=EncoderConfig(hidden_size=4))
    before = module.network.embedding.weight.detach().clone()
    module.begin(data)
    weight = module.network.embedding.weight
    owl, other = data.tokenizer.encode("owl word1")
    assert weight[owl].tolist() == [1, 2, 3]
    expected = torch.tensor([[1.0, 2, 3], [4, 5, 6]]).std()
    torch.testing.assert_close(weight[other], before[other] * expected / before.std())
    assert not weight[0].any()
    error = capfd.readouterr().err
    words = {word for item in data.items("train") for word in item.text.split()}
    assert f"2 of {len(words)} tokens found" in error
    assert "1 damaged line(s) left out: line 6" in error
    with pytest.raises(UsageError, match=r"embedding_size is 5, but .*v\.txt has 3: use 3"):
        TextModule(data.assets, embedding_size=5).begin(data)


def test_a_checkpoint_needs_the_file_no_more(tmp_path: Path) -> None:
    data_of(tmp_path)
    write(tmp_path / "v.txt", LINES)
    flags = ("--data.dataset", "files", "--data.train", tmp_path / "rows.csv", "--data.vectors", tmp_path / "v.txt")
    small = ("--model.embedding_size", 3, "--model.encoder.hidden_size", 4, "--trainer.max_epochs", 1)
    quiet = ("--tracking.mode", "disabled", "--runs", tmp_path, "--name", "run", "--data.held_out", 0.2)
    ran = run("fit", "--domain", "text", *flags, *small, *quiet)
    assert ran.status == 0, ran.err
    assert "tokens found" in ran.err
    (tmp_path / "v.txt").unlink()
    predicted = run("predict", "--checkpoint", tmp_path / "text" / "run", stdin=b"owl cat\n\n")
    assert predicted.status == 0, predicted.err
    assert len(predicted.lines) == 2
    assert run("evaluate", "--checkpoint", tmp_path / "text" / "run").status == 0
    assert_one_line(
        run("fit", "--domain", "text", *flags, *small, *quiet[:-3], "again", "--data.held_out", 0.2), 1, "v.txt"
    )
