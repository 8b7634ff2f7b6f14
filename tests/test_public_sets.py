"""Public sets from the folder of data or the cache: which of the two is taken, and what is said of it."""

import hashlib
from pathlib import Path

import pytest

from domains.audio.data import AudioData
from domains.audio.listing import list_named
from domains.audio.remotes import REMOTES
from suite.console import forget_notices
from suite.errors import DataError
from suite.sources import data_folder
from tests.commands import QUIET, run
from tests.test_audio_data import SMALL, write_files


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's folder of LJ Speech with as many clips as are downloaded; no other folder of data."""
    forget_notices()
    monkeypatch.delenv("SUITE_DATA_DIR", raising=False)
    monkeypatch.setenv("SUITE_CACHE_DIR", str(tmp_path / "cache"))
    return clips(tmp_path / "cache" / "data" / "ljspeech", count=26)


def clips(folder: Path, *, count: int) -> Path:
    for number, path in enumerate(write_files(folder, count=count, size=100), start=1):
        path.rename(folder / f"LJ001-{number:04d}.wav")
    return folder


@pytest.mark.parametrize("given", ["no such folder", "empty", "no clips", "no such home", "too long a name"])
def test_a_folder_of_data_that_is_set_and_not_used_is_said(
    given: str, cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A slip in its name must not give another set's figures without a word."""
    root = tmp_path / "given"
    folder = root / "ljspeech"
    if given in ("empty", "no clips"):
        (folder / "wavs").mkdir(parents=True)
    if given == "no clips":
        for name in ("metadata.csv", ".DS_Store", "wavs/._LJ001-0001.wav"):
            (folder / name).touch()
    if given == "no such home":
        root = Path("~nobody-of-that-name/data")
    if given == "too long a name":
        root = tmp_path / ("x" * 300)
    monkeypatch.setenv("SUITE_DATA_DIR", str(root))
    for _ in range(2):  # once in a command, though each split may ask
        assert {item.path.parent for item in list_named("ljspeech")} == {cached}
    said = [line for line in capfd.readouterr().err.split("\n") if "SUITE_DATA_DIR" in line or str(root) in line]
    assert len(said) == 1
    fault = "has nothing called LJ*.wav or wavs/LJ*.wav" if given in ("empty", "no clips") else "no such folder"
    assert f"data: {root / 'ljspeech'}" in said[0]
    assert fault in said[0]
    assert said[0].endswith(f"; until then {cached} is used")


def test_any_of_the_files_will_do_where_their_names_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUITE_DATA_DIR", str(tmp_path / "given"))
    folder = clips(tmp_path / "given" / "ljspeech" / "wavs", count=3)
    assert {item.path.parent for item in list_named("ljspeech")} == {folder}
    assert "is used" not in capfd.readouterr().err
    (tmp_path / "given" / "fsdd" / "recordings").mkdir(parents=True)
    with pytest.raises(DataError, match=r"fsdd has nothing called recordings/\*\.wav: put .*recordings/DIGIT_SPEAKER"):
        list_named("fsdd")


def test_files_by_name_are_said_too(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUITE_DATA_DIR", str(tmp_path / "given"))
    (tmp_path / "given" / "ljspeech").mkdir(parents=True)
    files = ["LJ001-0001.wav"]
    assert data_folder("ljspeech", files=files, remotes=REMOTES["ljspeech"]) == cached
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert (
        f"ljspeech lacks LJ001-0001.wav: put the missing files there (needed: LJ001-0001.wav); until then {cached}"
        in said
    )


@pytest.mark.parametrize(("whole", "lines"), [(27, 1), (26, 0)])
def test_clips_that_are_not_all_are_for_trying(
    whole: int, lines: int, cached: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the place of a clip among those there are, the excerpt's test is training data of all clips."""
    monkeypatch.setattr("domains.audio.listing._LJ_CLIPS", whole)
    for _ in range(2):
        assert len(list_named("ljspeech")) == 26
        said = capfd.readouterr().err
        assert said.count("\n") == lines
        if lines:
            assert f"{cached} has 26 of the 27 clips: for trying the recipe, not for figures" in said


def test_a_run_goes_on_where_the_folder_of_its_set_was_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        clips(tmp_path / name / "ljspeech", count=4)
    flags = (*QUIET, *SMALL, "--data.dataset", "ljspeech", "--runs", tmp_path / "runs", "--optim.schedule", "constant")
    monkeypatch.setenv("SUITE_DATA_DIR", str(tmp_path / "a"))
    assert run("fit", "--domain", "audio", *flags, "--name", "a").status == 0
    again = (
        "fit",
        "--domain",
        "audio",
        *flags,
        "--trainer.max_steps",
        2,
        "--resume",
        tmp_path / "runs" / "audio" / "a",
    )
    monkeypatch.setenv("SUITE_DATA_DIR", str(tmp_path / "b"))
    longer = tmp_path / "b" / "ljspeech" / "LJ001-0001.wav"
    sound = longer.read_bytes()
    longer.write_bytes((tmp_path / "b" / "ljspeech" / "LJ001-0002.wav").read_bytes())
    ran = run(*again)
    assert ran.status == 1
    assert "the data are not what this run began with (train: 1 file changed (LJ001-0001.wav))" in ran.err
    longer.write_bytes(sound)
    ran = run(*again)
    assert ran.status == 0, ran.err
    assert "from step 1" in ran.err


def test_a_run_that_remembers_whole_paths_goes_on_in_the_same_folder(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = AudioData(dataset="ljspeech")
    digest = hashlib.sha256()
    for recording in data.items("train"):
        clip = recording.clip
        digest.update(repr((str(cached / Path(clip.name).name), clip.frames, [])).encode())
        digest.update(clip.read(0, min(256, clip.frames)).tobytes())
    earlier = digest.hexdigest()
    name_alone = data.earlier_fingerprint()
    assert name_alone != earlier
    assert data.is_known_as(earlier)
    assert data.is_known_as(name_alone)
    cached.rename(tmp_path / "moved")
    monkeypatch.setenv("SUITE_DATA_DIR", str(tmp_path / "given"))
    (tmp_path / "given").mkdir()
    (tmp_path / "moved").rename(tmp_path / "given" / "ljspeech")
    moved = AudioData(dataset="ljspeech")
    assert moved.earlier_fingerprint() == name_alone
    assert moved.fingerprint() == data.fingerprint()
    assert not moved.is_known_as(earlier)


def test_the_fingerprint_is_of_contents_not_of_paths(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_files(tmp_path / name, count=4)
    first, second = (AudioData(dataset="files", train=str(tmp_path / name), held_out=0.25) for name in ("a", "b"))
    assert first.fingerprint() == second.fingerprint()
    assert first.earlier_fingerprint() != second.earlier_fingerprint()
    assert not second.is_known_as(first.earlier_fingerprint())
