"""Damage in audio files that decoders pass over: a byte too many, another MD5, a damaged information frame."""

from pathlib import Path

import numpy
import pytest
import soundfile

from domains.audio.checking import find_faults
from domains.audio.files import FileClip
from suite.errors import DataError
from tests.corruption.samples import MAKERS, RATE


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUITE_CACHE_DIR", str(tmp_path / "cache"))


def test_a_byte_that_was_inserted_is_left_over(tmp_path: Path) -> None:
    """All samples after it are noise."""
    data = MAKERS["wav"](0)
    path = tmp_path / "a.wav"
    path.write_bytes(data[:5001] + b"\x55" + data[5001:])
    with pytest.raises(DataError, match=r"a\.wav: 1 bytes are left over after the 16000 bytes of samples"):
        FileClip(path, rate=RATE)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_S8"])
def test_the_md5_of_flac_is_compared(tmp_path: Path, subtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    samples = numpy.random.default_rng(1).uniform(-0.9, 0.9, (3000, 2))
    path = tmp_path / "a.flac"
    soundfile.write(path, samples, RATE, format="FLAC", subtype=subtype)
    assert find_faults([FileClip(path, rate=RATE)], "train") == []
    assert "MD5" not in capsys.readouterr().err
    data = bytearray(path.read_bytes())
    data[26] ^= 1
    path.write_bytes(data)
    for _ in range(2):  # also when the file is known
        assert find_faults([FileClip(path, rate=RATE)], "train") == []
        err = capsys.readouterr().err
        assert f"{path}: its samples do not have the MD5 of its header" in err


def test_a_header_without_md5_is_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As streams are written."""
    data = bytearray(MAKERS["flac"](0))
    data[26:42] = bytes(16)
    path = tmp_path / "a.flac"
    path.write_bytes(data)
    assert find_faults([FileClip(path, rate=RATE)], "train") == []
    assert capsys.readouterr().err == ""


def test_a_damaged_information_frame_of_mp3(tmp_path: Path) -> None:
    """libmpg123 takes it for sound and drops the end; all 8,000 samples are read, or the file is refused."""
    data = bytearray(MAKERS["mp3"](0))
    data[9] ^= 16
    path = tmp_path / "a.mp3"
    path.write_bytes(data)
    assert is_whole_or_refused(FileClip(path, rate=RATE))


def is_whole_or_refused(clip: FileClip) -> bool:
    try:
        clip.check()
    except DataError as error:
        return clip.path.name in str(error)
    return clip.frames >= 8000
