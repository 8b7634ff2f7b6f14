"""Recordings and windows: own folders and manifests, public sets, seeds, and bad data said in one line."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy
import pytest
import soundfile
import torch

from domains.audio import recordings
from domains.audio.data import AudioData, WaveBatch
from domains.audio.mel import MelConfig
from domains.audio.windows import WaveExamples
from suite.errors import DataError, UsageError
from suite.mu_law import mu_law_encode, silence
from tests.commands import QUIET, Ran, assert_one_line, run

needs_data = pytest.mark.skipif("SUITE_DATA_DIR" not in os.environ, reason="SUITE_DATA_DIR is not set")
SMALL = (
    *("--model.channels", 4, "--model.num_layers", 2, "--model.cycle", 2, "--model.skip_channels", 4),
    *("--trainer.max_steps", 1, "--trainer.limit_val_batches", 1, "--trainer.limit_test_batches", 1, "--samples", 1),
)


def write_files(folder: Path, *, count: int = 6, size: int = 900, rate: int = 8000) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        wave = numpy.random.default_rng(number).uniform(-0.5, 0.5, size + 100 * number)
        paths.append(folder / f"{number}.wav")
        soundfile.write(paths[-1], wave, rate, subtype="FLOAT")
    return paths


def write_manifest(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(paths: list[Path], folder: Path) -> list[dict[str, str]]:
    return [
        {"path": str(path.relative_to(folder)), "who": "ab"[number % 2], "kind": "xyz"[number % 3]}
        for number, path in enumerate(paths)
    ]


def own(train: Path, **settings: Any) -> AudioData:
    return AudioData(dataset="files", train=str(train), **{"held_out": 0.2, **settings})


def examples_of(data: AudioData, split: str) -> WaveExamples:
    found = data.examples(split)
    assert isinstance(found, WaveExamples)
    return found


def fit(folder: Path, *argv: Any) -> Ran:
    return run("fit", "--domain", "audio", *QUIET, *SMALL, "--runs", folder / "runs", "--name", "a", *argv)


def test_windows_tile_a_recording_with_its_context(tmp_path: Path) -> None:
    given = {split: write_files(tmp_path / split, count=1, size=1000)[0] for split in ("train", "val", "test")}
    path = given["test"]
    folders = {split: str(each.parent) for split, each in given.items()}
    data = AudioData(dataset="files", window=300, context=40, **folders)  # type: ignore[arg-type]
    examples = examples_of(data, "test")
    codes = mu_law_encode(torch.from_numpy(soundfile.read(path, dtype="float32")[0]))
    padded = torch.cat([torch.tensor([silence()]), codes])
    assert examples.lengths.tolist() == [300, 340, 340, 140]
    seen = []
    for index, start in enumerate((0, 300, 600, 900)):
        window = examples.fetch(index, 7)
        context = min(40, start)
        assert window.context == context
        assert torch.equal(window.codes, padded[start - context : start + min(300, 1000 - start) + 1])
        assert len(window.codes) - 1 == examples.lengths[index]
        seen.append(window.codes[1 + context :])
    assert torch.equal(torch.cat(seen), codes), "each sample is scored once"


def test_training_windows_are_a_pure_function_of_their_seed(tmp_path: Path) -> None:
    write_files(tmp_path / "some", size=3000)
    examples = examples_of(own(tmp_path / "some", window=500, context=16), "train")
    several = [index for index, (_, start) in enumerate(examples.places) if start]
    for index in several[:5]:
        first, again, other = (examples.fetch(index, seed) for seed in (1, 1, 2))
        assert torch.equal(first.codes, again.codes)
        assert not torch.equal(first.codes, other.codes)
        assert len(first.codes) - 1 <= int(examples.lengths[index]) == 516
    beginnings = [index for index, (_, start) in enumerate(examples.places) if not start]
    assert all(int(examples.fetch(index, 3).codes[0]) == silence() for index in beginnings)


def test_a_batch_of_unequal_windows(tmp_path: Path) -> None:
    write_files(tmp_path / "some")
    data = own(tmp_path / "some", window=10_000)
    examples = examples_of(data, "train")
    batch = data.collate([examples.fetch(index, 0) for index in range(len(examples.lengths))])
    assert isinstance(batch, WaveBatch)
    assert batch.lengths.tolist() == examples.lengths.tolist()
    assert batch.codes.shape == (len(batch.lengths), int(batch.lengths.max()) + 1)
    assert batch.conditions.shape == (len(batch.lengths), 0)
    shortest = int(batch.lengths.argmin())
    assert (batch.codes[shortest, int(batch.lengths[shortest]) + 1 :] == silence()).all()


def test_a_folder_with_splits_and_its_own_names_as_conditions(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for name in ("bass", "flute"):
            write_files(tmp_path / split / name, count=2)
    data = own(tmp_path, conditions=["folder"])
    assert data.assets["conditions"] == {"folder": ["bass", "flute"]}
    for split in ("train", "val", "test"):
        names = [each.clip.name for each in data.items(split)]
        assert len(names) == 4
        assert all(f"/{split}/" in name for name in names)
    write_files(tmp_path, count=1)
    with pytest.raises(DataError, match=r"beside train, val, test there is 0\.wav: move it into one"):
        own(tmp_path).items("train")


def test_a_manifest_with_columns_splits_and_selections(tmp_path: Path) -> None:
    paths = write_files(tmp_path / "audio", count=12)
    rows = rows_of(paths, tmp_path)
    for number, row in enumerate(rows):
        row["part"] = "test" if number > 9 else "val" if number > 7 else "train"
    manifest = write_manifest(tmp_path / "list.csv", rows)
    settings: dict[str, Any] = {"conditions": ["who", "kind"], "split_column": "part"}
    data = own(manifest, **settings)
    assert data.assets["conditions"] == {"who": ["a", "b"], "kind": ["x", "y", "z"]}
    assert [len(data.items(split)) for split in ("train", "val", "test")] == [8, 2, 2]
    few = own(manifest, **settings, only=["who=a"], most=1)
    assert [each.conditions for each in few.items("train")] == [{"who": "a", "kind": kind} for kind in "xzy"]
    only_in_training = own(manifest, **settings, leave_out=["kind=z", "who=b"])  # some split has none of these
    assert {each.conditions["who"] for each in only_in_training.items("train")} == {"a"}
    without = own(manifest, **settings, leave_out=["who=a"])
    assert {each.conditions["who"] for split in ("train", "val", "test") for each in without.items(split)} == {"b"}


def test_splits_are_held_out_and_do_not_overlap(tmp_path: Path) -> None:
    write_files(tmp_path / "some", count=20)
    parts = [{each.clip.name for each in own(tmp_path / "some").items(split)} for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [12, 4, 4]
    assert len(set.union(*parts)) == 20


def test_spectra_come_with_windows_that_stand_on_their_grid(tmp_path: Path) -> None:
    write_files(tmp_path / "some", size=4000)
    data = own(tmp_path / "some", mel=MelConfig(bands=8, hop=50, window=200), window=550, context=70)
    examples = examples_of(data, "train")
    for index in range(len(examples.lengths)):
        window = examples.fetch(index, index)
        assert window.context % 50 == 0
        assert window.local is not None
        assert window.local.shape == (8, -(-(len(window.codes) - 1) // 50) + 4)
    batch = data.collate([examples.fetch(index, 0) for index in range(3)])
    assert isinstance(batch, WaveBatch)
    assert batch.local is not None
    assert data.assets["mel"] == {"bands": 8, "hop": 50, "window": 200}


@needs_data
def test_free_spoken_digits() -> None:
    data = AudioData(dataset="fsdd")
    assert [len(data.items(split)) for split in ("train", "val", "test")] == [1720, 80, 200]
    assert data.assets["conditions"]["speaker"] == ["george", "jackson", "lucas", "nicolas"]
    assert data.assets["conditions"]["digit"] == list("0123456789")
    tests = {Path(each.clip.name).stem.rsplit("_", 1)[1] for each in data.items("test")}
    assert tests == set("01234")
    few = AudioData(dataset="fsdd", only=["speaker=jackson"], most=10)
    assert len(few.items("train")) == 100
    rest = AudioData(dataset="fsdd", leave_out=["speaker=jackson"])
    assert rest.assets["conditions"]["speaker"] == ["george", "lucas", "nicolas"]


@needs_data
def test_lj_speech() -> None:
    data = AudioData(dataset="ljspeech", sample_rate=22050)
    assert [len(data.items(split)) for split in ("train", "val", "test")] == [22, 2, 2]
    assert data.assets["conditions"] == {}


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--data.dataset", "files"], ["--data.train"]),
        (["--data.train", "x"], ["data.train", "--data.dataset files"]),
        (["--data.conditions", "[speaker]"], ["speaker", "instrument, pitch"]),
        (["--data.conditions", "[pitch, pitch]"], ["pitch", "once"]),
        (["--data.only", "[instrument]"], ["data.only instrument", "NAME=VALUE"]),
        (["--data.window", "0"], ["data.window", "0"]),
        (["--data.sample_rate", "16000"], ["16000", "8000"]),
        (["--data.mel.bands", "8", "--data.mel.hop", "1"], ["data.mel", "hop"]),
        (
            ["--data.mel.bands", "8", "--data.mel.hop", "61", "--data.window", "610"],
            ["data.mel.hop is 61", "two factors"],
        ),
        (["--model.channels", "0"], ["model.channels is 0"]),
        (["--model.cycle", "40"], ["model.cycle is 40"]),
        (["--data.sample_minutes", "-1"], ["sample_minutes"]),
    ],
)
def test_settings_that_mean_nothing(flags: list[str], parts: list[str], tmp_path: Path) -> None:
    assert_one_line(fit(tmp_path, *flags), 2, *parts)


def test_bad_files_are_all_named_before_there_is_a_run(tmp_path: Path) -> None:
    paths = write_files(tmp_path / "audio", count=8)
    paths[1].write_bytes(paths[1].read_bytes()[:-40])
    paths[2].write_bytes(b"")
    write_files(tmp_path / "other", count=3)[2].write_bytes(b"")
    ran = fit(tmp_path, "--data.dataset", "files", "--data.train", tmp_path / "audio", "--data.held_out", 0.2,
              "--data.test", tmp_path / "other")  # fmt: skip
    assert_one_line(ran, 1, "1.wav: 40 bytes shorter", "2.wav: the file is empty", f"{tmp_path}/other/2.wav")
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("*.ckpt"))


def spoil(path: Path) -> None:
    """Make a sample no number."""
    wave = soundfile.read(path)[0]
    wave[300] = numpy.nan
    soundfile.write(path, wave, 8000, subtype="FLOAT")


def test_what_shows_in_samples_alone_is_looked_for_before_there_is_a_run(tmp_path: Path) -> None:
    """In whole files of every split, at their ends and in the middle."""
    folders = {split: tmp_path / split for split in ("train", "val", "test")}
    for folder in folders.values():
        write_files(folder, count=3)
    for split, place in (("train", -30), ("test", 1500)):  # the second is damaged in the middle and has its end
        path = folders[split] / "x.flac"
        soundfile.write(path, numpy.random.default_rng(0).uniform(-0.5, 0.5, 30_000), 8000)
        content = path.read_bytes()
        path.write_bytes(content[:place] if place < 0 else content[:place] + bytes(20_000) + content[place + 20_000 :])
    spoil(folders["train"] / "0.wav")
    spoil(folders["val"] / "1.wav")
    spoil(folders["test"] / "2.wav")
    flags = [word for split, folder in folders.items() for word in (f"--data.{split}", folder)]
    ran = fit(tmp_path, "--data.dataset", "files", *flags)
    named = [f"{split}/{name}" for split, name in (("train", "x.flac"), ("val", "1.wav"), ("test", "x.flac"))]
    places = [f"{name}.wav: sample 300 is not a finite number" for name in ("train/0", "val/1", "test/2")]
    assert_one_line(ran, 1, *named, *places)
    assert not (tmp_path / "runs").exists()


def no_faults(clips: Any, split: str) -> list[str]:
    """As for files that are damaged only after they were looked at."""
    return []


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_is_no_number_stops_the_run_with_its_place(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "find_faults", no_faults)
    for path in write_files(tmp_path / "audio", count=6):
        spoil(path)
    write_files(tmp_path / "good", count=2)
    common = ("--data.dataset", "files", "--data.train", tmp_path / "audio", "--data.val", tmp_path / "good",
              "--data.test", write_manifest(tmp_path / "test.csv", [{"path": "more/0.wav"}]))  # fmt: skip
    write_files(tmp_path / "more", count=1)
    ran = fit(tmp_path, *common, "--data.window", 4096, "--data.num_workers", workers)
    assert ran.status == 1
    assert "sample 300 is not a finite number" in ran.err
    assert ran.err.strip().split("\n")[-1].startswith(f"fit: {tmp_path / 'audio'}")
    assert "Traceback" not in ran.err


def test_what_is_wrong_with_a_manifest(tmp_path: Path) -> None:
    rows = rows_of(write_files(tmp_path / "audio"), tmp_path)
    manifest = write_manifest(tmp_path / "list.csv", rows)
    with pytest.raises(DataError, match="'speaker' is missing; there are path, who, kind"):
        own(manifest, conditions=["speaker"]).items("train")
    rows[2]["who"], rows[3]["path"] = "", "audio/none.wav"
    write_manifest(manifest, rows)
    with pytest.raises(DataError, match="have no value in column 'who'"):
        own(manifest, conditions=["who"]).items("train")
    with pytest.raises(DataError, match=r"none\.wav: no such file"):
        _ = own(manifest).assets
    rows[1]["part"] = "eval"
    for row in rows:
        row.setdefault("part", "train")
    write_manifest(manifest, rows)
    with pytest.raises(DataError, match="part must be train, val, test or empty, got 'eval' in line 3"):
        own(manifest, split_column="part").items("train")


def test_values_that_training_never_had_are_said(tmp_path: Path) -> None:
    rows = rows_of(write_files(tmp_path / "audio"), tmp_path)
    train, val = write_manifest(tmp_path / "train.csv", rows[:3]), write_manifest(tmp_path / "val.csv", rows[3:5])
    test = write_manifest(tmp_path / "test.csv", [{**rows[5], "who": "zoe"}])
    data = own(train, conditions=["who"], val=str(val), test=str(test))
    with pytest.raises(DataError, match="test split has who zoe, which the model does not know; allowed: a, b"):
        data.examples("test")


@pytest.mark.parametrize(("selection", "words"), [("who=q", "there are a, b"), ("was=q", "there are kind, who")])
def test_selections_of_nothing(selection: str, words: str, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "list.csv", rows_of(write_files(tmp_path / "audio"), tmp_path))
    for flag in ("only", "leave_out"):
        with pytest.raises(UsageError, match=words):
            own(manifest, conditions=["who", "kind"], **{flag: [selection]}).items("train")


def test_an_empty_folder_and_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no files \.wav"):
        own(tmp_path / "empty").items("train")
    with pytest.raises(DataError, match="nowhere: no such file"):
        own(tmp_path / "nowhere").items("train")


def test_public_sets_say_which_files_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUITE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SUITE_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("fsdd", "ljspeech"):
        assert_one_line(fit(tmp_path, "--data.dataset", name), 1, name, "put")


def test_each_value_gives_its_share_of_what_is_held_out(tmp_path: Path) -> None:
    paths = write_files(tmp_path / "audio", count=24, size=50)
    rows = [{"path": str(path.relative_to(tmp_path)), "who": "ab"[number % 2]} for number, path in enumerate(paths)]
    data = own(write_manifest(tmp_path / "list.csv", rows), conditions=["who"], held_out=0.25)
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        who = [each.conditions["who"] for each in data.items(split)]
        assert who.count("a") == who.count("b") == count


def test_test_files_alone_can_be_evaluated(tmp_path: Path) -> None:
    write_files(tmp_path / "new", count=1)
    assets = {"sample_rate": 8000, "classes": 256, "conditions": {}, "mel": None}
    data = AudioData(dataset="files", test=str(tmp_path / "new"), assets=assets)
    assert len(data.items("test")) == 1


def test_windows_with_spectra_are_whole_frames(tmp_path: Path) -> None:
    write_files(tmp_path / "some")
    with pytest.raises(UsageError, match=r"data\.window is 4096: .* multiple of data\.mel\.hop, 300"):
        own(tmp_path / "some", mel=MelConfig(bands=8, hop=300, window=600), window=4096)


def test_folds_test_each_file_once_and_keep_groups_whole(tmp_path: Path) -> None:
    paths = write_files(tmp_path / "audio", count=24, size=50)
    rows = [
        {"path": str(path.relative_to(tmp_path)), "who": "ab"[number % 2], "take": str(number // 2)}
        for number, path in enumerate(paths)
    ]
    manifest = write_manifest(tmp_path / "list.csv", rows)
    for group, count in ((None, 8), ("take", 8)):
        tested: list[str] = []
        for fold in range(3):
            data = own(manifest, conditions=["who"], folds=3, fold=fold, held_out=0.2, group_column=group)
            parts = {split: {each.clip.name for each in data.items(split)} for split in ("train", "val", "test")}
            assert len(set.union(*parts.values())) == sum(map(len, parts.values())) == 24
            assert len(parts["test"]) == count
            who = [each.conditions["who"] for each in data.items("test")]
            assert who.count("a") == who.count("b")
            tested += parts["test"]
            if group:
                takes = [{int(Path(name).stem) // 2 for name in part} for part in parts.values()]
                assert sum(map(len, takes)) == len(set.union(*takes)) == 12
        assert len(set(tested)) == 24
    with pytest.raises(UsageError, match=r"data\.folds cuts data\.train"):
        own(manifest, folds=3, test=str(manifest))
    for row in rows:
        row["part"] = "train" if row["path"].endswith("0.wav") else "val" if row["path"].endswith("1.wav") else "test"
    split = write_manifest(tmp_path / "split.csv", rows)
    with pytest.raises(DataError, match="group '0' is in train and val: a group belongs"):
        own(split, split_column="part", group_column="take").items("train")


def test_a_value_that_a_split_lacks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own figure would be no number, without a word."""
    files = write_files(tmp_path / "audio", count=6)
    rows = rows_of(files, tmp_path)
    for name, part in (("train", rows[1:]), ("test", rows[:1])):
        write_manifest(tmp_path / f"{name}.csv", part)
    given: dict[str, Any] = {name: str(tmp_path / f"{name}.csv") for name in ("train", "test")}
    data = AudioData(dataset="files", conditions=["who"], held_out=0.5, **given)
    data.loader("test", shuffle=False)
    assert "data: the test split has no file of who b: no figure of its own" in capsys.readouterr().err


def test_a_file_in_two_splits_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path / "audio", count=6)
    write_files(tmp_path / "audio" / ".trash", count=2)
    again = tmp_path / "audio" / ".." / "audio"
    with pytest.raises(DataError, match=r"audio/\d.wav is in \w+ and \w+: it belongs into one split; "):
        _ = own(tmp_path / "audio", val=str(again)).assets
    evaluated = own(tmp_path / "audio", test=str(again))
    assert len(evaluated.items("test")) == 6, "hidden ones are passed over"
