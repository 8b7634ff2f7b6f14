"""MP3 files (and MPEG audio layers I and II): all frames are counted, and compared with what the file announces.

The library behind soundfile takes the number of frames from the Xing or Info frame at the beginning; without one it
guesses from the first frame's bit rate, and drops the rest. Such files go through another decoder.
"""

from pathlib import Path
from typing import Any, NamedTuple

from domains.audio.parts import Layout, Part, is_zero, shown_list, skip_tags
from suite.errors import DataError

_V1 = {
    1: (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    2: (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_V2 = {
    1: (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_V2[3] = _V2[2]
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_JUNK = 2**16  # bytes before the first frame, at most


class _Head(NamedTuple):
    """A frame header: bytes and samples of the frame, and what must not change."""

    size: int
    samples: int
    rate: int
    channels: int
    side: int


class _Run:
    """Frames from one information frame to the next."""

    def __init__(self, start: int, announced: int | None) -> None:
        self.start, self.audio_start, self.stop, self.announced, self.frames = start, start, start, announced, 0


def first_frame(data: Any, place: int) -> int | None:
    """Where the first of three frames in a row is, not far behind ``place``; fewer only at the end of the file."""
    limit = min(len(data), place + _JUNK)
    while (place := data.find(b"\xff", place, limit)) >= 0:
        at, count = place, 0
        while count < 3 and (head := _head(data, at)):
            at, count = at + head.size, count + 1
        if count == 3 or (count and abs(len(data) - at) < 4):
            return place
        place += 1
    return None


def read_mpeg(path: Path, data: Any, *, start: int, first: int) -> Layout:
    """The layout of an MPEG audio file; ``frames`` of parts for ``sndfile`` have the announced delays in them.

    Raises:
        DataError: frames that are missing, damaged or of different kinds.
    """
    junk = first - start
    notes = [f"{junk} bytes before the first frame are left out"] if junk and not is_zero(data, start, first) else []
    runs, kinds, spf = _read_runs(path, data, first, notes)
    if len(kinds) > 1:
        rates, channels = shown_list(kind[0] for kind in kinds), shown_list(kind[1] for kind in kinds)
        raise DataError(f"{path}: frames at {rates} Hz with {channels} channels are mixed in it: split it")
    parts = []
    for run in runs:
        if run.announced is not None and run.announced not in (run.frames, run.frames + 1):
            what = "it is cut short, or the header is wrong" if run.announced > run.frames else "the header is wrong"
            raise DataError(
                f"{path}: its Xing header announces {run.announced} frames, {run.frames} are there: {what}; fetch or "
                "convert it again"
            )
        if run.announced == run.frames:
            as_it_is = run.start == 0 and run.stop == len(data)
            parts.append(Part(b"", run.start, -1 if as_it_is else run.stop, run.frames * spf))
        elif run.frames:
            parts.append(Part(b"", run.audio_start, run.stop, run.frames * spf, "av"))
    rate, channels_ = next(iter(kinds), (0, 0))
    if len(parts) > 1:
        notes.append(f"{len(parts)} joined streams")
    return Layout(rate, channels_, "lossy", False, False, tuple(parts), tuple(notes))


def _read_runs(
    path: Path, data: Any, first: int, notes: list[str]
) -> tuple[list[_Run], dict[tuple[int, int], None], int]:
    runs: list[_Run] = []
    kinds: dict[tuple[int, int], None] = {}
    place, size, spf = first, len(data), 0
    while place < size:
        head = _head(data, place)
        if head is None:
            after = skip_tags(data, place, size)
            if after == place and data[place : place + 3] == b"TAG" and _head(data, place + 128):
                after = place + 128  # of a file that another one was joined to
            if after == place:
                if is_zero(data, place, size):
                    break
                if size - place < 4:
                    notes.append("a few bytes behind its last frame are left out: it may be cut short")
                    break
                raise DataError(f"{path}: byte {place}: no MPEG frame where one is due: it is damaged; fetch it again")
            place = after
            continue
        if place + head.size > size:
            notes.append(f"its last frame lacks {place + head.size - size} bytes and is left out")
            break
        kinds[head.rate, head.channels] = None
        spf = head.samples
        is_tag, announced = _announced(data, place, head)
        if is_tag or not runs:
            runs.append(_Run(place, announced))
        run = runs[-1]
        place += head.size
        run.frames += not is_tag
        run.stop = place
        if is_tag:
            run.audio_start = place
    return runs, kinds, spf


def _announced(data: Any, place: int, head: _Head) -> tuple[bool, int | None]:
    """Whether a frame holds information instead of sound, and how many frames it announces."""
    at = place + 4 + head.side
    name = data[at : at + 4]
    has_checksum = not data[place + 1] & 1
    if name in (b"Xing", b"Info") and (has_checksum or is_zero(data, place + 4, at)):  # a decoder looks there too
        flags = int.from_bytes(data[at + 4 : at + 8], "big")
        return True, int.from_bytes(data[at + 8 : at + 12], "big") if flags & 1 else None
    if data[place + 36 : place + 40] == b"VBRI":
        return True, None
    return False, None


def _head(data: Any, place: int) -> _Head | None:
    head = data[place : place + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate_code, bit_rate_code = head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or layer == 4 or rate_code == 3 or bit_rate_code in (0, 15):
        return None
    rate = _RATES[version][rate_code]
    bits = 1000 * (_V1 if version == 3 else _V2)[layer][bit_rate_code]
    padding, channels = head[2] >> 1 & 1, 1 if head[3] >> 6 == 3 else 2
    if layer == 1:
        return _Head((12 * bits // rate + padding) * 4, 384, rate, channels, 0)
    samples = 576 if layer == 3 and version != 3 else 1152
    side = {(3, 1): 17, (3, 2): 32}.get((version, channels), 9 if channels == 1 else 17)
    return _Head(samples // 8 * bits // rate + padding, samples, rate, channels, side)
