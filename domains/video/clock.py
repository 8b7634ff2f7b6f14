"""Times and numbers of a video's frames: a clock that only goes forwards, and frames that did not come out."""

from collections.abc import Sequence
from itertools import pairwise

import numpy
from numpy.typing import NDArray

_MOST_REORDERED = 8  # frames by which old containers mix up times; one that goes further back begins a new recording


def clock_of(times: Sequence[float], notes: list[str]) -> NDArray[numpy.float64]:
    """Times ``(T,)`` in seconds from the first, never decreasing, of frames in the order they are shown.

    Old containers give some frames the time of another, so times are sorted. In files that were joined the clock
    begins again in the middle: the later part then follows the earlier one.
    """
    clock = numpy.array(times, dtype=numpy.float64)
    parts, start = [], 0
    for place in numpy.flatnonzero(numpy.diff(clock) < 0) + 1:
        if int((clock[start:place] > clock[place]).sum()) > _MOST_REORDERED:
            parts.append(numpy.sort(clock[start:place]))
            start = int(place)
    parts.append(numpy.sort(clock[start:]))
    if len(parts) > 1:
        notes.append(f"joined recordings: {len(parts)} with a clock of their own are shown one after the other")
    for before, after in pairwise(parts):
        after += before[-1] + float(numpy.median(numpy.diff(before))) - after[0]
    whole: NDArray[numpy.float64] = numpy.concatenate(parts)
    return whole - whole[0]


def note_frame_count(notes: list[str], *, frames: int, announced: int, packets: int) -> None:
    """Note that a file announces or holds more frames than were decoded, or fewer.

    Args:
        notes: take it.
        frames: that were decoded.
        announced: by the header; 0 if unknown.
        packets: of the stream.
    """
    if announced and announced != frames:
        notes.append(f"frames that differ from the header in number: {frames:,} are shown, {announced:,} announced")
    elif packets > frames:
        notes.append(f"frames that cannot be shown: {frames:,} of {packets:,} are used")
