"""Fingerprints of splits: what they see, what they do not depend on, and how they are compared."""

import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pytest
import torch

from domains.text.data import TextData
from domains.text.language_data import LanguageData
from domains.translation.data import TranslationData
from domains.video.images import ImageData
from suite import file_digests as digests_module
from suite.data import SuiteDataModule
from suite.errors import CheckpointError
from suite.file_digests import digest_of, file_digests
from suite.fingerprints import Fingerprint, difference, digest_texts, fingerprint_documents
from suite.trained_data import DATA_KEY, TrainedData, check_evaluated, make_data_record, refuse_changed
from suite.value_digests import digest_value
from tests.test_audio_data import own as audio
from tests.test_audio_data import write_files
from tests.test_video_files import write_pictures


def of(*texts: str, names: list[str] | None = None) -> Fingerprint:
    return Fingerprint(digest_texts((text,) for text in texts), "rows" if names is None else "files", names)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("abc", "abc", "unchanged"),
        ("abc", "cba", "the same rows in another order"),
        ("abc", "abcde", "2 rows added, 0 rows removed"),
        ("aab", "ab", "0 rows added, 1 row removed"),
        ("ab", "aabb", "2 rows added, 0 rows removed"),
        ("abc", "xyz", "3 rows added, 3 rows removed"),
        ("", "a", "1 row added, 0 rows removed"),
        ("a", "", "0 rows added, 1 row removed"),
    ],
)
def test_differences_are_counted(before: str, after: str, said: str) -> None:
    assert difference(of(*before), of(*after)).describe() == said


def test_files_are_named() -> None:
    before = of("1", "2", "3", "4", names=["a", "b", "c", "d"])
    after = of("1", "5", "4", "2", names=["a", "b", "moved", "e"])
    assert difference(before, after).describe() == "1 file changed (b), 1 file added (e), 1 file removed (c)"
    many = of(*map(str, range(9)), names=[f"{number}.wav" for number in range(9)])
    found = difference(many, of("0", names=["0.wav"])).describe()
    assert found == "8 files removed (1.wav, 2.wav, 3.wav and 5 more)"


def test_fields_do_not_run_into_each_other() -> None:
    rows = digest_texts([("ab", "c"), ("a", "bc"), ("a\0b", "c"), ("a", "b\0c"), ("\ud800", "")])
    assert len(set(rows.tolist())) == 5


def test_fingerprints_are_plain_and_come_back() -> None:
    before = of("1", "2", names=["a", "b"])
    after = Fingerprint.from_plain(before.plain())
    assert (after.sha256, after.unit, after.names) == (before.sha256, "files", ["a", "b"])
    assert of("a").plain()["sha256"] != of("b").plain()["sha256"]


def test_a_million_rows_are_cheap() -> None:
    rows = [(f"a short review, number {number}", str(number % 5)) for number in range(200_000)]
    began = time.process_time()
    assert len(Fingerprint(digest_texts(rows)).sha256) == 64
    assert time.process_time() - began < 3.0


class Pair(NamedTuple):
    place: int
    values: Any


@dataclass
class Sample:
    name: str
    values: Any


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([-3.0, -6.0])),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64)),
        (torch.tensor([1.0, 2.0]).bfloat16(), torch.tensor([1.0, 3.0]).bfloat16()),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.tensor(True), torch.tensor(False)),
        (numpy.arange(3), numpy.arange(3)[::-1]),
        (numpy.array(["a", None], dtype=object), numpy.array(["b", None], dtype=object)),
        ("1", 1),
        (1, 1.0),
        (True, 1),
        (None, "None"),
        ([["a"], []], [[], ["a"]]),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        ({1, 2}, {1, 3}),
        (Sample("a", [1]), Sample("a", [2])),
        (Pair(0, "x"), Pair(0, "y")),
        (Slotted(1), Slotted(2)),
        (Path("a"), Path("b")),
        (range(3), range(4)),
        (b"a", bytearray(b"b")),
    ],
)
def test_values_are_told_apart(one: Any, other: Any) -> None:
    assert digest_value(one) != digest_value(other)
    assert digest_value([one, other]) == digest_value([one, other])


def test_a_value_may_hold_itself() -> None:
    value: list[Any] = [1]
    value.append(value)
    assert digest_value(value) == digest_value(value)


