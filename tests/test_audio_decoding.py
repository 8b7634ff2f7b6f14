"""Stretches of files whose decoders cannot seek: equal to the whole, in bounded memory, of the file as it is now."""

import os
from pathlib import Path

import numpy
import pytest

from domains.audio import decoding
from domains.audio.checking import find_faults
from domains.audio.files import FileClip, open_clips
from domains.audio.layout import look_at
from domains.audio.parts import layout_from_json
from suite.errors import DataError, SuiteError
from tests.odd_audio import encode, wave, with_total


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUITE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(decoding, "_kept", type(decoding._kept)())


@pytest.mark.parametrize(
    "content",
    [
        encode("MP3"),
        encode("OGG"),
        encode("OGG", subtype="OPUS"),
        encode("MP3")[288:],  # without a Xing frame
        encode("OGG") + encode("OGG"),
        encode("WAV", subtype="IMA_ADPCM"),
        encode("FLAC") + encode("FLAC"),
        with_total(encode("FLAC"), 0),
    ],
)
@pytest.mark.parametrize("budget", [2**28, 2**12])  # in memory, and in a temporary file
def test_a_stretch_is_that_stretch_of_the_whole(
    content: bytes, budget: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_BUDGET", budget)
    monkeypatch.setattr(decoding, "BLOCK", 3000)
    (tmp_path / "a").write_bytes(content)
    clip = FileClip(tmp_path / "a", rate=16_000)
    whole = numpy.concatenate([block.mean(axis=1) for block in decoding.decode_blocks(clip.path, clip.layout)])
    assert len(whole) == clip.frames
    for start, stop in (
        (19_000, clip.frames),
        (0, 100),
        (0, 0),
        (7, 7),
        (4321, 19_876),
        (clip.frames - 1, clip.frames),
    ):
        numpy.testing.assert_array_equal(clip.read(start, stop), whole[start:stop])
    assert not list(tmp_path.glob("cache/audio-decoded/*")), "the temporary file has no name"


def test_memory_is_bounded_by_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 4 * 20_000
    monkeypatch.setattr(decoding, "_BUDGET", 4 * size)
    clips = []
    for number in range(7):
        (tmp_path / f"{number}.ogg").write_bytes(encode("OGG"))
        clips.append(FileClip(tmp_path / f"{number}.ogg", rate=16_000))
    for clip in [*clips, clips[5]]:
        clip.read(0, 10)
    assert [Path(name).name for name, _ in decoding._kept] == ["3.ogg", "4.ogg", "6.ogg", "5.ogg"]
    assert sum(samples.nbytes for samples in decoding._kept.values()) == 4 * size
    monkeypatch.setattr(decoding, "_BUDGET", 1000)
    monkeypatch.setattr(decoding, "_SPOOLED", 2)
    monkeypatch.setattr(decoding, "_kept", type(decoding._kept)())
    for clip in clips:
        clip.read(0, 10)
    assert [Path(name).name for name, _ in decoding._kept] == ["5.ogg", "6.ogg"]


def test_a_temporary_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SUITE_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(decoding, "_BUDGET", 1000)
    (tmp_path / "a.ogg").write_bytes(encode("OGG"))
    with pytest.raises(SuiteError, match=r"a\.ogg: 80,000 bytes of decoded samples cannot be written"):
        FileClip(tmp_path / "a.ogg", rate=16_000).read(0, 10)


def exchange(one: Path, other: Path) -> None:
    """Swap the names of two files."""
    one.rename(one.with_name("between"))
    other.rename(one)
    one.with_name("between").rename(other)


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3", "a.flac", "a.wav"])
def test_exchanged_files_of_equal_size_and_time_are_noticed(name: str, tmp_path: Path) -> None:
    """In the memory of a process, and in what is remembered of checked files."""
    one, other = tmp_path / name, tmp_path / f"other-{name}"
    first, second = (encode(name[2:].upper(), samples=sign * wave()) for sign in (1, -1))
    size = max(len(first), len(second))
    # Tags of different lengths make them equal in size.
    one.write_bytes(first + (b"" if name == "a.wav" else bytes(2000 + size - len(first))))
    other.write_bytes(second + (b"" if name == "a.wav" else bytes(2000 + size - len(second))))
    assert one.stat().st_size == other.stat().st_size
    for path in (one, other):
        os.utime(path, (10**9, 10**9))
    clips = open_clips([one], rate=16_000)[0]
    assert not find_faults(clips, "train")
    before = clips[0].read(0, 20_000)
    exchange(one, other)
    os.utime(one, (10**9, 10**9))
    for clip in (clips[0], open_clips([one], rate=16_000)[0][0]):
        numpy.testing.assert_allclose(clip.read(0, 20_000), -before, rtol=0, atol=0.02)


def test_an_exchanged_file_of_another_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ogg").write_bytes(encode("OGG"))
    clip = FileClip(tmp_path / "a.ogg", rate=16_000)
    clip.read(0, 10)
    (tmp_path / "a.ogg").write_bytes(encode("OGG", samples=wave()[:9000]))
    with pytest.raises(DataError, match=r"a\.ogg: was exchanged for another file while it was in use"):
        clip.read(0, 10)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050])
def test_one_sample_is_a_clip(rate: int, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode("WAV", samples=numpy.array([0.5])))
    clip = FileClip(tmp_path / "a.wav", rate=rate)
    found = clip.read(0, clip.frames)
    assert len(found) == clip.frames == -(-rate // 16_000)
    assert found[0] == pytest.approx(0.5, abs=0.3)


def test_layouts_are_plain_data(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(with_total(encode("FLAC"), 0) + encode("FLAC"))
    layout = look_at(tmp_path / "a.flac")
    assert layout_from_json(layout.to_json()) == layout
    assert len(layout.parts) == 2
