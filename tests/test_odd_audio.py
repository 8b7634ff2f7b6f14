"""Odd audio files give all samples, as an independent decode has them, or one line that says why not."""

import csv
import shutil
import struct
import wave as wave_module
from pathlib import Path
from typing import Any

import numpy
import pytest

from domains.audio.checking import find_faults
from domains.audio.data import AudioData
from domains.audio.files import open_clips
from domains.audio.mpeg import first_frame, read_mpeg
from suite.errors import DataError
from tests.odd_audio import (
    APE,
    CASES,
    ID3,
    ID3V1,
    RATE,
    SIZE,
    chunk,
    decode_av,
    encode,
    pages,
    pcm,
    wave,
    wave_header,
    with_frames,
    with_total,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUITE_CACHE_DIR", str(tmp_path / "cache"))


def read(path: Path, *, rate: int = RATE) -> Any:
    """All samples as a run reads them: opened, checked, and read in parts of which one is out of order."""
    clips, problems = open_clips([path], rate=rate)
    problems += find_faults(clips, "train")
    if problems:
        raise DataError("; ".join(problems))
    (clip,) = clips
    half = clip.frames // 2
    second = clip.read(half, clip.frames)
    return numpy.concatenate([clip.read(0, half), second])


def samples_of(path: Path) -> Any:
    """The samples of a plain 16-bit WAV file by Python's own reader."""
    with wave_module.open(str(path)) as file:
        values = numpy.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        return values.reshape(-1, file.getnchannels()).mean(axis=1) / 32768


PLAIN = CASES / "audio-encodings" / "PCM_16.wav"


def test_variable_bit_rate_without_a_xing_frame() -> None:
    path = CASES / "audio-vbr" / "vbr_noxing.mp3"
    expected = decode_av(path).mean(axis=1)
    assert len(expected) == 89_856
    numpy.testing.assert_allclose(read(path, rate=22_050), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "mark", "tolerance"), [("two.ogg", b"OggS\0\2", 1e-6), ("two.flac", b"fLaC", 0)])
def test_joined_files_are_read_whole(
    name: str, mark: bytes, tolerance: float, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (CASES / "audio-concatenated" / name).read_bytes()
    cut = content.index(mark, 4)
    halves = [decode_av(half).mean(axis=1) for half in (content[:cut], content[cut:])]
    found = read(CASES / "audio-concatenated" / name)
    assert len(found) == 16_000
    for place, half in enumerate(halves):  # FFmpeg leaves padding at the end of Vorbis, and may drop its last block
        size = min(8000, len(half))
        part = found[8000 * place : 8000 * place + size]
        numpy.testing.assert_allclose(part, half[:size], rtol=0, atol=tolerance)
    assert f"{name}: 2 joined streams" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["zero.wav", "7fffffff.wav"])
def test_sizes_that_stream_writers_leave(name: str) -> None:
    path = CASES / "audio-stream-headers" / name
    expected = numpy.frombuffer(path.read_bytes()[44:], dtype="<i2") / 32768
    assert len(expected) == 8000
    numpy.testing.assert_array_equal(read(path), expected.astype(numpy.float32))


def test_bytes_that_a_header_leaves_over_are_named() -> None:
    with pytest.raises(DataError, match=r"short_by_half\.wav: 8000 bytes are left over after the 8000 bytes"):
        read(CASES / "audio-stream-headers" / "short_by_half.wav")


@pytest.mark.parametrize("name", ["total0.flac", "ok.flac"])
def test_flac_of_unknown_length(name: str) -> None:
    expected = decode_av(CASES / "audio-unknown-length" / "ok.flac").mean(axis=1)
    numpy.testing.assert_array_equal(read(CASES / "audio-unknown-length" / name), expected)


def test_float_samples_in_the_range_of_integers_are_refused() -> None:
    with pytest.raises(DataError, match=r"int16_range\.wav: 7,960 samples .* the largest is 16383\.5: integer range\?"):
        read(CASES / "audio-float-scale" / "int16_range.wav")


@pytest.mark.parametrize(("name", "above"), [("slightly_hot.wav", 3000), ("good.wav", 0)])
def test_float_samples_just_above_1_are_counted(name: str, above: int, capsys: pytest.CaptureFixture[str]) -> None:
    path = CASES / "audio-float-scale" / name
    content = path.read_bytes()
    expected = numpy.frombuffer(content[content.index(b"data") + 8 :], dtype="<f4")[:8000]
    numpy.testing.assert_array_equal(read(path), expected)
    assert int((abs(expected) > 1).sum()) == above
    said = capsys.readouterr().err
    assert ("data: train: 3,000 samples above 1 in 1 of 1 files are clipped (the largest is 1.2" in said) == bool(above)


