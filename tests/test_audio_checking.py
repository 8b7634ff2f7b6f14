"""Files are read from end to end before a run, once for each of their states; a run goes on when they are mended."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from domains.audio import checking, recordings
from domains.audio.checking import find_faults
from domains.audio.files import FileClip, open_clips
from tests.commands import QUIET, run
from tests.test_audio_data import SMALL, no_faults, spoil, write_files


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the files that are read to be checked, with a cache of the test's own."""
    names: list[str] = []
    check = FileClip.check

    def note(clip: FileClip) -> None:
        names.append(clip.path.name)
        check(clip)

    monkeypatch.setattr(FileClip, "check", note)
    monkeypatch.setenv("SUITE_CACHE_DIR", str(tmp_path / "cache"))
    return names


def faults(paths: list[Path]) -> list[str]:
    clips, problems = open_clips(paths, rate=8000)
    assert not problems
    return find_faults(clips, "train")


def test_the_same_files_are_read_once_and_a_changed_one_again(read: list[str], tmp_path: Path) -> None:
    paths = write_files(tmp_path / "audio", count=3)
    every = [path.name for path in paths]
    for expected in (every, []):
        assert faults(paths) == []
        assert read == expected
        read.clear()
    whole = paths[1].read_bytes()
    spoil(paths[1])
    for _ in range(2):  # what has a fault is never remembered
        assert [fault.partition(": ")[2][:10] for fault in faults(paths)] == ["sample 300"]
        assert read == ["1.wav"]
        read.clear()
    paths[1].write_bytes(whole)
    assert faults(paths) == []
    assert read == ["1.wav"]


def test_another_division_of_the_same_files_reads_none_again(read: list[str], tmp_path: Path) -> None:
    """Such as each fold, another seed or share; one file more is read alone."""
    paths = write_files(tmp_path / "audio", count=6)
    assert faults(paths[:3]) == faults(paths[3:5]) == []
    read.clear()
    for part in (paths[:1], paths[1:5], paths[4::-1]):
        assert faults(part) == []
        assert not read
    assert faults(paths) == []
    assert read == ["5.wav"]


def test_what_passed_beside_a_fault_is_not_read_again(read: list[str], tmp_path: Path) -> None:
    paths = write_files(tmp_path / "audio", count=3)
    spoil(paths[0])
    assert len(faults(paths)) == 1
    read.clear()
    assert len(faults(paths)) == 1
    assert read == ["0.wav"]


def test_several_at_once_remember_all_whatever_stands_there(read: list[str], tmp_path: Path) -> None:
    place = tmp_path / "cache" / "audio-checked" / "passed.txt"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"\xff\0 of another program, and a line that is cut sho")
    folders = [write_files(tmp_path / str(number), count=10, size=10) for number in range(4)]
    clips = [open_clips(paths, rate=8000)[0] for paths in folders]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(find_faults, clips, ["train"] * 4)) == [[]] * 4
    assert len(read) == 40
    assert all(faults(paths) == [] for paths in folders)
    assert len(read) == 40


def test_a_file_that_is_gone_is_one_line(read: list[str], tmp_path: Path) -> None:
    paths = write_files(tmp_path / "audio", count=3)
    clips, _ = open_clips(paths, rate=8000)
    paths[1].unlink()
    assert find_faults(clips, "train") == [f"{paths[1]}: samples 0 to 1000 cannot be decoded (the file is gone)"]
    long = tmp_path / ("x" * 300 + ".wav")
    assert open_clips([long, long / "y.wav"], rate=8000)[1] == [
        f"{long}: no such file",
        f"{long / 'y.wav'}: cannot be read (File name too long)",
    ]


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        ("file", "cannot be written (Not a directory)"),
        ("x" * 300, "cannot be written (File name too long)"),
        ("~nobody-of-that-name/cache", "no such home folder"),
    ],
)
def test_a_cache_that_cannot_be_written_is_said_and_does_no_harm(
    cache: str,
    words: str,
    read: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SUITE_CACHE_DIR", cache if cache.startswith("~") else str(tmp_path / cache))
    assert faults(write_files(tmp_path / "audio", count=2)) == []
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert "read again next time" in said


def test_that_reading_takes_long_is_said(
    read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checking, "_LONG", 1000)
    assert faults(write_files(tmp_path / "audio", count=2)) == []
    assert "reading 2 files of train once (1,900 samples)" in capsys.readouterr().err


@pytest.mark.parametrize("looked_at", [True, False])
def test_a_run_goes_on_exactly_when_a_file_is_mended(
    looked_at: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the fault itself is found before training or only that the file changed."""
    paths = write_files(tmp_path / "audio", count=6)
    write_files(tmp_path / "other", count=2)
    more = write_files(tmp_path / "more", count=2)
    common = ("--data.dataset", "files", "--data.train", tmp_path / "audio", "--data.val", tmp_path / "other",
              "--data.test", more[0].parent, "--optim.schedule", "constant", "--data.batch_size", 2)  # fmt: skip

    def go(epochs: int, *argv: Any) -> Any:
        flags = (*QUIET, *SMALL, "--trainer.max_steps", -1, "--trainer.max_epochs", epochs, "--runs", tmp_path / "runs")
        return run("fit", "--domain", "audio", *flags, *common, *argv)

    def weights(name: str) -> dict[str, torch.Tensor]:
        path = tmp_path / "runs" / "audio" / name / "checkpoints" / "last.ckpt"
        return dict(torch.load(path, weights_only=True)["state_dict"])

    assert go(2, "--name", "whole").status == 0
    assert go(1, "--name", "a").status == 0
    before, sound = weights("a"), paths[2].read_bytes()
    spoil(paths[2])
    again = ("--resume", tmp_path / "runs" / "audio" / "a")
    with monkeypatch.context() as patch:
        if not looked_at:
            patch.setattr(recordings, "find_faults", no_faults)
        ran = go(2, *again)
    assert ran.status == 1
    # A file that is damaged in a way that opening it does not show is one that changed.
    said = f"{paths[2]}: sample 300 is not a finite number" if looked_at else "train: 1 file changed (2.wav)"
    assert said in ran.err.strip().split("\n")[-1]
    assert "Traceback" not in ran.err
    assert all(torch.equal(tensor, weights("a")[name]) for name, tensor in before.items())
    paths[2].write_bytes(sound)
    assert go(2, *again).status == 0
    assert all(torch.equal(tensor, weights("a")[name]) for name, tensor in weights("whole").items())
