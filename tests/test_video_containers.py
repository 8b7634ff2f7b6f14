"""Ends of video files in every container: bytes left over, placeholders of stream writers, joined and cut files."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy
import pytest
from numpy.typing import NDArray

from domains.video import sample
from domains.video.container import missing_bytes, read_layout
from domains.video.decoding import decode_into
from domains.video.transparency import BACKGROUND
from suite.errors import DataError

CODECS = {"webm": "libvpx-vp9", "mpg": "mpeg2video"}
PICTURES = sample.render("clockwise_slow", seed=1)
COUNT = len(PICTURES)


def write(target: Any, *, form: str, codec: str | None = None, pictures: Any = PICTURES, **options: str) -> None:
    """A clip of 25 frames a second in the container ``form``."""
    with av.open(
        target, "w", format={"mkv": "matroska", "ts": "mpegts", "mpg": "mpeg"}.get(form, form), options=options
    ) as container:
        stream: Any = container.add_stream(codec or CODECS.get(form, "libx264"), rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


class Pipe(io.RawIOBase):
    """What a stream writer writes to: it cannot go back to the header."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.content += bytes(data)
        return len(data)


def read(path: Path) -> tuple[NDArray[numpy.uint8], NDArray[numpy.float64], list[str]]:
    frames: list[NDArray[numpy.uint8]] = []
    notes: list[str] = []
    times = decode_into(frames.append, path, size=16, notes=notes)
    return numpy.stack(frames), times, notes


