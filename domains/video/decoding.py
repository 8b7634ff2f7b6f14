"""Video files to frames of one size, by PyAV on one thread. A file that is not whole is refused with the reason.

The header's number of frames is never trusted: a file is decoded from its first frame to its last. That it was cut or
damaged is found by the decoder's own checks, by frames marked as corrupt, by boxes that end beyond the file, and by a
last frame that comes too early. What is unusual but does no harm is noted: see ``domains.video.notes``.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import numpy
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from domains.video.clock import clock_of, note_frame_count
from domains.video.container import read_layout
from domains.video.matroska import damaged_blocks
from domains.video.orientation import Orientations
from domains.video.transparency import alpha_decoder, has_alpha, opaque
from suite.console import one_line
from suite.errors import DataError, SuiteError

Fit = Literal["crop", "stretch"]
_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}
_SLACK = 2.5  # frames that may be missing at the end by the clock: durations are rounded
_SLACK_SHARE = 0.01
_COVERS = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails


class Count:
    """Packets that were handed to the decoder and should each give a frame."""

    packets = 0


class Decoded(NamedTuple):
    """``frames (T, S, S, 3)`` uint8 RGB in the order they are shown, and ``times (T,)`` in seconds from the first."""

    frames: NDArray[numpy.uint8]
    times: NDArray[numpy.float64]


def decode(
    path: Path, *, size: int, fit: Fit = "crop", stream: int | None = None, max_frames: int | None = None
) -> Decoded:
    """Every frame of ``path``, as ``decode_into`` gives them."""
    frames: list[NDArray[numpy.uint8]] = []
    times = decode_into(frames.append, path, size=size, fit=fit, stream=stream, max_frames=max_frames)
    return Decoded(numpy.stack(frames), times)


def decode_into(
    append: Callable[[NDArray[numpy.uint8]], None],
    path: Path,
    *,
    size: int,
    fit: Fit = "crop",
    stream: int | None = None,
    max_frames: int | None = None,
    notes: list[str] | None = None,
) -> NDArray[numpy.float64]:
    """Decode every frame of ``path`` and hand each to ``append``; gives their times ``(T,)`` in seconds.

    Args:
        append: takes an RGB frame ``(S, S, 3)`` uint8, in the order they are shown; rows need not be contiguous.
        path: the file.
        size: height and width that frames are scaled to.
        fit: scale the shorter side and crop the middle, or stretch both sides.
        stream: which of the file's video streams, from 0; ``None`` for the one that a player would choose.
        max_frames: more than so many are refused.
        notes: takes what is unusual about the file.

    Raises:
        DataError: empty, cut, damaged, too long, not a video, or without that stream; the message has the reason
            without the file's name.
    """
    notes = [] if notes is None else notes
    streamed = _check_layout(path, notes)
    try:
        with _open(path) as container:
            return _decode(
                append, container, notes, size=size, fit=fit, stream=stream, max_frames=max_frames, streamed=streamed
            )
    except av.FFmpegError as error:
        raise DataError(f"damaged, or not a video ({error.strerror})") from None
    except SuiteError:
        raise
    except (ValueError, OverflowError, MemoryError, RuntimeError, TypeError) as error:
        raise DataError(f"damaged, or not a video ({one_line(str(error))})") from None


def _check_layout(path: Path, notes: list[str]) -> bool:
    """Refuse a file that is not whole by its own structure; gives whether its header was never completed."""
    if not path.is_file():
        raise DataError("no such file" if not path.exists() else "a folder or device where a file is needed")
    try:
        size, layout = path.stat().st_size, read_layout(path)
        blocks = damaged_blocks(path)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from None
    if not size:
        raise DataError("the file is empty")
    if layout.missing:
        raise DataError(f"cut: the last {layout.missing:,} bytes are missing")
    if problem := layout.problem or blocks:
        raise DataError(problem)
    if layout.left_over:
        notes.append(f"bytes after the end of the video: {layout.left_over:,} ignored")
    return layout.streamed


def _open(path: Path) -> Any:
    """The container. A path is never taken for an address or, with a percent sign, for a series of pictures."""
    try:
        name = f"file:{path}"
        name.encode()
    except UnicodeEncodeError:  # a name that is not UTF-8
        return av.open(path.open("rb"), metadata_errors="ignore")
    return av.open(name, metadata_errors="ignore", options={"pattern_type": "none"} if "%" in name else {})


def _decode(
    append: Callable[[NDArray[numpy.uint8]], None],
    container: Any,
    notes: list[str],
    *,
    size: int,
    fit: Fit,
    stream: int | None,
    max_frames: int | None,
    streamed: bool,
) -> NDArray[numpy.float64]:
    chosen = _stream_of(container, stream, notes)
    times: list[float] = []
    end, tick, aspect = 0.0, float(chosen.time_base or 0), _aspect(chosen)
    count, orientations = Count(), Orientations()
    for frame in _frames(container, chosen, count):
        if max_frames is not None and len(times) == max_frames:
            raise DataError(f"more than {max_frames:,} frames (data.max_frames)")
        turn, note = orientations.of(frame)
        if note is not None and note not in notes:
            notes.append(note)
        square = to_square(frame, size=size, fit=fit, aspect=aspect)
        append(square if turn is None else turn(square))
        time = _time(frame, len(times), chosen)
        times.append(time)
        end = max(end, time + (frame.duration or 0) * tick)
    if not times:
        raise DataError("there is no frame in it")
    if not streamed:
        _check_end(container, chosen, end)
    note_frame_count(notes, frames=len(times), announced=0 if streamed else chosen.frames, packets=count.packets)
    return clock_of(times, notes)


def _stream_of(container: Any, number: int | None, notes: list[str]) -> Any:
    streams = container.streams.video
    if not streams:
        raise DataError("there is no video stream in it")
    if number is not None:
        if not 0 <= number < len(streams):
            raise DataError(f"data.stream is {number}, and it has {len(streams)} video stream(s), counted from 0")
        return streams[number]
    moving = [each for each in streams if not each.disposition & _COVERS]
    if not moving:
        raise DataError("there is no video in it, only a cover picture")
    best = container.streams.best("video")
    chosen = best if best in moving else moving[0]
    if len(moving) > 1:
        notes.append(f"several video streams: number {streams.index(chosen)} of {len(moving)} is used (data.stream)")
    return chosen


def _frames(container: Any, stream: Any, count: "Count") -> Iterator[Any]:
    """Decoded frames; a damaged packet or frame is an error."""
    if stream.codec_context is None:
        raise DataError("no decoder for its video stream")
    stream.thread_type = "NONE"
    decoder = alpha_decoder(stream)
    for context in (stream.codec_context, decoder):
        if context is not None:
            context.thread_count = 1
            context.options = _STRICT
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise DataError("damaged: a packet is not whole")
        count.packets += bool(packet.size) and not packet.is_discard
        for frame in packet.decode() if decoder is None else decoder.decode(packet if packet.size else None):
            if frame.is_corrupt:
                raise DataError("damaged: a frame cannot be decoded whole")
            yield frame


def to_square(frame: Any, *, size: int, fit: Fit, aspect: float) -> NDArray[numpy.uint8]:
    """A decoded frame, as it is stored, in RGB ``(size, size, 3)``, in the colours that its own matrix and range say.

    ``aspect`` is the width of a pixel over its height. What is given is a view of the scaled picture. Transparency is
    laid over one colour.
    """
    width, height = scaled_size(frame.width * aspect, frame.height, size=size, fit=fit)
    seen = opaque(frame) if has_alpha(frame) else frame
    scaled = _scaler().reformat(seen, width, height, "rgb24", interpolation="BILINEAR", threads=1)
    plane: Any = scaled.planes[0]
    top, left = (height - size) // 2, (width - size) // 2
    shape, strides = (size, size, 3), (plane.line_size, 3, 1)
    return numpy.ndarray(shape, numpy.uint8, plane, top * plane.line_size + 3 * left, strides)


_kept = threading.local()


def _scaler() -> VideoReformatter:
    """This thread's scaler: it keeps its tables from frame to frame, and from file to file of the same kind."""
    if not hasattr(_kept, "scaler"):
        _kept.scaler = VideoReformatter()
    scaler: VideoReformatter = _kept.scaler
    return scaler


