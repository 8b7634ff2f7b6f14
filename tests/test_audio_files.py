"""Audio files: parts equal the whole in every format and rate, and what is wrong with a file said with its name."""

from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from torchaudio.functional import resample

from domains.audio import files
from domains.audio.checking import find_faults
from domains.audio.files import FileClip, open_clips
from domains.audio.listing import list_items
from domains.audio.mel import MARGIN, MelConfig, mel_frames
from domains.audio.parts import Layout
from suite.errors import DataError
from suite.listing import ListingColumns


def tone(size: int = 5000, *, rate: int = 8000, channels: int = 1) -> NDArray[numpy.float64]:
    time = numpy.arange(size) / rate
    wave = 0.4 * numpy.sin(2 * numpy.pi * 330 * time) + 0.01 * numpy.random.default_rng(0).normal(size=size)
    return wave if channels == 1 else numpy.stack([wave, -0.5 * wave], axis=1)


def write(path: Path, samples: NDArray[numpy.float64], *, rate: int = 8000, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_part_is_that_part_of_the_whole(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, tone(20_000))
    whole = soundfile.read(path, dtype="float32")[0]
    clip = FileClip(path, rate=8000)
    assert clip.frames == len(whole)
    for start, stop in ((0, 100), (1, 2), (4321, 9876), (len(whole) - 50, len(whole)), (700, 700)):
        numpy.testing.assert_allclose(clip.read(start, stop), whole[start:stop], rtol=0, atol=1e-7)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_every_kind_of_sample(subtype: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(), subtype=subtype)
    tolerance = 0.02 if subtype in ("PCM_U8", "ULAW") else 1e-4
    numpy.testing.assert_allclose(FileClip(path, rate=8000).read(0, 5000), tone(), rtol=0, atol=tolerance)


def test_channels_are_averaged(tmp_path: Path) -> None:
    clip = FileClip(write(tmp_path / "a.wav", tone(channels=2), subtype="FLOAT"), rate=8000)
    numpy.testing.assert_allclose(clip.read(0, 5000), 0.25 * tone(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("own", "rate"), [(16000, 8000), (22050, 8000), (8000, 22050), (11025, 16000), (44100, 8000)])
def test_resampling_a_part_is_that_part_of_the_whole(own: int, rate: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(9000, rate=own), rate=own, subtype="FLOAT")
    whole = resample(torch.from_numpy(soundfile.read(path, dtype="float32")[0]), own, rate).numpy()
    clip = FileClip(path, rate=rate)
    assert clip.frames == len(whole)
    for start, stop in ((0, len(whole)), (0, 10), (777, 1900), (len(whole) - 33, len(whole))):
        numpy.testing.assert_allclose(clip.read(start, stop), whole[start:stop], rtol=0, atol=2e-6)


def test_a_wav_that_is_shorter_than_its_header_says(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.wav", tone())
    path.write_bytes(path.read_bytes()[:-1000])
    assert len(soundfile.read(path)[0]) == 4500, "the library says nothing"
    with pytest.raises(DataError, match=r"cut\.wav: 1000 bytes shorter than its header says"):
        FileClip(path, rate=8000)


def test_a_header_that_leaves_the_length_open_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "pipe.wav", tone())
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(content))
    assert FileClip(path, rate=8000).frames == 5000


def test_what_follows_the_samples_is_no_part_of_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone())
    content = path.read_bytes()
    path.write_bytes(content + b"LIST" + (4).to_bytes(4, "little") + b"INFO")
    assert FileClip(path, rate=8000).frames == 5000


def test_a_cut_flac_is_named_at_the_latest_when_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.flac", tone(40_000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cut\.flac"):
        FileClip(path, rate=8000).read(0, 40_000)


@pytest.mark.parametrize("name", ["cut.ogg", "cut.mp3"])
def test_a_cut_file_of_a_format_without_a_length_is_what_is_there_or_is_named(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, tone(40_000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clips, problems = open_clips([path], rate=8000)
    try:
        lengths = [len(clip.read(0, clip.frames)) for clip in clips]
    except DataError as error:
        problems.append(str(error))
    assert all(name in problem for problem in problems)
    assert problems or lengths[0] == clips[0].frames < 40_000


def test_files_that_are_no_audio_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no audio at all, but long enough to look at " * 10)
    write(tmp_path / "silent.wav", numpy.zeros(0))
    write(tmp_path / "good.wav", tone())
    names = ["empty.wav", "text.wav", "silent.wav", "good.wav", "god.wav"]
    clips, problems = open_clips([tmp_path / name for name in names], rate=8000)
    assert [Path(clip.name).name for clip in clips] == ["good.wav"]
    words = ["empty", "not audio", "no samples", "near it is good.wav"]
    assert len(problems) == 4
    assert all(word in problem for word, problem in zip(words, problems, strict=True))


@pytest.mark.parametrize("value", [numpy.nan, numpy.inf])
def test_a_sample_that_is_no_number_is_found_with_its_place(value: float, tmp_path: Path) -> None:
    samples = tone()
    samples[1234] = value
    clip = FileClip(write(tmp_path / "a.wav", samples, subtype="FLOAT"), rate=8000)
    assert len(clip.read(0, 1234)) == 1234
    with pytest.raises(DataError, match=r"a\.wav: sample 1234 is not a finite number"):
        clip.read(1000, 2000)


@pytest.mark.parametrize(
    ("name", "subtype", "channels", "read"),
    [
        ("a.wav", "PCM_16", 1, []),
        ("a.wav", "PCM_16", 2, ["a.wav"]),  # channels may cancel
        ("a.wav", "FLOAT", 1, ["a.wav"]),
        ("a.flac", None, 1, ["a.flac"]),
    ],
)
def test_only_samples_that_may_hide_something_are_read_to_be_checked(
    name: str, subtype: str | None, channels: int, read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUITE_CACHE_DIR", str(tmp_path / "cache"))
    seen: list[str] = []
    decode = files.decode_blocks

    def note(path: Path, layout: Layout) -> Iterator[NDArray[numpy.float32]]:
        seen.append(path.name)
        return decode(path, layout)

    monkeypatch.setattr(files, "decode_blocks", note)
    paths = [write(tmp_path / name, tone(channels=channels), subtype=subtype)]
    for _ in range(2):  # and once
        clips, problems = open_clips(paths, rate=8000)
        assert not problems + find_faults(clips, "train")
    assert seen == read


def test_spectrum_frames_of_a_part_are_those_of_the_whole(tmp_path: Path) -> None:
    config = MelConfig(bands=12, hop=64, window=256)
    clip = FileClip(write(tmp_path / "a.wav", tone(6400)), rate=8000)
    whole = mel_frames(clip, 0, 6400, config=config)
    assert whole.shape == (12, 100 + 2 * MARGIN)
    for start, stop in ((0, 640), (640, 1280), (64 * 90, 6400), (1280, 1300)):
        part = mel_frames(clip, start, stop, config=config)
        first = start // 64
        torch.testing.assert_close(part, whole[:, first : first + part.size(1)], rtol=0, atol=1e-5)


def test_files_of_other_kinds_in_a_folder_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.wav", "b.aiff", "c.m4a", ".hidden.txt"):
        (tmp_path / name).write_bytes(b"x")
    found = list_items(str(tmp_path), conditions=[], path_column="path", listing=ListingColumns())
    assert [item.path.name for item in found] == ["a.wav"]
    said = capsys.readouterr().err
    assert "2 file(s) end in something else than " in said
    assert "b.aiff" in said
