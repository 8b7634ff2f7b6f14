"""Files read against a plain decode of all their frames; files that are not whole are refused with the reason."""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy
import pytest

from domains.video import sample
from domains.video.container import missing_bytes
from domains.video.decoding import Fit, decode
from suite.errors import DataError

FITS: tuple[Fit, ...] = ("crop", "stretch")
HARD = Path(os.environ.get("SUITE_DATA_DIR", ".")) / "video_decode"
# Frames of the stream that a player chooses; nasa has a second one.
COUNTS = {
    "mmaction2_demo.mp4": 280, "mmaction2_test.avi": 164, "mmaction2_test.mp4": 300, "torchcodec_av1_video.mkv": 125,
    "torchcodec_bt709_full_range.mp4": 30, "torchcodec_h264_10bits.mp4": 30, "torchcodec_h265_10bits.mp4": 30,
    "torchcodec_h265_video.mp4": 10, "torchcodec_nasa_13013.mp4": 390,
}  # fmt: skip


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    sample.encode(sample.render("clockwise_slow", seed=1), path, rate=25)
    return path


@pytest.mark.data
@pytest.mark.skipif(not HARD.is_dir(), reason="SUITE_DATA_DIR has no video_decode")
@pytest.mark.parametrize("name", COUNTS)
def test_hard_files_equal_a_full_decode(name: str) -> None:
    path = HARD / name
    with av.open(str(path)) as container:
        stream: Any = container.streams.best("video")
        aspect = float(stream.sample_aspect_ratio or 1)
        frames: list[Any] = list(container.decode(stream))
        scale = 64 / min(frames[0].width * aspect, frames[0].height)
        width, height = round(frames[0].width * aspect * scale), round(frames[0].height * scale)
        pictures = [each.to_ndarray(format="rgb24", width=width, height=height) for each in frames]
        times = sorted(float(each.pts * each.time_base) for each in frames)
    top, left = (height - 64) // 2, (width - 64) // 2
    found = decode(path, size=64)
    assert len(found.frames) == COUNTS[name]
    numpy.testing.assert_array_equal(found.frames, numpy.stack(pictures)[:, top : top + 64, left : left + 64])
    numpy.testing.assert_allclose(found.times, numpy.array(times) - times[0], atol=1e-9)


@pytest.mark.data
@pytest.mark.skipif(not HARD.is_dir(), reason="SUITE_DATA_DIR has no video_decode")
def test_a_file_is_the_same_whatever_was_decoded_before_it() -> None:
    """A thread's scaler is kept from file to file: other sizes, depths, matrices and ranges must not stay in it."""
    paths = [HARD / name for name in COUNTS if COUNTS[name] <= 30]
    alone = []
    for path in paths:
        with ThreadPoolExecutor(1) as pool:  # a new thread has a new scaler
            alone.append(pool.submit(decode, path, size=32).result())
    for place in [*range(len(paths)), *reversed(range(len(paths)))]:
        numpy.testing.assert_array_equal(decode(paths[place], size=32).frames, alone[place].frames)


@pytest.mark.data
@pytest.mark.skipif(not HARD.is_dir(), reason="SUITE_DATA_DIR has no video_decode")
def test_each_of_several_streams_can_be_chosen() -> None:
    path = HARD / "torchcodec_nasa_13013.mp4"
    assert [len(decode(path, size=16, stream=number).frames) for number in (0, 1)] == [325, 390]
    with pytest.raises(DataError, match=r"stream is 2, and it has 2 video stream"):
        decode(path, size=16, stream=2)


@pytest.mark.data
@pytest.mark.skipif(not HARD.is_dir(), reason="SUITE_DATA_DIR has no video_decode")
def test_full_range_and_matrix_are_the_ones_in_the_file() -> None:
    """RGB computed by hand from the planes, by BT.709 and full range (ITU-R BT.709-6, item 3)."""
    path = HARD / "torchcodec_bt709_full_range.mp4"
    with av.open(str(path)) as container:
        frame: Any = next(container.decode(video=0))
        y, u, v = frame.to_ndarray(format="yuvj444p").astype(float)
    red = y + 2 * (1 - 0.2126) * (v - 128)
    blue = y + 2 * (1 - 0.0722) * (u - 128)
    green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
    expected = numpy.stack([red, green, blue], axis=2).clip(0, 255)
    left = (expected.shape[1] - expected.shape[0]) // 2
    found = decode(path, size=expected.shape[0]).frames[0].astype(float)
    assert abs(found - expected[:, left : left + expected.shape[0]]).mean() < 2.0