def test_channels_that_cancel_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    path = CASES / "audio-channels" / "antiphase.wav"
    numpy.testing.assert_allclose(read(path), samples_of(path), rtol=0, atol=1e-7)
    assert "data: train: in 1 of 1 files the channels cancel when averaged to mono" in capsys.readouterr().err


def test_one_path_with_two_speakers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(CASES / "audio-manifest" / "list.csv", tmp_path)
    with (tmp_path / "list.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        shutil.copy(PLAIN, tmp_path / row["path"])
    settings: dict[str, Any] = {"dataset": "files", "conditions": ["speaker"], "sample_rate": RATE, "held_out": 0.2}
    with pytest.raises(DataError, match=r"row 1 and row 2 are one file, .*a\.wav, with speaker=ann and speaker=bob"):
        AudioData(train=str(tmp_path / "list.csv"), **settings).items("train")
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=["path", "speaker"])
        writer.writeheader()
        writer.writerows(row for row in rows if row != {"path": "a.wav", "speaker": "bob"})
    data = AudioData(train=str(tmp_path / "list.csv"), **settings)
    assert {each.conditions["speaker"] for each in data.items("all")} == {"ann", "bob", "nan"}
    assert set(data.assets["conditions"]["speaker"]) <= {"ann", "bob", "nan"}


RAW = pcm()
LIST = chunk(b"LIST", b"INFO")
WAVES = {
    "plain": wave_header(len(RAW)) + RAW,
    "zero": wave_header(len(RAW), data=0, riff=0) + RAW,
    "ffmpeg": wave_header(len(RAW), data=0xFFFFFFFF, riff=0xFFFFFFFF, before=LIST) + RAW,
    "sox": wave_header(len(RAW), data=0x7FFFF000, riff=0x7FFFF024) + RAW,
    "arecord": wave_header(len(RAW), data=0x80000000, riff=0x80000024) + RAW,
    "gstreamer": wave_header(len(RAW), data=0x7FFF0000, riff=0x7FFF0024) + RAW,
    "an empty data chunk before the full one": wave_header(0) + chunk(b"data", RAW),
    "a fact chunk": wave_header(len(RAW), before=chunk(b"fact", struct.pack("<I", SIZE))) + RAW,
    "an odd chunk with padding": wave_header(len(RAW), before=chunk(b"junk", b"abc") + b"\0") + RAW,
    "an odd chunk without padding": wave_header(len(RAW), before=chunk(b"junk", b"abc")) + RAW,
    "a chunk behind": wave_header(len(RAW)) + RAW + LIST,
    "a chunk behind that is cut": wave_header(len(RAW)) + RAW + chunk(b"LIST", b"INFO", size=400),
    "tags behind": wave_header(len(RAW)) + RAW + ID3V1,
    "a tag before": ID3 + wave_header(len(RAW)) + RAW,
    "zeros behind": wave_header(len(RAW)) + RAW + bytes(300),
    "big endian": wave_header(len(RAW), order=">") + pcm(order=">"),
}
BAD_WAVES = {
    "cut": ((wave_header(len(RAW)) + RAW)[:-1001], "1001 bytes shorter than its header says"),
    "noise behind": (wave_header(len(RAW)) + RAW + bytes(range(1, 250)), "249 bytes are left over after the 40000"),
    "two files": ((wave_header(len(RAW)) + RAW) * 2, "another file of 40044 bytes is joined"),
    "two data chunks": (wave_header(len(RAW)) + RAW + chunk(b"data", RAW), "2 chunks of samples"),
    "nothing": (wave_header(0), "no samples in it"),
    "nothing but a chunk": (wave_header(0) + LIST, "no samples in it"),
    "no rate": (wave_header(len(RAW), rate=0) + RAW, "its sample rate is 0 Hz"),
    "an absurd rate": (wave_header(len(RAW), rate=2_000_000_000) + RAW, "Hz, got 2000000000"),
    "a rate without a common divisor": (wave_header(len(RAW), rate=96_001) + RAW, "too little in common with 16000"),
    "no channel": (wave_header(len(RAW), channels=0) + RAW, "0 channels"),
    "no format": (b"RIFF\0\0\0\0WAVE" + chunk(b"data", RAW), "without a format chunk"),
}