class Own:
    """Examples of a user's domain."""

    def __init__(self, values: Any, *, random: bool = False) -> None:
        self.values, self.random = values, random
        self.lengths = numpy.array([len(value) for value in values], dtype=numpy.int64)

    def fetch(self, index: int, seed: int) -> Pair:
        return Pair(index, [numpy.random.random() if self.random else seed, self.values[index]])


class OwnData(SuiteDataModule):
    def __init__(self, splits: Any, *, random: bool = False) -> None:
        super().__init__(batch_size=2, max_tokens=None)
        self.splits, self.random = splits, random

    def load(self, split: str) -> Own:
        return Own(self.splits[split], random=self.random)


CURVES = [torch.arange(5.0) + number for number in range(12)]
SPLITS = {"train": CURVES[:8], "val": CURVES[8:10], "test": CURVES[10:]}


def trained_on(data: SuiteDataModule) -> TrainedData:
    return TrainedData.of({DATA_KEY: make_data_record(data), "settings": {"data": {}}}, Path("last.ckpt"))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_default_covers_content(split: str) -> None:
    trained = trained_on(OwnData(SPLITS))
    refuse_changed(trained, OwnData(SPLITS))
    changed = {**SPLITS, split: [-3 * curve for curve in SPLITS[split]]}
    with pytest.raises(CheckpointError, match=rf"not what this run began with \({split}: "):
        refuse_changed(trained, OwnData(changed))
    assert (OwnData(SPLITS).fingerprint() != OwnData(changed).fingerprint()) == (split == "train")


def test_the_default_leaves_out_an_examples_own_index() -> None:
    before, after = OwnData(SPLITS), OwnData({**SPLITS, "train": [CURVES[11], *CURVES[:8]]})
    found = difference(before.fingerprint_of("train"), after.fingerprint_of("train"))
    assert found.describe() == "1 example added, 0 examples removed"
    assert after.fingerprint_of("test").count_in(after.fingerprint_of("train").rows) == 1


def test_order_matters_in_training_and_not_in_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    trained = trained_on(OwnData(SPLITS))
    refuse_changed(trained, OwnData({**SPLITS, "val": CURVES[9:7:-1]}))
    assert "val has the same examples as before in another order" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="val: the same examples in another order"):
        refuse_changed(trained, OwnData({**SPLITS, "val": CURVES[9:7:-1]}), limited=["val"])
    with pytest.raises(CheckpointError, match="train: the same examples in another order"):
        refuse_changed(trained, OwnData({**SPLITS, "train": CURVES[7::-1]}))


def test_examples_that_do_not_follow_their_seed_are_told_by_length(capsys: pytest.CaptureFixture[str]) -> None:
    data = [OwnData(SPLITS, random=True) for _ in range(2)]
    assert data[0].fingerprint() == data[1].fingerprint()
    assert "draw everything that is random from the seed" in capsys.readouterr().err


def test_named_sets_and_texts(tmp_path: Path) -> None:
    first, second = TextData(sample_size=40), TextData(sample_size=41)
    found = difference(first.fingerprint_of("train"), second.fingerprint_of("train"))
    assert (len(found.added) - len(found.removed), len(first.fingerprint_of("test").rows)) == (
        1,
        len(first.items("test")),
    )
    pairs = TranslationData(sample_size=30)
    assert len(pairs.fingerprint_of("train").rows) == 30
    assert (
        TranslationData(sample_size=30, target_language="en", source_language="de").fingerprint() != pairs.fingerprint()
    )


def test_running_text_is_compared_by_its_passages(tmp_path: Path) -> None:
    text = "First.\nof two\n\n\nSecond.\n\nThird.\n"
    before, spaced = fingerprint_documents([text]), fingerprint_documents([text.replace("\n\n\n", "\n\n")])
    assert len(before.rows) == 3
    assert difference(before, spaced).describe() == "1 passage added, 1 passage removed"
    cut = fingerprint_documents(text.split("\n\n"))
    assert cut.sha256 != before.sha256, "where documents end is content"
    (tmp_path / "a.txt").write_text("".join(f"line {number} of text\n" for number in range(50)))
    data = LanguageData(dataset="files", train=str(tmp_path / "a.txt"), held_out=0.1)
    assert sum(len(data.fingerprint_of(split).rows) for split in ("train", "val", "test")) == 50
    assert data.order_matters