def test_frames_are_those_that_were_encoded(clip: Path) -> None:
    found, drawn = decode(clip, size=48), sample.render("clockwise_slow", seed=1)
    assert len(found.frames) == len(drawn)
    # Nearly lossless, but colour has half the resolution.
    assert abs(found.frames.astype(float) - numpy.stack(drawn)).mean() < 4.0
    numpy.testing.assert_allclose(numpy.diff(found.times), 1 / 25, atol=1e-9)


def test_a_changing_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    path, moments = tmp_path / "x.mkv", [0, 40, 80, 500, 540, 1200]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 48
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for moment, picture in zip(moments, sample.render("clockwise_slow", seed=1), strict=False):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    numpy.testing.assert_allclose(decode(path, size=16).times, numpy.array(moments) / 1000, atol=2e-3)


def test_fit_and_too_many_frames(clip: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.mp4"
    pictures = [numpy.concatenate([each] * 2, axis=1) for each in sample.render("clockwise_slow", seed=1)]
    sample.encode(pictures, wide, rate=10)
    cropped, stretched = (decode(wide, size=32, fit=fit).frames[0].astype(float) for fit in FITS)
    assert abs(cropped - stretched).mean() > 5
    # The middle of two copies side by side begins in the middle of the first.
    whole = decode(clip, size=32).frames[0].astype(float)
    assert abs(cropped[:, 16:] - whole[:, :16]).mean() < 4
    with pytest.raises(DataError, match=r"more than 3 frames"):
        decode(clip, size=32, max_frames=3)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95, 0.999])
@pytest.mark.parametrize("ending", [".mp4", ".avi", ".mkv"])
def test_cut_files_are_refused(share: float, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{ending}"
    sample.encode(sample.render("clockwise_slow", seed=1), path, rate=25)
    assert missing_bytes(path) == 0
    assert len(decode(path, size=16).frames)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"cut|empty|damaged"):
        decode(path, size=16)


def test_flipped_bytes_are_found(clip: Path) -> None:
    whole = clip.read_bytes()
    start, end = whole.index(b"mdat") + 900, whole.index(b"moov") - 8  # after the encoder's own text
    draw = random.Random(0)
    found = 0
    for _ in range(10):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[draw.randrange(start, end)] ^= 255
        clip.write_bytes(damaged)
        try:
            decode(clip, size=16)
        except DataError as error:
            assert "damaged" in str(error)  # noqa: PT017
            found += 1
    assert found == 10


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty"), (b"a text " * 99, "not a video"), (os.urandom(5000), "not a video")]
)
def test_what_is_no_video_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        decode(path, size=16)
    with pytest.raises(DataError, match="no such file"):
        decode(tmp_path / "none.mp4", size=16)
    with pytest.raises(DataError, match="folder"):
        decode(tmp_path, size=16)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(numpy.zeros((1, 800), numpy.int16), layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match="no video stream"):
        decode(path, size=16)


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],  # clockwise, upside down, anticlockwise
)
def test_the_displays_rotation_is_followed(matrix: tuple[int, ...], turns: int, clip: Path) -> None:
    """The matrix of a track header (ISO 14496-12): a point (x, y) is shown at (a x + c y, b x + d y), y downwards."""
    plain = decode(clip, size=32).frames
    content = bytearray(clip.read_bytes())
    place = content.index(b"tkhd") + 44
    a, b, c, d = (value.to_bytes(4, "big", signed=True) for value in (each << 16 for each in matrix))
    zero = bytes(4)
    content[place : place + 36] = a + b + zero + c + d + zero + zero + zero + (1 << 30).to_bytes(4, "big")
    clip.write_bytes(content)
    numpy.testing.assert_array_equal(decode(clip, size=32).frames, numpy.rot90(plain, turns, axes=(1, 2)))