@pytest.fixture
def clip(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / f"x.{request.param}"
    write(str(path), form=request.param)
    return path


FORMS = ["mp4", "mov", "mkv", "webm", "avi", "flv", "ts"]


@pytest.mark.parametrize("tail", [b"<html>" * 50, bytes(300), b"\0\0\0\x10junk" + b"x" * 92, b"abc"])
@pytest.mark.parametrize("clip", FORMS, indirect=True)
def test_bytes_after_the_end_are_ignored_and_reported(clip: Path, tail: bytes) -> None:
    whole, _, notes = read(clip)
    assert len(whole) == COUNT
    assert notes == []
    clip.write_bytes(clip.read_bytes() + tail)
    found, _, notes = read(clip)
    numpy.testing.assert_array_equal(found, whole)
    assert len(notes) == 1
    assert notes[0].startswith("bytes after the end of the video: ")


@pytest.mark.parametrize("clip", ["mkv", "webm", "avi", "mpg"], indirect=True)
def test_joined_files_are_read_whole(clip: Path) -> None:
    whole, times, _ = read(clip)
    clip.write_bytes(2 * clip.read_bytes())
    found, clock, notes = read(clip)
    numpy.testing.assert_array_equal(found, numpy.concatenate([whole, whole]))
    assert (numpy.diff(clock) >= 0).all()
    assert clock[COUNT] > times[-1]
    assert len(notes) == 1


@pytest.mark.parametrize("clip", ["mp4", "mov", "flv"], indirect=True)
def test_joined_files_of_which_half_would_be_read_are_refused(clip: Path) -> None:
    clip.write_bytes(2 * clip.read_bytes())
    with pytest.raises(DataError, match="joined into one, of which only the first would be read: split it"):
        read(clip)


@pytest.mark.parametrize(
    ("form", "options"),
    [("mkv", {}), ("mkv", {"live": "1"}), ("webm", {"live": "1"}), ("avi", {}), ("flv", {}), ("ts", {}),
     ("mp4", {"movflags": "frag_keyframe+empty_moov"})],
)  # fmt: skip
def test_sizes_of_stream_writers_are_accepted(form: str, options: dict[str, str], tmp_path: Path) -> None:
    path, pipe = tmp_path / f"x.{form}", Pipe()
    write(pipe, form=form, **options)
    path.write_bytes(pipe.content)
    found, _, notes = read(path)
    assert len(found) == COUNT
    assert notes == []
    if form != "ts":  # whose packets are cut between frames, too
        path.write_bytes(pipe.content[: len(pipe.content) * 3 // 4])
        with pytest.raises(DataError, match=r"cut|damaged"):
            read(path)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
@pytest.mark.parametrize("clip", ["avi"], indirect=True)
def test_placeholders_of_avi_are_accepted(clip: Path, size: int) -> None:
    content = bytearray(clip.read_bytes())
    content[4:8] = size.to_bytes(4, "little")
    clip.write_bytes(content)
    assert missing_bytes(clip) == 0
    assert len(read(clip)[0]) == COUNT


@pytest.mark.parametrize("clip", ["mp4"], indirect=True)
def test_sizes_of_boxes(clip: Path) -> None:
    """A box of 64-bit size, one that goes to the end of the file, and a free one that is cut are no damage."""
    whole, _, _ = read(clip)
    content = clip.read_bytes()
    for tail, left in (
        (b"\0\0\0\x01free" + (24).to_bytes(8, "big") + bytes(8), 0),
        (b"\0\0\0\0free" + bytes(99), 0),
        (b"\0\0\x01\0free" + bytes(99), 107),
    ):
        clip.write_bytes(content + tail)
        assert (missing_bytes(clip), read_layout(clip).left_over) == (0, left)
        numpy.testing.assert_array_equal(read(clip)[0], whole)
    clip.write_bytes(content + (1 << 20).to_bytes(4, "big") + b"mdat" + bytes(99))
    with pytest.raises(DataError, match="cut: the last 1,048,469 bytes are missing"):
        read(clip)
    start = content.index(b"moov") - 4
    clip.write_bytes(content[:start])
    with pytest.raises(DataError, match=r"cut: the index of its frames \(moov box\) is missing"):
        read(clip)


@pytest.mark.parametrize("clip", ["avi"], indirect=True)
def test_a_number_of_frames_that_differs_is_reported(clip: Path) -> None:
    content = bytearray(clip.read_bytes())
    place = content.index(b"strh") + 8 + 32
    assert int.from_bytes(content[place : place + 4], "little") == COUNT
    content[place : place + 4] = (COUNT - 6).to_bytes(4, "little")
    clip.write_bytes(content)
    found, _, notes = read(clip)
    assert len(found) == COUNT
    assert notes == [f"frames that differ from the header in number: {COUNT} are shown, {COUNT - 6} announced"]


def test_frames_that_an_edit_list_leaves_out_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    write(str(path), form="mp4")
    content = bytearray(path.read_bytes())
    place = content.index(b"elst") + 12  # length and start of the only edit
    ticks = int.from_bytes(content[place : place + 4], "big")
    content[place : place + 4] = (ticks // 2).to_bytes(4, "big")
    path.write_bytes(content)
    found, _, notes = read(path)
    assert len(found) == COUNT // 2
    assert notes == [f"frames that differ from the header in number: {COUNT // 2} are shown, {COUNT} announced"]


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 64
        cover.pix_fmt, cover.disposition = "yuvj420p", 1024
        main: Any = container.add_stream("libx264", rate=25)
        main.width = main.height = 48
        main.pix_fmt = "yuv420p"
        for picture in PICTURES:
            container.mux(main.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numpy.zeros((64, 64, 3), numpy.uint8), format="rgb24")))
        for stream in (cover, main):
            container.mux(stream.encode(None))
    assert len(read(path)[0]) == COUNT


def test_file_names_are_never_addresses_or_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["12:30.mp4", "a%03d.mp4", "concat:a|b.mp4", " x.mp4", "caf\u00e9\n.mp4"]
    write("x.mp4", form="mp4")
    whole, _, _ = read(Path("x.mp4"))
    for name in names:
        Path(name).write_bytes(Path("x.mp4").read_bytes())
        numpy.testing.assert_array_equal(read(Path(name))[0], whole)
    odd = Path(b"caf\xe9.mp4".decode("utf-8", "surrogateescape"))
    odd.write_bytes(Path("x.mp4").read_bytes())
    numpy.testing.assert_array_equal(read(odd)[0], whole)


@pytest.mark.parametrize(("form", "codec", "pixels"), [("mov", "qtrle", "argb"), ("mov", "png", "rgba"),
                                                       ("avi", "png", "rgba"), ("mkv", "ffv1", "bgra")])  # fmt: skip
def test_transparency_of_other_codecs(form: str, codec: str, pixels: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{form}"
    colours = numpy.zeros((32, 32, 4), numpy.uint8)
    colours[:, :16], colours[:, 16:] = (255, 0, 0, 0), (0, 0, 255, 255)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=5)
        stream.width = stream.height = 32
        stream.pix_fmt = pixels
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(colours, format="rgba").reformat(format=pixels)))
        container.mux(stream.encode(None))
    frames: list[NDArray[numpy.uint8]] = []
    decode_into(frames.append, path, size=32)
    assert len(frames) == 3
    assert (frames[0][:, :16] == BACKGROUND).all()
    assert (frames[0][:, 16:] == (0, 0, 255)).all()