def test_audio_files_are_told_by_content_and_conditions(tmp_path: Path) -> None:
    paths = write_files(tmp_path / "a", count=6)
    first = audio(tmp_path / "a", held_out=0.2).fingerprint_of("train")
    (tmp_path / "a").rename(tmp_path / "b")
    moved = audio(tmp_path / "b", held_out=0.2).fingerprint_of("train")
    assert moved.sha256 == first.sha256
    assert first.names
    assert set(first.names) <= {path.name for path in paths}
    conditioned = audio(tmp_path / "b", held_out=0.2, conditions=["folder"]).fingerprint_of("train")
    assert not set(conditioned.rows.tolist()) & set(first.rows.tolist())
    file = tmp_path / "b" / first.names[0]
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    changed = audio(tmp_path / "b", held_out=0.2).fingerprint_of("train")
    assert difference(first, changed).describe() == f"1 file changed ({first.names[0]})"


def test_pictures_are_told_by_content_and_label_in_folders_and_archives(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for split, first in (("train", 0), ("val", 20), ("test", 40)):
        write_pictures(folder / split, count=4, first=first)
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        archive.add(folder, ".")

    def pictures(place: Path) -> ImageData:
        return ImageData(dataset="files", train=str(place), size=8, cache=str(tmp_path / "cache"))

    data, packed = pictures(folder), pictures(tmp_path / "in.tar")
    for split in ("train", "val", "test"):
        one, other = data.fingerprint_of(split), packed.fingerprint_of(split)
        assert len(one.rows) == 8
        assert difference(one, other).same_items
    moved = next((folder / "train" / "dark").iterdir())
    moved.rename(folder / "train" / "light" / f"again-{moved.name}")
    found = difference(data.fingerprint_of("train"), pictures(folder).fingerprint_of("train"))
    assert (len(found.added), len(found.removed)) == (1, 1), "the label is part of it"


def test_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUITE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(digests_module, "_FRESH", -1.0)
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"12345")
    other.write_bytes(b"54321")
    first = file_digests([one, other, one])
    assert first == [digest_of(b"12345"), digest_of(b"54321"), digest_of(b"12345")]
    read: list[Path] = []
    hash_file = digests_module._hash_file

    def hash_and_count(path: Path) -> bytes:
        read.append(path)
        return hash_file(path)

    monkeypatch.setattr(digests_module, "_hash_file", hash_and_count)
    assert file_digests([one, other]) == first[:2]
    assert read == []
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    assert file_digests([one, other]) == first[1::-1], "files of one size and time that were exchanged"
    assert len(read) == 2
    lines = tmp_path / "cache" / "file-digests" / "digests.txt"
    lines.write_text(lines.read_text()[:-20])
    assert file_digests([one, other]) == first[1::-1]
    monkeypatch.setattr(digests_module, "_FRESH", 1000.0)
    one.write_bytes(b"33333")
    file_digests([one])
    assert digest_of(b"33333").hex() not in lines.read_text(), "a file may change again within a tick of the clock"


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({}, False),
        ({"most": 1}, False),  # fewer training files are asked for, and the test files are the same
        ({"train": "b"}, True),
    ],
)
def test_a_smaller_choice_of_training_files_is_no_change_of_the_source(change: dict[str, Any], refused: bool) -> None:
    class Stub(SuiteDataModule):
        def take_fingerprint(self, split: str) -> Fingerprint:
            rows = {"train": "ab"[: 1 if change else 2], "val": "c", "test": "d"}[split]
            return of(*rows, names=[f"{row}.wav" for row in rows])

    settings = {"dataset": "files", "train": "a", "val": None, "test": None, "most": None}
    splits = {"train": of(*"ab", names=["a.wav", "b.wav"]), "val": of("c", names=["c.wav"])}
    splits["test"] = of("d", names=["d.wav"])
    trained = TrainedData(Path("run.ckpt"), splits, settings)
    data = Stub(batch_size=1, max_tokens=None)
    asked = {**settings, **change}
    if not refused:
        assert check_evaluated(trained, data, "test", asked=asked, named=set(change)) == []
    else:
        with pytest.raises(CheckpointError, match=r"the source of the test data changed since training.*--data\.test"):
            check_evaluated(trained, data, "test", asked=asked, named=set(change))