def scaled_size(width: float, height: float, *, size: int, fit: Fit) -> tuple[int, int]:
    """Width and height to scale to: ``size`` for both, or for the shorter side with the longer in proportion."""
    if fit == "stretch":
        return size, size
    scale = size / min(width, height)
    return max(size, round(width * scale)), max(size, round(height * scale))


def _aspect(stream: Any) -> float:
    return float(stream.sample_aspect_ratio or 1) or 1.0


def _time(frame: Any, number: int, stream: Any) -> float:
    if frame.time is not None:
        return float(frame.time)
    return number / float(stream.average_rate or stream.guessed_rate or 25)


def _check_end(container: Any, stream: Any, end: float) -> None:
    """Compare the end of the last frame with the stream's duration, where the file gives one for it."""
    expected = _duration(container, stream)
    if expected is None:
        return
    frame = 1.0 / float(stream.average_rate or stream.guessed_rate or 25)
    if end < expected - max(_SLACK * frame, _SLACK_SHARE * expected):
        raise DataError(f"cut: its frames end after {end:.2f} of {expected:.2f} seconds")


def _duration(container: Any, stream: Any) -> float | None:
    """When the stream should end, in seconds on its own clock."""
    if stream.duration is not None and stream.time_base is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
    timed = [each for each in container.streams if each.type in ("video", "audio")]
    if container.duration is None or len(timed) > 1:  # the longest stream's, which may be another
        return None
    return float(container.duration + (container.start_time or 0)) / av.time_base