@pytest.mark.parametrize("name", WAVES)
@pytest.mark.parametrize("file", ["a.wav", "a.MP3"])  # whatever its name says
def test_wav_headers(name: str, file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(WAVES[name])
    numpy.testing.assert_array_equal(read(tmp_path / file), wave().astype(numpy.float32))


@pytest.mark.parametrize("name", BAD_WAVES)
def test_wav_headers_that_are_refused(name: str, tmp_path: Path) -> None:
    content, words = BAD_WAVES[name]
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.wav: ") as refused:
        read(tmp_path / "a.wav")
    assert words in str(refused.value)


def test_an_incomplete_last_sample_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.wav").write_bytes(wave_header(len(RAW) - 1) + RAW[:-1] + b"\0" + LIST)
    numpy.testing.assert_array_equal(read(tmp_path / "a.wav"), wave()[:-1].astype(numpy.float32))
    assert "a.wav: an incomplete last sample is left out (bytes: 1)" in capsys.readouterr().err


SUBTYPES = ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("subtype", SUBTYPES)
def test_every_kind_of_sample_of_a_file_and_of_a_stream(subtype: str, streamed: bool, tmp_path: Path) -> None:
    content = encode("WAV", subtype=subtype)
    if streamed:
        place = content.index(b"data") + 4
        content = content[:place] + b"\xff\xff\xff\xff" + content[place + 4 :]
    (tmp_path / "a.wav").write_bytes(content)
    found, expected = read(tmp_path / "a.wav"), decode_av(content).mean(axis=1)
    assert abs(len(found) - len(expected)) in ((0,) if "ADPCM" not in subtype else range(1100))
    size = min(len(found), len(expected))
    tolerance = 0.02 if "ADPCM" in subtype else 1e-7  # decoders round differently, and the errors add up
    numpy.testing.assert_allclose(found[:size], expected[:size], rtol=0, atol=tolerance)


@pytest.mark.parametrize("format", ["WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST"])
def test_other_containers_whole_cut_and_with_bytes_left_over(format: str, tmp_path: Path) -> None:
    content = encode(format, subtype="PCM_16", samples=wave(channels=2))
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    numpy.testing.assert_allclose(read(path), wave(channels=2).mean(axis=1), rtol=0, atol=1e-7)
    path.write_bytes(content[:-2000])
    with pytest.raises(DataError, match=r"a\.wav: 2000 bytes shorter than its header says"):
        read(path)
    path.write_bytes(content + bytes(range(1, 201)))
    with pytest.raises(DataError, match=r"a\.wav: 200 bytes are left over"):
        read(path)


def test_broadcast_wave_of_64_bits(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"BW64" + encode("RF64", subtype="PCM_16")[4:])
    numpy.testing.assert_array_equal(read(tmp_path / "a.wav"), wave().astype(numpy.float32))


def without_tag(mp3: bytes) -> bytes:
    """An MP3 file without its first frame, which is the Xing frame."""
    first = first_frame(mp3, 0)
    assert first is not None
    start = read_mpeg(Path("a.mp3"), with_frames(mp3, 1, add=True), start=0, first=first).parts[0].start
    return mp3[start:]


FLAC, OGG, OPUS, MP3 = encode("FLAC"), encode("OGG"), encode("OGG", subtype="OPUS"), encode("MP3")
FIRST, *REST = pages(OGG)
COMPRESSED: dict[str, tuple[bytes, list[bytes]]] = {
    "flac": (FLAC, [FLAC]),
    "flac with tags": (ID3 + FLAC + ID3V1, [FLAC]),
    "flac with zeros": (FLAC + bytes(1000), [FLAC]),
    "flac of unknown length": (ID3 + with_total(FLAC, 0), [FLAC]),
    "joined flac": (ID3 + FLAC + ID3 + with_total(FLAC, 0), [FLAC, FLAC]),
    "ogg": (OGG, [OGG]),
    "ogg with a tag": (OGG + ID3V1, [OGG]),
    "chained ogg": (OGG + OPUS + OGG, [OGG, OPUS, OGG]),
    "mp3": (MP3, [MP3]),
    "mp3 with tags": (ID3 + MP3 + APE + ID3V1, [MP3]),
    "joined mp3": (ID3 + MP3 + ID3V1 + MP3 + ID3 + MP3, [MP3, MP3, MP3]),
    "mp3 without a Xing frame": (without_tag(MP3), [without_tag(MP3)]),
    "mp3 with bytes before": (b"\1\2\3" * 99 + without_tag(MP3), [without_tag(MP3)]),
    "mp3 with a Xing frame that counts itself": (with_frames(MP3, 1, add=True), [without_tag(MP3)]),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_files_are_read_to_their_end(name: str, tmp_path: Path) -> None:
    content, parts = COMPRESSED[name]
    (tmp_path / "a").write_bytes(content)
    found = read(tmp_path / "a")
    if name.startswith("mp3 with") and "tags" not in name:
        expected = decode_av(parts[0]).mean(axis=1)
        assert len(expected) == len(found)
        numpy.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        return
    assert len(found) == SIZE * len(parts)
    for place in range(len(parts)):  # each is the encoded sound from its beginning to its end
        error = found[SIZE * place : SIZE * (place + 1)] - wave()
        assert numpy.sqrt(numpy.square(error).mean()) < (1e-4 if "flac" in name else 0.03), place


BAD_COMPRESSED = {
    "cut flac": (FLAC[: len(FLAC) // 2], "no whole FLAC frame at its end"),
    "flac with too small a total": (with_total(FLAC, 9000), "announces 9000 samples, its last frame ends at 20000"),
    "flac with too large a total": (with_total(FLAC, 30_000), "announces 30000 samples, its last frame ends at 20000"),
    "flac with noise behind": (FLAC + bytes(range(1, 100)), "no whole FLAC frame at its end"),
    "damaged flac": (FLAC[:9000] + bytes([FLAC[9000] ^ 4]) + FLAC[9001:], "cannot be decoded"),
    "flac of two rates": (FLAC + encode("FLAC", rate=8000), "at 16000 and 8000 Hz"),
    "ogg cut in a page": (OGG[: len(OGG) * 2 // 3], "bytes shorter than its last page says"),
    "ogg without a page": (FIRST + REST[0] + b"".join(REST[2:]), "pages are missing"),
    "ogg without its beginning": (b"".join(REST), "its beginning is missing"),
    "damaged ogg": (OGG[:-200] + bytes([OGG[-200] ^ 1]) + OGG[-199:], "wrong checksum"),
    "ogg with noise behind": (OGG + bytes(range(1, 100)), "no Ogg page where one is due"),
    "ogg of two rates": (OGG + encode("OGG", rate=8000), "at 16000 and 8000 Hz"),
    "ogg of two numbers of channels": (OGG + encode("OGG", samples=wave(channels=2)), "with 1 and 2 channels"),
    "cut mp3": (MP3[: len(MP3) * 2 // 3], "its Xing header announces"),
    "mp3 with too many frames announced": (with_frames(MP3, 99), "announces 99 frames"),
    "mp3 with too few frames announced": (with_frames(MP3, 9), "announces 9 frames"),
    "mp3 with noise inside": (MP3[:1500] + bytes(range(1, 100)) + MP3[1500:], "it is damaged"),
    "mp3 of two rates": (MP3 + encode("MP3", rate=22_050), "frames at 16000 and 22050 Hz"),
    "text": (b"no audio " * 99, "not audio that can be read; allowed: wav, flac, ogg, mp3"),
}


@pytest.mark.parametrize("name", BAD_COMPRESSED)
def test_compressed_files_that_are_refused(name: str, tmp_path: Path) -> None:
    content, words = BAD_COMPRESSED[name]
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError) as refused:
        read(tmp_path / "a")
    assert str(refused.value).startswith(str(tmp_path / "a"))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"".join([FIRST, *REST[:-1]]), "no end mark: a recorded stream, or cut short between two pages"),
        (without_tag(MP3)[:-50], "its last frame lacks 50 bytes and is left out"),
        (without_tag(MP3) + b"\xff\xf3", "a few bytes behind its last frame are left out"),
    ],
)
def test_an_end_that_may_be_missing_is_reported(
    content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_bytes(content)
    found = read(tmp_path / "a")
    assert numpy.sqrt(numpy.square(found[2000:16_000]).mean()) == pytest.approx(0.28, abs=0.02)
    assert words in capsys.readouterr().err
